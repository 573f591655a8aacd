"""Average precision and AUROC of one ranking, for any number of resamples at once. Ties are grouped as scikit-learn
groups them: a threshold never falls between equal scores.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from benchkit.metrics.cumulative import Weights, batches, cumulative


@dataclass(frozen=True, eq=False)
class Ranks:
    """Examples sorted once, from the highest score down; only groups of equal scores that hold a positive count.

    order: rows, down to the group of the last positive. positive: the rows of positives, in the same order.
    starts, ends: rows before and through each such group; positive_ends: positives through it.
    n_negatives: rows that are no positives, below the last positive too.
    """

    order: Int32[np.ndarray, " m"]
    positive: Int32[np.ndarray, " p"]
    starts: Int64[np.ndarray, " g"]
    ends: Int64[np.ndarray, " g"]
    positive_ends: Int64[np.ndarray, " g"]
    n_negatives: int
    rows_per_example: int = 1


def rank(
    positive: Bool[np.ndarray, " n"], scores: Float32[np.ndarray, " n"], *, rows_per_example: int = 1, ties: bool = True
) -> Ranks:
    """rows_per_example: so many neighbouring rows belong to one example, and weigh what it weighs. ties: False takes
    each row for a group of its own, equal scores in the order of the rows."""
    order = np.argsort(-scores, kind=None if ties else "stable")
    sorted_scores, hit = scores[order], positive[order]
    apart = sorted_scores[1:] != sorted_scores[:-1] if ties else np.ones(max(len(order) - 1, 0), bool)
    ends = np.append(np.flatnonzero(apart) + 1, len(order))[: len(order)]
    through = np.cumsum(hit)[ends - 1]
    counts = np.diff(through, prepend=0) > 0
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    rows = (order // rows_per_example).astype(np.int32)
    kept = ends[counts]
    return Ranks(
        order=rows[: kept[-1] if len(kept) else 0],
        positive=rows[hit],
        starts=starts[counts],
        ends=kept,
        positive_ends=through[counts],
        n_negatives=len(order) - int(np.count_nonzero(hit)),
        rows_per_example=rows_per_example,
    )


def average_precision(ranks: Ranks, weights: Weights, *, ties: bool = True) -> Float64[np.ndarray, " R"]:
    """Sum over thresholds of the gain in recall times the precision; NaN for a resample without positives.

    As `sklearn.metrics.average_precision_score`: no interpolation. ties: False, with ranks that were made so, counts
    the copies of an example in a resample one after another, as it does other rows of equal scores.
    """
    harmonic = np.empty(0) if ties else _harmonic(weights)
    area = np.zeros(weights.shape[1])
    drawn, hits = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for batch in batches(len(ranks.ends)):
        gained, through = _hits(ranks, weights, batch, hits)
        start = int(ranks.ends[batch.start - 1]) if batch.start else 0
        ends = ranks.ends[batch]
        n = drawn + cumulative(weights, ranks.order[start : ends[-1]], ends - start)
        if ties:
            area += np.einsum("gr,gr->r", gained, through / np.maximum(n, 1))
        else:  # the i-th of w copies behind f false positives: 1 - f / (rows so far + i), summed over i
            before, behind = np.rint(n - gained).astype(np.int64), np.rint(n).astype(np.int64)
            area += (gained - (n - through) * (harmonic[behind] - harmonic[before])).sum(axis=0)
        drawn, hits = n[-1], through[-1]
    return _ratio(area, hits)


def _harmonic(weights: Weights) -> Float64[np.ndarray, " n"]:
    """1 + 1/2 + ... + 1/k at k, from 0 to all rows that a column of whole weights draws."""
    most = int(weights.sum(axis=0, dtype=np.int64).max(initial=0))
    return np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1))])


def auroc(ranks: Ranks, weights: Weights, total: Float64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
    """The chance that a positive scores above a negative, a tie counting half; NaN without positives or negatives.

    total: the weights' sum over all examples. As `sklearn.metrics.roc_auc_score`, by counting instead of integrating.
    """
    above = np.zeros(weights.shape[1])
    drawn, hits = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for batch in batches(len(ranks.ends)):
        gained, through = _hits(ranks, weights, batch, hits)
        start = int(ranks.ends[batch.start - 1]) if batch.start else 0
        bounds = np.stack([ranks.starts[batch], ranks.ends[batch]], axis=1).ravel()
        n = drawn + cumulative(weights, ranks.order[start : bounds[-1]], bounds - start)
        # Of the negatives in a group of equal scores, half count as above the group's positives.
        negatives = (n[0::2] - (through - gained) + n[1::2] - through) / 2
        above += np.einsum("gr,gr->r", gained, negatives)
        drawn, hits = n[-1], through[-1]
    return 1 - _ratio(above, hits * (total * ranks.rows_per_example - hits))


def _hits(
    ranks: Ranks, weights: Weights, batch: slice, hits: Float64[np.ndarray, " R"]
) -> tuple[Float64[np.ndarray, "g R"], Float64[np.ndarray, "g R"]]:
    """The positives drawn from each group of the batch, and those through it; hits: those before the batch."""
    start = int(ranks.positive_ends[batch.start - 1]) if batch.start else 0
    ends = ranks.positive_ends[batch]
    through = hits + cumulative(weights, ranks.positive[start : ends[-1]], ends - start)
    return np.diff(through, axis=0, prepend=hits[None]), through


def _ratio(a: Float64[np.ndarray, " R"], b: Float64[np.ndarray, " R"]) -> Float64[np.ndarray, " R"]:
    """a / b, and NaN where b is 0."""
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)
