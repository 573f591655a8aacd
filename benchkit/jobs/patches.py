"""Patch activations of rows of a split at several places, in one pass that also fills the cache of pooled features."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing

import numpy as np
from jaxtyping import Float32, Int, Int64, Shaped

from benchkit.activations import TOKENS, prefix_tokens
from benchkit.activations.stream import check_points
from benchkit.errors import PluginError
from benchkit.features.batches import mark_padding
from benchkit.features.filling import filling
from benchkit.features.pipeline import Run, checked_rows
from benchkit.features.scratch import Scratch
from benchkit.jobs.data import JobData

Patches = tuple[str, Int64[np.ndarray, " B"], Float32[np.ndarray, "B T D"]]
"""The place, the rows, and their activations there without what comes before the patches; padding is rows of NaN."""


class Kept(dict[str, tuple[Int64[np.ndarray, " _"], Shaped[np.ndarray, "_ _ _"]]]):
    """By place, the rows and a read-only memory map of their patches."""


def keep_patches(data: JobData, split: str, rows: Int[np.ndarray, " n"], points: Sequence[str]) -> Kept:
    """The patches of these rows, in scratch files without names: for training rows. Arguments and errors: as
    `stream_patches`; raises StoreError where the scratch folder cannot hold them."""
    found: dict[str, list[np.ndarray]] = {point: [] for point in points}
    shapes: dict[str, tuple[int, ...]] = {}
    with ExitStack() as stack:
        folder = data.extraction(split).scratch
        scratch = {p: stack.enter_context(Scratch(folder, f"activations at '{p}'")) for p in points}
        for point, here, patches in stream_patches(data, split, rows, points):
            shape = shapes.setdefault(point, patches.shape[1:])
            if shape != patches.shape[1:]:
                raise PluginError(
                    f"{type(data.backbone).__name__} gave patches of {patches.shape[1:]} at '{point}' after {shape}"
                )
            scratch[point].append(patches)
            found[point].append(here)
        kept = Kept()
        for point, parts in found.items():
            kept_rows = np.concatenate([np.zeros(0, np.int64), *parts])
            shape = (len(kept_rows), *shapes.get(point, (0, 0)))
            kept[point] = (kept_rows, scratch[point].map(shape, np.dtype(np.float32)))
        return kept


def stream_patches(data: JobData, split: str, rows: Int[np.ndarray, " n"], points: Sequence[str]) -> Iterator[Patches]:
    """Patches of these rows at every place, as they go past. points: names of `Backbone.points()`, or 'tokens'.

    Rows that do not decode are left out and noted in `data.bad`; raises MediaError where they are too many,
    BenchkitError for a point that there is not, PluginError where the backbone breaks its contract.
    """
    backbone = data.ready()
    check_points(backbone, points)
    inner = [p for p in points if p != TOKENS]
    run = Run.of(data.task, backbone, split, data.extraction(split), data.progress, data.key(split))
    rows = checked_rows(rows, len(data.labels[split]), split)
    with filling(run, rows, data.key(split)) as cache:
        with closing(run.batches(rows)) as batches:
            for batch in batches:
                own = TOKENS in points
                for part in run.encode(batch if own else batch.where(cache.missing(batch.rows)), tokens=own):
                    cache.write(part)
                    if own:
                        assert part.encoded.tokens is not None
                        yield TOKENS, part.rows, part.encoded.tokens
                if inner:
                    for here, found in run.compute(batch, lambda array: backbone.activations(array, inner)):
                        assert batch.array is not None
                        yield from _patches(data, inner, batch.rows[here], found, batch.array[here])
        run.judge(len(rows))
    if run.bad and data.tested:
        data.lose(split, np.array(sorted(run.bad), np.int64))
    data.bad[split] |= run.bad


def _patches(
    data: JobData,
    points: Sequence[str],
    rows: Int64[np.ndarray, " B"],
    found: Mapping[str, np.ndarray],
    batch: np.ndarray,
) -> Iterator[Patches]:
    for point in points:
        x, prefix = found[point], prefix_tokens(data.backbone, point)
        if x.ndim != 3 or len(x) != len(rows) or x.dtype != np.float32 or x.shape[1] <= prefix:
            raise PluginError(
                f"{type(data.backbone).__name__} gave activations {x.dtype} {x.shape} at '{point}' for {len(rows)} "
                f"examples, not float32 ({len(rows)}, T, D) with more than {prefix} tokens"
            )
        yield point, rows, mark_padding(data.backbone, batch, x[:, prefix:])
