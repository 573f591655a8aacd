"""Tables of strings as text, Markdown, LaTeX and CSV, for a terminal or a pipe.

In a pipe nothing is coloured, folded or cut off. In a terminal long cells are folded to its width, and colour is left
out where NO_COLOR (https://no-color.org) is set.
"""

import itertools
import operator
import os
import re
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchkit.errors import printable
from benchkit.machine.times import local, shown
from benchkit.progress import say

if TYPE_CHECKING:
    from benchkit.reading.names import Names
    from benchkit.store.queries import RunRow

Row = Sequence[str]
GAP = "  "
NARROWEST = 7
"""Characters that folding leaves a column at least."""
DIGITS = 3


@dataclass(frozen=True)
class Screen:
    """Where text goes. width: of the terminal, in characters; None is no terminal, so no limit."""

    width: int | None = None
    color: bool = False

    @staticmethod
    def of(stream: TextIO) -> "Screen":
        if not stream.isatty():
            return Screen()
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return Screen(shutil.get_terminal_size().columns, not plain)

    def bold(self, text: str) -> str:
        return f"\033[1m{text}\033[0m" if self.color else text

    def bad(self, text: str) -> str:
        return f"\033[31m{text}\033[0m" if self.color else text


def emit(text: str) -> None:
    """Prints lines that are made of clean cells, or are for programs; a character that the output's encoding lacks
    becomes a question mark, not an error. A terminal gets no control character but those of its colours."""
    if sys.stdout.isatty():
        text = "".join(part if i % 2 else printable(part) for i, part in enumerate(_ALLOWED.split(text)))
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding) + "\n")


# -------------------------------------------------------------------------------------------------------------- formats


def text_table(
    header: Sequence[Row],
    rows: Sequence[Row],
    *,
    right: Collection[int] = (),
    bold: Collection[tuple[int, int]] = (),
    fold: Collection[int] | None = None,
    screen: Screen = Screen(),
) -> str:
    """Aligned columns under a header of one or more lines.

    right: columns that are aligned to the right. bold: (row, column) of cells that stand out, where there is colour.
    fold: columns that are made narrower first where a terminal is; any, if not given.
    """
    head, body = [_cleaned(r) for r in header], [_cleaned(r) for r in rows]
    natural = [max(_widths(column)) for column in zip(*head, *body, strict=True)]
    widths = natural
    if screen.width is not None:
        widths = _fitted(_fitted(natural, screen.width, fold), screen.width, None)
    last = len(widths) - 1
    pads = [str.rjust if j in right else str.ljust for j in range(len(widths))]

    def lines(row: Row, number: int | None) -> list[str]:
        pieces: Any = [row]
        if widths != natural:
            folded = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
            pieces = itertools.zip_longest(*folded, fillvalue="")
        made = []
        for piece in pieces:
            spare = map(operator.sub, widths, _widths(piece))
            cells = [pad(c, len(c) + n) for pad, c, n in zip(pads, piece, spare, strict=True)]
            if screen.color:
                cells[last] = cells[last].rstrip()
                cells = [screen.bold(c) if number is None or (number, j) in bold else c for j, c in enumerate(cells)]
            made.append(GAP.join(cells).rstrip())
        return made

    rule = GAP.join("-" * width for width in widths)
    table = [line for r in head for line in lines(r, None)] + [rule]
    return "\n".join([*table, *(line for i, r in enumerate(body) for line in lines(r, i))])


def markdown_table(header: Row, rows: Sequence[Row], *, right: Collection[int] = ()) -> str:
    """A GitHub table. The cells are Markdown already: escape_markdown what is not."""
    rule = ["---:" if i in right else "---" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def latex_table(header: Sequence[Row], rows: Sequence[Row], *, right: Collection[int] = ()) -> str:
    """A tabular with booktabs' rules. The cells are LaTeX already: escape_latex what is not."""
    columns = "".join("r" if i in right else "l" for i in range(len(header[0])))
    head, body = ([f"{' & '.join(r)} \\\\" for r in part] for part in (header, rows))
    return "\n".join(
        [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", *head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def csv_table(header: Row, rows: Sequence[Sequence[Any]], *, spreadsheet: bool = False) -> str:
    return "\n".join(csv_line(row, spreadsheet=spreadsheet) for row in [header, *rows])


def csv_line(values: Sequence[Any], *, spreadsheet: bool = False) -> str:
    """RFC 4180 without the line's end; None is an empty field. (Python's csv leaves a lone carriage return bare.)

    spreadsheet: text that a spreadsheet would take for a formula gets an apostrophe before it, which makes it text
    there (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    fields = ["" if v is None else str(v) for v in values]
    if spreadsheet:
        fields = [
            f"'{f}" if isinstance(v, str) and f[:1] in _FORMULA else f for f, v in zip(fields, values, strict=True)
        ]
    if fields == [""]:
        return '""'  # an empty line would be no row
    return ",".join(f'"{f.replace(chr(34), chr(34) * 2)}"' if _SPECIAL.search(f) else f for f in fields)


_ALLOWED = re.compile("(\n|\t|\033\\[(?:1|31|0)m)")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_SPECIAL = re.compile('[,"\r\n]')
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_[]|~$#"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
    | {">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "[": "{[}", "]": "{]}"}
)


def escape_markdown(text: str) -> str:
    return clean(text).translate(_MARKDOWN)


def escape_latex(text: str) -> str:
    return clean(text).translate(_LATEX)


clean = printable
"""One in a class's name must not move the cursor, or end a row."""


def columns_of(text: str) -> int:
    """How many columns of a terminal it takes."""
    if _is_narrow(text):
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _is_narrow(text: str) -> bool:
    """Whether every character takes one column: of Latin letters none is wide, and none combines with another."""
    try:
        text.encode("latin-1")  # in no time, where looking at each character takes some
        return True
    except UnicodeEncodeError:
        return max(text) < "\u0300"


def _cleaned(row: Row) -> Row:
    return row if "".join(row).isprintable() else [clean(cell) for cell in row]


def _widths(cells: Row) -> list[int]:
    """Of many at once, as nearly all of them are plain."""
    return list(map(len if _is_narrow("".join(cells)) else columns_of, cells))


def _fitted(widths: list[int], width: int, which: Collection[int] | None) -> list[int]:
    """Widths that fit, taken from the widest of the columns that may give, as far as they can."""
    widths, room = list(widths), width - len(GAP) * (len(widths) - 1)
    may_give = range(len(widths)) if which is None else which
    while sum(widths) > room:
        widest = max(may_give, key=lambda j: widths[j], default=None)
        if widest is None or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1
    return widths


def _fold(text: str, width: int) -> list[str]:
    """Pieces of at most `width` columns, broken after a space or a comma where there is one in the latter half."""
    pieces = []
    while columns_of(text) > width:
        fits = next((i for i in range(1, len(text)) if columns_of(text[: i + 1]) > width), len(text))
        at = max(text.rfind(c, fits // 2, fits) for c in " ,") + 1 or fits
        pieces.append(text[:at].rstrip())
        text = text[at:]
    return [*pieces, text]


# -------------------------------------------------------------------------------------------------------------- numbers


def number(value: int | float | None, digits: int = DIGITS) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def interval(low: int | float | None, high: int | float | None, digits: int = DIGITS) -> str:
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def training_size(n_train: int) -> str:
    return "all" if n_train == -1 else str(n_train)


def memory(n_bytes: int | float) -> str:
    """Bytes as 512 B, 1.4 kB, 3.0 GB: powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def ago(then: str, now: datetime | None = None) -> str:
    """An ISO 8601 time as "5 min ago"; after a week, as its date here."""
    moment = local(then)
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 0:
        return shown(then)  # by the clock of another machine
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (7 * 86400, 86400, "d")):
        if seconds < limit:
            return f"{seconds // unit:.0f} {name} ago"
    return f"{moment:%Y-%m-%d}"


# ----------------------------------------------------------------------------------------------------------------- runs

RUNS_HEADER = (
    "run", "task", "model", "classifier", "n_train", "seed", "metric", "value", "95 % interval", "chance", "checks",
    "finished",
)  # fmt: skip


def runs_table(runs: "Sequence[RunRow]", screen: Screen = Screen(), names: "Names | None" = None) -> str:
    """One line a run. A superseded one has its number in brackets. names: what is shown for canonical ones."""
    called = names or (lambda _, name: name)
    rows = [
        (
            str(r.run) if r.current else f"({r.run})", called("task", r.task), called("model", r.model),
            called("classifier", r.classifier), training_size(r.n_train),
            str(r.seed), r.metric, number(r.value), interval(r.low, r.high), number(r.chance),
            " ".join(r.marks) or "ok", ago(r.finished_at),
        )
        for r in runs
    ]  # fmt: skip
    return text_table([RUNS_HEADER], rows, right=(0, 4, 5, 7, 9), fold=(1, 2, 3, 10), screen=screen)


def say_above(names: "Names") -> None:
    """On stderr, what all rows have in common."""
    if names.above:
        say(names.above, sys.stderr)


def print_runs(path: Path, runs: Sequence[int]) -> None:
    """These runs of the registry at `path`, in their order."""
    from benchkit.reading.names import names_of
    from benchkit.store import open_store, queries

    with open_store(path, create=False) as store:
        found = {r.run: r for r in queries.runs_by_number(store, runs)}
        names = names_of(store, found.values())
    say_above(names)
    emit(runs_table([found[run] for run in runs if run in found], Screen.of(sys.stdout), names))
