"""Kills, crowds and full disks, with real processes and real signals."""

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from feature_samples import Bands, FolderParams, Recordings, encoded

from benchkit.features import Options, extract, verify
from benchkit.features.cache import FILES
from benchkit.progress import Silent

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def expected(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Features of all recordings, by one process that nothing happened to."""
    task, options = Recordings(FolderParams(str(recordings))), Options(tmp_path_factory.mktemp("plain"), workers=0)
    return np.array(extract(task, Bands(), "test", np.arange(60), {}, options, Silent()).pooled)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} s not yet"
        time.sleep(0.01)


def ended(process: "subprocess.Popen[str]") -> str:
    """What it said until its end, which comes within two minutes."""
    return process.communicate(timeout=120)[0]


def finish(process: "subprocess.Popen[str]") -> str:
    output = ended(process)
    assert process.returncode == 0, output
    return output


def leftovers(cache: Path) -> set[str]:
    return {f.name for f in cache.rglob("*") if f.is_file()} - set(FILES)


def test_killed_at_random_moments_and_resumed_equals_uninterrupted(
    recordings: Path, tmp_path: Path, start: Start, expected: np.ndarray
) -> None:
    log, rng = tmp_path / "log", random.Random(0)
    given = {
        "root": recordings, "cache": tmp_path / "cache", "out": tmp_path / "out.npz",
        "bands": {"log": str(log), "sleep": 0.02}, "options": {"workers": 0, "batch_size": 2},
    }  # fmt: skip
    for kill in range(1, 6):
        process, before = start(**given), encoded(log)
        # At its first batches, or later, or in the middle of one; each time it comes a little further.
        until(lambda: encoded(log) > before + rng.choice((0, 2, 6)) or process.poll() is not None)  # noqa: B023
        time.sleep(rng.random() * 0.03)
        process.kill()
        ended(process)
        assert sum(v.damaged for v in verify(tmp_path / "cache")) == 0, f"after kill {kill}"
    finish(start(**given))
    result = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(result["pooled"], expected)
    assert result["hashes"].all()
    assert 60 <= encoded(log) <= 60 + 5 * 2, "a kill costs one batch at most"
    assert leftovers(tmp_path / "cache") == set()


def test_two_processes_at_once_extract_each_row_once(
    recordings: Path, tmp_path: Path, start: Start, expected: np.ndarray
) -> None:
    log = tmp_path / "log"
    given = {
        "root": recordings, "cache": tmp_path / "cache",
        "bands": {"log": str(log), "sleep": 0.05}, "options": {"workers": 0, "batch_size": 4},
    }  # fmt: skip
    two = [start(**given, out=tmp_path / f"{name}.npz") for name in "ab"]
    for process in two:
        finish(process)
    assert encoded(log) == 60, "whether they overlapped or one came after the other"
    for name in "ab":
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npz")["pooled"], expected)


def test_who_waits_takes_over_when_the_other_dies(
    recordings: Path, tmp_path: Path, start: Start, expected: np.ndarray
) -> None:
    logs = [tmp_path / "log-a", tmp_path / "log-b"]
    first, second = (
        {
            "root": recordings, "cache": tmp_path / "cache", "out": tmp_path / "out.npz",
            "bands": {"log": str(log), "sleep": sleep}, "options": {"workers": 0, "batch_size": 4},
        }
        for log, sleep in zip(logs, (1.5, 0.0), strict=True)  # the first is still at work when the second has started
    )  # fmt: skip
    a = start(**first)
    until(lambda: encoded(logs[0]) >= 8)
    b = start(**second)
    assert b.stdout is not None
    said = b.stdout.readline()
    assert f"is being extracted by process {a.pid} on " in said
    assert "waiting for it" in said
    a.kill()
    ended(a)
    finish(b)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["pooled"], expected)
    assert 60 <= encoded(logs[0]) + encoded(logs[1]) <= 64, "what the first had written is not computed again"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_run_ends_no_worker_and_no_file_is_left(
    recordings: Path, tmp_path: Path, start: Start, how: signal.Signals
) -> None:
    log = tmp_path / "log"
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    process = start(
        root=recordings, cache=tmp_path / "cache", out=tmp_path / "out.npz", bands={"log": str(log), "sleep": 60},
        options={"workers": 2, "batch_size": 4},
    )  # fmt: skip
    until(lambda: (tmp_path / "cache").exists() and len(psutil.Process(process.pid).children()) == 2)
    workers = psutil.Process(process.pid).children()
    process.send_signal(how)
    output = ended(process)
    assert process.returncode != 0
    _gone, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
    assert leftovers(tmp_path / "cache") == set()
    assert {p.name for p in tmp_path.iterdir()} <= {"cache", "tmp", "log"}
    assert not list(scratch.iterdir())
    if how == signal.SIGINT:
        assert output.count("KeyboardInterrupt") == 1, "the workers keep quiet"


def test_a_full_disk_is_one_clear_line_and_nothing_half_written_is_believed(
    recordings: Path, tmp_path: Path, start: Start, expected: np.ndarray
) -> None:
    cache = tmp_path / "cache"
    task, options = Recordings(FolderParams(str(recordings))), Options(cache, workers=0, batch_size=4)
    extract(task, Bands(), "test", np.arange(10), {"task": "recordings"}, options, Silent())
    (entry,) = cache.iterdir()
    pooled = entry / "pooled.f32"
    pooled.write_bytes(pooled.read_bytes()[: 12 * 64 + 32])  # so that it has to grow again
    process = start(
        root=recordings, cache=cache, out=tmp_path / "out.npz", options={"workers": 0, "batch_size": 4}
    )  # fmt: skip
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (16 * 64, 16 * 64))
    output = ended(process)
    assert process.returncode == 1
    assert f"Error: cannot write features to '{entry}': File too large; make room" in output
    assert "Traceback" not in output
    assert not (tmp_path / "out.npz").exists()
    features = extract(task, Bands(), "test", np.arange(60), {"task": "recordings"}, options, Silent())
    np.testing.assert_array_equal(features.pooled, expected)
    assert os.path.getsize(pooled) == 60 * 64


@pytest.mark.parametrize("pages", [0, 1, 2, 3])
def test_a_full_disk_under_the_cache_is_one_clear_line_whichever_file_it_meets(
    recordings: Path,
    tmp_path: Path,
    small_disk: Callable[[str], Path],
    start: Start,
    expected: np.ndarray,
    pages: int,
) -> None:
    disk = small_disk("256k")
    room = os.statvfs(disk).f_bavail - pages
    (disk / "filler").write_bytes(b"x" * (room * os.statvfs(disk).f_bsize))
    given = {"root": recordings, "cache": disk / "cache", "options": {"workers": 0, "batch_size": 4}}
    process = start(**given, out=tmp_path / "out.npz")
    output = ended(process)
    assert process.returncode == 1, output
    assert "No space left on device" in output
    assert "Traceback" not in output
    (disk / "filler").unlink()
    finish(start(**given, out=tmp_path / "out.npz"))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["pooled"], expected)
    assert sum(v.damaged for v in verify(disk / "cache")) == 0
