"""Inserting one record of each kind, inside the caller's transaction."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from benchkit.machine.times import now
from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Check, Environment, Report
from benchkit.records.sealing import Sealed
from benchkit.store.database import Store
from benchkit.store.placing import note_places
from benchkit.store.whole import DIAGNOSES, RUNS, TRAININGS, digest, environment_digest, recomputed, row_digest

CELL = "task = ? AND model = ? AND classifier = ? AND n_train = ? AND seed = ?"
_COMPUTING = f"""
SELECT 1 FROM claims WHERE {CELL} AND (pid > 0 AND host = ? OR pid = 0 AND slurm_job = ?)
"""


def insert(store: Store, record: Sealed, sealed: str | None = None) -> bool:
    """Inserts one record; False where it is there already, or nothing any more.

    sealed: the checksum of its sealed form, where that is known.
    """
    if isinstance(record, Report):
        return insert_report(store, record, sealed=sealed) is not None
    if isinstance(record, Failure):
        return insert_failure(store, record)
    if isinstance(record, Training):
        return insert_training(store, record, sealed)
    return insert_diagnosis(store, record, sealed)


def insert_report(
    store: Store, report: Report, current: bool | None = None, *, sealed: str | None = None
) -> int | None:
    """Inserts one report inside the caller's transaction: its run's number; None where it is there already.

    The last report of a cell to come in is its current one, whatever the clocks of hosts say: whoever computes a cell
    again has taken in the earlier report first. The others stay as history. The cell's claim ends with its report, and
    its failures are forgotten.

    current: what the caller knows better; True only where the cell has no current run, False for history alone, which
    ends no claim and no failure.
    """
    if store.execute("SELECT 1 FROM runs WHERE uuid = ?", (report.uuid,)).fetchone():
        return None
    cell, history = tuple(report.cell), current is False
    if current is None:
        current = True
        store.execute(f"UPDATE runs SET current = 0 WHERE current AND {CELL}", cell)
    checks = list(report.checks)
    if conflict := _fingerprint_conflict(store, report):
        checks.append(Check("fingerprint", "warn", conflict))
    marks = sorted(f"{c.name}:{c.status}" for c in checks if c.status != "ok")
    primary = next(m for m in report.metrics if m.name == report.primary)
    environment, of_it = environment_id(store, report.environment)
    row = {
        "uuid": report.uuid, **report.cell._asdict(), "current": int(current),
        "metric": primary.name, "value": _real(primary.value), "low": _real(primary.low), "high": _real(primary.high),
        "chance": _real(report.chance), "warnings": len(marks), "marks": " ".join(marks) or None,
        "n_train_used": report.n_train_used, "n_test": report.n_test, "n_skipped": report.n_skipped,
        "n_classes": report.n_classes, "task_fingerprint": report.task_fingerprint,
        "model_fingerprint": report.model_fingerprint, "params": _json(report.params),
        "providers": _json(report.providers), "record": _json(report.record),
        "environment_id": environment, "started_at": report.started_at,
        "finished_at": report.finished_at, "ingested_at": now(), "wall_s": _real(report.environment.wall_s),
        "cpu_s": _real(report.environment.cpu_s), "peak_rss_bytes": report.environment.peak_rss_bytes,
        "peak_device_bytes": report.environment.peak_device_bytes, "sealed": sealed,
    }  # fmt: skip
    hanging: dict[str, list[tuple[Any, ...]]] = {
        "metrics": [(m.name, _real(m.value), _real(m.low), _real(m.high)) for m in report.metrics],
        "class_metrics": [(c.class_name, c.name, _real(c.value), c.n_train, c.n_test) for c in report.class_metrics],
        "checks": [(c.name, c.status, c.summary, _json(c.details)) for c in checks],
        "artifacts": [(a.kind, a.path, a.sha256, a.bytes) for a in report.artifacts],
    }
    run = insert_row(store, "runs", row | {"digest": digest(RUNS, row, of_it, hanging)})
    insert_hanging(store, run, hanging)
    note_places(store.execute, report)
    if not history:
        store.execute(f"DELETE FROM claims WHERE {CELL}", cell)
        store.execute(f"DELETE FROM failures WHERE {CELL}", cell)
    return run


def _fingerprint_conflict(store: Store, report: Report) -> str | None:
    """Says so where this report's data or weights differ from those that an earlier report has under the same name."""
    differing = []
    for what in ("task", "model"):
        name, mine = getattr(report.cell, what), getattr(report, f"{what}_fingerprint")
        other = store.execute(
            # `<` or `>`, each by the index: `<>` would look at every run of this name
            " UNION ALL ".join(
                f"SELECT id, {what}_fingerprint FROM runs WHERE current AND {what} = ? AND {what}_fingerprint {than} ?"
                for than in "<>"
            )
            + " LIMIT 1",
            (name, mine) * 2,
        ).fetchone()
        if other:
            differing.append(f"the {'data' if what == 'task' else 'weights'} of {what} '{name}' are not those of run "
                             f"{other[0]} ({mine}, there {other[1]})")  # fmt: skip
    return "; ".join(differing) or None


def environment_id(store: Store, e: Environment) -> tuple[int, str]:
    """The number and the digest of this environment's row, made where it is new."""
    dirty = None if e.git_dirty is None else int(e.git_dirty)
    row = _environment(
        e.benchkit_version, e.git_commit, dirty, tuple(e.argv), tuple(e.versions.items()), e.host, e.device
    )
    known = store.execute("SELECT id FROM environments WHERE digest = ?", (row["digest"],)).fetchone()
    return (known[0] if known else insert_row(store, "environments", row)), row["digest"]


@lru_cache(100)
def _environment(
    version: str, commit: str | None, dirty: int | None, argv: tuple[str, ...], versions: tuple[tuple[str, str], ...],
    host: str, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Its row: thousands of reports have the same."""
    row = {
        "benchkit_version": version, "git_commit": commit, "git_dirty": dirty, "argv": _json(argv),
        "versions": _json(dict(versions)), "host": host, "device": device,
    }  # fmt: skip
    return row | {"digest": environment_digest(row)}


def insert_row(store: Store, table: str, row: dict[str, Any]) -> int:
    """Its number."""
    marks = ", ".join("?" * len(row))
    return store.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())).lastrowid


def insert_hanging(store: Store, number: int, hanging: Mapping[str, Sequence[tuple[Any, ...]]]) -> None:
    """The rows, by table, that hang on the row with this number."""
    for table, rows in hanging.items():
        if rows:
            marks = ", ".join("?" * (1 + len(rows[0])))
            store.many(f"INSERT INTO {table} VALUES ({marks})", [(number, *row) for row in rows])


_encode = json.JSONEncoder(allow_nan=False, sort_keys=True).encode


def _json(value: Any) -> str:
    return _encode(value) if value or type(value) is not dict else "{}"


def _real(value: float | None) -> float | None:
    """As SQLite gives it back: a whole number as a real one, and no negative zero."""
    return None if value is None else float(value) + 0.0


def insert_failure(store: Store, failure: Failure) -> bool:
    """The cell's last failure to come in, with a count of those in a row. A Slurm job's claim of the cell ends with it.

    A cell that is done has none, unless it is being computed again (--force) where this comes from: a worker may
    outlive its launcher, whose cells another host has taken over.
    """
    cell = tuple(failure.cell)
    computing = store.execute(_COMPUTING, (*cell, failure.host, failure.slurm_job)).fetchone()
    if failure.slurm_job:
        store.execute(f"DELETE FROM claims WHERE {CELL} AND pid = 0 AND slurm_job = ?", (*cell, failure.slurm_job))
    if not computing and store.execute(f"SELECT 1 FROM runs WHERE current AND {CELL}", cell).fetchone():
        return False
    known = store.execute(f"SELECT attempts, failed_at, host FROM failures WHERE {CELL}", cell).fetchone()
    attempts, *last = known or (0,)
    if [failure.failed_at, failure.host] == last:
        return False  # the same one, of an inbox that could not be emptied
    insert_single(
        store, "failures", *cell, failure.reason, failure.error, failure.log, _json(failure.options), attempts + 1,
        failure.host, failure.slurm_job, failure.failed_at, next_seq(store),
    )  # fmt: skip
    return True


def insert_single(store: Store, table: str, *row: Any) -> None:
    """A row of a table whose rows keep a checksum of themselves alone, in the order of its columns."""
    marks = ", ".join("?" * (len(row) + 1))
    store.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*row, row_digest(table, row)))


def next_seq(store: Store) -> int:
    """The registry's own sequence of failures and of jobs: higher than that of any that is there. Clocks of hosts
    differ."""
    newest = " UNION ALL ".join(f"SELECT max(seq) AS n FROM {table}" for table in ("failures", "submissions"))
    return int(store.execute(f"SELECT coalesce(max(n), 0) + 1 FROM ({newest})").fetchone()[0])


def insert_training(store: Store, training: Training, sealed: str | None = None) -> bool:
    """A training that is known already gains the metrics that it lacks, of what was measured since; those that it has
    stay. One of a backbone, which is sealed whenever it is saved, is then where the last record to come in says."""
    known = store.execute("SELECT id FROM trainings WHERE uuid = ?", (training.uuid,)).fetchone()
    if known is not None:
        if training.kind == "pretraining":
            store.execute(
                "UPDATE trainings SET model_fingerprint = ?, params = ?, path = ?, sha256 = ?, finished_at = ?, "
                "sealed = ? WHERE id = ?",
                (training.model_fingerprint, _json(training.params), training.path, training.sha256,
                 training.finished_at, sealed, known[0]),
            )  # fmt: skip
            (found,) = recomputed(store.db.connection(), TRAININGS, 1, known[0] - 1)
            store.execute("UPDATE trainings SET digest = ? WHERE id = ?", (found.now, known[0]))
        add_metrics(store, known[0], [(step, name, _real(value)) for step, name, value in training.metrics])
        return False
    environment, of_it = environment_id(store, training.environment)
    row = {
        "uuid": training.uuid, "kind": training.kind, "task": training.task, "model": training.model,
        "point": training.point, "data_fingerprint": training.data_fingerprint,
        "model_fingerprint": training.model_fingerprint, "params": _json(training.params), "path": training.path,
        "sha256": training.sha256, "environment_id": environment, "started_at": training.started_at,
        "finished_at": training.finished_at, "sealed": sealed,
    }  # fmt: skip
    hanging = {"training_metrics": [(step, name, _real(value)) for step, name, value in training.metrics]}
    number = insert_row(store, "trainings", row | {"digest": digest(TRAININGS, row, of_it, hanging)})
    insert_hanging(store, number, hanging)
    return True


def add_metrics(store: Store, number: int, metrics: Sequence[tuple[int, str, Any]]) -> None:
    """To a training, those that it lacks."""
    has = set(store.execute("SELECT step, name FROM training_metrics WHERE training_id = ?", (number,)).fetchall())
    new = [row for row in metrics if row[:2] not in has]
    if new:
        insert_hanging(store, number, {"training_metrics": new})
        (found,) = recomputed(store.db.connection(), TRAININGS, 1, number - 1)
        store.execute("UPDATE trainings SET digest = ? WHERE id = ?", (found.now, number))


def insert_diagnosis(store: Store, diagnosis: Diagnosis, sealed: str | None = None) -> bool:
    if store.execute("SELECT 1 FROM diagnoses WHERE uuid = ?", (diagnosis.uuid,)).fetchone():
        return False
    environment, of_it = environment_id(store, diagnosis.environment)
    row = {
        "uuid": diagnosis.uuid, "task": diagnosis.task, "model": diagnosis.model,
        "data_fingerprint": diagnosis.data_fingerprint, "model_fingerprint": diagnosis.model_fingerprint,
        "healthy": int(diagnosis.healthy), "verdict": diagnosis.verdict, "details": _json(diagnosis.details),
        "page": diagnosis.page, "environment_id": environment, "started_at": diagnosis.started_at,
        "finished_at": diagnosis.finished_at, "sealed": sealed,
    }  # fmt: skip
    hanging = {"diagnosis_points": [(point, name, _real(value)) for point, name, value in diagnosis.points]}
    number = insert_row(store, "diagnoses", row | {"digest": digest(DIAGNOSES, row, of_it, hanging)})
    insert_hanging(store, number, hanging)
    return True
