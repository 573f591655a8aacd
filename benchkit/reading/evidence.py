"""The replicates that runs keep, by cell: what intervals over seeds, marks, places and means over tasks are made of.

All of it is arithmetic on vectors of some kilobytes; no predictions are read.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from benchkit.errors import StoreError
from benchkit.machine.files import read
from benchkit.metrics.best import among_the_best, column, mean_of
from benchkit.metrics.best import places as places_of
from benchkit.metrics.replicates import Replicates, from_bytes
from benchkit.metrics.uncertainty import Kept, Which, ends, mean_over_tasks, parts
from benchkit.reading.pivot import Pivot, entries, pivot
from benchkit.store import Store, queries
from benchkit.store.queries import Entry, Filters

Cell = tuple[str, str, str, int, str]
"""Task, model, classifier, n_train, metric."""
MOST_CELLS = 20_000
"""In a table, for which files are read."""
MOST_IN_A_COLUMN = 300
"""Models that are told from each other."""


@dataclass
class Evidence:
    """by_cell: of each cell its seeds and what they keep, in the order of the seeds. notes: files that are missing or
    damaged, a line each."""

    by_cell: dict[Cell, dict[int, Replicates]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def of(self, e: Entry) -> dict[int, Replicates]:
        """Of an entry, all of its runs' or none: a mean over seeds has no interval of some of them."""
        found = self.by_cell.get((e.task, e.model, e.classifier, e.n_train, e.metric), {})
        if e.seed is not None:
            found = {e.seed: found[e.seed]} if e.seed in found else {}
        return found if len(found) == e.n and len({r.kept.same for r in found.values()}) == 1 else {}


def evidence(store: Store, filters: Filters) -> Evidence:
    """Of the current runs that match."""
    made = Evidence()
    lost = 0
    for *cell, seed, run, path, sha256, size in queries.replicates(store, filters):
        try:
            data = read(store.side / path, size)
            if hashlib.sha256(data).hexdigest() != sha256:
                raise StoreError("they are altered")
            found = from_bytes(data)
        except (OSError, StoreError) as e:
            why = e.strerror if isinstance(e, OSError) else e
            lost += 1
            if lost == 1:
                made.notes.append(f"the replicates of run {run} in '{store.side / path}' cannot be used: {why}")
            continue
        task, model, classifier, n_train, metric = cell
        made.by_cell.setdefault((task, model, classifier, n_train, metric), {})[seed] = found
    if lost > 1:
        made.notes.append(f"so it is with {lost - 1:,} more (`benchkit check` names them)")
    return made


def with_intervals(found: Sequence[Entry], of: Evidence, which: Which = "both") -> list[Entry]:
    """The entries with their intervals over examples and seeds, where these are known."""
    made = []
    for e in found:
        kept = _kept(of, e)
        if which == "seeds" and e.n < 2:
            e = e._replace(low=None, high=None)
        elif kept:
            low, high = ends(parts(kept), which)
            e = e._replace(low=low, high=high)
        made.append(e)
    return made


def _kept(of: Evidence, e: Entry) -> list[Kept]:
    return [r.kept for _, r in sorted(of.of(e).items())]


def answered(table: Pivot, of: Evidence) -> Pivot:
    """The table with the set that holds all of the best of each column instead of its largest number, places, and what
    is to be said below it."""
    groups: dict[object, list[tuple[int, int, Entry]]] = {}
    for i, row in enumerate(table.grid):
        for j, e in enumerate(row):
            if e is not None:
                groups.setdefault((e.task, e.metric) if table.mixed else j, []).append((i, j, e))
    best: set[tuple[int, int]] = set()
    ranked: dict[tuple[int, int], tuple[int, int]] = {}
    unsure = False
    for group in groups.values():
        models = [of.of(e) for *_, e in group]
        same = {r.kept.same for seeds in models for r in seeds.values()}
        if len(group) < 2:
            continue
        if not all(models) or len(same) != 1 or len(group) > MOST_IN_A_COLUMN:
            best |= {(i, j) for i, j, _ in group if (i, j) in table.best}
            unsure = True
            continue
        made = column([_ordered(seeds) for seeds in models], shared=_shared([e for *_, e in group], models))
        best |= {(i, j) for (i, j, _), kept in zip(group, among_the_best(made), strict=True) if kept}
        ranked |= {(i, j): place for (i, j, _), place in zip(group, places_of(made), strict=True)}
    return replace(
        table, best=frozenset(best), places=ranked, sets=bool(ranked), notes=tuple(_notes(table, of, unsure))
    )


def _ordered(seeds: dict[int, Replicates]) -> list[Kept]:
    return [r.kept for _, r in sorted(seeds.items())]


def _shared(entries: Sequence[Entry], models: Sequence[dict[int, Replicates]]) -> bool:
    """Whether a seed draws the same training examples for all of them."""
    return (
        len({tuple(sorted(m)) for m in models}) == 1
        and len({e.n_train for e in entries}) == 1
        and entries[0].n_train != -1
    )


def _notes(table: Pivot, of: Evidence, unsure: bool) -> list[str]:
    found = [(e, of.of(e)) for e in table.entries]
    told = [(e, parts([r.kept for r in seeds.values()]), seeds) for e, seeds in found if seeds]
    lines = []
    if unsure and of.by_cell:
        lines.append(
            "where runs keep no replicates, or not of the same test examples, the largest number stands out alone"
        )
    if told and all(p.s == 1 and not p.unchanging for _, p, _ in told):
        lines.append("of these runs; seeds are not measured")
    elif ones := sum(e.n == 1 for e, *_ in told):
        lines.append(f"{ones:,} of {len(told):,} cells are of one seed: of these runs, seeds are not measured")
    if n := sum(e.n == 2 for e, *_ in told):
        lines.append(f"{n:,} cells have two seeds: their quantile is 12.7")
    if n := sum(p.unchanging for _, p, _ in told):
        lines.append(f"in {n:,} cells seeds change nothing: they count as one")
    if n := sum(e.n > 1 and p.s > 1 and not p.v_rest for e, p, _ in told):
        lines.append(f"in {n:,} cells no effect of the seed is seen beside that of the examples")
    by_task: dict[str, dict[str, None]] = {}
    for e, _, seeds in told:
        for r in seeds.values():
            for note in r.notes:
                if not note.startswith(("about", "too few")):
                    by_task.setdefault(note, {})[e.task] = None
    tasks = {e.task for e, *_ in told}
    for note, named in by_task.items():
        lines.append(note if len(named) == len(tasks) else f"{', '.join(named)}: {note}")
    for start, words in (
        ("too few errors", "too few errors to be precise"),
        ("about", "a bias above a quarter of the standard error"),
    ):
        if n := sum(any(note.startswith(start) for r in seeds.values() for note in r.notes) for *_, seeds in told):
            lines.append(f"{words}: {n:,} cells (`benchkit show` has the numbers)")
    return lines


def with_mean(table: Pivot, of: Evidence, which: Which = "both") -> Pivot:
    """With a last column: the mean over the tasks that every row has, which are taken as fixed, and its places."""
    if table.columns != ("task",) or table.mixed or not table.row_keys:
        return replace(table, notes=(*table.notes, "no mean: it needs tasks, and nothing else, across"))
    metrics = {e.metric for e in table.entries}
    common = [j for j in range(len(table.column_keys)) if all(row[j] is not None for row in table.grid)]
    if len(common) < 2:
        return replace(table, notes=(*table.notes, "no mean: there are no two tasks that every row has"))
    grid, ranked, best = [], {}, set(table.best)
    at = len(table.column_keys)
    rows = [[e for j in common if (e := row[j]) is not None] for row in table.grid]
    for row, own in zip(table.grid, rows, strict=True):
        low = high = None
        kept = [_kept(of, e) for e in own]
        if all(kept):
            low, high = ends(mean_over_tasks([parts(k) for k in kept]), which)
        value = math.fsum(e.value for e in own) / len(own)
        grid.append([*row, own[0]._replace(
            task="mean", metric=own[0].metric if len(metrics) == 1 else "mean", seed=None, n=1, value=value, sd=None,
            low=low, high=high, chance=None, marks=(),
        )])  # fmt: skip
    models = [[_ordered(of.of(e)) for e in own] for own in rows]
    joint = all(all(m) for m in models) and all(
        len({k.same for m in models for k in m[t]}) == 1 for t in range(len(common))
    )
    if joint and 1 < len(models) <= MOST_IN_A_COLUMN:
        columns = [
            column([m[t] for m in models], shared=_shared([o[t] for o in rows], [of.of(o[t]) for o in rows]))
            for t in range(len(common))
        ]
        whole = mean_of(columns)
        ranked = {(i, at): place for i, place in enumerate(places_of(whole))}
        best |= {(i, at) for i, kept in enumerate(among_the_best(whole)) if kept}
    left_out = [str(key[0]) for j, key in enumerate(table.column_keys) if j not in common]
    note = f"mean: on these {len(common)} tasks, taken as fixed; interval and places are within tasks"
    if left_out:
        note += f"; without {', '.join(left_out)}, which some row lacks"
    if len(metrics) > 1:
        note += f"; of different metrics ({', '.join(sorted(metrics))})"
    return replace(
        table, column_keys=(*table.column_keys, ("mean",)), grid=grid, best=frozenset(best),
        places={**table.places, **ranked}, show_places=table.show_places or frozenset({at}), notes=(*table.notes, note),
    )  # fmt: skip


_WORDS = {
    "both": "test examples and seeds", "examples": "test examples", "seeds": "seeds", "sd": "test examples"
}  # fmt: skip


def table_of(
    store: Store,
    filters: Filters,
    metrics: Sequence[str] = (),
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    over: Literal["both", "examples", "seeds", "sd"] = "both",
    mean: bool = False,
    places: bool = False,
) -> tuple[Pivot, list[str]]:
    """The table, with intervals, marks and notes from what runs keep; and lines on what of that cannot be used.

    over: what intervals of several seeds are over; sd leaves them their standard deviation. mean: a last column with
    the mean over tasks. places: beside every number.
    """
    found = entries(store, filters, metrics, rows, columns)
    if len(found) > MOST_CELLS:
        return pivot(found, rows, columns), []
    kept = evidence(store, filters)
    shown = found if over == "sd" else with_intervals(found, kept, over)
    made = replace(answered(pivot(shown, rows, columns), kept), over=_WORDS[over] if kept.by_cell else "")
    if places:
        made = replace(made, show_places=frozenset(range(len(made.column_keys))))
    return with_mean(made, kept, "both" if over == "sd" else over) if mean else made, kept.notes
