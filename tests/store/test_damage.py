"""A registry that was cut off, or of which a byte was flipped, anywhere: a clear line, or an answer; never a trace."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchkit.cli import with_commands
from benchkit.errors import BenchkitError, StoreError
from benchkit.progress import Silent
from benchkit.reading.pivot import entries, pivot
from benchkit.records.report import Report
from benchkit.store import Store, open_store, queries
from benchkit.store.backup import backup
from benchkit.store.check import check
from benchkit.store.merge import merge
from benchkit.store.queries import Filters
from benchkit.store.readonly import ask

Add = Callable[..., Report]


@pytest.fixture
def path(tmp_path: Path, add: Add) -> Path:
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        for seed in range(12):
            add(store, seed)
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def everything(path: Path, other: Path) -> list[str]:
    """What every command asks of the store; the errors in one line each. Anything but a StoreError is a failure."""
    said = []

    def attempt(act: Callable[[Store], object]) -> None:
        try:
            with open_store(path, create=False) as store:
                act(store)
        except StoreError as e:
            said.append(str(e))

    def sql(store: Store) -> None:
        with ask(store, "SELECT * FROM results JOIN checks ON run = run_id") as answer:
            list(answer.rows)

    attempt(lambda s: [queries.load(s, r.run) for r in queries.recent(s, Filters())])
    attempt(lambda s: pivot(entries(s, Filters(), [], None, None), None, None))
    attempt(sql)
    attempt(lambda s: said.extend(map(str, check(s, Silent()))))
    attempt(lambda s: backup(s, path.with_name("b.sqlite"), Silent()))
    try:
        with open_store(other) as mine:
            merge(mine, path, Silent(), dry_run=True)
    except StoreError as e:
        said.append(str(e))
    for left in ("b.sqlite", "b.sqlite-wal", "b.sqlite-shm"):
        path.with_name(left).unlink(missing_ok=True)
    shutil.rmtree(path.with_name("b.sqlite.d"), ignore_errors=True)
    assert not [line for line in said if "\n" in line]
    return said


def test_a_byte_flipped_anywhere_is_an_answer_or_a_clear_line(path: Path, tmp_path: Path) -> None:
    whole, rng, noticed = path.read_bytes(), random.Random(0), 0
    for flip in range(40):
        data = bytearray(whole)
        place = rng.randrange(100) if flip < 15 else rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        noticed += bool(everything(path, tmp_path / "other.sqlite"))
        for end in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + end).unlink(missing_ok=True)
    assert noticed >= 6
    path.write_bytes(whole)
    assert everything(path, tmp_path / "other.sqlite") == []


def test_a_registry_cut_off_anywhere_is_an_answer_or_a_clear_line(path: Path, tmp_path: Path) -> None:
    whole, rng = path.read_bytes(), random.Random(1)
    for length in [1, 15, 16, 99, 100, 4095, 4096, *(rng.randrange(len(whole)) for _ in range(12))]:
        path.write_bytes(whole[:length])
        assert everything(path, tmp_path / "other.sqlite"), f"cut off after {length} bytes"
        for end in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + end).unlink(missing_ok=True)


def test_json_that_another_program_has_broken_is_named(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("UPDATE runs SET params = '{broken' WHERE id = 3")
    db.commit()
    db.close()
    with open_store(path) as store, pytest.raises(StoreError, match=r"run 3 .*damaged"):
        queries.load(store, 3)


@pytest.mark.parametrize("damage", ["cut off", "emptied", "overwritten", "overwritten in the middle"])
def test_where_the_file_is_damaged_the_way_out_is_one_that_works(path: Path, tmp_path: Path, damage: str) -> None:
    with open_store(path) as store:
        backup(store, tmp_path / "backup.sqlite", Silent())
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut off": whole[:60_000],
            "emptied": b"",
            "overwritten": b"x" * 64 + whole[64:],
            "overwritten in the middle": whole[: 1 << 13] + b"x" * (1 << 14) + whole[(1 << 13) + (1 << 14) :],
        }[damage]
    )
    done = CliRunner().invoke(with_commands(), ["check", "--db", str(path)])
    said = f"{done.stdout}{done.exception}"
    assert isinstance(done.exception, BenchkitError)
    assert "`benchkit merge BACKUP` brings back what a backup has, `benchkit run` the rest" in said
    assert "benchkit check" not in said
    path.rename(tmp_path / "damaged.sqlite")
    with open_store(path) as store:
        merge(store, tmp_path / "backup.sqlite", Silent())
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (12,)
        assert check(store, Silent()) == []
