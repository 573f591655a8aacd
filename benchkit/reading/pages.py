"""What a Parquet file holds once it is read, by the headers of its pages, before anything of it is made.

Some kilobytes can hold as much as one likes: a page that decompresses to two gigabytes, a run of a billion equal
numbers; and what the footer says of that may be a lie. The headers are Thrift in its compact protocol
(apache/parquet-format, README.md and parquet.thrift: PageHeader).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

LEAST = 1 << 30
"""Bytes in memory that any file may claim."""
PROPORTION = 1_000
"""And times its own size: a classifier that says the same of every example compresses as well as anything honest."""
MOST = 16 << 30
ROWS = 8
"""Rows a byte: each has a name of its own."""
_DEPTH = 8
_UNCOMPRESSED, _COMPRESSED, _VALUES = 2, 3, 1
_HEADERS = (5, 7, 8)
"""Of a data page, of a dictionary, of a data page of the second version."""


_MAGIC = b"PAR1"
_FILE_ROWS, _GROUPS = 3, 4
_COLUMNS, _GROUP_ROWS = 1, 3
_COLUMN, _SIZE, _BEGINS = 3, 7, (9, 11)
"""Of the footer, of a group of rows, of a column (its data and its dictionary)."""


class Page(NamedTuple):
    """In bytes, and in values that it says to have."""

    uncompressed: int
    values: int


def refuse_bomb(data: bytes) -> None:
    """Raises ValueError for what is in no proportion to its file, or is no Parquet file.

    (pyarrow's own view of a footer aborts the process where its statistics do not fit its columns.)
    """
    if len(data) < 12 or not data[:4] == data[-4:] == _MAGIC:
        raise ValueError("no Parquet file")
    end = len(data) - 8
    first = end - int.from_bytes(data[end : end + 4], "little")
    footer = _Reader(data, max(first, 4), end).struct(0)
    rows, groups = footer.get(_FILE_ROWS), footer.get(_GROUPS)
    if not isinstance(groups, list) or not isinstance(rows, int) or not 0 <= rows <= 1000 + ROWS * len(data):
        raise ValueError(f"{len(data):,} bytes that claim {rows} rows")
    held, most = 0, min(MOST, max(LEAST, PROPORTION * len(data)))
    if not all(isinstance(group, dict) for group in groups):
        raise ValueError("groups of rows that are none")
    for group in groups:
        of_group, columns = group.get(_GROUP_ROWS), group.get(_COLUMNS)
        if not isinstance(of_group, int) or not 0 <= of_group <= rows or not isinstance(columns, list):
            raise ValueError(f"{of_group} rows of {rows:,}")
        for column in columns:
            first, size = _range(column)
            if not 0 <= first <= first + size <= len(data):
                raise ValueError(f"{len(data):,} bytes that claim {size:,} at {first:,}")
            for page in pages(data, first, first + size):
                held += page.uncompressed + 8 * page.values
                if held > most:
                    raise ValueError(f"{len(data):,} bytes that would take more than {most:,} in memory")


def _range(column: Any) -> tuple[int, int]:
    """Where a column's pages begin, and their bytes."""
    said = column.get(_COLUMN) if isinstance(column, dict) else None
    if not isinstance(said, dict):
        raise ValueError("a column that says nothing")
    begins = [n for n in map(said.get, _BEGINS) if isinstance(n, int) and n > 0]
    size = said.get(_SIZE)
    if not begins or not isinstance(size, int):
        raise ValueError("a column without a place")
    return min(begins), size


def pages(data: bytes, first: int, end: int) -> Iterator[Page]:
    """Those that lie from byte `first` up to `end`. Raises ValueError where there are no such."""
    while first < end:
        header = _Reader(data, first, end)
        said = header.struct(0)
        of_kind = [said[h].get(_VALUES) for h in _HEADERS if isinstance(said.get(h), dict)]
        sizes = [n for n in (said.get(_UNCOMPRESSED), said.get(_COMPRESSED), *of_kind) if isinstance(n, int) and n >= 0]
        if len(sizes) != 3:
            raise ValueError("the header of a page says no sizes")
        uncompressed, compressed, values = sizes
        first = header.at + compressed
        if first > end:
            raise ValueError("a page ends behind its column")
        yield Page(uncompressed, values)


class _Reader:
    """Thrift's compact protocol; whole numbers, lists and structs are kept, the rest is passed over."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def byte(self) -> int:
        if self.at >= self.end:
            raise ValueError("the header of a page is cut off")
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number without end")

    def number(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _DEPTH:
            raise ValueError("the header of a page is too deep")
        made: dict[int, Any] = {}
        field = 0
        while head := self.byte():
            field = field + (head >> 4) if head >> 4 else self.number()
            kind = head & 15
            made[field] = None if kind in (1, 2) else self.value(kind, depth)  # a boolean is in its kind
        return made

    def value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2, 3):
            return self.byte()
        if kind in (4, 5, 6):
            return self.number()
        if kind in (7, 8):
            size = 8 if kind == 7 else self.varint()
            self.at += size
            if self.at > self.end:
                raise ValueError("the header of a page is cut off")
            return None
        if kind in (9, 10):
            head = self.byte()
            n = head >> 4 if head >> 4 < 15 else self.varint()
            return [self.value(head & 15, depth + 1) for _ in range(n)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError("the header of a page is none")
