"""Reports, trainings and diagnoses read back from the store, every value held against its type."""

import json
from collections.abc import Sequence
from typing import Any

from benchkit.errors import StoreError
from benchkit.records.gate import Refused
from benchkit.records.others import Diagnosis, Training
from benchkit.records.report import Artifact, Cell, Check, ClassMetric, Environment, Metric, Report
from benchkit.store.columns import COLUMNS, gate
from benchkit.store.database import Store

_OWN = ("wall_s", "cpu_s", "peak_rss_bytes", "peak_device_bytes")
"""What `runs` has of a report's environment; the rest is shared by many."""
_ENVIRONMENT = tuple(name for name in COLUMNS["environments"] if name not in ("id", "digest"))
_NOT_SAID = (
    "id", "current", "value", "low", "high", "warnings", "marks", "environment_id", "ingested_at", "sealed", "digest"
)  # fmt: skip
"""What a row has beside what was said in its report, or once more."""
_RUN = tuple(name for name in COLUMNS["runs"] if name not in _NOT_SAID)
_JSON = {"params", "providers", "record", "argv", "versions", "details"}


def load_reports(store: Store, runs: Sequence[int]) -> list[Report]:
    """The reports of these run numbers, in their order. Raises StoreError for a number that is not there."""
    return [_load_report(store, run) for run in runs]


def _load_report(store: Store, run: int) -> Report:
    try:
        r = _row(store, "runs", _RUN, run)
        environment = _environment(store, r.pop("environment_id"), {name: r.pop(name) for name in _OWN})
        hanging: dict[str, Any] = {
            name: _rows(store, table, "run_id", run, cls)
            for name, table, cls in (
                ("metrics", "metrics", Metric), ("class_metrics", "class_metrics", ClassMetric),
                ("checks", "checks", Check), ("artifacts", "artifacts", Artifact),
            )
        }  # fmt: skip
    except Refused as e:
        raise Refused(f"run {run} cannot be read: {e}") from None
    return Report(
        cell=Cell(*(r.pop(name) for name in Cell._fields)), primary=r.pop("metric"), environment=environment, **hanging,
        **r,
    )  # fmt: skip


def load_training(store: Store, number: int) -> Training:
    """Raises StoreError where there is none, or one that is damaged."""
    r = _row(store, "trainings", tuple(c for c in COLUMNS["trainings"] if c not in _NOT_SAID), number)
    metrics = _rows(store, "training_metrics", "training_id", number, lambda *row: row)
    return Training(environment=_shared(store, r.pop("environment_id")), metrics=metrics, **r)


def load_diagnosis(store: Store, number: int) -> Diagnosis:
    """Raises StoreError where there is none, or one that is damaged."""
    r = _row(store, "diagnoses", tuple(c for c in COLUMNS["diagnoses"] if c not in _NOT_SAID), number)
    r["healthy"] = bool(r["healthy"])
    points = _rows(store, "diagnosis_points", "diagnosis_id", number, lambda *row: row)
    return Diagnosis(environment=_shared(store, r.pop("environment_id")), points=points, **r)


def _row(store: Store, table: str, columns: Sequence[str], number: int) -> dict[str, Any]:
    names = [*columns, "environment_id"]
    found = store.execute(f"SELECT {', '.join(names)} FROM {table} WHERE id = ?", (number,)).fetchall()
    if not found:
        raise StoreError(f"registry '{store.path}' has no {'run' if table == 'runs' else table[:-1]} {number}")
    gate(store.path, table, names, found)
    return {name: _value(name, value) for name, value in zip(names, found[0], strict=True)}


def _rows(store: Store, table: str, key: str, number: int, cls: Any) -> list[Any]:
    names = [name for name in COLUMNS[table] if name != key]
    found = store.execute(f"SELECT {', '.join(names)} FROM {table} WHERE {key} = ?", (number,)).fetchall()
    gate(store.path, table, names, found)
    return [cls(*map(_value, names, row)) for row in found]


def _environment(store: Store, number: int, own: dict[str, Any]) -> Environment:
    found = store.execute(f"SELECT {', '.join(_ENVIRONMENT)} FROM environments WHERE id = ?", (number,)).fetchall()
    if not found:
        raise StoreError(f"registry '{store.path}' is damaged: it has no environment {number}; see `benchkit check`")
    gate(store.path, "environments", _ENVIRONMENT, found)
    shared = {name: _value(name, value) for name, value in zip(_ENVIRONMENT, found[0], strict=True)}
    dirty = shared.pop("git_dirty")
    return Environment(git_dirty=None if dirty is None else bool(dirty), **shared, **own)


def _shared(store: Store, number: int) -> Environment:
    """The environment of what keeps no costs of its own."""
    return _environment(store, number, {"wall_s": 0.0, "cpu_s": 0.0, "peak_rss_bytes": 0, "peak_device_bytes": None})


def _value(name: str, value: Any) -> Any:
    return json.loads(value) if name in _JSON else value
