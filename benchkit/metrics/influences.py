"""What each example does to average precision and AUROC: how many degrees of freedom their variance over examples has,
and how far average precision lies above its limit.

Few degrees of freedom where rare classes dominate: a class with two positives adds a variance that is estimated from
two numbers. Average precision counts each positive among those found, so that it lies above its limit, the more the
fewer positives there are; the jackknife estimates by how much. One sort of each class, the rest is running sums; equal
scores are one threshold, as everywhere in benchkit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from benchkit.metrics.scored import Scored, positives

FEW = 5
"""Positives in a class, below which its number is too uncertain to compare test sets by."""
_BY_CLASS = ("cmap", "auroc", "auroc_birdset")


@dataclass(frozen=True, eq=False)
class Influence:
    """One class's, on [n] examples. each: the derivative of its number by the example's weight, a class's positives
    scaled as for an unbiased variance. without: its number without the example, minus itself."""

    each: Float64[np.ndarray, " n"]
    without: Float64[np.ndarray, " n"] | None


def average_precision(positive: Bool[np.ndarray, " n"], scores: Float32[np.ndarray, " n"]) -> Influence:
    """Of a class with positives."""
    order, first, last = _thresholds(scores)
    ys = positive[order].astype(float)
    m = ys.sum()
    r = (last + 1).astype(float)
    a = np.cumsum(ys)[last]
    p = a / r
    total = float((ys * p).sum())
    ap = total / m

    def below(v: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        return np.asarray(np.append(np.cumsum(v[::-1])[::-1], 0.0)[first])

    d = (ys * (p - ap) + ys * below(ys / r) - below(ys * p / r)) / m
    d *= np.where(ys > 0, np.sqrt(m / (m - 1)) if m > 1 else 1.0, 1.0)
    room = np.maximum(r * (r - 1), 1)
    negative = (total + below(ys * a / room)) / m
    own = ys * (a - r) / room
    left = (total - p + below(own) - own) / (m - 1) if m > 1 else np.full(len(ys), ap)
    without = np.where(ys > 0, left, negative) - ap
    return Influence(_back(d, order), _back(without, order))


def auroc(positive: Bool[np.ndarray, " n"], scores: Float32[np.ndarray, " n"]) -> Influence:
    """Of a class with positives and negatives (DeLong's placements)."""
    order, first, last = _thresholds(scores)
    ys = positive[order].astype(float)
    m, k = ys.sum(), len(ys) - ys.sum()
    hits = np.cumsum(ys)
    before, through = np.append(0.0, hits)[first], hits[last]
    found = (before + through) / 2  # of a tie half
    above = ((first - before) + (last + 1 - through)) / 2
    placed = 1 - above / k
    value = float((ys * placed).sum() / m)
    more_m, more_k = (np.sqrt(x / (x - 1)) if x > 1 else 1.0 for x in (m, k))
    each = np.where(ys > 0, (placed - value) / m * more_m, (found / m - value) / k * more_k)
    return Influence(_back(each, order), None)


def _thresholds(
    scores: Float32[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Rows from the highest score down, and of each place the first and the last with its score."""
    order = np.argsort(-scores, kind="stable")
    s = scores[order]
    starts = np.append(0, np.flatnonzero(s[1:] != s[:-1]) + 1)
    sizes = np.diff(np.append(starts, len(s)))
    return order, np.repeat(starts, sizes), np.repeat(starts + sizes - 1, sizes)


def _back(v: Float64[np.ndarray, " n"], order: Int[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    out = np.empty_like(v)
    out[order] = v
    return out


@dataclass(frozen=True)
class Told:
    """df: of the variance over examples; no more than the independent units less one. bias: None where unknown."""

    df: float
    bias: float | None


def told(
    metric: str, folds: Sequence[Scored], groups: Sequence[Int[np.ndarray, " _"]] | None, effective: float
) -> Told:
    """Of a metric on these folds, groups: the recordings' numbers in each."""
    most = max(effective - 1, 1.0)
    if metric not in _BY_CLASS:
        return Told(most, 0.0 if metric == "top1" else None)
    rows: list[tuple[float, int]] = []  # of each class its positives' sum of squares, and the units that hold them
    square, bias = 0.0, 0.0
    for f, scored in enumerate(folds):
        own = None if groups is None else groups[f]
        found = [
            (positive, made) for c in range(scored.problem.n_classes)
            if (made := _influence(metric, positive := positives(scored.labels, c), scored.scores[:, c])) is not None
        ]  # fmt: skip
        if not found:
            continue
        n = scored.problem.n_classes if metric == "auroc_birdset" else len(found)
        n *= len(folds)
        summed = np.sum([made.each for _, made in found], axis=0) / n
        square += float(summed @ summed)
        for positive, made in found:
            units = int(positive.sum()) if own is None else len(np.unique(own[positive]))
            rows.append((float((made.each[positive] ** 2).sum()) / n**2, units))
            if made.without is not None:
                bias += (scored.n - 1) * float(made.without.mean()) / n
    if not square:
        return Told(most, None)
    spread = sum((v / square) ** 2 / max(units - 1, 1) for v, units in rows)
    df = min(most, 1 / max(spread, 1e-9))
    return Told(max(df, 1.0), 0.0 if metric != "cmap" else bias if groups is None else None)


def _influence(metric: str, positive: Bool[np.ndarray, " n"], scores: Float32[np.ndarray, " n"]) -> Influence | None:
    """None where the class's number is not defined."""
    if not positive.any():
        return None
    if metric == "cmap":
        return average_precision(positive, scores)
    return None if positive.all() else auroc(positive, scores)
