"""The table of results: cells of the registry arranged by rows and columns, and how that is written.

made = pivot(entries(store, filters), rows=("model", "classifier"), columns=("task",))
print(render(made, "markdown"))
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from benchkit import tables
from benchkit.errors import BenchkitError, did_you_mean
from benchkit.store import Store, queries
from benchkit.store.queries import Entry, Filters

Format = Literal["text", "markdown", "latex", "csv", "json"]
Key = tuple[Any, ...]
DIMENSIONS = ("task", "model", "classifier", "n_train", "seed", "metric")


@dataclass(frozen=True)
class Pivot:
    """Entries by (row, column).

    rows, columns: names of what a row's key and a column's key hold.
    fixed: the one value of every dimension that is in neither.
    added: dimensions that nobody asked for, but that vary: without them several numbers would share a place.
    best: the places with the best number of their column; where columns are mixed, of their task and metric.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_keys: tuple[Key, ...]
    column_keys: tuple[Key, ...]
    cells: dict[tuple[Key, Key], Entry]
    fixed: dict[str, Any]
    added: tuple[str, ...]
    best: frozenset[tuple[Key, Key]]

    @property
    def mixed(self) -> bool:
        """Whether a column holds numbers that cannot be compared, as rows differ in their task or metric."""
        return "task" in self.rows or "metric" in self.rows


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
    listed = dict(zip(Entry._fields, zip(*entries, strict=True), strict=True)) if entries else {}
    values = {d: set(listed.get(d, ())) for d in DIMENSIONS}
    added = tuple(d for d in DIMENSIONS if len(values[d]) > 1 and d not in down and d not in across)
    go_down = {"model", "classifier"} | ({"metric"} if "task" in down else set())
    down += tuple(d for d in added if d in go_down)
    across += tuple(d for d in added if d not in go_down)
    if not across:
        across = ("metric",) if "metric" not in down else ("n_train",)
        down = tuple(d for d in down if d not in across)
    row_keys, column_keys = (
        list(zip(*(listed[d] for d in names), strict=True)) if names and entries else [()] * len(entries)
        for names in (down, across)
    )
    cells = dict(zip(zip(row_keys, column_keys, strict=True), entries, strict=True))
    assert len(cells) == len(entries), "two entries in one place"
    fixed = {d: next(iter(v)) for d, v in values.items() if len(v) == 1 and d not in down + across and v != {None}}
    mixed = "task" in down or "metric" in down
    return Pivot(
        down,
        across,
        tuple(sorted(set(row_keys), key=_order)),
        tuple(sorted(set(column_keys), key=_order)),
        cells,
        fixed,
        tuple(d for d in added if d != "metric") if rows is not None or columns is not None else (),
        _best(cells, mixed),
    )


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


def _best(cells: dict[tuple[Key, Key], Entry], mixed: bool) -> frozenset[tuple[Key, Key]]:
    """Of every metric the higher value is the better one (docs/schema.md)."""
    group = (lambda place, e: (e.task, e.metric)) if mixed else (lambda place, e: place[1])
    top: dict[Any, tuple[float, int]] = {}
    for place, e in cells.items():
        value, n = top.get(group(place, e), (e.value, 0))
        top[group(place, e)] = max(value, e.value), n + 1
    tops = {g: value for g, (value, n) in top.items() if n > 1}  # the only number is not the best one
    return frozenset(place for place, e in cells.items() if tops.get(group(place, e)) == e.value)


# -------------------------------------------------------------------------------------------------------------- writing


def render(
    table: Pivot,
    format: Format = "text",
    *,
    digits: int = tables.DIGITS,
    intervals: bool = True,
    chance: bool = True,
    screen: tables.Screen = tables.Screen(),
) -> str:
    """The table as text. intervals: show them, or over several seeds the standard deviation. chance: a row with what a
    constant scorer gets, where a column is of one task."""
    if format == "json":
        return _json(table)
    if format == "csv":
        return _csv(table, intervals)
    markup = {"text": _TEXT, "markdown": _MARKDOWN, "latex": _LATEX}[format]
    letters = _letters(table)
    write = _writer(table, markup, letters, digits, intervals)
    rows = [
        [markup.escape(_shown(d, v)) for d, v in zip(table.rows, row, strict=True)]
        + [write(row, column) for column in table.column_keys]
        for row in table.row_keys
    ]
    header = [[markup.escape(part) for part in line] for line in _header(table)]
    if chance:
        _add_chance(table, header, rows, markup, digits)
    right = range(len(table.rows), len(header[0]))
    caption, legend = _caption(table), _legend(table, markup, letters, intervals)
    if format == "text":
        best = {
            (i, len(table.rows) + j)
            for i, row in enumerate(table.row_keys)
            for j, column in enumerate(table.column_keys)
            if (row, column) in table.best
        }
        grid = tables.text_table(header, rows, bold=best, fold=range(len(table.rows)), screen=screen)
        parts = [tables.clean(caption), grid, "\n".join(legend)]
        return "\n\n".join(part for part in parts if part)
    if format == "markdown":
        flat = [", ".join(filter(None, column)) for column in zip(*header, strict=True)]
        notes = "  \n".join(filter(None, [tables.escape_markdown(caption), *legend]))
        return f"{tables.markdown_table(flat, rows, right=right)}\n\n{notes}"
    notes = "\n".join(
        f"\\par{{\\footnotesize {line}}}" for line in filter(None, [tables.escape_latex(caption), *legend])
    )
    return f"% needs \\usepackage{{booktabs}}\n{tables.latex_table(header, rows, right=right)}\n{notes}"


@dataclass(frozen=True)
class _Markup:
    escape: Callable[[str], str]
    best: str
    plain: str
    spread: str
    plus_minus: str
    mark: str
    missing: str


_TEXT = _Markup(str, "*{}", " {}", " {}", "±", " !{}", " -")
_MARKDOWN = _Markup(tables.escape_markdown, "**{}**", "{}", " {}", "±", " <sup>{}</sup>", "–")
_LATEX = _Markup(
    tables.escape_latex, "\\textbf{{{}}}", "{}", " {{\\scriptsize {}}}", "$\\pm$", "\\textsuperscript{{{}}}", "--"
)


def _writer(
    table: Pivot, markup: _Markup, letters: dict[tuple[str, str], str], digits: int, intervals: bool
) -> Callable[[Key, Key], str]:
    """What writes one place: its number, interval or deviation, and marks. The patterns are made once."""
    number = f"%.{digits}f"
    best, plain = markup.best.format(number), markup.plain.format(number)
    deviation = markup.spread.format(f"{markup.plus_minus} {number} (%d)")
    interval = markup.spread.format(f"[{number}, {number}]")

    def write(row: Key, column: Key) -> str:
        place = row, column
        e = table.cells.get(place)
        if e is None:
            return markup.missing
        text = (best if place in table.best else plain) % e.value
        if intervals and e.sd is not None:
            text += deviation % (e.sd, e.n)
        elif intervals and e.low is not None:
            text += interval % (e.low, e.high)
        return text + (markup.mark.format(",".join(letters[m] for m in e.marks)) if e.marks else "")

    return write


def _header(table: Pivot) -> list[list[str]]:
    """A line for each dimension of the columns, and one for the metric where columns differ in it."""
    lines = [[_shown(d, key[i], named=True) for key in table.column_keys] for i, d in enumerate(table.columns)]
    names = [[""] * len(table.rows) for _ in lines]
    names[-1] = list(table.rows)
    return [left + right for left, right in zip(names, lines, strict=True)]


def _add_chance(table: Pivot, header: list[list[str]], rows: list[list[str]], markup: _Markup, digits: int) -> None:
    """A last row; where columns are mixed, a last column."""
    keys = table.row_keys if table.mixed else table.column_keys
    levels: dict[Key, list[float]] = {key: [] for key in keys}
    for (row, column), e in table.cells.items():
        if e.chance is not None:
            levels[row if table.mixed else column].append(e.chance)
    if not any(levels.values()):
        return
    shown = []
    for found in levels.values():
        low, high = (tables.number(pick(found), digits) for pick in (min, max)) if found else ("", "")
        shown.append(markup.plain.format(low if low == high else f"{low} to {high}") if found else markup.missing)
    if table.mixed:
        for line, name in zip(header, [""] * (len(header) - 1) + ["chance"], strict=True):
            line.append(name)
        for cells, level in zip(rows, shown, strict=True):
            cells.append(level)
    elif table.rows:
        rows.append(["chance", *[""] * (len(table.rows) - 1), *shown])


def _letters(table: Pivot) -> dict[tuple[str, str], str]:
    """A letter for each check that complains somewhere, those that fail first."""
    found = sorted({mark for e in table.cells.values() for mark in e.marks}, key=lambda m: (m[1] != "fail", m))
    return {mark: chr(ord("a") + i) if i < 26 else f"z{i}" for i, mark in enumerate(found)}


def _caption(table: Pivot) -> str:
    return "; ".join(f"{d} {_shown(d, v)}" for d, v in sorted(table.fixed.items(), key=lambda f: f[0] != "metric"))


def _legend(table: Pivot, markup: _Markup, letters: dict[tuple[str, str], str], intervals: bool) -> list[str]:
    found = table.cells.values()
    lines = []
    if table.best:
        of = "its column" if not table.mixed else "its task" if "task" in table.rows else "its metric"
        lines.append(f"{markup.best.format(' ' if markup is _TEXT else 'bold').strip()}: the best of {of}")
    if intervals and any(e.sd is None and e.low is not None for e in found):
        lines.append(markup.escape("[low, high]: 95 % bootstrap interval"))
    if any(e.n > 1 for e in found):
        spread = f" {markup.plus_minus} standard deviation (number of seeds)" if intervals else " over the seeds"
        lines.append(f"mean{spread}")
    for (name, status), letter in letters.items():
        what = "fails" if status == "fail" else "warns"
        lines.append(f"{markup.mark.format(letter).strip()} {markup.escape(f'the check {name!r} {what}')}")
    return lines


def _shown(dimension: str, value: Any, *, named: bool = False) -> str:
    """named: with the name of a dimension whose values do not speak for themselves."""
    text = tables.training_size(value) if dimension == "n_train" else str(value)
    return f"{dimension}={text}" if named and dimension in ("n_train", "seed") else text


def _label(table: Pivot, key: Key) -> str:
    """A column's name for a program: `digits n_train=-1 top1`."""
    parts = [f"{d}={v}" if isinstance(v, int) else str(v) for d, v in zip(table.columns, key, strict=True)]
    return " ".join([*parts, *([table.fixed["metric"]] if "metric" in table.fixed else [])])


def _csv(table: Pivot, intervals: bool) -> str:
    """Full precision; beside each column those of low, high, sd, n and checks that say anything."""
    wanted = ("value", "low", "high", "sd", "n", "checks") if intervals else ("value", "checks")
    header, getters = list(table.rows), []
    by_column: dict[Key, list[Entry]] = {column: [] for column in table.column_keys}
    for (_, column), e in table.cells.items():
        by_column[column].append(e)
    for column, present in by_column.items():
        for name in wanted:
            if name == "value" or any(_says(e, name) for e in present):
                header.append(_label(table, column) + ("" if name == "value" else f" {name}"))
                getters.append((column, name))
    rows = []
    for row in table.row_keys:
        found = [(table.cells.get((row, column)), name) for column, name in getters]
        rows.append([*row, *(None if e is None else _field(e, name) for e, name in found)])
    return tables.csv_table(header, rows)


def _says(e: Entry, name: str) -> bool:
    return e.n > 1 if name == "n" else _field(e, name) not in (None, "")


def _field(e: Entry, name: str) -> Any:
    return " ".join(f"{check}:{status}" for check, status in e.marks) if name == "checks" else getattr(e, name)


def _json(table: Pivot) -> str:
    """Entry by entry, every number in full."""
    shown = [
        {k: v for k, v in e._asdict().items() if k not in ("marks", "seed") or (k == "seed" and v is not None)}
        | {"checks": dict(e.marks), "best": place in table.best}
        for place, e in sorted(table.cells.items(), key=lambda c: (_order(c[0][0]), _order(c[0][1])))
    ]
    return json.dumps({"rows": table.rows, "columns": table.columns, "entries": shown}, indent=2)
