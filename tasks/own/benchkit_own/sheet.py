"""A table as text: every cell is what somebody typed, and every row knows its line."""

import csv
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchkit import DataError
from benchkit_own.names import clean

DELIMITERS = "\t;,|"
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,3}):(\d{1,2}(?:\.\d+)?)")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Row:
    """One row. where: its place, for errors."""

    where: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Sheet:
    """header: names of the columns, cleaned; empty for Audacity's label files, which have none."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[Row, ...]

    def column(self, name: str) -> int:
        """Raises DataError for a column that there is not."""
        if clean(name) not in self.header:
            raise DataError(f"'{self.path}' has no column '{name}': it has {', '.join(self.header)}")
        return self.header.index(clean(name))


def read_sheet(path: Path) -> Sheet:
    """CSV, TSV or text with any delimiter, in UTF-8, UTF-16 or a Western code page; or Parquet. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"cannot read '{path}': {e.strerror}") from e
    if data[:4] == b"PAR1" or path.suffix.lower() == ".parquet":
        return _parquet(path)
    lines = _lines(_decoded(data, path), path)
    if not lines:
        raise DataError(f"'{path}' is empty")
    if _is_audacity(lines[0][1]):
        return Sheet(path, (), tuple(Row(f"'{path}', line {n}:", tuple(map(clean, cells))) for n, cells in lines))
    (first, header), *rest = lines
    names = tuple(clean(cell) for cell in header)
    while names and not names[-1]:
        names = names[:-1]
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(f"'{path}', line {first}: two columns are called '{twice[0]}'")
    rows = []
    for n, cells in rest:
        where = f"'{path}', line {n}:"
        kept = [clean(cell) for cell in cells]
        if any(kept[len(names) :]) or len(kept) < len(names) - (not any(kept[len(kept) - 1 :])):
            raise DataError(f"{where} it has {len(kept)} cells, and the header names {len(names)} columns")
        rows.append(Row(where, tuple((kept + [""] * len(names))[: len(names)])))
    return Sheet(path, names, tuple(rows))


def seconds(text: str, where: str, what: str) -> float:
    """A time as people write it: 1.5, 1,5, 1:02.5, 0:01:02. Raises DataError."""
    plain = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    if clock := _CLOCK.fullmatch(plain):
        hours, minutes, rest = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest)
    if not _NUMBER.fullmatch(plain) or abs(float(plain)) > 1e9:
        raise DataError(f"{where} {what} is '{text}', not a number of seconds")
    return float(plain)


def _decoded(data: bytes, path: Path) -> str:
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return _text(data, encoding, path)
    if b"\0" in data[:4096]:
        return _text(data, "utf-16-le" if data[1:2] == b"\0" else "utf-16-be", path)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        warnings.warn(f"'{path}' is no UTF-8: it is read as cp1252, which Windows writes", stacklevel=3)
        return _text(data, "cp1252", path)


def _text(data: bytes, encoding: str, path: Path) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        raise DataError(f"'{path}' is no text in {encoding}, which it looks like: {e.reason} at byte {e.start}") from e


def _lines(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """Rows that are not empty, each with the number of its last line, from 1."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    delimiter = max(DELIMITERS, key=lambda d: (d == "\t" and "\t" in bare, bare.count(d)))
    csv.field_size_limit(1 << 24)
    quoting = csv.QUOTE_NONE if delimiter == "\t" and '"' not in text else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    try:
        return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as e:
        raise DataError(f"'{path}', line {reader.line_num}: {e}") from e


def _is_audacity(cells: Sequence[str]) -> bool:
    """Start, end and text, or start and text, without a header."""
    numbers = [bool(_NUMBER.fullmatch(cell.strip().replace(",", "."))) for cell in cells[:2]]
    return len(cells) in (2, 3, 4) and numbers[0] and (numbers[1] or len(cells) == 2)


def _parquet(path: Path) -> Sheet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(str(path))
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"'{path}' does not read as parquet: {e}") from e
    names = tuple(clean(name) for name in table.column_names)
    columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    rows = zip(*columns, strict=True) if columns else iter(())
    return Sheet(path, names, tuple(Row(f"'{path}', row {n}:", cells) for n, cells in enumerate(rows, 1)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return clean(str(value))
