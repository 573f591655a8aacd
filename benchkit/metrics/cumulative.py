"""Cumulative resample weights along a sorted order: the one operation that every metric here is made of.

A bootstrap replicate is a column of small integers: how often it drew each example. With the examples sorted once, any
metric of any replicate needs only the sums of those weights over the first so many rows of the order. All replicates
lie side by side, so that numpy gathers and adds whole rows of them.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int32, Int64, UInt16, UInt32

Weights = UInt16[np.ndarray, "_ R"]
"""One row an example and then one row of zeros (padding points there), one column a replicate. No weight is above
1,023, so that a block's sum fits 16 bits: a resample of n draws the same example more often than that with a chance
below 1 / 1024!, if n allows it at all."""

_BLOCK = 64
_SLAB = 8192  # rows gathered at a time: what is gathered stays in the processor's cache
_BATCH = 1024


def ones(n: int) -> Weights:
    """The weights of the sample itself: each example once."""
    weights = np.ones((n + 1, 1), np.uint16)
    weights[n] = 0
    return weights


def cumulative(
    weights: Weights, order: Int32[np.ndarray, " m"], ends: Int64[np.ndarray, " k"]
) -> Float64[np.ndarray, "k R"]:
    """The sum of the weights of the first `ends[k]` rows of `order`, exactly, for each replicate.

    ends: ascending, from 0 to m. Memory beside the result does not grow with m.
    """
    out = np.zeros((len(ends), weights.shape[1]))
    carry = np.zeros(weights.shape[1])
    for start in range(0, len(order), _SLAB):
        slab = order[start : start + _SLAB]
        stop = start + len(slab)
        first, last = np.searchsorted(ends, start, "right"), np.searchsorted(ends, stop, "right")
        scan = _Scan(weights, slab)
        out[first:last] = scan.sums(ends[first:last] - start) + carry
        carry += scan.total
    return out


def total(weights: Weights) -> Float64[np.ndarray, " R"]:
    """The sum over all examples, for each replicate."""
    n = len(weights) - 1
    return cumulative(weights, np.arange(n, dtype=np.int32), np.array([n]))[0]


def batches(n: int) -> Iterator[slice]:
    """0..n in pieces, so that what is made of each piece has a bounded size."""
    return (slice(start, min(start + _BATCH, n)) for start in range(0, n, _BATCH))


class _Scan:
    """Prefix sums of at most _SLAB rows. They lie in blocks: row j of every block is added to row j + 1 of every block
    at once, in 16 bits; the sums of whole blocks follow in 32, enough for _SLAB rows."""

    def __init__(self, weights: Weights, rows: Int32[np.ndarray, " m"]) -> None:
        size = min(_BLOCK, len(rows))
        self.n_blocks, self.size, self.width = -(-len(rows) // size), size, weights.shape[1]
        padded = np.full(self.n_blocks * size, len(weights) - 1, np.intp)
        padded[: len(rows)] = rows
        self.within = np.empty((size, self.n_blocks, self.width), np.uint16)
        np.take(weights, padded.reshape(self.n_blocks, size).T, axis=0, out=self.within, mode="clip")
        for j in range(1, size):
            np.add(self.within[j], self.within[j - 1], out=self.within[j])
        self.before = np.zeros((self.n_blocks + 1, self.width), np.uint32)
        np.cumsum(self.within[-1], axis=0, dtype=np.uint32, out=self.before[1:])

    @property
    def total(self) -> UInt32[np.ndarray, " R"]:
        return self.before[-1]

    def sums(self, ends: Int64[np.ndarray, " k"]) -> UInt32[np.ndarray, "k R"]:
        """ends: from 1."""
        block, place = np.divmod(ends - 1, self.size)
        sums = self.before.take(block, axis=0)
        sums += self.within.reshape(-1, self.width).take(place * self.n_blocks + block, axis=0)
        return sums
