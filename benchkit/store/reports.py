"""Reports read back from the store."""

import json
from collections.abc import Sequence
from typing import Any

from benchkit.errors import StoreError
from benchkit.records.report import Artifact, Cell, Check, ClassMetric, Environment, Metric, Report
from benchkit.store.database import Store

_RUN = """
SELECT uuid, task, model, classifier, n_train, seed, metric, chance, n_train_used, n_test, n_skipped, n_classes,
       task_fingerprint, model_fingerprint, params, providers, record, started_at, finished_at, wall_s, cpu_s,
       peak_rss_bytes, peak_device_bytes, benchkit_version, git_commit, git_dirty, argv, versions, host, device
FROM runs JOIN environments ON environments.id = runs.environment_id WHERE runs.id = ?
"""


def load_reports(store: Store, runs: Sequence[int]) -> list[Report]:
    """The reports of these run numbers, in their order. Raises StoreError for a number that is not there."""
    return [_load(store, run) for run in runs]


def _load(store: Store, run: int) -> Report:
    try:
        return _read(store, run)
    except (ValueError, TypeError) as e:  # JSON that is none, a NULL where none may be
        raise StoreError(f"registry '{store.path}': run {run} is damaged ({e}); see `benchkit check`") from e


def _read(store: Store, run: int) -> Report:
    cursor = store.execute(_RUN, (run,))
    row = cursor.fetchone()
    if row is None:
        raise StoreError(f"registry '{store.path}' has no run {run}")
    r: dict[str, Any] = dict(zip((d[0] for d in cursor.description), row, strict=True))

    def rows(columns: str, table: str, cls: Any) -> list[Any]:
        found = store.execute(f"SELECT {columns} FROM {table} WHERE run_id = ?", (run,))
        return [cls(*values) for values in found.fetchall()]

    return Report(
        uuid=r["uuid"],
        cell=Cell(r["task"], r["model"], r["classifier"], r["n_train"], r["seed"]),
        params=json.loads(r["params"]),
        providers=json.loads(r["providers"]),
        primary=r["metric"],
        metrics=rows("name, value, low, high", "metrics", Metric),
        chance=r["chance"],
        n_train_used=r["n_train_used"],
        n_test=r["n_test"],
        n_skipped=r["n_skipped"],
        n_classes=r["n_classes"],
        task_fingerprint=r["task_fingerprint"],
        model_fingerprint=r["model_fingerprint"],
        started_at=r["started_at"],
        finished_at=r["finished_at"],
        environment=Environment(
            benchkit_version=r["benchkit_version"],
            git_commit=r["git_commit"],
            git_dirty=None if r["git_dirty"] is None else bool(r["git_dirty"]),
            argv=json.loads(r["argv"]),
            versions=json.loads(r["versions"]),
            host=r["host"],
            device=r["device"],
            wall_s=r["wall_s"],
            cpu_s=r["cpu_s"],
            peak_rss_bytes=r["peak_rss_bytes"],
            peak_device_bytes=r["peak_device_bytes"],
        ),
        class_metrics=rows("class_name, name, value, n_train, n_test", "class_metrics", ClassMetric),
        checks=rows("name, status, summary, details", "checks", _check),
        artifacts=rows("kind, path, sha256, bytes", "artifacts", Artifact),
        record=json.loads(r["record"]),
    )


def _check(name: str, status: Any, summary: str, details: str) -> Check:
    return Check(name, status, summary, json.loads(details))
