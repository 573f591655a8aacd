"""Somebody else's registry, inbox and folders: what they say is held against its type, and nothing outside changes."""

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchkit.cli import main
from benchkit.dispatch.slurm.settle import settle
from benchkit.errors import BenchkitError, StoreError
from benchkit.progress import Silent
from benchkit.records.report import Report
from benchkit.records.sealing import seal
from benchkit.store import look, open_store
from benchkit.store.backup import backup
from benchkit.store.check import check, fix
from benchkit.store.merge import merge
from benchkit.store.opening import refresh

Registry = Callable[..., Path]
TOKEN = "0" * 32


def contents(folder: Path) -> dict[str, Any]:
    """Every file below, with its bytes, mode and time."""
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
        for p in sorted(folder.rglob("*"))
    }


def alter(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA ignore_check_constraints = 1")
    for sql in statements:
        db.execute(sql)
    db.commit()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


@pytest.fixture
def mine(registry: Registry, tmp_path: Path) -> Iterator[Path]:
    """A registry of one's own; at the end all that lies around it is as it was."""
    outside = tmp_path / "home"
    outside.mkdir()
    (outside / "config").write_text("precious")
    yield registry("mine.sqlite", (0, 0.9))
    assert contents(outside).keys() == {"config"}
    assert (outside / "config").read_text() == "precious"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ran]]:
    """The console script in this process. A traceback is the test's."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: object) -> Ran:
        folder = tmp_path_factory.mktemp("said")
        code: Any = 0
        with monkeypatch.context() as patch, (folder / "o").open("w") as out, (folder / "e").open("w") as err:
            for name, value in (("argv", ["benchkit", *map(str, words)]), ("stdout", out), ("stderr", err)):
                patch.setattr(sys, name, value)
            try:
                main()
            except SystemExit as e:
                code = e.code or 0
        return Ran(code, *((folder / name).read_bytes().decode() for name in "oe"))

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def theirs(registry: Registry) -> Path:
    path = registry("theirs.sqlite", (5, 0.8))
    alter(path)
    return path


POISON = [
    "uuid = '../../home/config'", "uuid = ''", "uuid = 'ABCDEF0123456789ABCDEF0123456789'", "uuid = '.' || uuid",
    "finished_at = '2999-01-01T00:00:00.000000+00:00'", "finished_at = 'yesterday'", "started_at = ''",
    "finished_at = '2026-02-30T00:00:00.000000+00:00'", "finished_at = '2026-01-01T00:00:00'", "chance = 9e999",
    "value = -9e999", "wall_s = 9e999", "params = '[]'", "params = '{'", "params = 'null'", "record = '7'",
    "params = '{\"x\": NaN}'", "n_test = -5", "providers = replace(hex(zeroblob(5000)), '00', '[')",
    "record = '{\"a\":' || replace(hex(zeroblob(10000)), '00', '[') || replace(hex(zeroblob(10000)), '00', ']') || '}'",
    "task = CAST(x'ff' AS TEXT)",
]  # fmt: skip


@pytest.mark.parametrize("poison", POISON)
def test_a_poisoned_run_is_one_line_and_nothing_of_the_registry_comes(
    mine: Path, theirs: Path, cli: Any, poison: str
) -> None:
    alter(theirs, f"UPDATE runs SET {poison}")
    before = contents(mine.with_name("mine.sqlite.d")).keys()
    with open_store(mine) as store:
        with pytest.raises(StoreError) as refused:
            merge(store, theirs, Silent())
        assert "\n" not in str(refused.value)
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert contents(mine.with_name("mine.sqlite.d")).keys() == before
    for command in (["ls"], ["show", "1"], ["show", "last"], ["table"], ["check"], ["sql", "SELECT * FROM results"]):
        ran = cli(*command, "--db", theirs)
        assert ran.code in (0, 1), command
        assert ran.err.count("error: ") == (ran.code == 1), (command, ran.err)
    assert cli("check", "--db", theirs).code == 1


@pytest.mark.parametrize(
    "path", ["predictions/./x.parquet", "inbox/x.json", "/etc/passwd", "../home/config", "predictions/x.parquet"]
)
def test_a_run_brings_no_file_but_its_own_predictions(mine: Path, theirs: Path, path: str) -> None:
    with open_store(mine) as store:
        ((own,),) = store.execute("SELECT path FROM artifacts").fetchall()
        data = (store.side / own).read_bytes()
    for name in (path, own, own.replace("/", "/./")):
        alter(theirs, f"UPDATE artifacts SET path = '{name}'")
        with open_store(mine) as store, pytest.raises(StoreError, match=r"path is|names the file"):
            merge(store, theirs, Silent())
    assert (mine.with_name("mine.sqlite.d") / own).read_bytes() == data


def test_the_same_uuid_with_other_contents_changes_nothing_here(mine: Path, theirs: Path) -> None:
    with open_store(mine) as store:
        ((uuid, own),) = store.execute("SELECT uuid, path FROM runs JOIN artifacts ON run_id = id").fetchall()
        before = (store.side / own).read_bytes()
    side = theirs.with_name("theirs.sqlite.d")
    (side / own).write_bytes(b"forged")
    digest = hashlib.sha256(b"forged").hexdigest()
    alter(theirs, f"UPDATE runs SET uuid = '{uuid}'")
    alter(theirs, f"UPDATE artifacts SET path = '{own}', sha256 = '{digest}', bytes = 6")
    with open_store(mine) as store:
        merged = merge(store, theirs, Silent())
        assert (merged.known, merged.files, len(merged.conflicts)) == (1, 0, 1)
        assert (store.side / own).read_bytes() == before
        assert check(store, Silent()) == []


def test_a_changed_value_over_there_is_found_by_its_checksum(mine: Path, theirs: Path) -> None:
    alter(theirs, "UPDATE environments SET host = 'forged'")
    with open_store(mine) as store:
        merge(store, theirs, Silent())
        hosts = store.execute("SELECT host, digest FROM environments").fetchall()
    assert len({digest for _, digest in hosts}) == 2, "an environment's digest is computed here, and not believed"
    alter(theirs, "UPDATE metrics SET value = 0.99 WHERE name = 'macro_f1'", "UPDATE runs SET uuid = uuid")
    with open_store(mine.with_name("new.sqlite")) as store, pytest.raises(StoreError, match="its checksum is another"):
        merge(store, theirs, Silent())


@pytest.mark.parametrize(
    "sql",
    [
        ["ALTER TABLE trainings RENAME TO t", "CREATE VIEW trainings AS SELECT *, 1 AS 'path = ''x''' FROM t"],
        ["ALTER TABLE runs ADD COLUMN 'x) VALUES (1)--' TEXT"],
        ["DROP TABLE conflicts"],
    ],
)
def test_only_tables_as_benchkit_makes_them_are_read(mine: Path, theirs: Path, sql: list[str]) -> None:
    alter(theirs, "PRAGMA legacy_alter_table = 1", *sql)
    with open_store(mine) as store:
        with pytest.raises(StoreError, match=r"its table .* is not that of schema|is no table"):
            merge(store, theirs, Silent())
        assert store.execute("SELECT count(*) FROM trainings").fetchone() == (0,)


ENDLESS = "CREATE VIEW {} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS run FROM n"


@pytest.mark.parametrize("command", [["show", "1"], ["check"], ["ls"], ["merge"]])
def test_a_view_without_end_in_a_tables_place_ends_at_once(mine: Path, theirs: Path, command: list[str]) -> None:
    alter(theirs, "ALTER TABLE runs RENAME TO r", ENDLESS.format("runs"))
    words = [*command, str(theirs), "--db", str(mine)] if command == ["merge"] else [*command, "--db", str(theirs)]
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_a_foreign_view_computes(theirs: Path, number: int) -> None:
    alter(theirs, "DROP VIEW results", ENDLESS.format("results"))
    command = [sys.executable, "-m", "benchkit", "sql", "SELECT max(run) FROM results", "--db", str(theirs)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        time.sleep(3)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(timeout=30) == 130


def test_a_submission_and_a_claim_that_lead_elsewhere_remove_nothing(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "home" / "submission.json").write_text("{}")
    try:
        stamp = "'2026-01-01T00:00:00.000000+00:00'"
        alter(
            mine,
            f"INSERT INTO submissions VALUES ('7', '{TOKEN}-0', 't', 'm', 1, './../home', 'R', NULL, {stamp}, {stamp}, "
            "1, NULL)",
            f"INSERT INTO claims VALUES ('t', 'm', 'c', 1, 0, '../../home/config', 'h', 1, 0, NULL, {stamp}, {stamp})",
        )
        (tmp_path / "home" / "config.lock").write_text("a lock")
        with open_store(mine) as store:
            with pytest.raises(StoreError, match=r"folder is './../home', and must be slurm/"):
                settle(store)
            assert {f.what.partition(":")[0] for f in check(store, Silent())} == {
                "a row of submissions",
                "a row of claims",
                "1 submissions keep no checksum",
            }
            assert fix(store) == ["2 rows removed that make no sense"]
            assert check(store, Silent()) == []
        assert (tmp_path / "home" / "config.lock").read_text() == "a lock"
    finally:
        for name in ("submission.json", "config.lock"):
            (tmp_path / "home" / name).unlink(missing_ok=True)


def test_pipes_devices_and_links_in_the_inbox_and_among_predictions_hang_nothing(
    mine: Path, tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    with open_store(mine) as store:
        ((own,),) = store.execute("SELECT path FROM artifacts").fetchall()
        (store.side / own).unlink()
        (store.side / own).symlink_to("/dev/zero")
        store.inbox.mkdir(exist_ok=True)
        os.mkfifo(store.inbox / "pipe.json")
        (store.inbox / "zero.json").symlink_to("/dev/zero")
        (store.inbox / "link.json").symlink_to(tmp_path / "home" / "config")
        (store.inbox / "folder.json").mkdir()
        os.mkfifo(store.side / "predictions" / ("1" * 32 + ".parquet"))
        honest = make_report(artifacts=[])
        seal(honest, store.inbox)
        with pytest.warns(UserWarning, match="set aside") as said:
            refresh(store)
        assert len(said) == 4
        assert store.execute("SELECT count(*) FROM runs WHERE uuid = ?", (honest.uuid,)).fetchone() == (1,)
        assert any("cannot be read: it is a device" in str(f) for f in check(store, Silent()))
        assert backup(store, tmp_path / "b.sqlite", Silent()).lacking == (own,)


def test_an_inbox_that_is_a_link_is_not_gone_into(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "theirs.json").write_text("{}")
    inbox = mine.with_name("mine.sqlite.d") / "inbox"
    shutil.rmtree(inbox, ignore_errors=True)
    inbox.symlink_to(other)
    with pytest.raises(StoreError, match="inbox' cannot be read: it is a link"):
        open_store(mine)
    assert [p.name for p in other.iterdir()] == ["theirs.json"]


def test_a_backup_empties_nothing_through_a_planted_link(mine: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / ".b.sqlite.part").symlink_to(tmp_path / "home")
    (shared / f".b.sqlite.{TOKEN}.part").symlink_to(tmp_path / "home")
    with open_store(mine) as store:
        assert backup(store, shared / "b.sqlite", Silent()).runs == 1


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_what_sqlite_keeps_beside_a_registry_is_not_followed_elsewhere(theirs: Path, tmp_path: Path, end: str) -> None:
    Path(f"{theirs}{end}").unlink(missing_ok=True)
    Path(f"{theirs}{end}").symlink_to(tmp_path / "precious")
    with pytest.raises(StoreError, match="is no plain file"):
        open_store(theirs, create=False)
    assert not (tmp_path / "precious").exists()


LOOKS = (
    ["ls"], ["show", "last"], ["show", "failed"], ["table"], ["sql", "SELECT * FROM results"], ["status"],
    ["run", "--dry-run", "--task", "digits", "--model", "pixels"],
)  # fmt: skip


@pytest.mark.parametrize("journal", ["as it is", "with a write-ahead log", "of an older schema"])
def test_looking_changes_nothing(mine: Path, cli: Any, make_report: Callable[..., Report], journal: str) -> None:
    seal(make_report(), mine.with_name("mine.sqlite.d") / "inbox")
    keep: Any = None
    if journal == "with a write-ahead log":
        keep = sqlite3.connect(mine)
        keep.execute("PRAGMA wal_autocheckpoint = 0")
        keep.execute("UPDATE runs SET current = current")
        keep.commit()
        copy = {end: Path(f"{mine}{end}").read_bytes() for end in ("", "-wal")}
        keep.close()
        for end, data in copy.items():
            Path(f"{mine}{end}").write_bytes(data)
        Path(f"{mine}-shm").unlink(missing_ok=True)
    elif journal == "of an older schema":
        alter(
            mine,
            *(
                f"ALTER TABLE {t} DROP COLUMN {c}"
                for t in ("runs", "trainings", "diagnoses")
                for c in ("sealed", "digest")
            ),
            *(f"DROP TABLE {t}" for t in ("places", "labels", "study_cells", "studies", "notes")),
            *(f"DROP INDEX {t}_seq" for t in ("failures", "submissions")),
            *(f"ALTER TABLE {t} DROP COLUMN seq" for t in ("failures", "submissions")),
            *(f"ALTER TABLE {t} DROP COLUMN digest" for t in ("failures", "submissions", "conflicts")),
            "PRAGMA user_version = 2",
        )
    before = contents(mine.parent)
    for words in LOOKS:
        ran = cli(*words, "--read-only", "--db", mine)
        assert ran.code == 0, (words, ran.err)
        assert contents(mine.parent) == before, words
    assert "1 finished reports wait" in cli("ls", "--read-only", "--db", mine).err
    os.chown(mine, 12345, -1)
    try:
        before = contents(mine.parent)
        for words in LOOKS:
            ran = cli(*words, "--db", mine)
            assert ran.code == 0, (words, ran.err)
            assert contents(mine.parent) == before, words
    finally:
        os.chown(mine, os.geteuid(), -1)
    with look(mine) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (2,), "one's own takes in what waits"


ESCAPES = "\x1b]52;c;aGk=\x07\x1b]8;;http://x\x07\u202e\x9b31m\r"


def test_no_line_carries_a_terminals_commands(mine: Path, theirs: Path, cli: Any, add: Any) -> None:
    with open_store(theirs) as store:
        add(store, 0, 0.123)
    name = json.dumps(f"digits{ESCAPES}")
    for path in (mine, theirs):
        alter(path, f"UPDATE runs SET task = 'digits{ESCAPES}'")
    alter(theirs, *(f"UPDATE {t} SET digest = NULL" for t in ("runs",)))
    for words in (["ls"], ["show", "1"], ["table"], ["check"], ["merge", theirs], ["status"], ["show", ESCAPES[:6]]):
        ran = cli(*words, "--db", mine)
        for bad in ("\x1b", "\x07", "\x9b", "\u202e", "\r"):
            assert bad not in ran.out, (words, name)
            assert bad not in ran.err, (words, name)


def test_a_group_shares_what_is_made_in_its_folder(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    shared = tmp_path / "lab"
    shared.mkdir()
    shared.chmod(0o2775)
    before = os.umask(0o022)
    try:
        with open_store(shared / "registry.sqlite") as store:
            seal(make_report(), store.inbox)
            refresh(store)
            modes = {str(p.relative_to(shared)): oct(p.stat().st_mode & 0o777) for p in shared.rglob("*")}
    finally:
        os.umask(before)
    assert set(modes.values()) <= {"0o664", "0o775"}, modes
    assert modes["registry.sqlite"] == "0o664"


def test_one_process_that_is_asked_for_what_it_cannot_know_says_so(mine: Path) -> None:
    with open_store(mine) as store, pytest.raises(BenchkitError):
        merge(store, mine, Silent())
