"""Another registry's runs into one's own.

Reports that are here are left alone, and so is a cell that has the same result here. Where the results differ both are
kept: one's own stays current, and the conflict is noted. Predictions come along, each checked. What failed, is claimed
or was submitted over there stays there.
"""

import json
import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchkit.errors import StoreError
from benchkit.machine.files import remove
from benchkit.machine.times import now
from benchkit.progress import Progress
from benchkit.records.conform import admit
from benchkit.records.gate import Refused, own_paths
from benchkit.records.report import Cell, Report
from benchkit.store.check import file_problem
from benchkit.store.columns import gate
from benchkit.store.copies import copy_file
from benchkit.store.database import Store
from benchkit.store.foreign import opened
from benchkit.store.ingest import waiting
from benchkit.store.insert import CELL, insert_diagnosis, insert_report, insert_single, insert_training
from benchkit.store.reports import load_diagnosis, load_reports, load_training
from benchkit.store.whole import DIAGNOSES, RUNS, TRAININGS, Whole, recomputed
from benchkit.store.words import bring_words


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
    with opened(path) as other:
        if path.samefile(store.path):
            raise StoreError(f"'{path}' is this registry itself: merge takes another one")
        merged = Merged(waiting=len(waiting(other)))
        brought = _Files(store, other, dry_run)
        try:
            plan = _choose(store, other, merged)
            _bring_files(plan, brought, merged, progress)
            with store.write():
                plan = _choose(store, other, merged := _again(merged))
                _bring_runs(store, other, plan, merged, path, progress)
                _bring_records(store, other, merged)
                bring_words(store, other)
                if dry_run:
                    raise _DryRun
        except _DryRun:
            pass
        except BaseException:
            brought.undo()
            raise
    return merged


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
    """Which of its runs come, the superseded ones last. Raises Refused for one that is not as benchkit makes them."""
    known = dict(store.execute("SELECT uuid, id FROM runs").fetchall())
    names = ("id", "uuid", "current", *Cell._fields)
    rows = other.execute(f"SELECT {', '.join(names)} FROM runs ORDER BY current DESC, id").fetchall()
    gate(other.path, "runs", names, rows)
    plan = []
    for number, uuid, current, *cell in rows:
        if uuid in known:
            merged.known += 1
            if difference := _difference(_result(store, known[uuid]), _result(other, number)):
                merged.conflicts.append(
                    f"{Cell(*cell)}, run {known[uuid]}: {difference}; both are called {uuid}, so that it stays there"
                )
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
    metrics = store.execute("SELECT name, value FROM metrics WHERE run_id = ? ORDER BY name", (run,)).fetchall()
    gate(store.path, "metrics", ("name", "value"), metrics)
    names = ("primary metric", "test examples", "data", "weights")
    columns = ("metric", "n_test", "task_fingerprint", "model_fingerprint")
    rows = store.execute(f"SELECT {', '.join(columns)} FROM runs WHERE id = ?", (run,)).fetchall()
    gate(store.path, "runs", columns, rows)
    return dict(metrics) | dict(zip(names, rows[0], strict=True))


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

    def bring(self, path: str, sha256: str, size: int) -> bool | None:
        """True where the file was brought, None where it is here already, False where it is not whole over there."""
        if file_problem(self.store.side, path, sha256, size) is None:
            return None
        if file_problem(self.other.side, path, sha256, size) is not None:
            return False
        if self.dry_run:
            return True
        place = self.store.side / path
        if not os.path.lexists(place):
            self.made.append(place)  # before it is: Ctrl-C may come right after
        return copy_file(
            self.other.side / path, place, sha256, size, within=self.other.side, within_target=self.store.side
        )

    def undo(self) -> None:
        for place in self.made:
            with suppress(OSError):
                remove(place, self.store.side)


def _bring_files(plan: Sequence[_Run], files: _Files, merged: Merged, progress: Progress) -> None:
    """Of the runs that come, and of those that are here, as they are named here, without theirs."""
    theirs = _named(files.other)
    ours = set(_named(files.store))
    coming = {uuid for (uuid,) in _uuids(files.other, [run.other_id for run in plan])}
    wanted = [row for row in theirs if row[0] in coming or row in ours]
    with progress.step("copy predictions", len(wanted), "files") as step:
        for uuid, path, sha256, size in wanted:
            came = files.bring(path, sha256, size)
            merged.files += came is True
            if came is False and uuid in coming:
                merged.lacking.append(path)
            step.advance()


def _uuids(store: Store, runs: Sequence[int]) -> list[tuple[str]]:
    found: list[tuple[str]] = store.execute(
        "SELECT uuid FROM runs WHERE id IN (SELECT value FROM json_each(?))", [json.dumps(runs)]
    ).fetchall()
    return found


def _named(store: Store) -> list[tuple[str, str, str, int]]:
    """Uuid, path, checksum and size of the file of every run. Raises Refused where one names another's."""
    rows: list[tuple[str, str, str, int]] = store.execute(
        "SELECT uuid, path, sha256, bytes FROM artifacts JOIN runs ON runs.id = run_id"
    ).fetchall()
    gate(store.path, "runs", ("uuid",), rows)
    gate(store.path, "artifacts", ("path", "sha256", "bytes"), [row[1:] for row in rows])
    for uuid, path, *_ in rows:
        if path not in own_paths(uuid):
            raise Refused(f"registry '{store.path}': run {uuid} names the file '{path}', and may name its own alone")
    return rows


def _bring_runs(
    store: Store, other: Store, plan: Sequence[_Run], merged: Merged, source: Path, progress: Progress
) -> None:
    with progress.step("merge runs", len(plan), "runs") as step:
        for run in sorted(plan, key=lambda run: run.other_id):  # in the order in which they came over there
            (report,) = load_reports(other, [run.other_id])
            sealed = _hold(other, RUNS, run.other_id, report)
            made = insert_report(store, _ours(report), run.current, sealed=sealed)
            if run.own is not None and made is not None:
                insert_single(store, "conflicts", run.own, made, run.difference, str(source.absolute()), now())
                merged.conflicts.append(f"{report.cell}, run {run.own}: {run.difference}")
            step.advance()


def _hold(other: Store, whole: Whole, number: int, record: Any) -> str | None:
    """The checksum of a record's sealed form, where that is known. Raises Refused where the record, read back from row
    `number` over there, is not one that a job can have sealed, or its row is not as it was written."""
    named = f"registry '{other.path}': row {number} of {whole.table}"
    try:
        admit(record)
    except ValueError as e:
        raise Refused(f"{named} cannot be taken in: {e}") from None
    (found,) = recomputed(other.db.connection(), whole, 1, number - 1)
    if found.kept != found.now:
        raise Refused(f"{named} is not what was written: its checksum is another (`benchkit check` there names all)")
    ((sealed,),) = other.execute(f"SELECT sealed FROM {whole.table} WHERE id = ?", (number,)).fetchall()
    return None if sealed is None else str(sealed)


def _ours(report: Report) -> Report:
    """Whether its data and weights are those of ours is asked anew."""
    return replace(report, checks=[c for c in report.checks if c.name != "fingerprint"])


def _bring_records(store: Store, other: Store, merged: Merged) -> None:
    """Trainings and diagnoses that are not here, with the rows that hang on them."""
    for whole, load, bring in (
        (TRAININGS, load_training, insert_training), (DIAGNOSES, load_diagnosis, insert_diagnosis)
    ):  # fmt: skip
        for (number,) in other.execute(f"SELECT id FROM {whole.table} ORDER BY id").fetchall():
            record: Any = load(other, number)
            merged.records += bring(store, record, _hold(other, whole, number, record))
