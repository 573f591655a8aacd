"""What is too large to keep: tokens [T, D] of each example, and the preprocessed examples themselves, for probes that
train the backbone. Training rows, which are few, go to a scratch file; those that are scored go past once."""

from collections.abc import Iterator, Mapping
from contextlib import closing

import numpy as np
from jaxtyping import Int

from benchkit.features.filling import Filling, filling
from benchkit.features.pipeline import Options, Run, checked_rows
from benchkit.features.scratch import Kept, Passing, keep
from benchkit.interfaces import Backbone, Needs, Task
from benchkit.progress import Progress

CHUNK_BYTES = 1 << 29
"""Of preprocessed examples that go past at a time: whoever scores them with one model after another moves each chunk
onto the device once a model, and that should be little beside the scoring itself."""


def extract_for(
    needs: Needs,
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
) -> Kept:
    """What probes with these needs ('tokens' or 'raw') want of these rows, [n, ...], in a scratch file.

    Arguments and errors as for `stream_for`; raises StoreError where the scratch folder cannot hold them.
    """
    run = Run.of(task, backbone, split, options, progress, key)
    what, empty = {"tokens": ("tokens", (0, 0)), "raw": ("preprocessed examples", (0,))}[needs]
    return keep(run, _passing(needs, run, rows, key), what, empty)


def stream_for(
    needs: Needs,
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Passing]:
    """The same in a single pass, stored nowhere: tokens batch by batch, examples in chunks of about `chunk_bytes`.

    key: as for `extract`; with it, the pooled features of the same rows go to the cache, as far as they are not there,
    so that examples are decoded once for both and a later `extract` costs nothing (once this stream has ended: until
    then it holds the entry's lock). Rows that do not decode are left out. Raises as `extract` does.
    """
    passing = _passing(needs, Run.of(task, backbone, split, options, progress, key), rows, key)
    return _chunks(passing, chunk_bytes) if needs == "raw" else passing


def _passing(needs: Needs, run: Run, rows: Int[np.ndarray, " n"], key: Mapping[str, str] | None) -> Iterator[Passing]:
    rows = checked_rows(rows, len(run.task.ids(run.split)), run.split)
    with filling(run, rows, key) as cache:
        yield from {"tokens": _tokens, "raw": _raw}[needs](run, rows, cache)
        run.judge(len(rows))


def _tokens(run: Run, rows: Int[np.ndarray, " n"], cache: Filling) -> Iterator[Passing]:
    with closing(run.parts(rows, tokens=True)) as parts:
        for part in parts:
            cache.write(part)
            assert part.encoded.tokens is not None
            yield Passing(part.rows, part.encoded.tokens, part.media)


def _raw(run: Run, rows: Int[np.ndarray, " n"], cache: Filling) -> Iterator[Passing]:
    with closing(run.batches(rows)) as batches:
        for batch in batches:
            for part in run.encode(batch.where(cache.missing(batch.rows)), tokens=False):
                cache.write(part)
            if batch.array is not None:
                yield Passing(batch.rows, batch.array, batch.media)


def _chunks(batches: Iterator[Passing], chunk_bytes: int) -> Iterator[Passing]:
    waiting: list[Passing] = []
    for batch in batches:
        waiting.append(batch)
        if sum(b.values.nbytes for b in waiting) >= chunk_bytes:
            chunk, waiting = _joined(waiting), []  # the parts need not wait while it is scored
            yield chunk
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[Passing]) -> Passing:
    return batches[0] if len(batches) == 1 else Passing(*map(np.concatenate, zip(*batches, strict=True)))
