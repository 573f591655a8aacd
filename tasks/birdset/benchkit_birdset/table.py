"""What the parquet files say beside the audio: ids, labels, times and events, read without touching a recording."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from benchkit import DataError
from benchkit_birdset.clips import first_event
from benchkit_birdset.source import Source

LABELS = "ebird_code_multilabel"
SECONDS = 5
"""Of a test window."""
_WINDOW = re.compile(r"(?P<name>.+)_(?P<begin>\d+)_(?P<end>\d+)")
BATCH = 16
"""Recordings copied out of a row group at a time."""
BUFFER = 8 * 2**20
"""Bytes read from a file at a time."""


@dataclass(frozen=True)
class RowGroup:
    """Rows `first` to `first + rows` of the split are row group `number` of `file`."""

    file: str
    number: int
    first: int
    rows: int


@dataclass(frozen=True)
class Table:
    """One split without its audio.

    recordings: of each row, the file that it is, or is a window of.
    windows: seconds from and to: a focal recording's first event, a soundscape window's place; NaN where there is none.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    recordings: tuple[str, ...]
    labels: UInt8[np.ndarray, "N C"]
    windows: Float64[np.ndarray, "N 2"]
    groups: tuple[RowGroup, ...]


@dataclass(frozen=True)
class _Shard:
    classes: tuple[str, ...]
    rows: list[dict[str, Any]]
    groups: list[int]


def read_table(source: Source, split: str, *, events: bool) -> Table:
    """Reads every file of a split, several at once. events: for `windows`, else start_time and end_time.

    Raises DataError where a file is damaged, or the files disagree on the classes.
    """
    names = source.files(split)
    with ThreadPoolExecutor(8) as pool:
        shards = list(pool.map(lambda name: _read_shard(source, name, events), names))
    for name, shard in zip(names, shards, strict=True):
        if shard.classes != shards[0].classes:
            raise DataError(f"'{name}' has other classes than '{names[0]}': the files are of different data sets")
    rows = [row for shard in shards for row in shard.rows]
    labels = np.zeros((len(rows), len(shards[0].classes)), np.uint8)
    for i, row in enumerate(rows):
        labels[i, row[LABELS] or []] = 1
    windows = np.array([_window(row, events) for row in rows], np.float64).reshape(-1, 2)
    return Table(
        shards[0].classes, unique_ids(rows), tuple(map(recording, rows)), labels, windows, tuple(_groups(names, shards))
    )


def unique_ids(rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The recording's file name; with the window's place where several share it; numbered where that is not enough."""
    names = [PurePath(row.get("filepath") or "unnamed").name for row in rows]
    shared = Counter(names)
    ids = [_placed(n, row) if shared[n] > 1 else n for n, row in zip(names, rows, strict=True)]
    repeated, seen = Counter(ids), Counter[str]()
    for i, name in enumerate(ids):
        if repeated[name] > 1:
            seen[name] += 1
            ids[i] = f"{name}#{seen[name]}"
    return tuple(ids)


def recording(row: dict[str, Any]) -> str:
    """The recording that a row is cut from, by its file's name: test windows that are files of their own end in the
    seconds from and to, as in UHH_001_S01_20161121_150000_000_005.ogg."""
    stem = PurePath(row.get("filepath") or "unnamed").stem
    window = _WINDOW.fullmatch(stem)
    return window["name"] if window and int(window["end"]) - int(window["begin"]) == SECONDS else stem


def stream_audio(source: Source, table: Table, rows: Sequence[int], *, keep: bool) -> Iterator[tuple[int, bytes]]:
    """The files of these rows, in their order: (row, bytes). Only row groups that hold one of them are read.

    Fastest where the rows ascend; elsewhere each run of ascending rows is a pass of its own.
    """
    for _, run in groupby(enumerate(rows), key=_descents(rows)):
        wanted = np.array([row for _, row in run])
        touched = [g for g in table.groups if _within(wanted, g)]
        for file, groups in groupby(touched, key=lambda g: g.file):
            yield from _stream_file(source, file, list(groups), wanted, keep)


def class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...]:
    """The classes, as the `datasets` library writes them into a parquet file. Raises KeyError and its like."""
    features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    node = features[LABELS]
    while "names" not in node:  # a list feature has been written in three ways so far
        node = node[0] if isinstance(node, list) else node["feature"]
    return tuple(node["names"])


def _read_shard(source: Source, name: str, events: bool) -> _Shard:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = ["detected_events", "event_cluster"] if events else ["start_time", "end_time"]
    try:
        with source.open(name) as f:
            # One request brings all columns of a row group that lie together.
            file = pq.ParquetFile(f, pre_buffer=True)
            columns = [c for c in ("filepath", LABELS, *times) if c in file.schema_arrow.names]
            metadata = file.schema_arrow.metadata
            rows = file.read(columns=columns).to_pylist()
            groups = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"'{name}' does not read as parquet ({e}): fetch or download it again") from e
    try:
        classes = class_names(metadata)
    except (KeyError, ValueError, TypeError, IndexError) as e:
        raise DataError(f"'{name}' does not say what its classes are: it has no ClassLabel '{LABELS}' ({e!r})") from e
    for row in rows:
        for label in row.get(LABELS) or []:
            if not 0 <= label < len(classes):
                raise DataError(f"'{name}' holds the label {label}, and there are {len(classes)} classes")
    return _Shard(classes, rows, groups)


def _window(row: dict[str, Any], events: bool) -> tuple[float, float]:
    if events:
        return first_event(row.get("detected_events"), row.get("event_cluster")) or (np.nan, np.nan)
    begin, end = row.get("start_time"), row.get("end_time")
    return (np.nan, np.nan) if begin is None or end is None else (begin, end)


def _placed(name: str, row: dict[str, Any]) -> str:
    begin, end = row.get("start_time"), row.get("end_time")
    return name if begin is None or end is None else f"{name}@{begin:g}-{end:g}s"


def _groups(names: Sequence[str], shards: Sequence[_Shard]) -> Iterator[RowGroup]:
    first = 0
    for name, shard in zip(names, shards, strict=True):
        for number, rows in enumerate(shard.groups):
            yield RowGroup(name, number, first, rows)
            first += rows


def _descents(rows: Sequence[int]) -> Any:
    """A key for groupby: a new one wherever a row does not come after the one before."""
    passes = np.cumsum([i > 0 and rows[i] <= rows[i - 1] for i in range(len(rows))])
    return lambda pair: passes[pair[0]]


def _within(wanted: np.ndarray, group: RowGroup) -> list[int]:
    """Those of the ascending rows that lie in the group."""
    low, high = np.searchsorted(wanted, [group.first, group.first + group.rows])
    return wanted[low:high].tolist()


def _stream_file(
    source: Source, name: str, groups: Sequence[RowGroup], wanted: np.ndarray, keep: bool
) -> Iterator[tuple[int, bytes]]:
    """One row group in memory at a time: parquet writers put all of its recordings into one page, so no less will do.

    The `datasets` library makes row groups of 100 recordings.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with source.open(name, keep=keep) as f:
            file = pq.ParquetFile(f, pre_buffer=False, buffer_size=BUFFER)
            for group in groups:
                rows, at = _within(wanted, group), group.first
                batches = file.iter_batches(BATCH, [group.number], ["audio.bytes"], use_threads=False)
                while rows:
                    audio = next(batches).column(0).field("bytes")
                    while rows and rows[0] < at + len(audio):
                        row = rows.pop(0)
                        data = audio[row - at].as_py()
                        if data is None:
                            raise DataError(f"'{name}' holds no audio for row {row} of the split, only its name")
                        yield row, data
                    at += len(audio)
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"'{name}' does not read as parquet ({e}): fetch or download it again") from e
