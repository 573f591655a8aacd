"""Which file system a registry is on, and which journal it has there."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchkit.errors import StoreError
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.claims import Owner, claim, heartbeat, release_dead
from benchkit.store.filesystem import network_filesystem
from benchkit.store.opening import refresh

MOUNTS = """\
21 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 28 0:50 / /home rw,relatime shared:2 master:1 - autofs systemd-1 rw,fd=47
41 40 0:51 / /home/ada rw,relatime - nfs4 server:/ada rw,vers=4.2
42 28 0:52 / /home/ada/scratch rw - ext4 /dev/vdb rw
43 28 0:53 / /lustre/my\\040project rw - lustre mds@tcp:/fs rw
44 28 0:54 / /gpfs rw - gpfs fs1 rw
45 28 0:55 / /bee rw - beegfs beegfs_nodev rw
46 28 0:56 / /ceph rw - ceph mon:/ rw
47 28 0:57 / /win rw - cifs //server/share rw
48 28 0:58 / /sshfs rw - fuse.sshfs host: rw
49 28 0:59 / /merged rw - fuse.mergerfs a:b rw
50 28 0:60 / /usb rw - fuseblk /dev/sdb rw
51 28 0:61 / /over rw - tmpfs tmpfs rw
52 28 0:62 / /over rw - nfs server:/over rw
a line that is none
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/registry.sqlite", None), ("/home/ada/r.sqlite", "nfs4"), ("/home/ada/scratch/r.sqlite", None),
        ("/home/adam/r.sqlite", None), ("/lustre/my project/r.sqlite", "lustre"), ("/gpfs/a/b/r.sqlite", "gpfs"),
        ("/bee/r.sqlite", "beegfs"), ("/ceph/r.sqlite", "ceph"), ("/win/r.sqlite", "cifs"),
        ("/sshfs/r.sqlite", "fuse.sshfs"), ("/merged/r.sqlite", None), ("/usb/r.sqlite", None),
        ("/over/r.sqlite", "nfs"),
    ],
)  # fmt: skip
def test_the_deepest_and_last_mount_decides(tmp_path: Path, path: str, kind: str | None) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS)
    assert network_filesystem(Path(path), table) == kind


def test_without_a_table_of_mounts_every_file_system_is_local(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, tmp_path / "none") is None


@contextmanager
def mounted(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if `folder` were on a file system of this kind."""
    table = folder / "mountinfo"
    table.write_text(f"28 1 254:0 / / rw - ext4 /dev/vda rw\n41 28 0:51 / {folder.resolve()} rw - {kind} x rw\n")
    with monkeypatch.context() as m:
        m.setattr("benchkit.store.filesystem.MOUNTINFO", table)
        yield


def journal(path: Path) -> str:
    with sqlite3.connect(path) as db:
        return db.execute("PRAGMA journal_mode").fetchone()[0]


def test_on_a_network_file_system_the_journal_is_a_rollback_journal_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_report, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "r.sqlite"
    with mounted(tmp_path, "nfs4", monkeypatch):
        for _ in range(3):
            with open_store(path) as store:
                seal(make_report(), store.inbox)
                refresh(store)
    assert ["nfs4" in str(w.message) for w in recwarn.list if w.category is UserWarning] == [True]
    assert journal(path) == "delete"
    before = path.read_bytes()
    open_store(path, create=False).close()
    assert path.read_bytes() == before, "who only reads leaves it as it is"
    with open_store(path) as store:  # copied to a local disk
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (3,)
    assert journal(path) == "wal"


def test_a_write_ahead_log_that_came_to_a_network_file_system_is_changed_and_nothing_of_it_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_report
) -> None:
    path = tmp_path / "r.sqlite"
    local = open_store(path)
    seal(make_report(), local.inbox)
    refresh(local)
    assert path.with_name("r.sqlite-wal").stat().st_size, "the report is in the log"
    monkeypatch.setattr("benchkit.store.database.CONVERSION", 0.1)
    with mounted(tmp_path, "lustre", monkeypatch):
        with pytest.raises(StoreError, match=r"lustre.*while other processes have it open"):
            open_store(path)
        with open_store(path, create=False) as reader:
            assert reader.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        local.close()
        with pytest.warns(UserWarning, match="lustre"), open_store(path) as store:
            assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert journal(path) == "delete"
    assert not path.with_name("r.sqlite-wal").exists()


def test_a_link_to_a_registry_opens_its_own_folder(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "r.sqlite", tmp_path / "link.sqlite"
    open_store(real).close()
    link.symlink_to(Path("disk") / "r.sqlite")  # relative
    with open_store(link) as store:
        seal(make_report(artifacts=[]), store.inbox)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link.sqlite"]
    with open_store(real, create=False) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        owner = Owner.this_process()
        with heartbeat(store, owner), open_store(link) as other:
            claim(store, [Cell("t", "m", "c", 1, 0)], owner)
            release_dead(other)
            assert other.execute("SELECT count(*) FROM claims").fetchone() == (1,), "its launcher lives"
