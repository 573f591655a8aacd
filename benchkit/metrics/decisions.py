"""Metrics of the class with the highest score: top-1, balanced accuracy, macro F1; for any number of resamples."""

import numpy as np
from jaxtyping import Float64, Int, Int64

from benchkit.metrics.cumulative import Weights, cumulative
from benchkit.metrics.scored import Scored


def top1(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    """Share of the examples whose top class is right; multilabel: is among their labels, of those that have any."""
    if scored.multiclass:
        labelled, right = scored.all_rows, np.flatnonzero(scored.top == scored.labels)
    else:
        labelled = np.flatnonzero(scored.labels.any(axis=1))
        right = labelled[scored.labels[labelled, scored.top[labelled]] > 0]
    n = _sum(weights, labelled)
    return np.divide(_sum(weights, right), n, out=np.full_like(n, np.nan), where=n > 0)


def balanced_accuracy(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    """Mean recall over the classes that have examples."""
    true, _, right = _per_class(scored, weights)
    return mean_defined(np.divide(right, true, out=np.full_like(true, np.nan), where=true > 0))


def macro_f1(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    """Mean F1 over the classes that have examples or were predicted."""
    true, predicted, right = _per_class(scored, weights)
    both = true + predicted
    return mean_defined(np.divide(2 * right, both, out=np.full_like(both, np.nan), where=both > 0))


def mean_defined(values: Float64[np.ndarray, "n R"]) -> Float64[np.ndarray, " R"]:
    """The mean of each column over what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    n = defined.sum(axis=0)
    sums = np.where(defined, values, 0.0).sum(axis=0)
    return np.divide(sums, n, out=np.full(values.shape[1], np.nan), where=n > 0)


def quantile_defined(values: Float64[np.ndarray, "n R"], share: float) -> Float64[np.ndarray, " R"]:
    """The quantile of each column over what is not NaN, interpolated; NaN where nothing is."""
    out = np.full(values.shape[1], np.nan)
    some = ~np.isnan(values).all(axis=0)
    if some.any():
        out[some] = np.nanquantile(values[:, some], share, axis=0)
    return out


def _per_class(
    scored: Scored, weights: Weights
) -> tuple[Float64[np.ndarray, "C R"], Float64[np.ndarray, "C R"], Float64[np.ndarray, "C R"]]:
    """How often each class is the true one, the predicted one, and both."""
    right = np.flatnonzero(scored.top == scored.labels)
    return (
        _grouped(scored, weights, scored.all_rows, scored.labels),
        _grouped(scored, weights, scored.all_rows, scored.top),
        _grouped(scored, weights, right, scored.labels[right]),
    )


def _grouped(
    scored: Scored, weights: Weights, rows: Int[np.ndarray, " m"], classes: Int64[np.ndarray, " m"]
) -> Float64[np.ndarray, "C R"]:
    """The weights of `rows`, added up by class."""
    order = rows[np.argsort(classes, kind="stable")].astype(np.int32)
    ends = np.cumsum(np.bincount(classes, minlength=scored.problem.n_classes))
    through = cumulative(weights, order, ends)
    return np.diff(through, axis=0, prepend=np.zeros((1, weights.shape[1])))


def _sum(weights: Weights, rows: Int[np.ndarray, " m"]) -> Float64[np.ndarray, " R"]:
    return cumulative(weights, rows.astype(np.int32), np.array([len(rows)]))[0]
