"""Which of several models cannot be told from the best, and which places each may have.

The best is picked from the same data, so testing each model against it would answer another question. The model
confidence set (Hansen, Lunde and Nason 2011, doi 10.3982/ECTA5771) holds all of the best at once with 95 % confidence:
one joint covariance over the examples, and the variance of seeds pooled over the models. Places are sets of ranks from
all pairs at once (Mogstad, Romano, Shaikh and Wilhelm 2024, arXiv 2401.15205).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from benchkit.metrics.uncertainty import LEVEL, Kept, parts

DRAWS = 2000
_LEAST = 1e-14


@dataclass(frozen=True, eq=False)
class Column:
    """Models on one test set, or on the mean of several: values [M], the covariance of their errors from examples
    [M, M], the variance from seeds of each [M], pooled over them, and its degrees of freedom (0: no seeds)."""

    values: Float64[np.ndarray, " M"]
    cov: Float64[np.ndarray, "M M"]
    seeds: Float64[np.ndarray, " M"]
    df: int


def column(models: Sequence[Sequence[Kept]], *, shared: bool = False) -> Column:
    """Each model's runs, all on the same resamples.

    shared: the k-th runs of all models have the same seed, which decides the training examples too, so that its effect
    is common to all and tells none from another: each seed's mean over the models is taken out first.
    """
    found = [parts(runs) for runs in models]
    drawn = np.stack([np.mean([run.drawn for run in runs], axis=0) for runs in models])
    defined = ~np.isnan(drawn).any(axis=0)
    effective = found[0].effective
    grown = effective / max(effective - 1, 1e-9)
    m = len(models)
    cov = np.atleast_2d(np.cov(drawn[:, defined])) * grown if defined.sum() > 1 else np.zeros((m, m))
    if shared and m > 1 and len({len(runs) for runs in models}) == 1 and len(models[0]) > 1:
        pooled, df = _centred(models), (m - 1) * (len(models[0]) - 1)
        variances = np.array([pooled / len(models[0])] * m)
    else:
        told = [p for p in found if p.s > 1]
        df = sum(p.s - 1 for p in told)
        pooled = sum((p.s - 1) * p.s * p.v_rest for p in told) / df if df else 0.0
        variances = np.array([0.0 if p.unchanging else pooled / p.s for p in found])
    return Column(np.array([p.value for p in found]), cov, variances, df)


def _centred(models: Sequence[Sequence[Kept]]) -> float:
    """The variance of one seed's score, without what it has from all models alike and from seed by example."""
    values = np.array([[run.value for run in runs] for runs in models])
    drawn = np.array([[run.drawn for run in runs] for runs in models])  # models, seeds, replicates
    drawn = drawn[:, :, ~np.isnan(drawn).any(axis=(0, 1))]
    m, s = values.shape
    share = m / ((m - 1) * (s - 1))
    both = []
    for x in (values, drawn):
        own = x - x.mean(axis=1, keepdims=True)
        both.append(own - own.mean(axis=0, keepdims=True))
    of_seeds = float((both[0] ** 2).sum(axis=1).mean()) * share
    by_example = float(both[1].var(axis=2, ddof=1).sum(axis=1).mean()) * share if drawn.shape[2] > 1 else 0.0
    return max(of_seeds - by_example, 0.0)


def mean_of(columns: Sequence[Column]) -> Column:
    """Of the mean over tasks, which are fixed: their errors are independent, their covariances add up."""
    t = len(columns)
    return Column(
        np.mean([c.values for c in columns], axis=0),
        np.sum([c.cov for c in columns], axis=0) / t**2,
        np.sum([c.seeds for c in columns], axis=0) / t**2,
        sum(c.df for c in columns),
    )


def among_the_best(of: Column, *, seed: int = 0) -> list[bool]:
    """Of each model, whether it is in the set that holds all of the best with 95 % confidence."""
    t, draws = _statistics(of, seed)
    m = len(of.values)
    alive = np.ones(m, bool)
    while alive.sum() > 1:
        left = np.flatnonzero(alive)
        inside = np.ix_(left, left)
        worst = t[inside].max(axis=1)
        limit = np.quantile(draws[:, alive][:, :, alive].max(axis=(1, 2)), LEVEL)
        if worst.max() <= limit:
            break
        alive[left[worst.argmax()]] = False
    return [bool(a) for a in alive]


def places(of: Column, *, seed: int = 0) -> list[tuple[int, int]]:
    """Of each model, the best and the worst place that it may have; all at once with 95 % confidence."""
    t, draws = _statistics(of, seed)
    m = len(of.values)
    if m == 1:
        return [(1, 1)]
    np.fill_diagonal(t, 0.0)
    limit = np.quantile(np.abs(np.where(np.isfinite(draws), draws, 0.0)).max(axis=(1, 2)), LEVEL)
    return [(1 + int((row > limit).sum()), m - int((row < -limit).sum())) for row in t]


def _statistics(of: Column, seed: int) -> tuple[Float64[np.ndarray, "M M"], Float64[np.ndarray, "B M M"]]:
    """How many standard errors j lies above i, at [i, j], and the same where all are equal, drawn many times."""
    m, rng = len(of.values), np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(of.cov)
    n = max(200, min(DRAWS, 20_000_000 // m**2))
    g = rng.standard_normal((n, m)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    if of.df:
        heavier = np.sqrt(of.df / rng.chisquare(of.df, (n, 1)))
        g = g + rng.standard_normal((n, m)) * np.sqrt(of.seeds) * heavier
    total = of.cov + np.diag(of.seeds)
    own = np.diag(total)
    se = np.sqrt(np.maximum(own[:, None] + own[None] - 2 * total, _LEAST))
    t = (of.values[None, :] - of.values[:, None]) / se
    draws = (g[:, None, :] - g[:, :, None]) / se
    np.fill_diagonal(t, -np.inf)
    draws[:, np.arange(m), np.arange(m)] = -np.inf
    return t, draws
