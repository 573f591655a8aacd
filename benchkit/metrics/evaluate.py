"""From labels and scores to the numbers of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt8

from benchkit.catalog.labels import n_positives
from benchkit.errors import DataError
from benchkit.interfaces import Labels, Problem
from benchkit.metrics.bootstrap import bootstrap, over_folds, value
from benchkit.metrics.cumulative import ones, total
from benchkit.metrics.decisions import mean_defined
from benchkit.metrics.definitions import find
from benchkit.metrics.influences import FEW, told
from benchkit.metrics.ranks import auroc, average_precision
from benchkit.metrics.scored import Scored, by_fold
from benchkit.metrics.uncertainty import METHOD, Kept, ends, parts
from benchkit.progress import Progress
from benchkit.records.report import ClassMetric, Metric, finite

FoldLabels = tuple[
    Int64[np.ndarray, " _"] | UInt8[np.ndarray, "_ _"],
    Int64[np.ndarray, " _"] | UInt8[np.ndarray, "_ _"],
]
"""The training and the test labels of one fold, each as Labels."""


TOO_FEW_RECORDINGS = 10
"""Effective recordings, below which an interval over them is said to be rough."""
TOO_FEW_ERRORS = 10


@dataclass(frozen=True, eq=False)
class Judged:
    """metrics: the primary one with its interval. kept: what that is made of; None where it was not asked for, or no
    resample defines the metric. notes: what is to be said of the interval, a sentence each."""

    metrics: list[Metric]
    kept: Kept | None = None
    notes: tuple[str, ...] = ()


def evaluate(
    names: Sequence[str],
    labels: Labels,
    scores: Float32[np.ndarray, "N C"],
    problem: Problem,
    *,
    fold: Int[np.ndarray, " N"] | None = None,
    groups: Int[np.ndarray, " N"] | None = None,
    replicates: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Metric]:
    """The metrics of `judge` alone."""
    return judge(
        names, labels, scores, problem, fold=fold, groups=groups, replicates=replicates, seed=seed, progress=progress
    ).metrics


def judge(
    names: Sequence[str],
    labels: Labels,
    scores: Float32[np.ndarray, "N C"],
    problem: Problem,
    *,
    fold: Int[np.ndarray, " N"] | None = None,
    groups: Int[np.ndarray, " N"] | None = None,
    group: str = "recording",
    replicates: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Judged:
    """The named metrics, in order; the first, the primary one, with its 95 % interval over test examples, that of this
    run's model (benchkit.metrics.uncertainty).

    groups: the number of the recording (site, individual; `group` names it) that each example is of: resampling is by
    these. fold: the number of each example's fold, where there are several; each value is then the mean over the folds.
    replicates: 0 for no interval.

    Raises BenchkitError for a metric that there is not, or not for this kind of task, FitError for NaN scores, and
    DataError where a metric is undefined on these labels.
    """
    wanted = [find(name, problem.kind) for name in names]
    folds = by_fold(labels, scores, problem, fold)
    metrics = [Metric(m.name, value(m, folds)) for m in wanted]
    if not metrics or not replicates:
        return Judged(metrics)
    of_fold = None
    if groups is not None:
        of_fold = [groups] if fold is None else [groups[fold == f] for f in np.unique(fold)]
    drawn = bootstrap(
        lambda weights: over_folds(wanted[0], folds, weights),
        [s.n for s in folds],
        replicates=replicates,
        seed=seed,
        groups=of_fold,
        progress=progress,
    )
    if np.isnan(drawn).all():
        return Judged(metrics)
    sizes = np.ones(len(labels)) if groups is None else np.unique(groups, return_counts=True)[1].astype(float)
    effective = float(sizes.sum() ** 2 / np.square(sizes).sum())
    found = told(wanted[0].name, folds, of_fold, effective)
    kept = Kept(metrics[0].value, drawn, effective, found.df, bias=found.bias)
    own = parts([kept])
    notes = []
    if groups is None:
        notes.append(f"assumes independent examples: of which {group} each is, is not known")
    elif effective < TOO_FEW_RECORDINGS:
        notes.append(f"rough: {len(sizes):,} {group}s, worth {effective:.1f} of equal size")
    if wanted[0].name == "top1" and (errors := (1 - metrics[0].value) * len(labels)) < TOO_FEW_ERRORS:
        notes.append(f"too few errors to be precise: {errors:.0f}")
    if wanted[0].by_rank:
        positive = n_positives(labels, problem.n_classes)
        if rare := int(((positive > 0) & (positive < FEW)).sum()):
            notes.append(
                f"{rare:,} of {n_classes_evaluated(labels, problem):,} classes have fewer than {FEW} positives: "
                "not comparable across test sets"
            )
    if kept.bias and abs(kept.bias) > 0.25 * own.v_e**0.5:
        notes.append(f"about {kept.bias:+.4f} from its limit on endless examples, by the jackknife")
    low, high = ends(own)
    first = replace(metrics[0], low=low, high=high)
    return Judged([first, *metrics[1:]], kept, tuple(notes))


def described(judged: Judged, unit: str) -> dict[str, str | int | float | list[str] | None]:
    """What a report tells of its interval. unit: what was resampled, in one word."""
    kept = judged.kept
    assert kept is not None
    return {
        "method": METHOD, "unit": unit, "replicates": len(kept.drawn), "effective": kept.effective, "df": kept.df,
        "bias": kept.bias, "se": parts([kept]).v_e ** 0.5, "notes": list(judged.notes),
    }  # fmt: skip


def n_classes_evaluated(labels: Labels, problem: Problem) -> int:
    """The number of classes with positives: those that cmAP is a mean of."""
    return int(np.count_nonzero(n_positives(labels, problem.n_classes)))


def class_metrics(
    labels: Labels,
    scores: Float32[np.ndarray, "N C"],
    problem: Problem,
    n_train: Int[np.ndarray, " C"],
    *,
    fold: Int[np.ndarray, " N"] | None = None,
) -> list[ClassMetric]:
    """For each class "ap" and "auroc"; for multiclass "recall", "precision" and "ap", one class against the rest.

    With folds, the mean over those that define it. n_train: the training positives of each class. Raises FitError.
    """
    folds = by_fold(labels, scores, problem, fold)
    n_test = n_positives(labels, problem.n_classes)
    names = problem.classes or tuple(map(str, range(problem.n_classes)))
    made = []
    for c, name in enumerate(names):
        by_name = [_of_class(s, c) for s in folds]
        for metric in by_name[0] if by_name else ():
            mean = mean_defined(np.array([[v[metric]] for v in by_name]))[0]
            made.append(ClassMetric(name, metric, finite(mean), int(n_train[c]), int(n_test[c])))
    return made


def _of_class(scored: Scored, c: int) -> dict[str, float]:
    """Each number for class `c`, NaN where it is undefined."""
    weights, ranks = ones(scored.n), scored.class_ranks[c]
    ap = float(average_precision(ranks, weights)[0])
    if not scored.multiclass:
        return {"ap": ap, "auroc": float(auroc(ranks, weights, total(weights))[0])}
    true, predicted = scored.labels == c, scored.top == c
    right = int(np.count_nonzero(true & predicted))
    return {"recall": _share(right, int(true.sum())), "precision": _share(right, int(predicted.sum())),
            "ap": ap}  # fmt: skip


def _share(part: int, whole: int) -> float:
    return part / whole if whole else np.nan


def chance(name: str, labels: Sequence[FoldLabels], problem: Problem) -> float:
    """What a constant scorer gets: each example's scores are the share of each class among the training labels.

    labels: of each fold, train and test; the result is the mean over folds. Where several classes share the highest
    score (training sets of the same number for each class), the expectation over them counts, not their order.
    Raises as `evaluate`, and DataError where there are no training labels.
    """
    metric = find(name, problem.kind)
    values = []
    for train, test in labels:
        if not len(train):
            raise DataError("the chance level needs training labels, and there are none")
        prior = (n_positives(train, problem.n_classes) / len(train)).astype(np.float32)
        constants, shares = ([prior], [1.0]) if metric.by_rank else _untied(prior, test, problem)
        folds = [Scored(test, np.broadcast_to(row, (len(test), len(row))), problem) for row in constants]
        values.append(sum(share * value(metric, [s]) for s, share in zip(folds, shares, strict=True)))
    return float(np.mean(values))


def _untied(
    prior: Float32[np.ndarray, " C"], test: Labels, problem: Problem
) -> tuple[list[Float32[np.ndarray, " C"]], list[float]]:
    """Constant scores that each prefer one of the top classes, and the share of the top classes each stands for.

    Classes with the same number of test examples give the same value, so one stands for all of them.
    """
    top = np.flatnonzero(prior == prior.max())
    _, first, n = np.unique(n_positives(test, problem.n_classes)[top], return_index=True, return_counts=True)
    return [np.eye(1, len(prior), top[i], dtype=np.float32)[0] for i in first], list(n / len(top))
