"""Token features: [T, D] for each example, too large to keep. Training rows, which are few, go to a scratch file; the
rows that are scored go past once."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt64

from benchkit.features.filling import filling
from benchkit.features.pipeline import Options, Run, checked_rows
from benchkit.features.scratch import Kept, keep
from benchkit.interfaces import Backbone, Encoded, Task
from benchkit.progress import Progress


class TokenBatch(NamedTuple):
    """A part of a split on its way past. encoded.tokens is there."""

    rows: Int64[np.ndarray, " B"]
    encoded: Encoded
    hashes: UInt64[np.ndarray, " B"]

    @property
    def values(self) -> Float32[np.ndarray, "B T D"]:
        """The tokens."""
        assert self.encoded.tokens is not None
        return self.encoded.tokens


def extract_tokens(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
) -> Kept:
    """Token features of these rows, [n, T, D], in a scratch file: for training rows, which are few.

    Arguments and errors as for `stream_tokens`; raises StoreError where the scratch folder cannot hold them.
    """
    run = Run.of(task, backbone, split, options, progress, key)
    return keep(run, _stream(run, rows, key), "tokens", (0, 0))


def stream_tokens(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
) -> Iterator[TokenBatch]:
    """Token features of these rows in a single pass, batch by batch; they are stored nowhere.

    key: as for `extract`; with it, the pooled features of the same pass go to the cache, so that a later `extract` of
    these rows costs nothing (once this stream has ended: until then it holds the entry's lock). Rows that do not decode
    are left out. Raises as `extract` does.
    """
    return _stream(Run.of(task, backbone, split, options, progress, key), rows, key)


def _stream(run: Run, rows: Int[np.ndarray, " n"], key: Mapping[str, str] | None) -> Iterator[TokenBatch]:
    rows = checked_rows(rows, len(run.task.ids(run.split)), run.split)
    with filling(run, rows, key) as cache:
        with closing(run.parts(rows, tokens=True)) as parts:
            for part in parts:
                cache.write(part)
                yield TokenBatch(part.rows, part.encoded, part.media)
        run.judge(len(rows))
