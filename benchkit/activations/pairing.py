"""Two points of one recording as one stream of pairs: the vectors of a token at both, side by side."""

from collections.abc import Generator
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from benchkit.activations.reader import BUFFER_BYTES, shuffled
from benchkit.activations.recording import RecordedPoint


def paired_batches(
    a: RecordedPoint, b: RecordedPoint, batch_size: int, *, seed: int, epochs: int | None, patches: bool, skip: int,
    examples: Int[np.ndarray, " n"], buffer_bytes: int = BUFFER_BYTES, use: int = 0,
) -> Generator[Float32[np.ndarray, "B D"], None, None]:  # fmt: skip
    """[B, D + E], in an order of its own: each pair once an epoch. The points have the same examples and tokens; their
    shards, which may end at different ones, are read where they lie."""
    parts: list[_Pair] = []
    for low, high, i, j, at_i, at_j in _overlaps(a, b):
        own = examples[np.searchsorted(examples, low) : np.searchsorted(examples, high)]
        for run in np.split(own, np.flatnonzero(np.diff(own) != 1) + 1):
            if len(run):
                n, skipped = len(run), int(run[0]) - low
                parts.append(_Pair(a, b, i, j, at_i + skipped, at_j + skipped, n))
    first = a.prefix_tokens if patches else 0
    total = a.vectors_of(examples, patches=patches)
    return shuffled(
        parts, first, batch_size, seed, epochs, skip, buffer_bytes, lambda k: parts[k].check(), total, use
    )  # fmt: skip


def _overlaps(a: RecordedPoint, b: RecordedPoint) -> list[tuple[int, int, int, int, int, int]]:
    """Stretches of examples that lie in one shard of each: from, to, the shards' numbers, where they begin in them."""
    ends = [np.cumsum([0, *(s["examples"] for s in p.metadata["shards"])]) for p in (a, b)]
    cuts = np.unique(np.concatenate(ends))
    found = []
    for low, high in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        i, j = (int(np.searchsorted(e, low, side="right")) - 1 for e in ends)
        found.append((low, high, i, j, low - int(ends[0][i]), low - int(ends[1][j])))
    return found


class _Pair:
    """Neighbouring examples at both points, as the reader wants an array to be: [n, T, D + E]."""

    def __init__(self, a: RecordedPoint, b: RecordedPoint, i: int, j: int, at_i: int, at_j: int, n: int) -> None:
        self._points, self._numbers = (a, b), (i, j)
        self._views = (a.shards[i][at_i : at_i + n], b.shards[j][at_j : at_j + n])
        self.shape = (n, a.tokens, a.dim + b.dim)
        self.dtype = np.result_type(a.shards[i].dtype, b.shards[j].dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.concatenate([view[key] for view in self._views], axis=-1).astype(self.dtype, copy=False)

    def check(self) -> None:
        for point, number in zip(self._points, self._numbers, strict=True):
            point.check(number)
