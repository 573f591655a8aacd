"""Preprocessed examples themselves, for probes that train the backbone: training rows go to a scratch file; those that
are scored go past once."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Int64, Shaped, UInt64

from benchkit.features.filling import filling
from benchkit.features.pipeline import Options, Run, checked_rows
from benchkit.features.scratch import Kept, keep
from benchkit.interfaces import Backbone, Task
from benchkit.progress import Progress

CHUNK_BYTES = 1 << 29
"""Of the chunks that `stream_raw` gives: whoever scores them with one model after another moves each onto the device
once a chunk, and that should be little beside the scoring itself."""


class RawBatch(NamedTuple):
    """A part of a split on its way past. values: as `Backbone.preprocess` made them."""

    rows: Int64[np.ndarray, " B"]
    values: Shaped[np.ndarray, "B ..."]
    hashes: UInt64[np.ndarray, " B"]


def extract_raw(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
) -> Kept:
    """Preprocessed examples of these rows, [n, ...], in a scratch file. Arguments and errors: as `extract_tokens`."""
    run = Run.of(task, backbone, split, options, progress, key)
    return keep(run, _stream(run, rows, key), "preprocessed examples", (0,))


def stream_raw(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[RawBatch]:
    """Preprocessed examples of these rows in a single pass, in chunks of about `chunk_bytes`; they are stored nowhere.

    key: as for `stream_tokens`: pooled features that the cache does not have are computed on the way, so that examples
    are decoded once for both. Rows that do not decode are left out. Raises as `extract` does.
    """
    run = Run.of(task, backbone, split, options, progress, key)
    return _chunks(_stream(run, rows, key), chunk_bytes)


def _stream(run: Run, rows: Int[np.ndarray, " n"], key: Mapping[str, str] | None) -> Iterator[RawBatch]:
    rows = checked_rows(rows, len(run.task.ids(run.split)), run.split)
    with filling(run, rows, key) as cache:
        with closing(run.batches(rows)) as batches:
            for batch in batches:
                for part in run.encode(batch.where(cache.missing(batch.rows)), tokens=False):
                    cache.write(part)
                if batch.array is not None:
                    yield RawBatch(batch.rows, batch.array, batch.media)
        run.judge(len(rows))


def _chunks(batches: Iterator[RawBatch], chunk_bytes: int) -> Iterator[RawBatch]:
    waiting: list[RawBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.values.nbytes for b in waiting) >= chunk_bytes:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[RawBatch]) -> RawBatch:
    return batches[0] if len(batches) == 1 else RawBatch(*map(np.concatenate, zip(*batches, strict=True)))
