"""1,000 bootstrap replicates against scikit-learn called for each class and replicate, in one run.

    python bench/bootstrap.py            scikit-learn on 10 replicates, scaled to 1,000
    python bench/bootstrap.py --full     scikit-learn on all of them (minutes)
    python bench/bootstrap.py --large    ours alone at the size of SSW: 205,200 windows, 81 classes

The data is random with the shape of BirdSet's HSN: 12,000 windows, 21 classes, each on 0.2 % to 10 % of them. Both get
the same resamples, and the largest difference between their values is printed. scikit-learn runs in one thread, as
it is usually called; ours uses every core that this process may use.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from benchkit.interfaces import Problem
from benchkit.metrics import METRICS, paired_difference
from benchkit.metrics.bootstrap import bootstrap, over_folds, resamples, value
from benchkit.metrics.scored import by_fold
from benchkit.progress import Lines

REPLICATES = 1000

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="time scikit-learn on all 1,000 replicates")
    parser.add_argument("--large", action="store_true", help="ours alone, 205,200 x 81")
    parser.add_argument("--replicates", type=int, default=10, help="of scikit-learn, where not --full")
    args = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, numpy {np.__version__}")
    if args.large:
        large()
    else:
        against_sklearn(REPLICATES if args.full else args.replicates)


def against_sklearn(replicates: int) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    labels, scores = made_up(12_000, 21)
    rivals: dict[str, Callable[[UInt8[np.ndarray, "N C"], Float32[np.ndarray, "N C"]], float]] = {
        "cmap": lambda y, s: per_class(average_precision_score, y, s),
        "auroc": lambda y, s: per_class(roc_auc_score, y, s),
        "top1": top1,
    }
    problem = Problem("multilabel", 21)
    scaled = "" if replicates == REPLICATES else " and scaled"
    print(f"12,000 x 21, {REPLICATES:,} replicates; scikit-learn timed on {replicates:,} of them{scaled}")
    print(f"{'':10}{'scikit-learn':>14}{'ours':>10}{'ratio':>9}{'largest difference':>21}")
    weights = resamples([12_000], range(replicates), 0)[0]
    draws = [np.repeat(np.arange(12_000), drawn_often) for drawn_often in weights[:-1].T]
    total = np.zeros(2)
    for name, rival in rivals.items():
        theirs, slow = timed(loop, rival, labels, scores, draws)
        ours, fast = timed(bootstrapped, name, labels, scores, problem)
        took = np.array([slow * REPLICATES / replicates, fast])
        show(name, took, float(np.abs(ours[:replicates] - theirs).max()))
        total += took
    show("together", total, None)
    other = scores + np.float32(0.1) * made_up(12_000, 21, seed=1)[1]
    _, paired = timed(paired_difference, "cmap", labels, scores, other, problem)
    print(f"paired difference of two models on cmap: {paired:.2f} s")


def show(name: str, took: Float64[np.ndarray, "2"], difference: float | None) -> None:
    largest = "" if difference is None else f"{difference:21.1e}"
    print(f"{name:10}{took[0]:12.1f} s{took[1]:8.2f} s{took[0] / took[1]:8.0f}x{largest}", flush=True)


def loop(
    metric: Callable[..., float],
    labels: UInt8[np.ndarray, "N C"],
    scores: Float32[np.ndarray, "N C"],
    draws: list[Int64[np.ndarray, " N"]],
) -> Float64[np.ndarray, " R"]:
    """How it is usually done: the arrays of each resample, and the metric of those."""
    return np.array([metric(labels[rows], scores[rows]) for rows in draws])


def large() -> None:
    labels, scores = made_up(205_200, 81)
    problem = Problem("multilabel", 81)
    print(
        f"205,200 x 81, {REPLICATES:,} replicates; labels and scores are {(labels.nbytes + scores.nbytes) / 1e6:.0f} MB"
    )
    for name in ("top1", "auroc", "cmap", "micro_map"):
        _, seconds = timed(bootstrapped, name, labels, scores, problem, Lines(sys.stderr))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{name:10}{seconds:8.1f} s, peak memory of the process so far {peak:.2f} GB", flush=True)


def bootstrapped(
    name: str,
    labels: UInt8[np.ndarray, "N C"],
    scores: Float32[np.ndarray, "N C"],
    problem: Problem,
    progress: Lines | None = None,
) -> Float64[np.ndarray, " R"]:
    """Every replicate's value, with everything that `evaluate` does to get there, sorting included."""
    metric, folds = METRICS[name], by_fold(labels, scores, problem, None)
    value(metric, folds)
    sizes = [s.n for s in folds]
    return bootstrap(lambda w: over_folds(metric, folds, w), sizes, replicates=REPLICATES, seed=0, progress=progress)


def per_class(
    metric: Callable[..., float], labels: UInt8[np.ndarray, "N C"], scores: Float32[np.ndarray, "N C"]
) -> float:
    """The mean of a scikit-learn metric over the classes that have positives."""
    present = np.flatnonzero(labels.any(axis=0))
    return float(np.mean([metric(labels[:, c], scores[:, c]) for c in present]))


def top1(labels: UInt8[np.ndarray, "N C"], scores: Float32[np.ndarray, "N C"]) -> float:
    """scikit-learn has no such metric; plain numpy on the resample."""
    some = labels.any(axis=1)
    return float(labels[some, scores[some].argmax(axis=1)].mean())


def made_up(n: int, c: int, seed: int = 0) -> tuple[UInt8[np.ndarray, "N C"], Float32[np.ndarray, "N C"]]:
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, c)) < rng.uniform(0.002, 0.1, c)).astype(np.uint8)
    return labels, (labels + rng.normal(size=(n, c))).astype(np.float32)


def timed(work: Callable[..., T], *args: object) -> tuple[T, float]:
    began = time.perf_counter()
    made = work(*args)
    return made, time.perf_counter() - began


if __name__ == "__main__":
    main()
