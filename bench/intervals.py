"""Do the intervals cover what they say? Studies with a known truth, judged by benchkit's own code, against bands.

    python bench/intervals.py                 every setting at reduced size (some minutes)
    python bench/intervals.py --studies 2000  as the bands were set

Example i of a test set is of difficulty D_i, shared by all seeds; windows of one recording share half of its variance.
A seed has a skill, N(0, tau), and its own noise on each example. R: the deviation between seeds over the standard
error that one seed's score has from its examples. The truth is the score over infinitely many examples and seeds; of
cmAP, which lies above its limit, the expected score on a test set made alike, which is the mean over the studies.

Two negative controls stand in the same harness: resampling seeds and examples must cover too little, and any of ten
tied models may lose its mark in 7 % of columns at most. Exits with 1 where a number lies outside of its band, which is
widened by two standard errors of the simulation.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from benchkit.interfaces import Problem
from benchkit.metrics.best import among_the_best, column
from benchkit.metrics.bootstrap import bootstrap, over_folds, resamples, value
from benchkit.metrics.definitions import find
from benchkit.metrics.influences import told
from benchkit.metrics.scored import Scored
from benchkit.metrics.uncertainty import Kept, Parts, ends, parts

OWN = 0.3
NORMAL = NormalDist()
REPLICATES = 200
NODES, SHARES = np.polynomial.hermite_e.hermegauss(41)
SHARES = SHARES / SHARES.sum()
_cdf = np.vectorize(NORMAL.cdf)


@dataclass(frozen=True)
class Row:
    """One line of the table: what was found, in percent, and the band it must lie in."""

    setting: str
    found: float
    low: float
    high: float
    studies: int

    @property
    def ok(self) -> bool:
        slack = 200 * np.sqrt(max(self.found * (100 - self.found), 100) / self.studies) / 100
        return bool(self.low - slack <= self.found <= self.high + slack)


def gaussian(rng: np.random.Generator, studies: int, s: int, ratio: float) -> float:
    """Coverage where everything is normal; seeds' deviations differ between cells, by a log-normal factor."""
    deviation = ratio * np.exp(0.5 * rng.standard_normal((studies, 1)) - 0.25)
    seeds = deviation * rng.standard_normal((studies, s))
    error = rng.standard_normal(studies) + seeds.mean(axis=1)
    variances = seeds.var(axis=1, ddof=1) / s
    half = [Parts(0.5, s, 1.0, float(v), 0.0, 1e9, 1e9).half_squared() ** 0.5 for v in variances]
    return 100 * float(np.mean(np.abs(error) <= half))


def skills(truth: float, n: int, ratio: float) -> tuple[float, float]:
    """mu and tau, so that the score over infinitely many seeds is `truth` and its deviation between them as asked."""
    want, low, high = ratio * np.sqrt(truth * (1 - truth) / n), 0.0, 5.0
    for _ in range(50):
        tau = (low + high) / 2
        p = _cdf(NORMAL.inv_cdf(truth) * np.sqrt(1 + tau**2) + tau * NODES)
        low, high = (tau, high) if np.sqrt(SHARES @ (p - SHARES @ p) ** 2) < want else (low, tau)
    return float(NORMAL.inv_cdf(truth) * np.sqrt(1 + tau**2)), tau


def recordings(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """The recording of each window: sizes geometric around `size`."""
    sizes = rng.geometric(1 / size, 4 * n // size + 10)
    return np.repeat(np.arange(len(sizes)), sizes)[:n]


def effective(groups: np.ndarray | None, n: int) -> float:
    sizes = np.ones(n) if groups is None else np.bincount(groups)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def accuracy(
    rng: np.random.Generator, truth: float, n: int, ratio: float, s: int, windows: int = 0
) -> tuple[list[Kept], float, np.ndarray]:
    """The runs of one study, the truth of the first one's model, and their answers, [n, s]."""
    mu, tau = skills(truth, n, ratio)
    groups = recordings(rng, n, windows) if windows else None
    d = rng.standard_normal(n)
    if groups is not None:
        d = np.sqrt(0.5) * (d + rng.standard_normal(groups.max() + 1)[groups])
    skill = tau * rng.standard_normal(s)
    z = mu + skill + np.sqrt(1 - OWN) * d[:, None] + np.sqrt(OWN) * rng.standard_normal((n, s))
    right = (z > 0).astype(np.float32)
    given = None if groups is None else [groups]
    (weights,) = resamples([n], range(REPLICATES), int(rng.integers(2**31)), given)
    w = weights[:n].astype(np.float32)
    drawn = (w.T @ right) / w.sum(axis=0)[:, None]
    worth = effective(groups, n)
    made = [Kept(float(right[:, k].mean()), drawn[:, k].astype(float), worth, worth - 1) for k in range(s)]
    return made, NORMAL.cdf(mu + skill[0]), right


def two_level(rng: np.random.Generator, right: np.ndarray) -> tuple[float, float]:
    """The naive interval: seeds and examples are resampled."""
    n, s = right.shape
    (weights,) = resamples([n], range(REPLICATES), int(rng.integers(2**31)))
    drawn = weights[:n].T.astype(np.float32) @ right / n
    picks = rng.integers(0, s, (REPLICATES, s))
    low, high = np.percentile(np.take_along_axis(drawn, picks, 1).mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def ranked(rng: np.random.Generator, metric: str, n: int, ratio: float, s: int, windows: int = 0) -> list[Kept]:
    """cmAP or AUROC over 20 classes; five have 2 to 5 positives."""
    counts = np.concatenate([[2, 2, 3, 4, 5], np.geomspace(6, n / 4, 15).round().astype(int)])
    delta = np.linspace(1.2, 2.4, 20)[np.random.default_rng(5).permutation(20)]
    groups = recordings(rng, n, windows) if windows else None
    y = np.zeros((n, 20), np.uint8)
    d = rng.standard_normal((n, 20))
    for c in range(20):
        possible = np.arange(n)
        if groups is not None:
            g = groups.max() + 1
            chosen = rng.permutation(g)[: max(1, round(g * min(1.0, 2 * counts[c] / n)))]
            possible = np.flatnonzero(np.isin(groups, chosen))
            d[:, c] = np.sqrt(0.5) * (d[:, c] + rng.standard_normal(g)[groups])
        y[rng.permutation(possible)[: counts[c]], c] = 1
    problem, definition = Problem("multilabel", 20), find(metric, "multilabel")
    tau, seed, worth = 0.12 * ratio, int(rng.integers(2**31)), effective(groups, n)
    given = None if groups is None else [groups]
    made = []
    for _ in range(s):
        skill = tau * (rng.standard_normal() + rng.standard_normal(20))
        x = (delta + skill) * y + np.sqrt(1 - OWN) * d + np.sqrt(OWN) * rng.standard_normal((n, 20))
        fold = [Scored(y, x.astype(np.float32), problem)]
        drawn = bootstrap(
            lambda w, fold=fold: over_folds(definition, fold, w), [n], replicates=REPLICATES, seed=seed, groups=given
        )
        made.append(Kept(value(definition, fold), drawn, worth, told(metric, fold, given, worth).df))
    return made


def coverage(studies: int, make: Callable[[np.random.Generator], Sequence[Kept]], truth: float | None) -> float:
    """In percent. truth: None for the mean over the studies."""
    found = [parts(make(np.random.default_rng((1, i)))) for i in range(studies)]
    at = float(np.mean([p.value for p in found])) if truth is None else truth
    return 100 * float(np.mean([low <= at <= high for low, high in map(ends, found)]))


def tied(studies: int, ratio: float, s: int = 3, n: int = 500) -> float:
    """In how many columns of ten equal models, in percent, any of them loses its mark."""
    mu, tau = skills(0.8, n, ratio)
    lost = 0
    for i in range(studies):
        rng = np.random.default_rng((2, i))
        shared, own = rng.standard_normal((n, 1)), rng.standard_normal((10, n, 1))
        z = np.sqrt(0.5) * shared + np.sqrt(0.5 - OWN / 2) * own + np.sqrt(OWN / 2) * rng.standard_normal((10, n, s))
        right = (mu + tau * rng.standard_normal((10, 1, s)) + z > 0).astype(np.float32)
        (weights,) = resamples([n], range(REPLICATES), i)
        drawn = np.einsum("nr,mns->mrs", weights[:n].astype(np.float32), right, optimize=True) / n
        models = [
            [Kept(float(right[m, :, k].mean()), drawn[m, :, k].astype(float), float(n), n - 1.0) for k in range(s)]
            for m in range(10)
        ]
        lost += not all(among_the_best(column(models), seed=i))
    return 100 * lost / studies


def rows(studies: int) -> list[Row]:
    """The whole table."""
    made = [
        Row(f"Gaussian, s = {s}, R = {r:g}", gaussian(np.random.default_rng(0), 20_000, s, r), *band, 20_000)
        for s, band in ((2, (94, 100)), (3, (94.5, 97.5)), (5, (94.5, 97.5)))
        for r in (0.0, 0.3, 1.0, 3.0)
    ]

    def seen(what: str, make: Callable[[np.random.Generator], Sequence[Kept]], truth: float | None,
             low: float, high: float, n: int = studies) -> None:  # fmt: skip
        made.append(Row(what, coverage(n, make, truth), low, high, n))

    for s in (3, 5):
        for r in (0.3, 1.0, 3.0):
            seen(f"accuracy 0.8, n = 200, s = {s}, R = {r:g}", lambda g, s=s, r=r: accuracy(g, 0.8, 200, r, s)[0],
                 0.8, 93, 98)  # fmt: skip
    seen("accuracy 0.97, n = 200, s = 3, R = 3", lambda g: accuracy(g, 0.97, 200, 3.0, 3)[0], 0.97, 90, 100)
    seen(
        "accuracy 0.8 by recordings, n = 200, s = 3, R = 1", lambda g: accuracy(g, 0.8, 200, 1.0, 3, 10)[0], 0.8, 92, 98
    )
    few = max(studies // 4, 20)
    for metric, band in (("auroc", (92, 99)), ("cmap", (93, 99.5))):
        seen(f"{metric}, n = 200, s = 3, R = 1", lambda g, m=metric: ranked(g, m, 200, 1.0, 3), None, *band, few)
        seen(f"{metric} by recordings, n = 200, s = 3, R = 1", lambda g, m=metric: ranked(g, m, 200, 1.0, 3, 10),
             None, *band, few)  # fmt: skip
    hits, naive = 0, 0
    for i in range(studies):
        rng = np.random.default_rng((3, i))
        runs, own, _ = accuracy(rng, 0.8, 200, 1.0, 1)
        low, high = ends(parts(runs))
        hits += low <= own <= high
        low, high = two_level(rng, accuracy(rng, 0.8, 2000, 3.0, 3)[2])
        naive += low <= 0.8 <= high
    made.append(Row("accuracy 0.8, n = 200, s = 1: this run's model", 100 * hits / studies, 92, 98, studies))
    made.append(Row("must fail: two-level, n = 2,000, s = 3, R = 3", 100 * naive / studies, 0, 90, studies))
    made += [
        Row(f"marks: any of ten tied loses its own, s = 3, R = {r:g}", tied(studies, r), 0, 7, studies)
        for r in (1.0, 3.0)
    ]
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="Coverage of the intervals and marks, against bands.")
    parser.add_argument("--studies", type=int, default=300)
    made = rows(parser.parse_args().studies)
    print("| setting | found, % | band | studies |\n|---|---|---|---|")
    for row in made:
        sign = "" if row.ok else " **outside**"
        print(f"| {row.setting} | {row.found:.1f}{sign} | {row.low:g} to {row.high:g} | {row.studies:,} |")
    return 0 if all(row.ok for row in made) else 1


if __name__ == "__main__":
    sys.exit(main())
