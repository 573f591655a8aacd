"""Writing the answer to an SQL query. CSV and JSON are written as the rows come, however many there are."""

import json
import math
import sys
from typing import Any, Literal

from benchkit.reading.tables import Screen, csv_line, emit, escape_markdown, markdown_table, text_table
from benchkit.store.readonly import Answer


def write(answer: Answer, format: Literal["text", "markdown", "csv", "json"], *, spreadsheet: bool = False) -> None:
    """Numbers in full. NULL: empty in CSV, null in JSON, else NULL. spreadsheet: CSV without formulas."""
    if format == "csv":
        emit(csv_line(answer.columns, spreadsheet=spreadsheet))
        for row in answer.rows:
            emit(csv_line([_csv(v) for v in row], spreadsheet=spreadsheet))
        return
    if format == "json":
        _write_json(answer)
        return
    rows = list(answer.rows)
    right = [j for j in range(len(answer.columns)) if all(isinstance(r[j], (int, float, type(None))) for r in rows)]
    if format == "markdown":
        shown = [[escape_markdown(_text(v)) for v in row] for row in rows]
        emit(markdown_table([escape_markdown(c) for c in answer.columns], shown, right=right))
    else:
        shown = [[_text(v) for v in row] for row in rows]
        emit(text_table([answer.columns], shown, right=right, screen=Screen.of(sys.stdout)))


def _write_json(answer: Answer) -> None:
    """A list of objects, one a line; of two columns with one name the later counts."""
    sys.stdout.write("[")
    for i, row in enumerate(answer.rows):
        record = {name: _json(v) for name, v in zip(answer.columns, row, strict=True)}
        sys.stdout.write(f"{',' if i else ''}\n{json.dumps(record, allow_nan=False)}")
    sys.stdout.write("\n]\n")


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    return f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)


def _csv(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity
    return _csv(value)
