"""benchkit merge: another person's runs in one's own registry."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.errors import StoreError
from benchkit.machine.times import now
from benchkit.progress import Silent
from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Metric, Report
from benchkit.records.sealing import seal
from benchkit.store import merge as module
from benchkit.store import open_store
from benchkit.store.check import check
from benchkit.store.claims import Owner, claim
from benchkit.store.insert import insert_failure
from benchkit.store.merge import Merged, merge
from benchkit.store.migrations import APPLICATION_ID, MIGRATIONS, VERSION, statements
from benchkit.store.reports import load_reports

from .conftest import Add, Contents


@pytest.fixture
def mine(registry: Callable[..., Path]) -> Path:
    return registry("mine.sqlite", (0, 0.9), (1, 0.9), (2, 0.9))


@pytest.fixture
def theirs(registry: Callable[..., Path]) -> Path:
    """Seed 1 was computed there as well, with the same result; 2 with another; 3 twice."""
    return registry("theirs.sqlite", (1, 0.9), (2, 0.7), (3, 0.6), (3, 0.65), (4, 0.9))


def bring(path: Path, other: Path, **given: Any) -> Merged:
    with open_store(path) as store:
        return merge(store, other, Silent(), **given)


def sound(path: Path) -> bool:
    with open_store(path, ingest=False) as store:
        return check(store, Silent()) == []


def test_new_cells_come_identical_ones_do_not_and_different_ones_are_a_conflict(mine: Path, theirs: Path) -> None:
    merged = bring(mine, theirs)
    assert (merged.cells, merged.history, merged.known, merged.same) == (2, 1, 0, 1)
    (conflict,) = merged.conflicts
    assert "seed=2, run 3: macro_f1 0.45 here, 0.35 there; top1 0.9 here, 0.7 there" in conflict
    assert (merged.files, merged.lacking) == (4, [])
    with open_store(mine) as store:
        values = dict(store.execute("SELECT seed, value FROM results").fetchall())
        assert values == {0: 0.9, 1: 0.9, 2: 0.9, 3: 0.65, 4: 0.9}, "one's own stays current"
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (7,)
        own, other, source = store.execute("SELECT run_id, other_id, source FROM conflicts").fetchone()
        assert own == 3
        assert store.execute("SELECT value, current FROM runs WHERE id = ?", (other,)).fetchone() == (0.7, 0)
        assert source == str(theirs)
    assert sound(mine)


def test_what_comes_is_equal_to_what_is_there(tmp_path: Path, theirs: Path, contents: Contents) -> None:
    empty = tmp_path / "empty.sqlite"
    merged = bring(empty, theirs)
    assert (merged.cells, merged.history) == (4, 1)
    with open_store(empty) as store, open_store(theirs) as other:

        def reports(s: Any) -> dict[str, tuple[Report, int]]:
            runs = s.execute("SELECT id, current FROM runs").fetchall()
            return {r.uuid: (r, c) for (_, c), r in zip(runs, load_reports(s, [i for i, _ in runs]), strict=True)}

        assert reports(store) == reports(other)
    assert contents(empty)["files"] == contents(theirs)["files"]
    assert contents(empty)["environments"] == contents(theirs)["environments"]


def test_merging_again_changes_nothing(mine: Path, theirs: Path, contents: Contents) -> None:
    bring(mine, theirs)
    before = contents(mine)
    again = bring(mine, theirs)
    assert (again.cells, again.history, again.known, again.same, again.files) == (0, 0, 4, 1, 0)
    assert again.conflicts == []
    assert contents(mine) == before


def test_the_other_registry_is_only_read(mine: Path, theirs: Path) -> None:
    with open_store(theirs) as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = {p: p.read_bytes() for p in theirs.parent.rglob("*") if p.is_file() and "theirs" in str(p)}
    bring(mine, theirs)
    assert {p: p.read_bytes() for p in before} == before


def test_a_dry_run_says_the_same_and_changes_nothing(mine: Path, theirs: Path, contents: Contents) -> None:
    before = contents(mine)
    said = bring(mine, theirs, dry_run=True)
    assert contents(mine) == before
    assert said == bring(mine, theirs)


def test_other_data_under_the_same_name_is_a_conflict_and_is_flagged_on_new_cells(
    mine: Path, theirs: Path, add: Add
) -> None:
    with open_store(theirs) as store:
        add(store, 0, task_fingerprint="other data")
        add(store, 9, task_fingerprint="other data")
    merged = bring(mine, theirs)
    assert any("seed=0" in c and "data d1 here, other data there" in c for c in merged.conflicts)
    with open_store(mine) as store:
        assert store.execute("SELECT marks FROM results WHERE seed = 9").fetchone() == ("fingerprint:warn",)


def test_more_metrics_of_a_newer_benchkit_are_no_conflict(mine: Path, theirs: Path, add: Add) -> None:
    with open_store(theirs) as store:
        add(store, 0, metrics=[Metric("macro_f1", 0.45), Metric("top1", 0.9 + 1e-15), Metric("top5", 0.99)])
    assert bring(mine, theirs).same == 2


@pytest.mark.parametrize(
    ("there", "same"),
    [(0.9, True), (0.9 + 1e-13, True), (0.9 + 1e-8, False), (0.9001, False), (0.8999, False), (0.91, False)],
)
def test_only_what_rounding_does_counts_as_the_same_result(
    mine: Path, tmp_path: Path, add: Add, there: float, same: bool
) -> None:
    with open_store(tmp_path / "near.sqlite") as store:
        add(store, 0, metrics=[Metric("macro_f1", 0.45), Metric("top1", there)])
    merged = bring(mine, tmp_path / "near.sqlite")
    assert (merged.same, len(merged.conflicts)) == (int(same), int(not same))
    with open_store(mine) as store:
        assert store.execute("SELECT value FROM results WHERE seed = 0").fetchone() == (0.9,)


@pytest.mark.parametrize(("there", "same"), [(0.0, True), (1e-13, True), (1e-9, False), (-1e-9, False)])
def test_a_result_of_0_is_the_same_but_for_rounding(tmp_path: Path, add: Add, there: float, same: bool) -> None:
    for name, value in (("a", 0.0), ("b", there)):
        with open_store(tmp_path / f"{name}.sqlite") as store:
            add(store, 0, metrics=[Metric("top1", value)])
    assert bring(tmp_path / "a.sqlite", tmp_path / "b.sqlite").same == int(same)


@pytest.mark.parametrize(
    ("differs", "words"),
    [
        ({"metrics": [Metric("macro_f1", 0.4501), Metric("top1", 0.9)]}, "macro_f1 0.45 here, 0.4501 there"),
        ({"n_test": 598}, "test examples 597 here, 598 there"),
        ({"task_fingerprint": "d2"}, "data d1 here, d2 there"),
        ({"model_fingerprint": "m2"}, "weights m1 here, m2 there"),
        ({"primary": "macro_f1"}, "primary metric top1 here, macro_f1 there"),
    ],
)
def test_whatever_of_a_result_differs_is_a_conflict_that_says_so(
    mine: Path, tmp_path: Path, add: Add, differs: dict[str, Any], words: str
) -> None:
    with open_store(tmp_path / "other.sqlite") as store:
        add(store, 0, **differs)
    (conflict,) = bring(mine, tmp_path / "other.sqlite").conflicts
    assert words in conflict


def test_a_superseded_run_here_that_has_their_result_makes_it_the_same(mine: Path, tmp_path: Path, add: Add) -> None:
    with open_store(mine) as store:
        add(store, 0, 0.7, finished_at="2027-01-01T00:00:00.000000+00:00")
    with open_store(tmp_path / "other.sqlite") as store:
        add(store, 0, 0.9)
    merged = bring(mine, tmp_path / "other.sqlite")
    assert (merged.same, merged.conflicts) == (1, [])


def test_trainings_and_diagnoses_come_once_with_their_rows(mine: Path, theirs: Path, make_report: Any) -> None:
    environment = make_report().environment
    times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:09+00:00"}
    with open_store(theirs) as store:
        seal(Training("a" * 32, "sae", "hsn", "bm", "b.1", "d", "m", {}, "/x", "0" * 64, environment,
                      metrics=[(1, "mse", 0.5)], **times), store.inbox)  # fmt: skip
        seal(Diagnosis("d" * 32, "hsn", "bm", "d", "m", True, "healthy", {}, None, environment,
                       points=[("b.1", "mean", None)], **times), store.inbox)  # fmt: skip
    with open_store(theirs):
        pass
    assert bring(mine, theirs).records == 2
    assert bring(mine, theirs).records == 0
    with open_store(mine) as store:
        for table in ("trainings", "training_metrics", "diagnoses", "diagnosis_points"):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,), table
    assert sound(mine)


def test_history_that_comes_ends_no_claim_and_no_failure_here(mine: Path, theirs: Path) -> None:
    with open_store(mine) as store:
        (report,) = load_reports(store, [3])
        cell = report.cell
        claim(store, [cell], Owner.this_process(), force=True)
        insert_failure(store, Failure("f", cell, "error", "broken", Owner.this_process().host, now()))
    assert bring(mine, theirs).conflicts
    with open_store(mine) as store:
        for table in ("claims", "failures"):
            assert store.execute(f"SELECT seed FROM {table}").fetchall() == [(2,)]


def test_whatever_comes_the_registry_is_asked_a_few_times_which_names_are_taken(
    mine: Path, tmp_path: Path, add: Add
) -> None:
    with open_store(tmp_path / "many.sqlite") as store:
        for seed in range(10, 20):
            add(store, seed)
    with open_store(mine) as store:
        asked: list[str] = []
        store.db.connection().set_trace_callback(asked.append)
        assert merge(store, tmp_path / "many.sqlite", Silent()).files == 10
    assert sum("FROM artifacts" in sql for sql in asked) == 1


def test_what_comes_is_for_everybody_who_may_use_the_folder(mine: Path, theirs: Path) -> None:
    bring(mine, theirs)
    modes = {p.stat().st_mode for p in (mine.parent / "mine.sqlite.d" / "predictions").iterdir()}
    (mine.parent / "other").touch()
    assert modes == {(mine.parent / "other").stat().st_mode}


def test_predictions_missing_or_altered_over_there_are_told_of(mine: Path, theirs: Path) -> None:
    files = {}
    with open_store(theirs) as store:
        for seed in (3, 4):
            (files[seed],) = store.execute(
                "SELECT path FROM artifacts JOIN results ON run = run_id WHERE seed = ?", (seed,)
            ).fetchone()
        (store.side / files[3]).unlink()
        (store.side / files[4]).write_bytes(b"altered")
    merged = bring(mine, theirs)
    assert set(merged.lacking) == set(files.values())
    assert not any((mine.parent / "mine.sqlite.d" / f).exists() for f in files.values())


def test_a_merge_of_a_backup_brings_lost_predictions_back(mine: Path) -> None:
    backup = mine.parent / "b.sqlite"
    shutil.copy(mine, backup)
    side = mine.parent / "mine.sqlite.d"
    shutil.copytree(side, mine.parent / "b.sqlite.d")
    lost, altered, _ = sorted((side / "predictions").iterdir())
    lost.unlink()
    altered.write_bytes(b"altered")
    assert not sound(mine)
    assert bring(mine, backup).files == 2
    assert sound(mine)


def test_a_file_named_outside_of_the_folder_stays_outside(mine: Path, theirs: Path) -> None:
    with sqlite3.connect(theirs) as db:
        db.execute("UPDATE artifacts SET path = '../../' || path")
    db.close()
    before = {p for p in mine.parent.rglob("*") if "mine.sqlite" not in str(p) and "theirs.sqlite-" not in str(p)}
    with pytest.raises(StoreError, match=r"path is '\.\./\.\./predictions/.*parquet', and must be predictions/"):
        bring(mine, theirs)
    after = {p for p in mine.parent.rglob("*") if "mine.sqlite" not in str(p) and "theirs.sqlite-" not in str(p)}
    assert after == before
    with open_store(mine) as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (3,), "all of it or nothing"


def old_registry(path: Path, newest: Path) -> None:
    """The runs of `newest` as schema 1 had them."""
    db = sqlite3.connect(path)
    for statement in statements(MIGRATIONS[0]):
        db.execute(statement)
    db.execute(f"ATTACH '{newest}' AS newest")
    for table in ("environments", "runs", "metrics", "class_metrics", "checks", "artifacts"):
        columns = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
        db.execute(f"INSERT INTO {table} SELECT {columns} FROM newest.{table}")
    db.commit()
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute("PRAGMA user_version = 1")
    db.close()


def test_an_older_registry_is_merged_and_stays_as_it_is(mine: Path, theirs: Path) -> None:
    old = mine.parent / "old.sqlite"
    old_registry(old, theirs)
    shutil.copytree(mine.parent / "theirs.sqlite.d", mine.parent / "old.sqlite.d")
    before = old.read_bytes()
    merged = bring(mine, old)
    assert (merged.cells, merged.files, merged.lacking) == (2, 4, [])
    assert old.read_bytes() == before
    assert sound(mine)


def test_a_newer_registry_itself_and_what_is_none_are_refused(mine: Path, theirs: Path) -> None:
    with sqlite3.connect(theirs) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match="update benchkit"):
        bring(mine, theirs)
    with pytest.raises(StoreError, match="this registry itself"):
        bring(mine, mine)
    with pytest.raises(StoreError, match="there is no registry"):
        bring(mine, mine.parent / "none.sqlite")
    text = mine.parent / "notes.txt"
    text.write_text("no registry at all" * 500)
    with pytest.raises(StoreError, match="no registry"):
        bring(mine, text)


def test_a_merge_that_fails_leaves_nothing(
    mine: Path, theirs: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(mine)

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_bring_records", fails)
    with pytest.raises(KeyboardInterrupt):
        bring(mine, theirs)
    assert contents(mine) == before


def test_ctrl_c_right_after_a_file_came_leaves_nothing(
    mine: Path, theirs: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = contents(mine), module.copy_file

    def and_then_ctrl_c(*given: Any, **named: Any) -> None:
        assert real(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "copy_file", and_then_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        bring(mine, theirs)
    assert contents(mine) == before


KILLED = """
import os, sys
from pathlib import Path
from benchkit.progress import Silent
from benchkit.store import merge as module, open_store
left = int(sys.argv[3])
def deadly(owner, name):
    real = getattr(owner, name)
    def act(*a, **k):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
        return real(*a, **k)
    setattr(owner, name, act)
deadly(module, "copy_file")
deadly(module, "insert_report")
deadly(module, "insert_training")
deadly(os, "replace")
with open_store(sys.argv[1]) as store:
    module.merge(store, Path(sys.argv[2]), Silent())
"""


def test_a_merge_killed_at_any_step_is_completed_by_the_next(
    tmp_path: Path, mine: Path, theirs: Path, contents: Contents
) -> None:
    original = {"mine": tmp_path / "kept.sqlite"}
    shutil.copy(mine, original["mine"])
    shutil.copytree(tmp_path / "mine.sqlite.d", tmp_path / "kept.sqlite.d")
    killed = 0
    for step in range(0, 12, 2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(mine), str(theirs), str(step)], check=False)
        if done.returncode == -signal.SIGKILL:
            killed += 1
            assert {k: v for k, v in contents(mine).items() if k != "files"} == {
                k: v for k, v in contents(original["mine"]).items() if k != "files"
            }, f"no row of it is there, killed at step {step}"
        bring(mine, theirs)
        assert sound(mine)
        with open_store(mine) as store:
            assert store.execute("SELECT count(*) FROM runs").fetchone() == (7,)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{mine}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / "mine.sqlite.d")
        shutil.copy(original["mine"], mine)
        shutil.copytree(tmp_path / "kept.sqlite.d", tmp_path / "mine.sqlite.d")
    assert killed >= 5
    assert os.path.exists(mine)


def test_show_tells_of_a_conflict_from_both_sides(mine: Path, theirs: Path) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "benchkit", *words, "--db", str(mine)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "2 cells would come" in run("merge", str(theirs), "--dry-run")
    said = run("merge", str(theirs))
    assert said.startswith("conflict: digits pixels linear n_train=-1 seed=2, run 3: ")
    assert "2 cells came" in said
    with open_store(mine) as store:
        (other,) = store.execute("SELECT other_id FROM conflicts").fetchone()
    assert f"run {other}  " in run("show", "3")
    assert "it was merged from" in run("show", "3")
    assert "this run was merged from" in run("show", str(other))
    assert '"brought": false' in run("show", str(other), "--json")
    assert "conflicts" not in run("show", "1")
