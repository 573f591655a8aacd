"""Reading from the hub: what is retried, what is not, and what a machine without a network is told."""

import io
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchkit.media import hub as remote
from benchkit.media.hub import Backoff, Hub, OfflineError, RemoteError
from benchkit.media.ranges import Blocks, RangeStream
from benchkit.testing.hub import COMMIT, FakeHub

QUICK = Backoff(attempts=4, first=0.01, longest=0.02)
DATA = np.random.default_rng(0).bytes(100_000)


@pytest.fixture(autouse=True)
def _quiet_surroundings(tmp_path, monkeypatch):
    """No token, no proxy and no cache of the user's; whether the hub was reached is forgotten."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    remote.reach.cache_clear()


@pytest.fixture
def server(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    (root / "data").mkdir(parents=True)
    (root / "data" / "a.parquet").write_bytes(DATA)
    (root / "data" / "b c.txt").write_bytes(b"a small file outside LFS\n")
    (root / "data" / "empty.txt").write_bytes(b"")
    (root / "model.safetensors").write_bytes(DATA[::-1])
    with FakeHub(root, "someone/data") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def hub():
    return Hub("someone/data", "dataset", backoff=QUICK, instead="do it elsewhere")


def file(hub, name="data/a.parquet"):
    return next(f for f in hub.files("data") if f.path == name)


def test_files_are_listed_over_several_pages_with_sizes_and_checksums(server, hub):
    listed = {f.path: f for f in hub.files("data")}
    assert hub.commit == COMMIT
    assert list(listed) == ["data/a.parquet", "data/b c.txt", "data/empty.txt"]
    assert listed["data/a.parquet"].size == len(DATA)
    assert listed["data/a.parquet"].checksum.startswith("sha256:")
    assert listed["data/b c.txt"].checksum.startswith("git:")
    assert all(f.matches(server.root / f.path) for f in listed.values())
    assert not listed["data/a.parquet"].matches(server.root / "model.safetensors")


def test_a_range_of_a_file_is_read_and_nothing_else_is_sent(server, hub):
    assert hub.read(file(hub), 1000, 3000) == DATA[1000:3000]
    assert hub.read(file(hub, "data/b c.txt"), 2, 7) == b"small"
    assert hub.read(file(hub, "data/empty.txt"), 0, 0) == b""
    assert server.sent == 2005


@pytest.mark.parametrize("fault", ["drop", "503", "429", "short"])
def test_what_may_pass_is_tried_again(server, hub, fault):
    wanted = file(hub)
    server.faults.extend([fault, fault])
    assert hub.read(wanted, 10, 50_000) == DATA[10:50_000]
    assert len(server.requests) == 3


def test_a_server_that_ignores_ranges_is_understood(server, hub):
    wanted = file(hub)
    server.faults.append("whole")
    assert hub.read(wanted, 10, 20) == DATA[10:20]


def test_giving_up_names_the_file_the_attempts_and_the_reason_in_one_line(server, hub):
    wanted = file(hub)
    server.faults.extend(["503"] * 10)
    with pytest.raises(RemoteError) as raised:
        hub.read(wanted, 0, 10)
    assert "'data/a.parquet' of the dataset 'someone/data'" in str(raised.value)
    assert "4 attempts" in str(raised.value)
    assert "HTTP 503" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(server.requests) == 4


def test_a_server_that_never_answers_is_given_up(server, hub, monkeypatch):
    wanted = file(hub)
    monkeypatch.setattr(remote, "TIMEOUT", 0.1)
    server.faults.extend(["stall"] * 10)
    with pytest.raises(RemoteError, match="4 attempts"):
        hub.read(wanted, 0, 10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"repo": "someone/else"}, "has no dataset 'someone/else', or none that you may read"),
        ({"revision": "v9"}, "the dataset 'someone/data' has no revision 'v9'"),
    ],
)
def test_what_is_not_there_is_not_asked_for_twice(server, changed, message):
    hub = Hub(**{"repo": "someone/data", "kind": "dataset", "backoff": QUICK} | changed)
    with pytest.raises(RemoteError, match=message):
        hub.files("data")
    assert len(server.api_requests) <= 1


def test_a_folder_that_is_not_there_is_named(server, hub):
    with pytest.raises(RemoteError, match="the list of files of the dataset 'someone/data' is not there"):
        hub.files("nowhere")


def test_waits_double_up_to_the_longest_and_differ_between_jobs():
    waits = list(Backoff(attempts=6, first=1.0, longest=4.0).waits())
    assert len(waits) == 5
    assert all(low <= w <= low * 1.25 for low, w in zip([1, 2, 4, 4, 4], waits, strict=True))
    assert waits != list(Backoff(attempts=6, first=1.0, longest=4.0).waits())


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def deaf_server():
    """A listening socket whose queue is full: connections to it are neither accepted nor refused."""
    server = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(server.getsockname())
        waiting.append(s)
    return server, waiting


def test_a_refused_connection_says_offline_and_what_to_do(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OfflineError) as raised:
        hub.files("data")
    assert "this machine does not reach http://127.0.0.1" in str(raised.value)
    assert str(raised.value).endswith(": do it elsewhere")


def test_a_name_that_does_not_resolve_says_offline(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    with pytest.raises(OfflineError, match=r"does not reach https://hub\.invalid"):
        hub.files("data")


def test_a_network_that_swallows_packets_says_offline_within_seconds():
    server, waiting = deaf_server()
    began = time.monotonic()
    with server, pytest.raises(OfflineError, match="does not reach"):
        remote.reach(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=0.3)
    for s in waiting:
        s.close()
    assert time.monotonic() - began < 60  # the operating system alone would try for two minutes


def test_the_hubs_own_offline_switch_is_obeyed(server, hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match=r"HF_HUB_OFFLINE is set, and .* do it elsewhere"):
        hub.files("data")
    assert server.api_requests == []


def test_behind_a_proxy_it_is_the_proxy_that_must_be_reached(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", server.url)
    remote.reach("http://hub.invalid")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OfflineError):
        remote.reach("http://other.invalid")


def test_a_stream_reads_and_seeks_as_a_file_does():
    stream, reference = RangeStream(len(DATA), lambda a, b: DATA[a:b]), io.BytesIO(DATA)
    rng = np.random.default_rng(1)
    for _ in range(200):
        n, offset = int(rng.integers(0, 5000)), int(rng.integers(0, len(DATA) + 100))
        whence = int(rng.integers(0, 3))
        move = {0: offset, 1: 100, 2: -offset % 3000 - 3000}[whence]
        assert stream.seek(move, whence) == reference.seek(move, whence)
        assert stream.read(n) == reference.read(n)
        assert stream.tell() == reference.tell()
    stream.seek(0)
    assert stream.read() == DATA


@pytest.mark.parametrize("keep", [False, True])
def test_blocks_give_any_range_and_fetch_each_block_once_in_a_pass(keep):
    fetched = []

    def fetch(start, stop):
        fetched.append(start)
        return DATA[start:stop]

    blocks = Blocks(fetch, len(DATA), keep, block=1000)
    for start in range(0, len(DATA), 300):
        assert blocks.read(start, min(start + 300, len(DATA))) == DATA[start : start + 300]
    assert fetched == list(range(0, len(DATA), 1000))
    assert blocks.read(500, 2500) == DATA[500:2500]
    assert len(fetched) == (100 if keep else 103)


def test_what_is_kept_on_scratch_has_no_name_and_needs_room(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    blocks = Blocks(lambda a, b: DATA[a:b], len(DATA), True, block=1000)
    assert blocks.read(0, len(DATA)) == DATA
    assert list(tmp_path.iterdir()) == []
    enormous = Blocks(lambda a, b: DATA[a:b], 2**60, True, block=1000)
    assert enormous.read(0, 1500) == DATA[:1500]


def test_a_disk_that_fills_up_costs_time_and_nothing_else(tmp_path):
    """A real limit of the process on the size of its files."""
    program = (
        "import resource, signal\n"
        "from benchkit.media.ranges import Blocks\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))\n"
        "data = bytes(range(256)) * 40\n"
        "blocks = Blocks(lambda a, b: data[a:b], len(data), True, block=1000)\n"
        "assert all(blocks.read(i, i + 300) == data[i:i + 300] for _ in range(2) for i in range(0, 9000, 300))\n"
        "assert blocks._scratch is None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "TMPDIR": str(tmp_path)})


def test_blocks_serve_several_threads():
    blocks = Blocks(lambda a, b: DATA[a:b], len(DATA), True, block=1000)
    wrong = []

    def read(seed):
        for start in np.random.default_rng(seed).integers(0, len(DATA) - 5000, 100).tolist():
            if blocks.read(start, start + 4321) != DATA[start : start + 4321]:
                wrong.append(start)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_a_single_file_is_downloaded_once_checked_and_then_needs_no_network(server, monkeypatch):
    hub = Hub("someone/data", "dataset", revision=COMMIT, backoff=QUICK)
    path = hub.file("model.safetensors")
    assert path.read_bytes() == DATA[::-1]
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]
    remote.reach.cache_clear()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    assert Hub("someone/data", "dataset", revision=COMMIT).file("model.safetensors") == path


def test_jobs_that_download_the_same_file_at_once_do_not_disturb_one_another(server):
    server.faults.extend(["drop", "503", "drop"])
    paths = []
    hubs = [Hub("someone/data", "dataset", backoff=QUICK) for _ in range(4)]
    threads = [threading.Thread(target=lambda h=h: paths.append(h.file("model.safetensors"))) for h in hubs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(paths) == 4
    assert {p.read_bytes() for p in paths} == {DATA[::-1]}


def test_a_damaged_download_is_refused_and_leaves_nothing(server, hub):
    server.faults.append("corrupt")
    with pytest.raises(RemoteError, match=r"'model\.safetensors' of the dataset 'someone/data' arrived damaged"):
        hub.file("model.safetensors")
    folder = Path(os.environ["BENCHKIT_CACHE"]) / "hub"
    assert [p for p in folder.rglob("*") if p.is_file()] == []


def test_a_file_in_the_hubs_own_cache_is_used_as_it_is(server, tmp_path):
    snapshot = tmp_path / "hf-cache" / "models--someone--net" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"weights")
    assert Hub("someone/net", revision=COMMIT).file("model.safetensors").read_bytes() == b"weights"
    assert server.requests == []


def test_nothing_is_written_to_the_hubs_cache(server, hub, tmp_path):
    hub.file("model.safetensors")
    hub.read(file(hub), 0, 100)
    assert not (tmp_path / "hf-cache").exists()


@pytest.mark.parametrize(
    "name",
    ["../outside", "data/../../outside", "/etc/passwd", "data//x", "data/./x", "..\\outside", "C:/x", "a\nb"],
)
def test_a_file_whose_name_leads_elsewhere_is_refused(server, hub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    entry = {"type": "file", "path": name, "size": 3, "oid": "0" * 40}
    monkeypatch.setattr(server, "tree", lambda folder: [entry])
    with pytest.raises(RemoteError, match="is none below a folder") as refused:
        hub.files("data")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "entry",
    [{"size": -1}, {"size": "3"}, {"size": 2**70}, {"oid": "../x"}, {"lfs": {"oid": "zz"}}, {"lfs": 3}, {"oid": None}],
)
def test_a_list_of_files_that_makes_no_sense_is_one_line(server, hub, monkeypatch, entry: dict) -> None:
    given = {"type": "file", "path": "data/x", "size": 3, "oid": "0" * 40} | entry
    monkeypatch.setattr(server, "tree", lambda folder: [given])
    with pytest.raises(RemoteError, match=r"lists the file|no list of files"):
        hub.files("data")


def test_the_token_goes_to_no_other_host(server, hub, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeHub(tmp_path / "repository", "someone/data") as other:
        monkeypatch.setattr(FakeHub, "url", other.url)  # the list of files says that it goes on there
        monkeypatch.setattr("benchkit.testing.hub.PAGE", 1)
        with pytest.raises(RemoteError, match=r"goes on at another host, http://127.0.0.1:.*: it is not asked"):
            hub.files("data")
        assert other.api_requests == []


def test_a_password_in_the_address_is_in_no_message(monkeypatch: pytest.MonkeyPatch, hub) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://ada:secret@127.0.0.1:9")
    with pytest.raises(OfflineError) as refused:
        hub.files("data")
    assert "secret" not in str(refused.value)
    assert "http://127.0.0.1:9" in str(refused.value)
