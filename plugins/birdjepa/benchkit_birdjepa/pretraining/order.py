"""The order of examples: a pure function of the seed and the epoch, so that the position in it is the step alone, and
no buffer holds anything that a checkpoint would have to keep. Workers have no say in it."""

import math
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Int64

Shuffle = Literal["full", "window", "none"]
ORDER, EXAMPLE, BATCH, SUBSTITUTE = range(4)
"""What a random stream is for."""


def stream(seed: int, use: int, *where: int) -> np.random.Generator:
    """Its own random numbers for each place."""
    return np.random.default_rng(np.random.SeedSequence([0x9E7A, seed, use, *where]))


@lru_cache(maxsize=4)
def epoch_order(
    n: int, seed: int, epoch: int, how: Shuffle = "full", shard: int = 256, interleave: int = 8, window: int = 2048
) -> Int64[np.ndarray, " n"]:
    """Every number below `n` once.

    window: shards of neighbouring examples are taken in random order, `interleave` of them side by side, one example
    from each in turn; of the `window` examples that come next, a random one is taken each time.
    """
    if how == "none":
        return np.arange(n)
    rng = stream(seed, ORDER, epoch)
    if how == "full":
        return rng.permutation(n)
    starts = rng.permutation(np.arange(0, n, shard))
    waiting = [np.arange(s, min(s + shard, n)) for s in starts]
    merged = np.concatenate([_side_by_side(waiting[i : i + interleave]) for i in range(0, len(waiting), interleave)])
    return _windowed(merged, window, rng)


def _side_by_side(parts: list[Int64[np.ndarray, " _"]]) -> Int64[np.ndarray, " m"]:
    """One of each in turn; those that are longer go on alone."""
    turn = np.concatenate([np.arange(len(p)) for p in parts])
    return np.concatenate(parts)[np.argsort(turn, kind="stable")]


def _windowed(order: Int64[np.ndarray, " n"], window: int, rng: np.random.Generator) -> Int64[np.ndarray, " n"]:
    held, out = list(order[:window]), []
    picks = rng.random(len(order))
    for i, pick in enumerate(picks):
        at = int(pick * len(held))
        out.append(held[at])
        if window + i < len(order):
            held[at] = order[window + i]
        else:
            held[at] = held[-1]
            held.pop()
    return np.array(out, np.int64)


def entropy(labels: np.ndarray) -> float:
    """In bits, of the classes [n], or of 0 and 1 for each class [n, C] as shares of all ones."""
    counts = np.bincount(labels.astype(np.int64)).astype(float) if labels.ndim == 1 else labels.sum(0).astype(float)
    shares = counts[counts > 0] / max(1.0, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) if len(shares) else 0.0


def expected_entropy(labels: np.ndarray, batch: int) -> float:
    """What `entropy` is on average in a batch drawn from all examples, by 32 draws."""
    rng = np.random.default_rng(0)
    draws = [entropy(labels[rng.choice(len(labels), min(batch, len(labels)), replace=False)]) for _ in range(32)]
    return math.fsum(draws) / len(draws)
