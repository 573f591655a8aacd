"""The held-out part of a recording: whole examples that nothing is trained, normalised or calibrated on.

By example and not by vector: the vectors of one image or clip are much alike, and those of a recording's other examples
are what an autoencoder will meet.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from benchkit.activations.moments import Moments, mean_and_variance_without
from benchkit.activations.reader import is_padding
from benchkit.activations.recording import RecordedPoint
from benchkit.errors import BenchkitError
from benchkit.machine.seeds import Purpose, generator

SHARE = 0.05
ENOUGH = 20
"""Examples from which on that share is held out, where the user says nothing: one of 20."""


@dataclass(frozen=True)
class Parts:
    """Numbers of a recording's examples, ascending. share: that was held out, 0 where nothing was."""

    share: float
    train: Int64[np.ndarray, " n"]
    held_out: Int64[np.ndarray, " m"]


def divide(n: int, share: float | None, seed: int) -> Parts:
    """Of n examples, that share, rounded to whole ones, drawn with the seed. None: 5 % where there are 20 examples,
    else nothing. Raises BenchkitError where a share asked for is none of the examples, or leaves none to train on."""
    if share is None:
        share = SHARE if n >= ENOUGH else 0.0
    count = round(share * n)
    if share and not 0 < count < n:
        raise BenchkitError(
            f"--held-out {share} of {n} examples is {count}: one at least must be held out, and one be left to train "
            "on (0 holds none out)"
        )
    order = generator(seed, Purpose.SAE_HOLDOUT).permutation(n)
    return Parts(share, np.sort(order[count:]), np.sort(order[:count]))


def training_statistics(
    data: RecordedPoint, parts: Parts, *, patches: bool, progressed: Callable[[int], None]
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Mean and variance of each dimension over the examples to train on: the recording's own, less the held-out ones,
    which alone are read."""
    whole = (data.patch_statistics if patches else data.statistics).moments
    first, held = data.prefix_tokens if patches else 0, Moments.none(data.dim)
    for view in data.views(parts.held_out):
        vectors = view[:, first:].reshape(-1, data.dim)
        vectors = vectors[~is_padding(vectors)]
        held = held + Moments.of(vectors)
        progressed(len(vectors))
    return mean_and_variance_without(whole, held)
