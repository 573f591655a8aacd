"""benchkit table --published: our numbers beside a paper's."""

import json
import sys
from typing import TYPE_CHECKING, Any

from benchkit.reading.tables import (
    Screen,
    csv_table,
    emit,
    escape_latex,
    escape_markdown,
    interval,
    latex_table,
    markdown_table,
    number,
    text_table,
    training_size,
)

if TYPE_CHECKING:
    from benchkit.store.queries import PublishedRow

HEADER = (
    "task",
    "model",
    "classifier",
    "n_train",
    "seed",
    "metric",
    "ours",
    "95 % interval",
    "published",
    "gap",
    "source",
)
RIGHT = range(3, 10)


def write(rows: "list[PublishedRow]", format: str, digits: int, *, spreadsheet: bool = False) -> None:
    """One line for each published number of a cell that is in the registry."""
    if format == "json":
        emit(json.dumps([r._asdict() for r in rows], indent=2))
    elif format == "csv":
        emit(csv_table(rows[0]._fields if rows else (), rows, spreadsheet=spreadsheet))
    else:
        shown = [_shown(r, digits) for r in rows]
        if format == "markdown":
            emit(markdown_table(HEADER, [tuple(map(escape_markdown, row)) for row in shown], right=RIGHT))
        elif format == "latex":
            header = [tuple(map(escape_latex, HEADER))]
            emit(latex_table(header, [tuple(map(escape_latex, row)) for row in shown], right=RIGHT))
        else:
            emit(text_table([HEADER], shown, right=RIGHT, screen=Screen.of(sys.stdout)))


def _shown(row: "PublishedRow", digits: int) -> tuple[Any, ...]:
    return (
        row.task, row.model, row.classifier, training_size(row.n_train), str(row.seed), row.metric,
        number(row.value, digits), interval(row.low, row.high, digits), number(row.published, digits),
        "" if row.gap is None else f"{row.gap:+.{digits}f}", row.source,
    )  # fmt: skip
