"""Do labels and features belong to the same rows? Similar examples should carry similar labels at the same row, not a
row or two further on: what is left when a file is read with one header too many, or one recording is lost.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from benchkit.interfaces import Labels

OFFSETS = (-3, -2, -1, 1, 2, 3)
_ROWS = 2000
_Z = 5.0
_GAIN = 0.03


@dataclass(frozen=True)
class Alignment:
    """How well nearest neighbours agree in their labels: at their own rows, and at the best offset.

    offset: 0, or the offset at which the labels fit the features significantly better. z: of that comparison.
    n: pairs of neighbours compared. by_offset: agreement at each offset, 0 too.
    """

    offset: int
    z: float
    n: int
    by_offset: dict[int, float]


def align(
    features: Float[np.ndarray, "n D"], labels: Labels, rows: Int[np.ndarray, " n"] | None = None, *, seed: int = 0
) -> Alignment:
    """Compares labels at rows + offset with features at rows, for offsets of up to three rows either way.

    labels: all of a split, in order. rows: of the split, whose features these are; None: all.

    Each of at most 2,000 rows is paired with its nearest neighbour among them (cosine of standardised features), and
    the pair's agreement (same class; multilabel: intersection over union of the labels) at each offset is compared
    with that at 0. Pairs are compared with themselves, so rows sorted by class, or by time, agree equally well at every
    offset and give no alarm. An offset is reported where the gain in agreement is 0.03 or more and its z (the sum
    of the gains over the root of the sum of their squares: McNemar's test, for multiclass) at least 5.
    """
    a, b = _neighbours(features, seed)
    if rows is not None:
        a, b = rows[a], rows[b]
    reach = max(OFFSETS)
    inside = (np.minimum(a, b) >= reach) & (np.maximum(a, b) < len(labels) - reach)
    a, b = a[inside], b[inside]
    at_own = _agreement(labels, a, b)
    by_offset = {0: _mean(at_own)}
    best, best_z = 0, 0.0
    for offset in OFFSETS:
        gains = _agreement(labels, a + offset, b + offset) - at_own
        by_offset[offset] = by_offset[0] + _mean(gains)
        z = float(gains.sum() / max(np.sqrt(np.square(gains).sum()), 1e-9))
        if z > max(_Z, best_z) and _mean(gains) >= _GAIN:
            best, best_z = offset, z
    return Alignment(best, best_z, len(a), by_offset)


def _neighbours(features: Float[np.ndarray, "n D"], seed: int) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Rows and their nearest neighbours, each pair once."""
    rows = np.arange(len(features))
    if len(rows) > _ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(len(rows), _ROWS, replace=False))
    x = np.asarray(features[rows], np.float32)
    finite = np.isfinite(x).all(axis=1)
    rows, x = rows[finite], x[finite]
    if len(rows) < 2:
        return rows[:0], rows[:0]
    spread = x.std(axis=0, dtype=np.float64)
    varies = spread > 1e-6 * np.abs(x).max(axis=0)
    x = ((x[:, varies] - x[:, varies].mean(axis=0, dtype=np.float64)) / spread[varies]).astype(np.float32)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    similarity = x @ x.T
    np.fill_diagonal(similarity, -np.inf)
    pairs = np.sort(np.stack([np.arange(len(rows)), similarity.argmax(axis=1)], axis=1), axis=1)
    a, b = np.unique(pairs, axis=0).T
    return rows[a], rows[b]


def _agreement(labels: Labels, a: Int[np.ndarray, " p"], b: Int[np.ndarray, " p"]) -> Float64[np.ndarray, " p"]:
    """1 for the same class, 0 for another; of sets of labels the intersection over the union, 0 if both are empty."""
    if labels.ndim == 1:
        return (labels[a] == labels[b]).astype(np.float64)
    x: Bool[np.ndarray, "p C"] = labels[a] > 0
    y: Bool[np.ndarray, "p C"] = labels[b] > 0
    union = (x | y).sum(axis=1)
    return (x & y).sum(axis=1) / np.maximum(union, 1)


def _mean(values: Float64[np.ndarray, " p"]) -> float:
    return float(values.mean()) if len(values) else 0.0
