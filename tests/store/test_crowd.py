"""Many processes at one registry at once: every cell is computed by exactly one of them."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchkit.progress import Silent
from benchkit.records.report import Report
from benchkit.store import open_store
from benchkit.store.check import check

CROWD = Path(__file__).parent / "crowd.py"
KILLS = Path(__file__).parent / "kills.py"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: this is about locks, not about a disk's patience."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="benchkit-test-") as made:
        yield Path(made)


def crowd(folder: Path, make_report: Callable[..., Report], processes: int, cells: int) -> None:
    registry, model = folder / "r.sqlite", folder / "report.json"
    model.write_text(make_report(artifacts=[]).to_json())
    quiet = ["-W", "ignore::UserWarning"]  # that one waits for its turn is no error here
    command = [sys.executable, *quiet, str(CROWD), str(registry), str(model), str(cells)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=600) for process in running]
    assert [err for _, err in ended if err] == []
    assert [p.returncode for p in running] == [0] * processes
    assert sum(int(out) for out, _ in ended) == cells, "none twice"
    with open_store(registry) as store:
        assert store.execute("SELECT count(*), count(DISTINCT seed), sum(current) FROM runs").fetchone() == (cells,) * 3
        assert store.execute("SELECT count(*) FROM claims").fetchone() == (0,)
        assert [
            f for f in map(str, check(store, Silent())) if "no predictions" not in f and "locks of launchers" not in f
        ] == []
    assert not [p for p in (folder / "r.sqlite.d" / "inbox").rglob("*") if p.is_file()]


def test_eight_processes_share_four_hundred_cells(folder: Path, make_report: Callable[..., Report]) -> None:
    crowd(folder, make_report, 8, 400)


@pytest.mark.slow
def test_thirty_two_processes_share_ten_thousand_cells(folder: Path, make_report: Callable[..., Report]) -> None:
    began = time.monotonic()
    crowd(folder, make_report, 32, 10_000)
    print(f"10,000 cells by 32 processes in {time.monotonic() - began:.0f} s")  # noqa: T201


def test_launchers_killed_at_any_instant_lose_nothing_and_compute_nothing_twice(
    folder: Path, make_report: Callable[..., Report], kills: int
) -> None:
    registry, model, cells = folder / "r.sqlite", folder / "report.json", 40 * kills
    model.write_text(make_report(artifacts=[]).to_json())
    command = [sys.executable, str(KILLS), str(registry), str(model), str(cells), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert (done.returncode, done.stderr) == (0, "")
    killed, with_claims = map(int, done.stdout.split())
    assert killed >= kills / 2
    assert with_claims >= kills / 5, "launchers were killed while cells were theirs, not before they had begun"
    with open_store(registry) as store:
        assert store.execute("SELECT count(*), count(DISTINCT seed), sum(current) FROM runs").fetchone() == (cells,) * 3
        assert store.execute("SELECT count(*) FROM claims").fetchone() == (0,)
        assert [
            f for f in map(str, check(store, Silent())) if "no predictions" not in f and "locks of launchers" not in f
        ] == []
    assert not list((folder / "r.sqlite.d" / "inbox").glob("*.json"))
