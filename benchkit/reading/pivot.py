"""The table of results: cells of the registry arranged by rows and columns.

made = pivot(entries(store, filters), rows=("model", "classifier"), columns=("task",))
print(render(made, "markdown"))  # benchkit.reading.rendering
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchkit.errors import BenchkitError, did_you_mean
from benchkit.store import Store, queries
from benchkit.store.queries import Entry, Filters

Key = tuple[Any, ...]
DIMENSIONS = ("task", "model", "classifier", "n_train", "seed", "metric")


@dataclass(frozen=True)
class Pivot:
    """Entries by row and column.

    rows, columns: names of what a row's key and a column's key hold.
    grid: by row and column, in the order of their keys; None where there is no such cell.
    fixed: the one value of every dimension that is in neither.
    added: dimensions that nobody asked for, but that vary: without them several numbers would share a place.
    best: (row, column) of the best number of each column; where columns are mixed, of each task and metric. sets: best
    holds all that cannot be told from the best instead (benchkit.reading.evidence). places: the best and the worst
    place that each may have. show_places: columns that are written with them. notes: to be said below.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_keys: tuple[Key, ...]
    column_keys: tuple[Key, ...]
    grid: list[list[Entry | None]]
    fixed: dict[str, Any]
    added: tuple[str, ...]
    best: frozenset[tuple[int, int]]
    sets: bool = False
    places: Mapping[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    show_places: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    over: str = ""
    """What intervals are over, in words."""

    @property
    def mixed(self) -> bool:
        """Whether a column holds numbers that cannot be compared, as rows differ in their task or metric."""
        return "task" in self.rows or "metric" in self.rows

    @property
    def entries(self) -> list[Entry]:
        """Row by row."""
        return [e for row in self.grid for e in row if e is not None]


def pivot(entries: Sequence[Entry], rows: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> Pivot:
    """Default: models and classifiers in rows, tasks in columns. A dimension that is in neither and varies is added:
    model and classifier to the rows, task and n_train to the columns, the metric to where the task is. Raises
    BenchkitError for a name that is none.
    """
    across = _checked(columns or ())
    down = _checked([d for d in ("model", "classifier") if d not in across] if rows is None else rows)
    if columns is None:
        across = tuple(d for d in ("task",) if d not in down)
    if twice := set(down) & set(across):
        raise BenchkitError(f"'{min(twice)}' cannot be in rows and columns at once")
    listed = {d: [e[i] for e in entries] for i, d in enumerate(Entry._fields) if d in DIMENSIONS}
    values = {d: set(listed[d]) for d in DIMENSIONS}
    added = tuple(d for d in DIMENSIONS if len(values[d]) > 1 and d not in down and d not in across)
    go_down = {"model", "classifier"} | ({"metric"} if "task" in down else set())
    down += tuple(d for d in added if d in go_down)
    across += tuple(d for d in added if d not in go_down)
    if not across:
        across = ("metric",) if "metric" not in down else ("n_train",)
        down = tuple(d for d in down if d not in across)
    row_keys, i_of = _axis([listed[d] for d in down], len(entries))
    column_keys, j_of = _axis([listed[d] for d in across], len(entries))
    grid: list[list[Entry | None]] = [[None] * len(column_keys) for _ in row_keys]
    for i, j, e in zip(i_of, j_of, entries, strict=True):
        assert grid[i][j] is None, "two entries in one place"
        grid[i][j] = e
    mixed = "task" in down or "metric" in down
    groups = list(zip(listed["task"], listed["metric"], strict=True)) if mixed else j_of
    return Pivot(
        down,
        across,
        row_keys,
        column_keys,
        grid,
        {d: next(iter(v)) for d, v in values.items() if len(v) == 1 and d not in down + across and v != {None}},
        tuple(d for d in added if d != "metric") if rows is not None or columns is not None else (),
        _best([e.value for e in entries], groups, i_of, j_of),
    )


def _axis(dimensions: Sequence[Sequence[Any]], n: int) -> tuple[tuple[Key, ...], list[int]]:
    """The keys of n entries in one direction, each once and in order, and where each entry's key is among them."""
    found: dict[Key, int] = {}
    keys = zip(*dimensions, strict=True) if dimensions else [()] * n
    numbers = [found.setdefault(key, len(found)) for key in keys]
    ordered = sorted(found, key=_order)
    place = {found[key]: i for i, key in enumerate(ordered)}
    return tuple(ordered), [place[number] for number in numbers]


def entries(
    store: Store,
    filters: Filters,
    metrics: Sequence[str] = (),
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> list[Entry]:
    """What `pivot` arranges by these rows and columns: seeds are taken together, unless they are one of them."""
    return queries.entries(store, filters, metrics, each_seed="seed" in (*(rows or ()), *(columns or ())))


def _checked(names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(names))
    for name in found:
        if name not in DIMENSIONS:
            raise BenchkitError(
                f"'{name}' is nothing to arrange by{did_you_mean(name, DIMENSIONS)} (there are {', '.join(DIMENSIONS)})"
            )
    return found


def _order(key: Key) -> tuple[Any, ...]:
    """All training examples (-1) come after any number of them."""
    return tuple((part == -1, part) if isinstance(part, int) else (False, part) for part in key)


def _best(
    values: Sequence[float], groups: Sequence[Any], rows: Sequence[int], columns: Sequence[int]
) -> frozenset[tuple[int, int]]:
    """The places of each group's highest values: of every metric the higher value is the better one (docs/schema.md).

    The only number of a group is not the best one.
    """
    top: dict[Any, float] = {}
    for value, group in zip(values, groups, strict=True):
        if value > top.setdefault(group, value):
            top[group] = value
    several = {group for group, n in Counter(groups).items() if n > 1}
    return frozenset(
        (i, j)
        for value, group, i, j in zip(values, groups, rows, columns, strict=True)
        if value == top[group] and group in several
    )
