"""Activations of rows of a split at named places, in a single pass; they are stored nowhere."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Int64

from benchkit.activations.selfcheck import check_places
from benchkit.errors import BenchkitError, PluginError, did_you_mean
from benchkit.features import Options, set_up
from benchkit.features.batches import mark_padding
from benchkit.features.pipeline import Run, checked_rows
from benchkit.interfaces import Backbone, Task
from benchkit.progress import Progress

TOKENS = "tokens"
"""The point that means the backbone's own tokens: those of `encode(tokens=True)`, which token probes get."""


@dataclass(frozen=True)
class PointBatch:
    """A part of a split on its way past. activations: [B, T, D] for each point, each with its own T and D; a token that
    is padding is a row of NaN."""

    rows: Int64[np.ndarray, " B"]
    activations: Mapping[str, Float32[np.ndarray, "B _ _"]]


def prefix_tokens(backbone: Backbone, point: str) -> int:
    """How many of a point's tokens come before the patches or frames (class token, registers)."""
    return 0 if point == TOKENS else backbone.prefix_tokens


def without_padding(
    backbone: Backbone, batch: np.ndarray, x: Float32[np.ndarray, "B T D"], prefix: int
) -> Float32[np.ndarray, "B T D"]:
    """The same activations, rows of NaN where an example was padded. prefix: tokens before the patches, which are no
    padding. Raises PluginError where the backbone breaks its contract."""
    if x.shape[1] <= prefix:
        return x
    patches = x[:, prefix:]
    marked = mark_padding(backbone, batch, patches)
    return x if marked is patches else np.concatenate([x[:, :prefix], marked], axis=1)


def check_points(backbone: Backbone, points: Sequence[str]) -> None:
    """Raises BenchkitError for a point that the backbone, which is set up, does not name."""
    known = (TOKENS, *backbone.points())
    for point in points:
        if point not in known:
            named = (
                f"it has {', '.join(known)}"
                if len(known) < 10
                else f"it has '{TOKENS}' and {len(known) - 1} more, as in '{known[-1]}'"
            )
            raise BenchkitError(
                f"{type(backbone).__name__} has no point '{point}'{did_you_mean(point, known)} ({named})"
            )


def stream_points(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    points: Sequence[str],
    options: Options,
    progress: Progress,
    name: str | None = None,
    total: int | None = None,
) -> Generator[PointBatch, None, None]:
    """Activations of these rows at every point, batch by batch, in float32.

    points: names of `Backbone.points()`, or 'tokens'. name: of the task, shown with the progress. Rows that do not
    decode are left out, as many as `options.skip_bad` allows; total: of how many examples that is, where these rows are
    the rest of more. A batch that does not fit into memory is halved. Raises BenchkitError for a point that there is
    not, PluginError where the backbone breaks its contract or, on the first batch, shows other things at places inside
    blocks than their names say, and what `extract` raises.
    """
    rows = checked_rows(rows, len(task.ids(split)), split)
    set_up(backbone, options.device)
    check_points(backbone, points)
    run = Run.of(task, backbone, split, options, progress, {"task": name} if name else None)
    inner = tuple(p for p in dict.fromkeys(points) if p != TOKENS)

    asked = False

    def compute(batch: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal asked
        if not asked:
            check_places(backbone, batch, inner)
            asked = True
        found: dict[str, np.ndarray] = {}
        if TOKENS in points:
            tokens = backbone.encode(batch, tokens=True).tokens
            if tokens is None:
                raise BenchkitError(f"{type(backbone).__name__} has no tokens, and no point '{TOKENS}' therefore")
            found[TOKENS] = tokens
        if inner:
            found |= backbone.activations(batch, inner)
        for point, x in found.items():
            if x.ndim != 3 or len(x) != len(batch) or x.dtype != np.float32:
                raise PluginError(
                    f"{type(backbone).__name__} gave activations {x.dtype} {x.shape} at '{point}' for {len(batch)} "
                    f"examples, not float32 ({len(batch)}, T, D)"
                )
            found[point] = without_padding(backbone, batch, x, prefix_tokens(backbone, point))
        return found

    with closing(run.batches(rows)) as batches:
        for batch in batches:
            for part, found in run.compute(batch, compute):
                yield PointBatch(batch.rows[part], found)
    run.judge(total or len(rows))
