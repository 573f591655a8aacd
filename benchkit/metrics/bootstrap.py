"""The percentile bootstrap over test examples (Efron and Tibshirani 1993, chapters 10 and 13), for one model and two.

Resampling is stratified by fold. A class that has no positives in a resample drops out of that replicate's mean, as it
would drop out of cmAP; a replicate in which nothing is defined drops out of the interval.

Replicates of average precision lie too high: a positive that is drawn twice is its own neighbour in the ranking. With
30 positives a class and 200 classes the plain interval begins above the value itself. So the replicates are moved by
the bootstrap's estimate of that bias, their mean minus the value, before the interval is read off. (Macro F1 has the
opposite bias; metrics that are shares of examples have next to none.)

Replicate r depends only on the seed, r and the folds' sizes: not on the number of threads, nor on how many are asked.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int

from benchkit.errors import DataError
from benchkit.interfaces import Labels, Problem
from benchkit.machine import cpus
from benchkit.metrics.cumulative import Weights, ones
from benchkit.metrics.decisions import mean_defined
from benchkit.metrics.definitions import MetricDef, find
from benchkit.metrics.scored import Scored, by_fold
from benchkit.progress import Progress, Silent

Statistic = Callable[[Sequence[Weights]], Float64[np.ndarray, " R"]]
"""From the weights of each fold's examples to one number a replicate."""

LEVEL = 95
"""Of every interval, in percent."""

_WIDTH = 128  # replicates side by side: enough to keep numpy's loops long, few enough for the processor's cache
_TRANSPOSED = 16  # replicates drawn as rows, where counting is fast, before they become columns
_BYTES = 256 * 2**20  # of weights, over all threads
_MAX_THREADS = 8


@dataclass(frozen=True)
class Difference:
    """Model a minus model b on one metric. low, high: the ends of the 95 % paired bootstrap interval.

    share_above: of the replicates, moved as for the interval, those in which a is better.
    """

    metric: str
    value: float
    low: float | None
    high: float | None
    share_above: float | None


def paired_difference(
    name: str,
    labels: Labels,
    scores_a: Float32[np.ndarray, "N C"],
    scores_b: Float32[np.ndarray, "N C"],
    problem: Problem,
    *,
    fold: Int[np.ndarray, " N"] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Difference:
    """How much better a is than b on the same examples: both are judged on the same resamples. Raises as `evaluate`."""
    metric = find(name, problem.kind)
    a, b = by_fold(labels, scores_a, problem, fold), by_fold(labels, scores_b, problem, fold)
    difference = value(metric, a) - value(metric, b)
    drawn = bootstrap(
        lambda weights: over_folds(metric, a, weights) - over_folds(metric, b, weights),
        [s.n for s in a],
        replicates=replicates,
        seed=seed,
        progress=progress,
    )
    low, high = interval(drawn, difference, lowest=-1.0)
    moved = _unbiased(drawn, difference)
    return Difference(name, difference, low, high, float((moved > 0).mean()) if len(moved) else None)


def value(metric: MetricDef, folds: Sequence[Scored]) -> float:
    """The metric itself: the mean over folds. Raises DataError where it is undefined, naming what is lacking."""
    values = [float(metric.compute(s, ones(s.n))[0]) for s in folds]
    for scored, v in zip(folds, values, strict=True):
        if np.isnan(v):
            raise DataError(f"'{metric.name}' is undefined: the {scored.n:,} test labels{scored.where} "
                            f"hold not even {metric.needs}")  # fmt: skip
    return float(np.mean(values))


def over_folds(metric: MetricDef, folds: Sequence[Scored], weights: Sequence[Weights]) -> Float64[np.ndarray, " R"]:
    """The mean over folds of the metric in each replicate; NaN where no fold defines it."""
    return mean_defined(np.stack([metric.compute(s, w) for s, w in zip(folds, weights, strict=True)]))


def interval(
    drawn: Float64[np.ndarray, " R"], value: float, *, lowest: float = 0.0
) -> tuple[float | None, float | None]:
    """The ends of the 95 % interval around `value`; None where no replicate is defined.

    lowest: that a value can be; the highest is 1.
    """
    moved = _unbiased(drawn, value)
    if not len(moved):
        return None, None
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(moved, [tail, 100 - tail])
    return max(min(float(low), value), lowest), min(max(float(high), value), 1.0)


def _unbiased(drawn: Float64[np.ndarray, " R"], value: float) -> Float64[np.ndarray, " defined"]:
    """The replicates that are defined, with the value as their mean."""
    defined = drawn[~np.isnan(drawn)]
    return defined - (defined.mean() - value) if len(defined) else defined


def bootstrap(
    statistic: Statistic,
    sizes: Sequence[int],
    *,
    replicates: int,
    seed: int,
    groups: Sequence[Int[np.ndarray, " _"]] | None = None,
    progress: Progress | None = None,
) -> Float64[np.ndarray, " replicates"]:
    """The statistic of each replicate. sizes: the number of examples in each fold. groups: of each fold's examples, the
    number of the recording that each is of, where whole recordings are drawn.

    Takes about 256 MB for the resamples, whatever the number of examples, beside what `statistic` needs for
    at most 128 replicates at a time.
    """
    threads = min(_threads(), -(-replicates // 16)) or 1
    width = int(np.clip(_BYTES // (threads * 2 * (sum(sizes) + 1)), 8, min(_WIDTH, -(-replicates // threads) or 1)))
    starts = range(0, replicates, width)
    out = np.full(replicates, np.nan)

    def compute(start: int) -> int:
        stop = min(start + width, replicates)
        out[start:stop] = statistic(resamples(sizes, range(start, stop), seed, groups))
        return stop - start

    step = (progress or Silent()).step("bootstrap", replicates, "replicates")
    with step as shown, ThreadPoolExecutor(threads) as pool:
        for done in pool.map(compute, starts):
            shown.advance(done)
    return out


def resamples(
    sizes: Sequence[int], replicates: range, seed: int, groups: Sequence[Int[np.ndarray, " _"]] | None = None
) -> list[Weights]:
    """How often each replicate draws each example, one array a fold, drawing from each fold as many as it has.

    groups: of each fold's examples; then as many groups are drawn as there are, of each fold by itself, or where one
    group has examples in several folds, of all of them at once.
    """
    if groups is not None:
        return _of_groups(groups, replicates, seed)
    weights = [np.zeros((n + 1, len(replicates)), np.uint16) for n in sizes]
    for start in range(0, len(replicates), _TRANSPOSED):
        some = replicates[start : start + _TRANSPOSED]
        drawn = [np.empty((len(some), n), np.uint16) for n in sizes]
        for row, replicate in enumerate(some):
            generator = np.random.default_rng((seed, replicate))
            for d, n in zip(drawn, sizes, strict=True):
                d[row] = np.bincount(generator.integers(0, n, n), minlength=n)
        for w, d in zip(weights, drawn, strict=True):
            w[:-1, start : start + len(some)] = d.T
    return weights


def _of_groups(groups: Sequence[Int[np.ndarray, " _"]], replicates: range, seed: int) -> list[Weights]:
    """Each example as often as its group."""
    numbers, inverse = np.unique(np.concatenate(groups), return_inverse=True)
    codes = np.split(inverse, np.cumsum([len(g) for g in groups])[:-1])
    of_fold = [np.unique(c) for c in codes]
    strata = of_fold if sum(map(len, of_fold)) == len(numbers) else [np.arange(len(numbers))]
    weights = [np.zeros((len(c) + 1, len(replicates)), np.uint16) for c in codes]
    for column, replicate in enumerate(replicates):
        generator, times = np.random.default_rng((seed, replicate)), np.zeros(len(numbers), np.uint16)
        for stratum in strata:
            times[stratum] = np.bincount(generator.integers(0, len(stratum), len(stratum)), minlength=len(stratum))
        for w, c in zip(weights, codes, strict=True):
            w[:-1, column] = times[c]
    return weights


def _threads() -> int:
    """What this process may use of the machine."""
    return min(cpus.available(), _MAX_THREADS)
