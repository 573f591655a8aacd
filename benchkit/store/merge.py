"""Another registry's runs into one's own.

Reports that are here are left alone, and so is a cell that has the same result here. Where the results differ both are
kept: one's own stays current, and the conflict is noted. Predictions come along, each checked. What failed, is claimed
or was submitted over there stays there.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchkit.errors import StoreError
from benchkit.machine.times import now
from benchkit.progress import Progress, Silent
from benchkit.records.report import Report
from benchkit.store.check import file_problem, is_inside
from benchkit.store.copies import copy_database, copy_file
from benchkit.store.database import Store, open_reading
from benchkit.store.insert import CELL, insert_report, insert_row
from benchkit.store.migrations import VERSION
from benchkit.store.opening import open_store
from benchkit.store.reports import load_reports


@dataclass
class Merged:
    """What a merge has done, or would do.

    cells: that had no run here. history: superseded runs brought. known: runs that were here already. same: cells with
    the same result here. conflicts: a line for each cell with another result. records: trainings and diagnoses. files:
    predictions brought or repaired. lacking: those that are missing or altered over there. waiting: reports in the
    other's inbox.
    """

    cells: int = 0
    history: int = 0
    known: int = 0
    same: int = 0
    conflicts: list[str] = field(default_factory=list)
    records: int = 0
    files: int = 0
    lacking: list[str] = field(default_factory=list)
    waiting: int = 0


class _DryRun(Exception):
    """Rolls the transaction back."""


def merge(store: Store, path: Path, progress: Progress, *, dry_run: bool = False) -> Merged:
    """Brings the runs of the registry at `path`, which is only read. All of it or nothing; again is the same as once.

    Raises StoreError where it is no registry, is damaged, or is of a newer benchkit.
    """
    with _opened(path) as other:
        if path.samefile(store.path):
            raise StoreError(f"'{path}' is this registry itself: merge takes another one")
        merged = Merged(waiting=len(list(other.inbox.glob("[!.]*.json"))) if other.inbox.is_dir() else 0)
        brought = _Files(store, other, dry_run)
        try:
            plan = _choose(store, other, merged)
            brought.look()
            _bring_files(plan, brought, merged, progress)
            with store.write():
                plan = _choose(store, other, merged := _again(merged))
                brought.look()
                _bring_runs(store, other, plan, brought, merged, path, progress)
                _bring_records(store, other, merged)
                if dry_run:
                    raise _DryRun
        except _DryRun:
            pass
        except BaseException:
            brought.undo()
            raise
    return merged


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    """The other registry for reading; an older one as a migrated copy."""
    other = open_reading(path)
    try:
        version = other.execute("PRAGMA user_version").fetchone()[0]
        if version == VERSION:
            with other.db.atomic():
                yield other
            return
        with TemporaryDirectory(prefix="benchkit-merge-") as folder:
            copy = Path(folder) / path.name
            copy_database(other, copy, Silent())
            with open_store(copy, ingest=False) as migrated:
                yield Store(path, migrated.db, False)  # with the files beside the original
    finally:
        other.close()


@dataclass(frozen=True)
class _Run:
    """A run over there that is to come. own: the number of the cell's current run here, which it contradicts."""

    other_id: int
    current: bool
    own: int | None = None
    difference: str = ""


def _again(merged: Merged) -> Merged:
    """The counts of files stay, the others are made again."""
    return Merged(files=merged.files, lacking=merged.lacking, waiting=merged.waiting)


def _choose(store: Store, other: Store, merged: Merged) -> list[_Run]:
    """Which of its runs come, the superseded ones last."""
    known = {row[0] for row in store.execute("SELECT uuid FROM runs").fetchall()}
    plan = []
    for number, uuid, current, *cell in other.execute(
        "SELECT id, uuid, current, task, model, classifier, n_train, seed FROM runs ORDER BY current DESC, id"
    ).fetchall():
        if uuid in known:
            merged.known += 1
            continue
        mine = store.execute(f"SELECT id, current FROM runs WHERE {CELL} ORDER BY current DESC", cell).fetchall()
        if not mine:
            if current:
                merged.cells += 1
            else:
                merged.history += 1
            plan.append(_Run(number, bool(current)))
            continue
        theirs = _result(other, number)
        if any(not _difference(_result(store, run), theirs) for run, _ in mine):
            merged.same += bool(current)
            continue
        if not current:
            merged.history += 1
            plan.append(_Run(number, False))
            continue
        own = mine[0][0]
        plan.append(_Run(number, False, own, _difference(_result(store, own), theirs)))
    return plan


def _result(store: Store, run: int) -> dict[str, Any]:
    """What two computations of one cell must have in common: every metric that both have, the data and the weights."""
    found: dict[str, Any] = dict(
        store.execute("SELECT name, value FROM metrics WHERE run_id = ? ORDER BY name", (run,)).fetchall()
    )
    names = ("primary metric", "test examples", "data", "weights")
    row = store.execute(
        "SELECT metric, n_test, task_fingerprint, model_fingerprint FROM runs WHERE id = ?", (run,)
    ).fetchone()
    return found | dict(zip(names, row, strict=True))


def _difference(here: dict[str, Any], there: dict[str, Any]) -> str:
    """How two results differ, in one line; nothing where they do not, but for rounding."""
    return "; ".join(
        f"{name} {_shown(here[name])} here, {_shown(there[name])} there"
        for name in here
        if name in there and not _equal(here[name], there[name])
    )


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return a == b


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class _Files:
    """Predictions that come along. Those that were made here are taken back where the merge fails."""

    def __init__(self, store: Store, other: Store, dry_run: bool) -> None:
        self.store, self.other, self.dry_run = store, other, dry_run
        self.made: list[Path] = []
        self.taken: dict[str, set[str]] = {}
        """Checksums of our runs' files, by name, of those names that are among theirs."""

    def look(self) -> None:
        """Which of their names are taken here; again in a transaction, where it stays true."""
        names = json.dumps([path for (path,) in self.other.execute("SELECT path FROM artifacts").fetchall()])
        ours = "SELECT path, sha256 FROM artifacts WHERE path IN (SELECT value FROM json_each(?))"
        self.taken = {}
        for path, sha256 in self.store.execute(ours, [names]).fetchall():
            self.taken.setdefault(path, set()).add(sha256)

    def bring(self, path: str, sha256: str, size: int, uuid: str) -> bool | None:
        """True where the file was brought, None where it is here already, False where it is not whole over there."""
        target = self.target(path, sha256, uuid)
        if file_problem(self.store.side, target, sha256, size) is None:
            return None
        if file_problem(self.other.side, path, sha256, size) is not None:
            return False
        if not self.dry_run:
            place = self.store.side / target
            if not place.exists():
                self.made.append(place)  # before it is: Ctrl-C may come right after
            if not copy_file(self.other.side / path, place, sha256):
                return False
        return True

    def target(self, path: str, sha256: str, uuid: str) -> str:
        """Its name here: its own, unless a run of ours names another file so, or it lies outside of the folder."""
        if self.taken.get(path, set()) - {sha256} or not is_inside(path):
            return f"predictions/{uuid}{Path(path).suffix}"
        return path

    def undo(self) -> None:
        for place in self.made:
            place.unlink(missing_ok=True)


def _bring_files(plan: Sequence[_Run], files: _Files, merged: Merged, progress: Progress) -> None:
    """Of the runs that come, and of those that are here without theirs."""
    wanted = []
    for run in plan:
        wanted += files.other.execute(_FILES + "WHERE runs.id = ?", (run.other_id,)).fetchall()
    known = {row[0] for row in files.store.execute("SELECT uuid FROM runs").fetchall()}
    coming = {row[0] for row in wanted}
    for row in files.other.execute(_FILES).fetchall():
        if row[0] in known and row[0] not in coming:
            wanted.append(row)
    with progress.step("copy predictions", len(wanted), "files") as step:
        for uuid, path, sha256, size in wanted:
            came = files.bring(path, sha256, size, uuid)
            merged.files += came is True
            if came is False and uuid in coming:
                merged.lacking.append(path)
            step.advance()


_FILES = "SELECT uuid, path, sha256, bytes FROM artifacts JOIN runs ON runs.id = run_id "


def _bring_runs(
    store: Store, other: Store, plan: Sequence[_Run], files: _Files, merged: Merged, source: Path, progress: Progress
) -> None:
    with progress.step("merge runs", len(plan), "runs") as step:
        for run in plan:
            (report,) = load_reports(other, [run.other_id])
            made = insert_report(store, _ours(report, files), run.current)
            if run.own is not None and made is not None:
                row = (run.own, made, run.difference, str(source.absolute()), now())
                store.execute("INSERT INTO conflicts VALUES (?, ?, ?, ?, ?)", row)
                merged.conflicts.append(f"{report.cell}, run {run.own}: {run.difference}")
            step.advance()


def _ours(report: Report, files: _Files) -> Report:
    """With its files as they are named here. Whether its data and weights are those of ours is asked anew."""
    artifacts = [replace(a, path=files.target(a.path, a.sha256, report.uuid)) for a in report.artifacts]
    return replace(report, artifacts=artifacts, checks=[c for c in report.checks if c.name != "fingerprint"])


def _bring_records(store: Store, other: Store, merged: Merged) -> None:
    """Trainings and diagnoses that are not here, with the rows that hang on them."""
    for table, rows, key in (
        ("trainings", "training_metrics", "training_id"),
        ("diagnoses", "diagnosis_points", "diagnosis_id"),
    ):
        for record in _dicts(other, f"SELECT * FROM {table} ORDER BY id"):
            if store.execute(f"SELECT 1 FROM {table} WHERE uuid = ?", (record["uuid"],)).fetchone():
                continue
            number = record.pop("id")
            record["environment_id"] = _environment(store, other, record["environment_id"])
            made = insert_row(store, table, record)
            for row in _dicts(other, f"SELECT * FROM {rows} WHERE {key} = ?", number):
                insert_row(store, rows, row | {key: made})
            merged.records += 1


def _environment(store: Store, other: Store, number: int) -> int:
    """The row here of an environment over there, made where it is new."""
    (row,) = _dicts(other, "SELECT * FROM environments WHERE id = ?", number)
    known = store.execute("SELECT id FROM environments WHERE digest = ?", (row["digest"],)).fetchone()
    del row["id"]
    return known[0] if known else insert_row(store, "environments", row)


def _dicts(store: Store, sql: str, *values: Any) -> list[dict[str, Any]]:
    cursor: sqlite3.Cursor = store.execute(sql, values)
    return [dict(zip((d[0] for d in cursor.description), row, strict=True)) for row in cursor.fetchall()]
