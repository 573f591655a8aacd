"""How the table of results is written: as text for a terminal, in Markdown, LaTeX, CSV and JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from benchkit.reading import tables
from benchkit.reading.names import Names
from benchkit.reading.pivot import Key, Pivot
from benchkit.store.queries import Entry

Format = Literal["text", "markdown", "latex", "csv", "json"]


def render(
    table: Pivot,
    format: Format = "text",
    *,
    digits: int = tables.DIGITS,
    intervals: bool = True,
    chance: bool = True,
    screen: tables.Screen = tables.Screen(),
    spreadsheet: bool = False,
    names: Names = Names(),
) -> str:
    """The table as text. spreadsheet: CSV without formulas. names: what is shown for canonical ones,
    but in CSV and JSON, which are for programs.

    intervals: show them, or over several seeds the standard deviation. chance: a row with what a
    constant scorer gets, where a column is of one task."""
    if format == "json":
        return _json(table)
    if format == "csv":
        return _csv(table, intervals, spreadsheet)
    table = _named(table, names)
    markup = {"text": _TEXT, "markdown": _MARKDOWN, "latex": _LATEX}[format]
    letters = _letters(table)
    cells = _cells(table, markup, letters, digits, intervals)
    rows = [
        [markup.escape(_shown(d, v)) for d, v in zip(table.rows, key, strict=True)] + row
        for key, row in zip(table.row_keys, cells, strict=True)
    ]
    header = [[markup.escape(part) for part in line] for line in _header(table)]
    if chance:
        _add_chance(table, header, rows, markup, digits)
    right = range(len(table.rows), len(header[0]))
    caption, legend = (
        "; ".join(filter(None, [_caption(table), names.above])),
        _legend(table, markup, letters, intervals),
    )
    if format == "text":
        best = {(i, len(table.rows) + j) for i, j in table.best}
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


def _named(table: Pivot, names: Names) -> Pivot:
    """The same under the names that people read."""

    def keys(dimensions: Sequence[str], found: Sequence[Key]) -> tuple[Key, ...]:
        return tuple(
            tuple(names(d, v) if isinstance(v, str) else v for d, v in zip(dimensions, key, strict=True))
            for key in found
        )

    return replace(
        table,
        row_keys=keys(table.rows, table.row_keys),
        column_keys=keys(table.columns, table.column_keys),
        fixed={d: names(d, v) if isinstance(v, str) else v for d, v in table.fixed.items()},
    )


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


def _cells(
    table: Pivot, markup: _Markup, letters: dict[tuple[str, str], str], digits: int, intervals: bool
) -> list[list[str]]:
    """The grid in writing: numbers, with intervals or deviations, and marks. The patterns are made once."""
    number = f"%.{digits}f"
    best, plain = markup.best.format(number), markup.plain.format(number)
    deviation = markup.spread.format(f"{markup.plus_minus} {number} (%d)")
    interval = markup.spread.format(f"[{number}, {number}]")

    @cache
    def written(marks: tuple[tuple[str, str], ...]) -> str:
        return markup.mark.format(",".join(letters[m] for m in marks))

    seeds = markup.spread.format("(%d)")

    def write(e: Entry, number: str) -> str:
        if intervals and e.low is not None:
            text = (number + interval) % (e.value, e.low, e.high) + (seeds % e.n if e.n > 1 else "")
        elif intervals and e.sd is not None:
            text = (number + deviation) % (e.value, e.sd, e.n)
        else:
            text = number % e.value
        return text + written(e.marks) if e.marks else text

    rows = [[markup.missing if e is None else write(e, plain) for e in row] for row in table.grid]
    for i, j in table.best:
        if e := table.grid[i][j]:
            rows[i][j] = write(e, best)
    for (i, j), (first, last) in table.places.items():
        if j in table.show_places:
            rows[i][j] += markup.spread.format(f"{first}" if first == last else f"{first}-{last}")
    return rows


def _header(table: Pivot) -> list[list[str]]:
    """A line for each dimension of the columns, and one for the metric where columns differ in it."""
    lines = [[_shown(d, key[i], named=True) for key in table.column_keys] for i, d in enumerate(table.columns)]
    names = [[""] * len(table.rows) for _ in lines]
    names[-1] = list(table.rows)
    return [left + right for left, right in zip(names, lines, strict=True)]


def _add_chance(table: Pivot, header: list[list[str]], rows: list[list[str]], markup: _Markup, digits: int) -> None:
    """A last row; where columns are mixed, a last column."""
    levels: list[list[float]] = [[] for _ in (table.row_keys if table.mixed else table.column_keys)]
    for i, row in enumerate(table.grid):
        for j, e in enumerate(row):
            if e is not None and e.chance is not None:
                levels[i if table.mixed else j].append(e.chance)
    if not any(levels):
        return
    shown = []
    for level in levels:
        low, high = (tables.number(pick(level), digits) for pick in (min, max)) if level else ("", "")
        shown.append(markup.plain.format(low if low == high else f"{low} to {high}") if level else markup.missing)
    if table.mixed:
        for line, name in zip(header, [""] * (len(header) - 1) + ["chance"], strict=True):
            line.append(name)
        for cells, text in zip(rows, shown, strict=True):
            cells.append(text)
    elif table.rows:
        rows.append(["chance", *[""] * (len(table.rows) - 1), *shown])


def _letters(table: Pivot) -> dict[tuple[str, str], str]:
    """A letter for each check that complains somewhere, those that fail first."""
    each = {e.marks for e in table.entries}
    found = sorted({mark for marks in each for mark in marks}, key=lambda m: (m[1] != "fail", m))
    return {mark: chr(ord("a") + i) if i < 26 else f"z{i}" for i, mark in enumerate(found)}


def _caption(table: Pivot) -> str:
    return "; ".join(f"{d} {_shown(d, v)}" for d, v in sorted(table.fixed.items(), key=lambda f: f[0] != "metric"))


def _legend(table: Pivot, markup: _Markup, letters: dict[tuple[str, str], str], intervals: bool) -> list[str]:
    found = table.entries
    lines = []
    if table.best:
        of = "its column" if not table.mixed else "its task" if "task" in table.rows else "its metric"
        what = (
            f"in the set that holds all of the best of {of}, with 95 % confidence"
            if table.sets
            else f"the best of {of}"
        )
        lines.append(f"{markup.best.format(' ' if markup is _TEXT else 'bold').strip()}: {markup.escape(what)}")
    if intervals and any(e.low is not None for e in found):
        over = f" over {table.over}" if table.over else ""
        lines.append(
            markup.escape(
                f"[low, high]: 95 % interval{over}; (n): mean over n seeds"
                if any(e.n > 1 and e.low is not None for e in found)
                else f"[low, high]: 95 % interval{over}"
            )
        )
    if any(e.n > 1 and e.low is None for e in found):
        spread = f" {markup.plus_minus} standard deviation (number of seeds)" if intervals else " over the seeds"
        lines.append(f"mean{spread}")
    if table.places and table.show_places:
        lines.append(markup.escape("1-3: the places that it may have, all at once with 95 % confidence"))
    lines += [markup.escape(note) for note in table.notes]
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


def _csv(table: Pivot, intervals: bool, spreadsheet: bool) -> str:
    """Full precision; beside each column those of low, high, sd, n and checks that say anything."""
    wanted = ("value", "low", "high", "sd", "n", "checks") if intervals else ("value", "checks")
    header = list(table.rows)
    getters: list[tuple[int, str]] = []
    for j, (key, column) in enumerate(zip(table.column_keys, zip(*table.grid, strict=True), strict=True)):
        for name in wanted:
            if name == "value" or any(_says(e, name) for e in column if e is not None):
                header.append(_label(table, key) + ("" if name == "value" else f" {name}"))
                getters.append((j, name))
    rows = [
        [*key, *(None if (e := row[j]) is None else _field(e, name) for j, name in getters)]
        for key, row in zip(table.row_keys, table.grid, strict=True)
    ]
    return tables.csv_table(header, rows, spreadsheet=spreadsheet)


def _says(e: Entry, name: str) -> bool:
    return e.n > 1 if name == "n" else _field(e, name) not in (None, "")


def _field(e: Entry, name: str) -> Any:
    return " ".join(f"{check}:{status}" for check, status in e.marks) if name == "checks" else getattr(e, name)


def _json(table: Pivot) -> str:
    """Entry by entry, every number in full."""
    shown = [
        {k: v for k, v in e._asdict().items() if k not in ("marks", "seed") or (k == "seed" and v is not None)}
        | {"checks": dict(e.marks), "best": (i, j) in table.best}
        | ({"places": list(table.places[i, j])} if (i, j) in table.places else {})
        for i, row in enumerate(table.grid)
        for j, e in enumerate(row)
        if e is not None
    ]
    said = {"rows": table.rows, "columns": table.columns, "entries": shown}
    return json.dumps(said | ({"notes": list(table.notes)} if table.notes else {}), indent=2)
