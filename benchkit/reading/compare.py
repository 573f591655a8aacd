"""Is one model better than another? Two runs on the same test examples, judged on the same resamples.

pairs(store, filters)                  the runs of the registry that differ in one column alone
paired(results, 12, 15, metric="cmap")  one pair: a Difference, from the stored predictions
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchkit.errors import BenchkitError, StoreError
from benchkit.interfaces import Problem, TaskKind
from benchkit.metrics import Difference, paired_difference
from benchkit.progress import Progress
from benchkit.reading.asked import narrow
from benchkit.store import queries
from benchkit.store.queries import Filters, RunRow

if TYPE_CHECKING:
    from benchkit.reading.results import Predictions, Results
    from benchkit.store import Store

SIDES = ("model", "classifier", "n_train")
"""Columns whose two values may be compared: the test examples are the same for both."""


@dataclass(frozen=True)
class Pairs:
    """side: the column in which the two runs of each pair differ. lonely: cells of either side without a partner."""

    side: str
    found: tuple[tuple[RunRow, RunRow], ...]
    lonely: tuple[RunRow, ...]


def pairs(store: "Store", filters: Filters) -> Pairs:
    """Pairs of current runs, the first value against the second, of the one column of `filters` that has two values.

    Raises BenchkitError where no column or several have two, where a pattern matches several values, and where either
    side matches nothing.
    """
    two = [column for column in SIDES if len(_words(filters, column)) == 2]
    if len(two) != 1:
        raise BenchkitError(
            "name what is compared: two runs, as in `benchkit compare 12 15`, or one of --model, --classifier, "
            "--n-train twice, as in `benchkit compare --model bird-mae --model audio-mae`"
        )
    (side,) = two
    rest = [column for column in (*queries.NAMES, *queries.NUMBERS) if column != side]
    sides = [_side(store, filters, side, value, rest) for value in _words(filters, side)]
    a, b = sides
    found = tuple((a[key], b[key]) for key in sorted(a) if key in b)
    return Pairs(side, found, tuple(one[key] for one in (a, b) for key in sorted(one) if not (key in a and key in b)))


def _words(filters: Filters, column: str) -> tuple[Any, ...]:
    """What a user gave for one column."""
    return tuple(w.text for w in filters.words if w.column == column) or getattr(filters, column)


def _unversioned(name: str | int) -> str | int:
    return re.sub(r"@\d+", "", name, count=1) if isinstance(name, str) else name


def _side(
    store: "Store", filters: Filters, side: str, value: str | int, rest: Sequence[str]
) -> dict[tuple[str | int, ...], RunRow]:
    """The runs with this value, by the columns in which the two sides agree."""
    narrowed = narrow(filters, side, (value,)) if isinstance(value, str) else replace(filters, n_train=(value,))
    by_key: dict[tuple[str | int, ...], RunRow] = {}
    found = queries.recent(store, narrowed)
    if exact := [run for run in found if _unversioned(getattr(run, side)) == value]:
        found = exact  # a bare name has variants, and one of them is called just so
    for run in found:
        other = by_key.setdefault(tuple(getattr(run, column) for column in rest), run)
        if other is not run:
            raise BenchkitError(
                f"'{value}' is more than one {side}: '{getattr(other, side)}' and '{getattr(run, side)}'; name one"
            )
    if not by_key:
        raise BenchkitError(f"nothing to compare: {queries.nothing_matches(store, narrowed)}")
    return by_key


def paired(
    results: "Results",
    a: int | str,
    b: int | str,
    metric: str | None = None,
    *,
    replicates: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Difference:
    """How much better run a is than run b, with the interval of the paired bootstrap.

    metric: the task's primary one where not given; any that is for such tasks. Raises StoreError where predictions are
    missing or altered, and BenchkitError where the two were not tested on the same examples.
    """
    first, second = results.predictions(a), results.predictions(b)
    order = _matching(first, second, a, b)
    kind: TaskKind = "multiclass" if first.labels.ndim == 1 else "multilabel"
    return paired_difference(
        metric or results.report(a).primary,
        first.labels,
        first.scores,
        second.scores[order],
        Problem(kind, len(first.classes), first.classes),
        fold=first.folds if len(np.unique(first.folds)) > 1 else None,
        replicates=replicates,
        seed=seed,
        progress=progress,
    )


def _matching(a: "Predictions", b: "Predictions", run_a: int | str, run_b: int | str) -> np.ndarray:
    """The rows of b in the order of a's."""
    differ = f"runs {run_a} and {run_b} cannot be compared: "
    if a.classes != b.classes:
        raise StoreError(f"{differ}their classes differ")
    rows = {key: row for row, key in enumerate(zip(b.ids, b.folds.tolist(), strict=True))}
    keys = list(zip(a.ids, a.folds.tolist(), strict=True))
    common = sum(key in rows for key in keys)
    if not common == len(keys) == len(b.ids):
        raise StoreError(
            f"{differ}they were not tested on the same examples ({len(keys):,} and {len(b.ids):,}, {common:,} of them "
            "in both)"
        )
    order = np.array([rows[key] for key in keys], np.int64)
    if not np.array_equal(a.labels, b.labels[order]):
        raise StoreError(f"{differ}the labels of their test examples differ, so the data changed between them")
    return order
