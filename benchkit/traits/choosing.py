"""Average precision of every prototype for every trait, and the best prototype of each.

For K = 8,192 prototypes, 312 traits and 6,000 images that is 2.5 million rankings. Each prototype's scores are sorted
once for all traits. After that only positives matter: a trait's average precision is the mean, over its positives, of
(positives down to there) / (images down to there), so a prototype costs one gather and one sort of as many integers as
there are positives in all traits together.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Integer, UInt8

from benchkit.errors import FitError
from benchkit.machine import cpus
from benchkit.progress import Progress, Silent

_ELEMENTS = 1 << 18
"""Positives, over the prototypes of a chunk, that a thread has in hand: they stay in the processor's cache."""
_BLOCK = 1 << 24
"""Scores, of some prototypes for all images, that are read at a time: 64 MB; the others may lie on a disk."""
_MAX_THREADS = 16
ROUNDING = 1e-12
"""Average precisions that differ by less are the same number, summed up in another order. On a few images many
prototypes are equally good, and which of them is the first must not depend on a processor's arithmetic."""


@dataclass(frozen=True)
class Choice:
    """prototype: of each trait, the one with the highest average precision; of several, the first.

    ap: that average precision, on the images it was chosen on; NaN for a trait without positives there.
    decided: whether the images told prototypes apart. A trait that none or all of them have leaves every prototype as
    good as the others; it gets prototype 0, which is as good as any.
    """

    prototype: Int64[np.ndarray, " T"]
    ap: Float64[np.ndarray, " T"]
    decided: Bool[np.ndarray, " T"]


def choose(
    scores: Float32[np.ndarray, "N K"],
    labels: UInt8[np.ndarray, "N T"],
    progress: Progress | None = None,
) -> Choice:
    """The best prototype for each trait, on these images. Raises FitError for scores that are not numbers."""
    n_traits = labels.shape[1]
    positives = np.count_nonzero(labels, axis=0)
    best, at = np.full(n_traits, -1.0), np.zeros(n_traits, np.int64)
    with (progress or Silent()).step("choose prototypes", scores.shape[1], "prototypes") as step:
        for start, ap in _chunks(scores, labels):
            top = (ap >= ap.max(axis=0) - ROUNDING).argmax(axis=0)  # the first of several
            value = np.take_along_axis(ap, top[None], axis=0)[0]
            better = value > best + ROUNDING  # never where it is NaN
            best[better], at[better] = value[better], top[better] + start
            step.advance(len(ap))
    decided = (positives > 0) & (positives < len(labels))
    at[~decided] = 0
    return Choice(at, np.where(positives > 0, best, np.nan), decided)


def average_precisions(
    scores: Float32[np.ndarray, "N K"], labels: UInt8[np.ndarray, "N T"]
) -> Float64[np.ndarray, "K T"]:
    """Of each prototype for each trait, as `sklearn.metrics.average_precision_score`, which groups equal scores into
    one threshold; NaN for a trait without positives. Raises FitError for scores that are not numbers."""
    return np.concatenate([ap for _, ap in _chunks(scores, labels)])


def _chunks(
    scores: Float32[np.ndarray, "N K"], labels: UInt8[np.ndarray, "N T"]
) -> Iterator[tuple[int, Float64[np.ndarray, "k T"]]]:
    """Chunk after chunk of prototypes: the first one's number and their average precisions."""
    n, k = scores.shape
    positives = _Positives.of(labels)
    block = max(1, _BLOCK // max(1, n))
    width = int(np.clip(_ELEMENTS // max(1, len(positives.rows), n), 1, min(512, block)))
    with ThreadPoolExecutor(
        min(cpus.available(), _MAX_THREADS)
    ) as pool:  # numpy sorts without holding the interpreter's lock
        for begin in range(0, k, block):
            falling = -np.ascontiguousarray(scores[:, begin : begin + block].T)
            if np.isnan(falling).any():
                raise FitError("scores of images are not numbers: the activations or the scorer went wrong before")
            parts = [falling[i : i + width] for i in range(0, len(falling), width)]
            done = pool.map(lambda part: positives.average_precision(_thresholds(part)), parts)
            for i, ap in enumerate(done):
                yield begin + i * width, ap


def _thresholds(falling: Float32[np.ndarray, "k N"]) -> Int64[np.ndarray, "k N"]:
    """How many images score as high as this one, or higher: where the group of equal scores ends that it is in.

    falling: the negative scores."""
    order = np.argsort(falling, axis=1)
    ranked = np.take_along_axis(falling, order, axis=1)
    n = falling.shape[1]
    ends = np.broadcast_to(np.arange(1, n + 1), ranked.shape)
    equal = ranked[:, 1:] == ranked[:, :-1]
    if equal.any():
        ends = np.where(np.pad(equal, ((0, 0), (0, 1))), n, ends)
        ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
    out = np.empty(falling.shape, np.int64)
    np.put_along_axis(out, order, ends, axis=1)
    return out


@dataclass(frozen=True)
class _Positives:
    """The positives of all traits, one trait after the other.

    rows: images. base: of each, a number that keeps its trait apart when all are sorted together. ordinal: 1, 2, ...
    within a trait. first: where each trait that has positives begins. traits, counts: which those are, and how many
    positives each has.
    """

    rows: Int64[np.ndarray, " P"]
    base: Integer[np.ndarray, " P"]
    ordinal: Float64[np.ndarray, " P"]
    first: Int64[np.ndarray, " t"]
    traits: Int64[np.ndarray, " t"]
    counts: Int64[np.ndarray, " t"]
    n_traits: int

    @staticmethod
    def of(labels: UInt8[np.ndarray, "N T"]) -> "_Positives":
        n, n_traits = labels.shape
        number, rows = np.nonzero(labels.T)
        per_trait = np.bincount(number, minlength=n_traits)
        traits = np.flatnonzero(per_trait)
        counts = per_trait[traits]
        first = np.cumsum(counts) - counts
        kind = np.int32 if n_traits * (n + 1) < 2**31 else np.int64
        base = (number * (n + 1)).astype(kind)
        ordinal = np.arange(1.0, len(rows) + 1) - np.repeat(first, counts)
        return _Positives(rows, base, ordinal, first, traits, counts, n_traits)

    def average_precision(self, thresholds: Int64[np.ndarray, "k N"]) -> Float64[np.ndarray, "k T"]:
        """The mean over each trait's positives of the share of positives down to the threshold they are at."""
        out = np.full((len(thresholds), self.n_traits), np.nan)
        if not len(self.rows):
            return out
        down_to = np.take(thresholds.astype(self.base.dtype), self.rows, axis=1)  # rows of it contiguous, to be sorted
        down_to += self.base
        down_to.sort(axis=1)  # within each trait: bases keep the traits apart
        tied = down_to[:, 1:] == down_to[:, :-1]
        if tied.any():
            sums = self._tied(down_to, tied)
        else:
            down_to -= self.base
            sums = np.add.reduceat(self.ordinal / down_to, self.first, axis=1)
        out[:, self.traits] = sums / self.counts
        return out

    def _tied(
        self, down_to: Integer[np.ndarray, "k P"], tied: Bool[np.ndarray, "k before_last"]
    ) -> Float64[np.ndarray, "k t"]:
        """The sums of those shares where positives lie at one threshold: all of them count at it, so each has the
        ordinal of the last. Thresholds are summed up once, times their positives."""
        n = down_to.shape[1]
        last = np.flatnonzero(np.pad(~tied, ((0, 0), (0, 1)), constant_values=True))
        first = np.concatenate([[0], last[:-1] + 1])
        at = last % n
        shares = (last - first + 1) * self.ordinal[at] / (down_to.reshape(-1)[last] - self.base[at])
        traits = (n * np.arange(len(down_to))[:, None] + self.first).reshape(-1)
        return np.add.reduceat(shares, np.searchsorted(first, traits)).reshape(len(down_to), -1)
