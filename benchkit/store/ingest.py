"""Taking sealed reports into the store: each exactly once, in any order, by whoever comes first."""

import hashlib
import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchkit.errors import StoreError
from benchkit.report import Report, unseal
from benchkit.store.database import Store

BATCH = 500
"""Reports taken in with one transaction."""


def ingest_inbox(store: Store) -> list[str]:
    """Takes in every sealed report. Returns a line for each damaged one, which is set aside in `inbox/damaged`."""
    if not store.inbox.is_dir():
        return []
    waiting = sorted(e.path for e in os.scandir(store.inbox) if e.name.endswith(".json") and not e.name.startswith("."))
    notes: list[str] = []
    for start in range(0, len(waiting), BATCH):
        reports: list[tuple[Path, Report]] = []
        for path in map(Path, waiting[start : start + BATCH]):
            try:
                reports.append((path, unseal(path)))
            except FileNotFoundError:
                continue  # another process has just taken it in
            except StoreError as e:
                notes.append(f"{e}; set aside as '{_set_aside(path)}'")
        if reports:
            with store.write():
                for _, report in reports:
                    insert(store, report)
            for path, _ in reports:  # only now: what is committed may go
                path.unlink(missing_ok=True)
    return notes


def insert(store: Store, report: Report) -> bool:
    """Inserts one report inside the caller's transaction; False where it is there already.

    The newest report of a cell is its current one; older ones stay as history. The cell's claim ends with it.
    """
    if store.execute("SELECT 1 FROM runs WHERE uuid = ?", (report.uuid,)).fetchone():
        return False
    cell = tuple(report.cell)
    newest = store.execute(f"SELECT id, finished_at FROM runs WHERE current AND {CELL}", cell).fetchone()
    current = newest is None or newest[1] <= report.finished_at
    if newest and current:
        store.execute("UPDATE runs SET current = 0 WHERE id = ?", (newest[0],))
    checks = [asdict(c) for c in report.checks]
    if conflict := _fingerprint_conflict(store, report):
        checks.append({"name": "fingerprint", "status": "warn", "summary": conflict, "details": {}})
    marks = sorted(f"{c['name']}:{c['status']}" for c in checks if c["status"] != "ok")
    primary = next(m for m in report.metrics if m.name == report.primary)
    run = _insert(
        store,
        "runs",
        {
            "uuid": report.uuid, **report.cell._asdict(), "current": int(current),
            "metric": primary.name, "value": primary.value, "low": primary.low, "high": primary.high,
            "chance": report.chance, "warnings": len(marks), "marks": " ".join(marks) or None,
            "n_train_used": report.n_train_used, "n_test": report.n_test, "n_skipped": report.n_skipped,
            "n_classes": report.n_classes, "task_fingerprint": report.task_fingerprint,
            "model_fingerprint": report.model_fingerprint, "params": _json(report.params),
            "providers": _json(report.providers), "record": _json(report.record),
            "environment_id": _environment(store, report), "started_at": report.started_at,
            "finished_at": report.finished_at, "ingested_at": now(), "wall_s": report.environment.wall_s,
            "cpu_s": report.environment.cpu_s, "peak_rss_bytes": report.environment.peak_rss_bytes,
            "peak_device_bytes": report.environment.peak_device_bytes,
        },
    )  # fmt: skip
    store.many(
        "INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", [(run, m.name, m.value, m.low, m.high) for m in report.metrics]
    )
    store.many(
        "INSERT INTO class_metrics VALUES (?, ?, ?, ?, ?, ?)",
        [(run, c.class_name, c.name, c.value, c.n_train, c.n_test) for c in report.class_metrics],
    )
    store.many(
        "INSERT INTO checks VALUES (?, ?, ?, ?, ?)",
        [(run, c["name"], c["status"], c["summary"], _json(c["details"])) for c in checks],
    )
    store.many(
        "INSERT INTO artifacts VALUES (?, ?, ?, ?, ?)",
        [(run, a.kind, a.path, a.sha256, a.bytes) for a in report.artifacts],
    )
    store.execute(f"DELETE FROM claims WHERE {CELL}", cell)
    return True


CELL = "task = ? AND model = ? AND classifier = ? AND n_train = ? AND seed = ?"


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


def _environment(store: Store, report: Report) -> int:
    e = report.environment
    row: dict[str, Any] = {
        "benchkit_version": e.benchkit_version, "git_commit": e.git_commit,
        "git_dirty": None if e.git_dirty is None else int(e.git_dirty), "argv": _json(e.argv),
        "versions": _json(e.versions), "host": e.host, "device": e.device,
    }  # fmt: skip
    row["digest"] = hashlib.sha256(_json(row).encode()).hexdigest()
    known = store.execute("SELECT id FROM environments WHERE digest = ?", (row["digest"],)).fetchone()
    return known[0] if known else _insert(store, "environments", row)


def _insert(store: Store, table: str, row: dict[str, Any]) -> int:
    marks = ", ".join("?" * len(row))
    return store.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values())).lastrowid


def _json(value: Any) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True)


def _set_aside(path: Path) -> Path:
    aside = path.parent / "damaged" / path.name
    aside.parent.mkdir(exist_ok=True)
    os.replace(path, aside)
    return aside


def now() -> str:
    """This moment in UTC, ISO 8601 with microseconds: such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
