"""Another process at the same registry: everybody waits for their turn, and nobody reads "database is locked"."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchkit.planning.plan import Grid, make_plan
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.claims import Owner, claim
from benchkit.store.connection import StoreBusy
from benchkit.store.migrations import APPLICATION_ID, MIGRATIONS, VERSION, statements
from benchkit.store.opening import refresh
from benchkit.store.readonly import ask

HOLD = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute(sys.argv[2])
db.execute("SELECT count(*) FROM sqlite_master").fetchone()
print("held", flush=True)
sys.stdin.readline()
db.execute("COMMIT")
"""
CELL = Cell("digits", "pixels", "linear", 1, 0)


@contextmanager
def held(path: Path, seconds: float | None = None, how: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Another process holds the registry, until the end or for some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "held\n"
    timer = threading.Timer(seconds or 0, process.stdin.close)
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()


@pytest.fixture(params=["wal", "delete"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with one run, on a local disk and as if on a network file system."""
    if request.param == "delete":
        monkeypatch.setattr("benchkit.store.database.network_filesystem", lambda _: "nfs4")
    path = tmp_path / "r.sqlite"
    if request.param == "delete":
        with pytest.warns(UserWarning, match="nfs4"):
            open_store(path).close()
    else:
        open_store(path).close()
    return path


@pytest.mark.parametrize("how", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_whoever_writes_waits_for_a_writer_of_seconds(
    path: Path, make_report: Callable[..., Report], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.store.connection.SAY_SO", 0.2)
    with open_store(path) as store:
        seal(make_report(cell=CELL), store.inbox)
    with held(path, 1.0, how):
        with pytest.warns(UserWarning, match="waiting for it"):
            store = open_store(path)
        with store:
            assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    with held(path, 0.4, how), open_store(path) as store:
        assert claim(store, [CELL], Owner.this_process(), force=True) == [CELL]


def test_who_waited_for_longer_than_patience_is_told_so_and_nothing_has_changed(
    path: Path, make_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(path) as store:
        sealed = seal(make_report(), store.inbox)
        with held(path):
            monkeypatch.setattr("benchkit.store.connection.PATIENCE", 0.5)
            with pytest.raises(StoreBusy, match=r"another process has been writing to it for \d+ s; nothing was"):
                refresh(store)
            assert sealed.exists()
        refresh(store)
        assert not sealed.exists()


def test_whoever_reads_is_not_kept_waiting_to_take_reports_in(
    path: Path, make_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.store.opening.READERS_PATIENCE", 0.2)
    with open_store(path) as store:
        sealed = seal(make_report(), store.inbox)
    with held(path):
        with pytest.warns(UserWarning, match="not taken in yet: .*another process"):
            store = open_store(path, create=False)
        with store, ask(store, "SELECT count(*) FROM runs") as answer:
            assert store.execute("SELECT count(*) FROM runs").fetchone() == (0,)
            assert list(answer.rows) == [(0,)]
    assert sealed.exists()


def test_a_query_waits_for_a_writer_that_lets_nobody_read(path: Path) -> None:
    with open_store(path, create=False) as store, held(path, 0.7, "BEGIN EXCLUSIVE"):
        with ask(store, "SELECT count(*) FROM runs") as answer:
            assert list(answer.rows) == [(0,)]
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_reading_transaction_waits_for_a_writer_that_lets_nobody_read(path: Path) -> None:
    with open_store(path, create=False) as store, held(path, 0.7, "BEGIN EXCLUSIVE"):
        assert make_plan([Grid(("digits",), ("pixels",))], store).by_state["todo"] == 1


def test_the_end_of_a_transaction_waits_for_readers_on_a_rollback_journal(
    tmp_path: Path, make_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.store.database.network_filesystem", lambda _: "nfs4")
    path = tmp_path / "r.sqlite"
    with pytest.warns(UserWarning, match="nfs4"):
        store = open_store(path)
    with store:
        seal(make_report(), store.inbox)
        with held(path, 1.0, "BEGIN"):  # a reader, whose lock the commit needs gone
            refresh(store)
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_ctrl_c_ends_the_waiting(path: Path) -> None:
    code = (
        "import sys\nfrom benchkit.store import connection, open_store\nconnection.SAY_SO = 0.0\n"
        "s = open_store(sys.argv[1])\nwith s.write():\n    print('written', flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    with held(path):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with process:
            assert process.stderr is not None
            try:
                assert "is being written by another process: waiting for it" in process.stderr.readline()
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=20)  # long before the other lets go
            finally:
                process.kill()
        assert (process.returncode, out) == (-signal.SIGINT, "")
        assert err.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.parametrize("old", [False, True], ids=["creating", "migrating"])
def test_ten_processes_create_or_migrate_one_registry_at_the_same_moment(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "r.sqlite"
    if old:
        first_version(path)
    code = (
        "import sys\nfrom benchkit.store import open_store\nsys.stdin.readline()\n"
        "with open_store(sys.argv[1]) as s:\n"
        "    print(s.execute('SELECT count(*) FROM failures').fetchone()[0],"
        " s.execute('PRAGMA user_version').fetchone()[0])\n"
    )
    crowd = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True)
        for _ in range(10)
    ]  # fmt: skip
    time.sleep(1.0)  # so that most have come to the gate; the others come late, as in life
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[0] for process in crowd] == [f"0 {VERSION}\n"] * 10
    with open_store(path) as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.execute("SELECT count(*) FROM environments").fetchone() == (int(old),)


def first_version(path: Path) -> None:
    """A registry of schema 1, as the first benchkit left it."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = WAL")
        for statement in statements(MIGRATIONS[0]):
            db.execute(statement)
        db.execute("INSERT INTO environments VALUES (1, 'd', '0.1.0', NULL, NULL, '[]', '{}', 'node', 'cpu')")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    db.close()


def test_a_migration_that_is_killed_leaves_the_registry_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    first_version(path)
    code = (
        "import os, sys\nfrom benchkit.store import database, open_store\n"
        "database.MIGRATIONS = (database.MIGRATIONS[0], database.MIGRATIONS[1] + 'SELECT die();\\n')\n"
        "connect = database.Database._connect\n"
        "def with_death(self):\n"
        "    c = connect(self)\n"
        "    c.create_function('die', 0, lambda: os.kill(os.getpid(), 9))\n"
        "    return c\n"
        "database.Database._connect = with_death\n"
        "open_store(sys.argv[1])\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'failures'").fetchall()
    with open_store(path) as store:
        assert store.execute("SELECT count(*) FROM failures").fetchone() == (0,)
    assert os.path.exists(path)
