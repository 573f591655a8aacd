"""Failures, trainings and diagnoses travel sealed, like reports, and are taken in exactly once."""

import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.dispatch.slurm.overview import overview
from benchkit.progress import Silent
from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import Sealed, seal, unseal
from benchkit.store import open_store, queries
from benchkit.store.check import check
from benchkit.store.claims import Owner, claim
from benchkit.store.insert import insert_single, next_seq
from benchkit.store.migrations import APPLICATION_ID, MIGRATIONS, VERSION, statements
from benchkit.store.opening import refresh
from benchkit.store.remove import forget_failures

CELL = Cell("digits", "pixels", "linear", -1, 0)


def failure(when: str, **given: Any) -> Failure:
    fields: dict[str, Any] = {
        "uuid": uuid.uuid4().hex, "cell": CELL, "reason": "error", "error": "no weights", "host": "n1",
        "failed_at": when, "log": "line\n", "options": {"skip_bad": 0},
    }  # fmt: skip
    return Failure(**(fields | given))


@pytest.fixture
def records(make_report: Callable[..., Report]) -> list[Sealed]:
    environment = make_report().environment
    times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:09+00:00"}
    training = Training(
        "a" * 32, "sae", "hsn", "bird-mae", "blocks.11.norm2", "d", "m", {"width": 64}, "/x.safetensors", "00ff" * 16,
        environment, metrics=[(10, "mse", 0.5), (20, "mse", 0.25)], **times,
    )  # fmt: skip
    diagnosis = Diagnosis(
        "d" * 32, "hsn", "bird-mae", "d", "m", False, "an outlier", {"dimensions": [7]}, None, environment,
        points=[("blocks.0", "kurtosis", 3.0), ("blocks.0", "mean", None)], **times,
    )  # fmt: skip
    return [make_report(cell=Cell("a", "b", "c", 1, 0)), failure("2026-01-02T00:00:00+00:00"), training, diagnosis]


def test_every_kind_of_record_is_equal_after_sealing(tmp_path: Path, records: list[Sealed]) -> None:
    for record in records:
        assert unseal(seal(record, tmp_path)) == record


def test_every_kind_is_taken_in_exactly_once(tmp_path: Path, records: list[Sealed]) -> None:
    counts = {}
    for _ in range(2):
        with open_store(tmp_path / "r.sqlite") as store:
            for record in records:
                seal(record, store.inbox)
            refresh(store)
            for table in ("runs", "failures", "trainings", "training_metrics", "diagnoses", "diagnosis_points"):
                counts[table] = store.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            assert store.execute("SELECT attempts FROM failures").fetchall() == [(1,)]
        assert counts == {
            "runs": 1, "failures": 1, "trainings": 1, "training_metrics": 2, "diagnoses": 1, "diagnosis_points": 2,
        }  # fmt: skip


def test_failures_in_a_row_are_counted_and_a_report_ends_them(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        for when in (f"2026-01-0{day}T00:00:00+00:00" for day in (2, 4, 3)):
            seal(failure(when, error=f"of {when}"), store.inbox)
            refresh(store)
        assert store.execute("SELECT attempts, error FROM failures").fetchall() == [(3, "of 2026-01-03T00:00:00+00:00")]
        seal(make_report(cell=CELL, finished_at="2026-01-05T00:00:00+00:00"), store.inbox)
        refresh(store)
        assert store.execute("SELECT * FROM failures").fetchall() == []
        seal(failure("2027-01-04T12:00:00+00:00"), store.inbox)
        refresh(store)
        assert store.execute("SELECT * FROM failures").fetchall() == [], "a worker that outlived its launcher"


def test_a_forced_computation_that_fails_is_kept_only_while_its_claim_stands(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    """A worker may outlive the launcher whose cells another host has taken over."""
    mine = Owner.this_process()
    with open_store(tmp_path / "r.sqlite") as store:
        seal(make_report(cell=CELL), store.inbox)
        assert claim(store, [CELL], mine) == []
        assert claim(store, [CELL], mine, force=True) == [CELL]
        seal(failure("2026-01-02T00:00:00+00:00", host="another"), store.inbox)
        refresh(store)
        assert store.execute("SELECT count(*) FROM failures").fetchone() == (0,), "not from there"
        seal(failure("2026-01-03T00:00:00+00:00", host=mine.host), store.inbox)
        refresh(store)
        assert store.execute("SELECT attempts FROM failures").fetchone() == (1,)
        seal(make_report(cell=CELL), store.inbox)
        seal(failure("2026-01-04T00:00:00+00:00", host=mine.host), store.inbox / "later")
        refresh(store)
        shutil.move(next((store.inbox / "later").iterdir()), store.inbox)
        refresh(store)
        assert store.execute("SELECT count(*) FROM failures").fetchone() == (0,), "its claim ended with the report"


def test_the_last_failure_to_come_in_is_the_first_shown_whatever_the_clocks_of_hosts_say(tmp_path: Path) -> None:
    with open_store(tmp_path / "r.sqlite") as store:
        for seed, (host, when) in enumerate((("ahead", "2027"), ("right", "2026"), ("behind", "2025"))):
            cell = CELL._replace(seed=seed)
            seal(failure(f"{when}-01-01T00:00:00.000000+00:00", cell=cell, host=host), store.inbox)
            refresh(store)
        known = queries.failures(store)
        assert [f.host for f in known] == ["behind", "right", "ahead"]
        seal(failure("2024-01-01T00:00:00.000000+00:00", cell=CELL, host="ahead"), store.inbox)
        refresh(store)
        assert [f.host for f in queries.failures(store)] == ["ahead", "behind", "right"]
        assert forget_failures(store, known) == 2, "the one that has failed anew since stays"


def test_a_job_counts_its_own_failures_whatever_the_clock_of_its_node_says(tmp_path: Path) -> None:
    """And none of an earlier job of that number, of a scheduler that was set up anew."""
    stamp = "2026-01-01T00:00:00.000000+00:00"
    with open_store(tmp_path / "r.sqlite") as store:
        seal(failure("2027-01-01T00:00:00.000000+00:00", slurm_job="7"), store.inbox)
        refresh(store)
        job = ("7", f"{'0' * 32}-0", "digits", "pixels", 2, f"slurm/{'0' * 32}", "FAILED", None, stamp, stamp)
        with store.write():
            insert_single(store, "submissions", *job, next_seq(store))
        assert [j.failed for j in overview(store, everything=True).jobs] == [0]
        late = failure("2025-01-01T00:00:00.000000+00:00", slurm_job="7", cell=CELL._replace(seed=1))
        seal(late, store.inbox)
        refresh(store)
        assert [j.failed for j in overview(store, everything=True).jobs] == [1]


def test_what_was_there_before_the_sequence_is_numbered_by_its_times(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "r.sqlite") as db:
        for script in MIGRATIONS[:3]:
            for statement in statements(script):
                db.execute(statement)
        for seed, when in enumerate(("2026-01-03", "2026-01-01")):
            row = ("t", "m", "c", -1, seed, "error", "e", "", "{}", 1, "h", "7", f"{when}T00:00:00.000000+00:00")
            db.execute(f"INSERT INTO failures VALUES ({', '.join('?' * 13)})", row)
        stamp = "2026-01-02T00:00:00.000000+00:00"
        job = ("7", f"{'0' * 32}-0", "t", "m", 1, f"slurm/{'0' * 32}", "FAILED", None, stamp, stamp)
        db.execute(f"INSERT INTO submissions VALUES ({', '.join('?' * 10)})", job)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 3")
    db.close()
    with open_store(tmp_path / "r.sqlite") as store:
        assert store.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert store.execute("SELECT seed, seq FROM failures ORDER BY seq").fetchall() == [(1, 1), (0, 3)]
        assert store.execute("SELECT seq FROM submissions").fetchall() == [(2,)]
        assert [j.failed for j in overview(store, everything=True).jobs] == [1]
        assert check(store, Silent()) == []
