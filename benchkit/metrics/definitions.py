"""The metrics by name: what each is, which tasks it is for, and how it is computed on many resamples at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from benchkit.errors import BenchkitError, did_you_mean
from benchkit.interfaces import TaskKind
from benchkit.metrics import decisions
from benchkit.metrics.cumulative import Weights, total
from benchkit.metrics.decisions import mean_defined, quantile_defined
from benchkit.metrics.ranks import auroc, average_precision
from benchkit.metrics.scored import Scored

ALL: tuple[TaskKind, ...] = ("multiclass", "multilabel", "detection", "traits")
Compute = Callable[[Scored, Weights], Float64[np.ndarray, " R"]]


@dataclass(frozen=True)
class MetricDef:
    """A metric.

    summary: one line, with its formula and source.
    kinds: of the tasks it is for.
    needs: what is lacking where it is undefined: "a class with positives".
    by_rank: it reads the order of the scores within a class; otherwise only which class of an example scores highest.
    compute: its value for each column of weights, NaN where it is undefined there.
    """

    name: str
    summary: str
    kinds: tuple[TaskKind, ...]
    needs: str
    by_rank: bool
    compute: Compute
    higher_is_better: bool = True


def _cmap(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    ranks = [r for r in scored.class_ranks if len(r.positive)]
    return _macro([average_precision(r, weights) for r in ranks], weights)


def _quantile(share: float) -> Compute:
    def compute(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
        values = [average_precision(r, weights) for r in scored.class_ranks if len(r.positive)]
        return quantile_defined(np.array(values).reshape(len(values), weights.shape[1]), share)

    return compute


def _micro_map(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    return average_precision(scored.pair_ranks, weights)


def _auroc(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    n = total(weights)
    ranks = [r for r in scored.class_ranks if len(r.positive) and r.n_negatives]
    return _macro([auroc(r, weights, n) for r in ranks], weights)


def _auroc_birdset(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    n, none = total(weights), np.zeros(weights.shape[1])
    known = [bool(len(r.positive) and r.n_negatives) for r in scored.class_ranks]
    if not any(known):
        return np.full(weights.shape[1], np.nan)
    values = [auroc(r, weights, n) if ok else none for r, ok in zip(scored.class_ranks, known, strict=True)]
    return np.asarray(np.nan_to_num(np.array(values)).mean(axis=0))


def _beans_map(scored: Scored, weights: Weights) -> Float64[np.ndarray, " R"]:
    values = [average_precision(r, weights, ties=False) for r in scored.rows_ranked if len(r.positive)]
    known = total(weights) > 0
    means = (
        np.nan_to_num(np.array(values).reshape(len(values), weights.shape[1])).sum(axis=0) / scored.problem.n_classes
    )
    return np.where(known & bool(values), means, np.nan)


def _macro(values: list[Float64[np.ndarray, " R"]], weights: Weights) -> Float64[np.ndarray, " R"]:
    return mean_defined(np.array(values).reshape(len(values), weights.shape[1]))


METRICS: dict[str, MetricDef] = {
    m.name: m
    for m in (
        MetricDef(
            "top1",
            "share of examples whose top class is right; multilabel: is one of the labels, of examples that have any "
            "(T1-Acc of BirdSet, arXiv 2403.10380)",
            ("multiclass", "multilabel"),
            "a labelled example",
            False,
            decisions.top1,
        ),
        MetricDef(
            "balanced_accuracy",
            "mean recall of the top class over the classes in test (scikit-learn's balanced_accuracy_score)",
            ("multiclass",),
            "an example",
            False,
            decisions.balanced_accuracy,
        ),
        MetricDef(
            "macro_f1",
            "mean of 2 TP / (2 TP + FP + FN) over the classes in test or predicted (scikit-learn's f1_score, macro)",
            ("multiclass",),
            "an example",
            False,
            decisions.macro_f1,
        ),
        MetricDef(
            "cmap",
            "cmAP: mean over the classes with positives in test of the average precision, the sum of "
            "(R_n - R_n-1) P_n (BirdSet, arXiv 2403.10380)",
            ALL,
            "a class with positives",
            True,
            _cmap,
        ),
        MetricDef(
            "micro_map",
            "average precision over all pairs of class and example together (BirdSet's mAP; scikit-learn's micro)",
            ALL,
            "a class with positives",
            True,
            _micro_map,
        ),
        MetricDef(
            "auroc",
            "mean over the classes with positives and negatives in test of the chance that a positive scores above "
            "a negative (Hanley and McNeil 1982)",
            ALL,
            "a class with both positives and negatives",
            True,
            _auroc,
        ),
        MetricDef(
            "auroc_birdset",
            "auroc as BirdSet reports it: the mean over all classes, 0 for one without positives or negatives in test "
            "(torchmetrics' MultilabelAUROC; arXiv 2403.10380)",
            ("multilabel", "detection"),
            "a class with both positives and negatives",
            True,
            _auroc_birdset,
        ),
        MetricDef(
            "beans_map",
            "mAP as BEANS reports it: the mean over all classes of the average precision, 0 for one without positives "
            "in test; equal scores count in the order of the examples (arXiv 2210.12300)",
            ("multilabel", "detection"),
            "a class with positives",
            True,
            _beans_map,
        ),
        *(
            MetricDef(
                f"ap_q{percent:02}",
                f"{percent} % quantile of the average precision over the classes with positives in test, interpolated",
                ("multilabel", "detection", "traits"),
                "a class with positives",
                True,
                _quantile(percent / 100),
            )
            for percent in (5, 95)
        ),
    )
}


def find(name: str, kind: TaskKind) -> MetricDef:
    """Raises BenchkitError for a name that is no metric, or is none for this kind of task."""
    if name not in METRICS:
        raise BenchkitError(f"no metric named '{name}'{did_you_mean(name, METRICS)} (there are {', '.join(METRICS)})")
    metric = METRICS[name]
    if kind not in metric.kinds:
        able = [m.name for m in METRICS.values() if kind in m.kinds]
        raise BenchkitError(
            f"metric '{name}' is not for {kind} tasks{did_you_mean(name, able)} (for them there are {', '.join(able)})"
        )
    return metric
