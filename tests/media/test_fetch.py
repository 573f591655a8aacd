"""Local copies of what is on the hub: interrupted, damaged, disturbed, and in the end complete."""

import fcntl
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchkit.catalog.fetch import fetch as catalog_fetch
from benchkit.errors import BenchkitError, DataError
from benchkit.interfaces import Task
from benchkit.media import fetch
from benchkit.media import hub as remote
from benchkit.media.hub import Backoff, Hub, RemoteError
from benchkit.progress import Lines, Silent
from benchkit.testing.hub import COMMIT, FakeHub

FILES = {f"HSN/train-{i:05d}-of-00005.parquet": np.random.default_rng(i).bytes(40_000 + i) for i in range(5)}
TOTAL = sum(map(len, FILES.values()))


@pytest.fixture(autouse=True)
def _quiet_surroundings(monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "BLOCK", 10_000)
    remote.reach.cache_clear()


@pytest.fixture
def server(tmp_path, monkeypatch):
    for name, data in FILES.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with FakeHub(tmp_path / "repository", "someone/data") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def hub():
    return Hub("someone/data", "dataset", backoff=Backoff(attempts=4, first=0.01, longest=0.02))


def copy(hub, to, progress=None):
    return fetch.copy(hub, hub.files("HSN"), "HSN", to, progress or Silent())


def contents(to):
    return {p.relative_to(to).as_posix(): p.read_bytes() for p in (to / "HSN").glob("*.parquet*")}


def test_a_copy_is_complete_and_says_where_it_came_from(server, hub, tmp_path):
    manifest = json.loads(copy(hub, tmp_path / "copy").read_text())
    assert contents(tmp_path / "copy") == FILES
    assert (manifest["repo"], manifest["commit"]) == ("someone/data", COMMIT)
    assert {name: f["bytes"] for name, f in manifest["files"].items()} == {n: len(d) for n, d in FILES.items()}
    assert server.sent == TOTAL


def test_a_copy_that_is_complete_is_checked_and_not_transferred_again(server, hub, tmp_path):
    copy(hub, tmp_path)
    server.requests.clear()
    copy(hub, tmp_path)
    assert server.requests == []


def test_dropped_connections_and_a_busy_server_do_not_matter(server, hub, tmp_path):
    server.faults.extend(["drop", "503", "drop", "429", "short"])
    copy(hub, tmp_path)
    assert contents(tmp_path) == FILES


def test_a_file_that_arrives_damaged_is_fetched_once_more(server, hub, tmp_path):
    server.faults.append("corrupt")
    copy(hub, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.sent > TOTAL


def test_a_file_that_is_always_damaged_is_refused_by_name_and_never_under_its_name(server, hub, tmp_path):
    damaged = "HSN/train-00000-of-00005.parquet"
    files = [f for f in hub.files("HSN") if f.path == damaged]
    server.faults.extend(["corrupt"] * 10)
    with pytest.raises(RemoteError, match=r"'HSN/train-00000-of-00005\.parquet' .* arrived damaged twice") as raised:
        fetch.copy(hub, files, "HSN", tmp_path, Silent())
    assert "sha256:" in str(raised.value)
    assert contents(tmp_path) == {}
    assert fetch.read_manifest(tmp_path / "HSN") is None


def test_a_file_that_was_damaged_on_disk_is_replaced(server, hub, tmp_path):
    copy(hub, tmp_path)
    victim = tmp_path / "HSN" / "train-00002-of-00005.parquet"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    copy(hub, tmp_path)
    assert contents(tmp_path) == FILES


def test_a_fetch_that_was_killed_goes_on_where_it_stopped(server, hub, tmp_path):
    """A real process, and SIGKILL while a server that has stopped answering keeps it waiting."""
    server.faults.extend(["ok"] * 12 + ["stall"] * 40)  # nothing special, then no answers
    program = (
        "from pathlib import Path\n"
        "from benchkit.media import fetch\n"
        "from benchkit.progress import Silent\n"
        "from benchkit.media.hub import Hub\n"
        "fetch.BLOCK = 10_000\n"
        "hub = Hub('someone/data', 'dataset')\n"
        f"fetch.copy(hub, hub.files('HSN'), 'HSN', Path({str(tmp_path)!r}), Silent())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    try:
        while len(server.requests) < 16:  # twelve answered, and each of the four connections waits for one more
            assert process.poll() is None
            assert time.monotonic() < deadline, f"{len(server.requests)} requests only"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    already = sum(p.stat().st_size for p in (tmp_path / "HSN").iterdir())
    assert 0 < already < TOTAL
    assert fetch.read_manifest(tmp_path / "HSN") is None
    server.stalled.set()
    server.faults.clear()
    server.sent = 0
    copy(hub, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.sent == TOTAL - already


def test_one_file_that_fails_ends_the_others_soon_and_what_they_have_is_kept(server, hub, tmp_path):
    listed = hub.files("HSN")
    (server.root / "HSN" / "train-00000-of-00005.parquet").unlink()
    with pytest.raises(RemoteError, match="'HSN/train-00000-of-00005"):
        fetch.copy(hub, listed, "HSN", tmp_path, Silent())
    (server.root / "HSN" / "train-00000-of-00005.parquet").write_bytes(FILES["HSN/train-00000-of-00005.parquet"])
    copy(hub, tmp_path)
    assert contents(tmp_path) == FILES
    assert server.sent == TOTAL


def test_files_of_another_revision_are_refused(server, hub, tmp_path):
    (tmp_path / "HSN").mkdir()
    (tmp_path / "HSN" / "train-00000-of-00009.parquet").write_bytes(b"old")
    with pytest.raises(DataError, match=r"train-00000-of-00009\.parquet' is not among the files of this revision"):
        copy(hub, tmp_path)


def test_two_fetches_do_not_write_one_folder(server, hub, tmp_path):
    (tmp_path / "HSN").mkdir()
    with (tmp_path / "HSN" / ".benchkit-fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another benchkit fetch is writing"):
            copy(hub, tmp_path)
    copy(hub, tmp_path)
    assert contents(tmp_path) == FILES


def test_a_disk_without_room_is_told_before_anything_is_transferred(server, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": TOTAL - 1}))
    with pytest.raises(DataError, match=r"GB free, and .* GB of 'HSN' are missing"):
        copy(hub, tmp_path)
    assert server.requests == []


def test_a_folder_that_cannot_be_written_is_one_line(server, hub, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*file"):
        copy(hub, tmp_path / "file")


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / fetch.MANIFEST).write_text("{")
    with pytest.raises(DataError, match="is no manifest of benchkit fetch"):
        fetch.read_manifest(tmp_path)


def test_a_task_that_has_nothing_to_fetch_says_so(shared, tmp_path):
    mini = shared / "data" / "birdset_mini"
    with pytest.raises(BenchkitError, match="is a folder here already: there is nothing to fetch"):
        catalog_fetch(f"hsn,repo={mini}", tmp_path, Silent())


class Bundled(Task):
    """Data that comes with a package."""

    classes = ()
    ids = labels = examples = fingerprint = None


def test_a_task_without_remote_data_has_nothing_to_fetch_either(tmp_path):
    with pytest.raises(BenchkitError, match="Bundled has nothing to fetch"):
        Bundled().fetch(tmp_path, Silent())


def test_progress_counts_every_byte_once_whatever_happens(server, hub, tmp_path):
    server.faults.extend(["drop", "corrupt", "503"])
    with (tmp_path / "log").open("w") as log:
        copy(hub, tmp_path, Lines(log, every=0.0))
    assert (tmp_path / "log").read_text().splitlines()[-1].startswith(f"fetch HSN: {TOTAL:,}/{TOTAL:,} bytes")
