"""benchkit check: what is wrong with a registry, in one line each, and what is not."""

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchkit.progress import Silent
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import Store, open_store
from benchkit.store.check import GRACE, check, fix
from benchkit.store.claims import Owner, claim
from benchkit.store.opening import refresh
from benchkit.store.sound import FEW, Finding
from benchkit.store.whole import TRAININGS, recomputed

Add = Callable[..., Report]


@pytest.fixture
def path(tmp_path: Path, add: Add) -> Path:
    """Three cells, one of them computed twice."""
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        for seed in (0, 1, 2, 2):
            add(store, seed)
    return path


def found(path: Path, quick: bool = False) -> list[Finding]:
    with open_store(path, create=False, ingest=False) as store:
        return check(store, Silent(), quick=quick)


def the(path: Path, *words: str) -> Finding:
    """The one finding, which says all of this."""
    (finding,) = found(path)
    assert all(word in str(finding) for word in words), finding
    assert "\n" not in str(finding)
    return finding


def tamper(path: Path, sql: str) -> None:
    """As somebody with another program would."""
    db = sqlite3.connect(path)
    db.execute(sql)
    db.commit()
    db.close()


def age(file: Path) -> None:
    old = time.time() - GRACE - 10
    os.utime(file, (old, old))


def test_a_registry_that_benchkit_made_is_sound(path: Path) -> None:
    assert found(path) == found(path, quick=True) == []


def test_missing_and_altered_predictions_are_named(path: Path) -> None:
    files = sorted((path.parent / "r.sqlite.d" / "predictions").iterdir())
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes().replace(b"scores", b"scarce"))
    files[2].write_bytes(b"short")
    said = {next(f.name for f in files if f.name in str(x)): str(x) for x in found(path)}
    assert "is missing" in said[files[0].name]
    assert "another checksum" in said[files[1].name]
    assert "5 bytes instead of" in said[files[2].name]
    assert all("--force" in line for line in said.values())
    assert len(found(path, quick=True)) == 2, "the one of the same size only shows when it is read"


def test_a_registry_that_was_moved_without_its_folder_says_what_to_bring(path: Path) -> None:
    moved = path.rename(path.with_name("moved.sqlite"))
    words = ("predictions' is missing, with 4 files of runs", "bring its folder, as", "moved.sqlite.d'", "--force")
    assert the(moved, *words)
    assert the(moved, "predictions' is missing")
    path.with_name("r.sqlite.d").rename(path.with_name("moved.sqlite.d"))
    assert found(moved) == []


def test_many_findings_of_a_kind_are_a_few_lines_and_a_number(tmp_path: Path, add: Add) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        for seed in range(FEW + 5):
            add(store, seed)
        for file in (store.side / "predictions").iterdir():
            file.unlink()
    findings = found(tmp_path / "r.sqlite")
    assert len(findings) == FEW + 1
    assert "and 5 more" in str(findings[-1])


def test_files_of_no_run_are_named_once_they_are_no_longer_fresh(
    path: Path, make_report: Callable[..., Report]
) -> None:
    side = path.parent / "r.sqlite.d"
    orphan, waits, part = (side / "predictions" / n for n in ("0" * 32 + ".parquet", "1" * 32 + ".parquet", ".x.part"))
    for file in (orphan, waits, part):
        file.write_bytes(b"x")
    seal(make_report(uuid="1" * 32), side / "inbox")
    assert found(path) == []
    for file in (orphan, waits, part):
        age(file)
    unnamed, left = found(path)
    assert orphan.name in str(unnamed)
    assert ".x.part" in str(left)
    with open_store(path, ingest=False) as store:
        assert fix(store) == ["1 unfinished files removed", "1 files of predictions removed that no run names"]
    assert not orphan.exists()
    assert waits.exists(), "a report that waits names it"
    assert not part.exists()


def test_of_more_files_than_are_looked_at_at_once_each_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.store.check.AT_ONCE", 3)
    assert found(path) == []
    files = sorted((path.with_name("r.sqlite.d") / "predictions").iterdir())
    assert len(files) == 4
    for file in files:
        file.write_bytes(file.read_bytes()[::-1])
    assert {word for f in found(path) for word in str(f).split("'") if word.endswith(".parquet")} == {
        f"predictions/{file.name}" for file in files
    }


def test_claims_of_the_dead_are_found_and_released(path: Path) -> None:
    cells = [Cell("digits", "pixels", "linear", n, 0) for n in (1, 5)]
    with open_store(path) as store:
        claim(store, cells[:1], Owner.this_process())
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            import psutil

            dead = Owner(
                "d" * 32, Owner.this_process().host, process.pid, psutil.Process(process.pid).create_time(), None
            )
            claim(store, cells[1:], dead)
            assert found(path) == []
        assert the(path, "1 cells are claimed by", str(dead), "--fix").fixable
        assert fix(store) == ["1 stale claims released"]
    assert found(path) == []


def test_a_report_set_aside_is_named_with_its_reason(path: Path, make_report: Callable[..., Report]) -> None:
    with open_store(path) as store:
        sealed = seal(make_report(), store.inbox)
        whole = sealed.read_bytes()
        sealed.write_bytes(whole[:-10])
        with pytest.warns(UserWarning, match="set aside"):
            refresh(store)
        the(path, sealed.name, "checksum", "compute its cell again")
        (store.inbox / "damaged" / sealed.name).write_bytes(whole)
        the(path, sealed.name, "whole", "move it back")


UNUSED = """
INSERT INTO environments
SELECT 99, hex(zeroblob(32)), benchkit_version, git_commit, git_dirty, argv, versions, host, device FROM environments
"""


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM runs WHERE id = 1", ("rows of metrics refer to runs",)),
        ("UPDATE runs SET value = 0.99 WHERE id = 1", ("1 runs do not have the value of their primary metric",)),
        ("DELETE FROM metrics WHERE run_id = 1 AND name = 'top1'", ("1 runs do not have the value",)),
        ("UPDATE runs SET current = 0 WHERE id = 1", ("1 cells do not have exactly one current run",)),
        ("UPDATE checks SET status = 'fail' WHERE run_id = 1", ("1 runs are not marked",)),
        ("DELETE FROM artifacts WHERE run_id = 1", ("1 runs have no predictions", "--force")),
        ("DROP INDEX runs_cell", ("index runs_cell is missing",)),
        ("ALTER TABLE failures ADD COLUMN mine TEXT", ("table failures is not that of schema",)),
        ("UPDATE artifacts SET path = '../../secret' WHERE run_id = 1", ("the predictions of run 1, is no",)),
        (UNUSED, ("1 environments that no run was made with", "--fix")),
    ],
)  # fmt: skip
def test_what_another_program_has_broken_is_found(path: Path, sql: str, words: tuple[str, ...]) -> None:
    tamper(path, sql)
    assert any(all(word in str(f) for word in words) for f in found(path)), found(path)


def test_unused_environments_are_removed_and_used_ones_kept(path: Path) -> None:
    tamper(path, UNUSED)
    with open_store(path) as store:
        assert fix(store) == ["1 unused environments removed"]
    assert found(path) == []


def bytes_flipped(path: Path) -> None:
    """In the middle of every page but the first."""
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start + 3] ^= 0xFF  # the number of cells on the page
    path.write_bytes(data)


def page_lost(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8192])


@pytest.mark.parametrize("harm", [bytes_flipped, page_lost])
def test_a_damaged_file_is_one_clear_line_wherever_it_is_met(path: Path, harm: Callable[[Path], None]) -> None:
    with open_store(path) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    harm(path)
    for command in (["check"], ["ls"], ["table"], ["show", "1"], ["backup", str(path.parent / "b.sqlite")]):
        done = subprocess.run(
            [sys.executable, "-m", "benchkit", *command, "--db", str(path)], capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        if command[0] in ("check", "backup") or harm is bytes_flipped:
            assert done.returncode == 1, command
            assert done.stderr.count("error: ") == 1, done.stderr
    assert not (path.parent / "b.sqlite").exists()
    assert not (path.parent / "b.sqlite.d").exists()


def test_the_command_lists_findings_and_ends_with_one(path: Path) -> None:
    command = [sys.executable, "-m", "benchkit", "check", "--db", str(path)]
    sound = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (sound.returncode, sound.stdout) == (0, "")
    assert "is sound" in sound.stderr
    tamper(path, "UPDATE runs SET value = 0.99 WHERE id = 1")
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert len(broken.stdout.splitlines()) == 2
    assert "2 findings" in broken.stderr


def test_a_run_is_removed_though_a_training_was_made_with_its_environment(path: Path) -> None:
    from benchkit.store.remove import remove

    def environments(store: Store) -> int:
        return store.execute("SELECT count(*) FROM environments").fetchone()[0]

    with open_store(path) as store:
        with store.write():
            store.execute(
                "INSERT INTO trainings SELECT 1, uuid, 'sae', task, model, 'p', 'd', 'w', params, 'x', sealed, 1, "
                "started_at, finished_at, NULL, NULL FROM runs WHERE id = 1"
            )
            store.execute(f"UPDATE trainings SET digest = '{recomputed(store.db.connection(), TRAININGS)[0].now}'")
        assert remove(store, [1, 2, 3, 4]).runs == 4
        assert environments(store) == 1
    assert found(path) == []


@pytest.mark.parametrize(
    ("table", "column", "other", "says"),
    [
        ("failures", "error", "'it was the weather'", "failure of digits, pixels, linear, -1, seed 7 is not as it was"),
        ("failures", "attempts", "attempts + 1", "failure of digits, pixels, linear, -1, seed 7 is not as it was"),
        ("submissions", "state", "'COMPLETED'", "Slurm job 7 is not as it was"),
        ("conflicts", "difference", "'none'", "conflict of runs 1 and 2 is not as it was"),
        ("conflicts", "source", "'/home/somebody'", "conflict of runs 1 and 2 is not as it was"),
    ],
)
def test_a_failure_a_job_and_a_conflict_know_that_they_are_whole(
    path: Path, with_the_rest: Callable[[Path], None], table: str, column: str, other: str, says: str
) -> None:
    with_the_rest(path)
    assert found(path) == []
    tamper(path, f"UPDATE {table} SET {column} = {other}")
    the(path, says)
    tamper(path, f"UPDATE {table} SET digest = NULL")
    the(path, f"1 {table} keep no checksum")
