"""Failures, trainings and diagnoses travel sealed, like reports, and are taken in exactly once."""

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import Sealed, seal, unseal
from benchkit.store import open_store
from benchkit.store.claims import Owner, claim
from benchkit.store.opening import refresh

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
