"""A disk that is full at the worst moment: a clear line, the registry as it was, and once there is room on it goes."""

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from benchkit.errors import StoreError
from benchkit.progress import Silent
from benchkit.records.report import Cell, ClassMetric, Report
from benchkit.records.sealing import seal, unseal
from benchkit.store import open_store
from benchkit.store.backup import backup
from benchkit.store.check import check
from benchkit.store.ingest import waiting
from benchkit.store.merge import merge
from benchkit.store.migrations import APPLICATION_ID, MIGRATIONS, VERSION, statements
from benchkit.store.opening import refresh

Add = Callable[..., Report]
FULL = "disk is full|No space left"


@pytest.fixture
def disk(small_disk: Callable[[str], Path]) -> Path:
    """Two megabytes."""
    return small_disk("2m")


def fill(disk: Path, leave: int = 0) -> Path:
    """Writes until `leave` bytes are left."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as f:
        while True:
            f.write(b"x" * 4096)
    os.truncate(filler, max(0, filler.stat().st_size - leave))
    return filler


def sound(path: Path) -> bool:
    with open_store(path, ingest=False) as store:
        return [f for f in check(store, Silent()) if "no predictions" not in f.what] == []


def long_report(make_report: Callable[..., Report], seed: int) -> Report:
    """One with many classes: it does not fit into what is left of a page."""
    classes = [ClassMetric(f"class number {i}", "ap", 0.5, 10, 10) for i in range(300)]
    return make_report(cell=Cell("t", "m", "c", 1, seed), class_metrics=classes, artifacts=[])


def test_sealing_on_a_full_disk_leaves_nothing(disk: Path, make_report: Callable[..., Report]) -> None:
    with open_store(disk / "r.sqlite") as store:
        filler = fill(disk)
        with pytest.raises(StoreError, match="No space left"):
            seal(long_report(make_report, 0), store.inbox)
        assert not [p for p in store.side.rglob("*") if p.is_file()]
        filler.unlink()
        seal(long_report(make_report, 0), store.inbox)
        refresh(store)
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert sound(disk / "r.sqlite")


@pytest.mark.parametrize("leave", [0, 20_000, 60_000])
def test_taking_in_on_a_full_disk_loses_no_report(disk: Path, make_report: Callable[..., Report], leave: int) -> None:
    path = disk / "r.sqlite"
    with open_store(path) as store:
        seal(long_report(make_report, 0), store.inbox)
        refresh(store)
        for seed in range(1, 6):
            seal(long_report(make_report, seed), store.inbox)
        filler = fill(disk, leave)
        with pytest.raises(StoreError, match=FULL):
            refresh(store)
        assert len(waiting(store)) == 5
        assert [unseal(p) for p in waiting(store)]
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        with pytest.warns(UserWarning, match=f"not taken in yet: .*({FULL})"):
            reader = open_store(path, create=False)
        assert reader.execute("SELECT count(*) FROM runs").fetchone() == (1,), "reading goes on"
        reader.close()
        filler.unlink()
        refresh(store)
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (6,)
        assert waiting(store) == []
    assert sound(path)


def test_a_migration_on_a_full_disk_leaves_the_registry_as_it_was(disk: Path) -> None:
    path = disk / "r.sqlite"
    db = sqlite3.connect(path)
    for statement in statements(MIGRATIONS[0]):
        db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    before, filler = path.read_bytes(), fill(disk)
    with pytest.raises(StoreError, match=r"disk is full|disk I/O error|unable to open"):
        open_store(path)
    assert path.read_bytes() == before
    filler.unlink()
    with open_store(path) as store:
        assert store.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert sound(path)


def test_creating_on_a_full_disk_is_one_clear_line(disk: Path) -> None:
    filler = fill(disk)
    with pytest.raises(StoreError, match=r"r\.sqlite"):
        open_store(disk / "r.sqlite")
    filler.unlink()
    open_store(disk / "r.sqlite").close()
    assert sound(disk / "r.sqlite")


@pytest.mark.parametrize("leave", [0, 40_000, 250_000])
def test_a_backup_to_a_full_disk_leaves_nothing(disk: Path, tmp_path: Path, add: Add, leave: int) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        for seed in range(3):
            report = add(store, seed)
            (store.side / report.artifacts[0].path).write_bytes(b"x" * 100_000)
            store.execute(
                "UPDATE artifacts SET bytes = 100000, sha256 = ?", (hashlib.sha256(b"x" * 100_000).hexdigest(),)
            )
        fill(disk, leave)
        with pytest.raises(StoreError, match=r"cannot write .*/b\.sqlite.*(No space left|is full)"):
            backup(store, disk / "b.sqlite", Silent())
    assert [p.name for p in disk.iterdir()] == ["filler"]


def test_a_merge_onto_a_full_disk_leaves_nothing(disk: Path, tmp_path: Path, add: Add) -> None:
    with open_store(tmp_path / "theirs.sqlite") as store:
        for seed in range(40):
            add(store, seed)
    with open_store(disk / "r.sqlite") as store:
        add(store, 100)
        names = {p for p in store.side.rglob("*") if p.is_file()}
        filler = fill(disk, 60_000)
        with pytest.raises(StoreError, match=FULL):
            merge(store, tmp_path / "theirs.sqlite", Silent())
        assert {p for p in store.side.rglob("*") if p.is_file()} == names
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        filler.unlink()
        assert merge(store, tmp_path / "theirs.sqlite", Silent()).cells == 40
    assert sound(disk / "r.sqlite")
