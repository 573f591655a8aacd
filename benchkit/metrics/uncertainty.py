"""Intervals over test examples and seeds together, from the replicates that runs keep.

Seeds are not resampled: the variance over examples comes from resamples of the examples (or of the recordings that they
are from) that are the same for all runs, the variance between seeds is added with its own t quantile, and what is in
both is taken out once. Squared half-widths are added, not variances (MOVER: Howe 1974; Zou and Donner 2008), so that
the noisy variance of three seeds cannot shrink the quantile. The ends lie on the logit scale. `bench/intervals.py`
measures the coverage.

What is covered is the expected score on a test set made like this one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from benchkit.metrics.quantiles import t_quantile

Which = Literal["both", "examples", "seeds"]
"""What an interval is over."""
METHOD = "examples and seeds, MOVER on the logit scale"
"""The name of the interval, as reports give it."""
OLD_METHOD = "percentile bootstrap, recentred"
"""Of reports that say nothing of theirs: those of before."""
LEVEL = 0.95
_P = 0.5 + LEVEL / 2


@dataclass(frozen=True, eq=False)
class Kept:
    """What one run keeps for intervals.

    value: its score. drawn: its score on each resample, NaN where it is not defined. effective: how many independent
    units of equal size the test examples are worth (for independent examples their number). df: degrees of freedom of
    the variance over examples. same: equal for two runs on the same resamples of the same test examples, which alone
    may be subtracted. answers: equal for equal predictions. bias: of the score, where it has any and it is known.
    """

    value: float
    drawn: Float64[np.ndarray, " R"]
    effective: float
    df: float
    same: str = ""
    answers: str = ""
    bias: float | None = None


@dataclass(frozen=True)
class Parts:
    """The variance of a mean over s seeds. v_e: from examples, with seed by example. v_s: from seeds, with seed by
    example. v_i: seed by example alone. df_e: of v_e; df_s: of v_s. unchanging: all seeds gave the same predictions."""

    value: float
    s: int
    v_e: float
    v_s: float
    v_i: float
    df_e: float
    effective: float
    unchanging: bool = False
    df_s: float | None = None
    """Of v_rest; None for s - 1."""

    @property
    def v_rest(self) -> float:
        """From seeds, without what v_e has already."""
        return max(self.v_s - self.v_i, 0.0)

    def half_squared(self, which: Which = "both") -> float:
        """Of the interval's half-width. seeds: the seeds' scores alone, as a t interval; 0 for a single run."""
        examples = t_quantile(_P, self.df_e) ** 2 * self.v_e if which != "seeds" else 0.0
        seeds = self.v_s if which == "seeds" else self.v_rest
        if self.s < 2 or which == "examples" or not seeds:
            return examples
        return examples + t_quantile(_P, self.s - 1.0 if self.df_s is None else self.df_s) ** 2 * seeds


def parts(runs: Sequence[Kept]) -> Parts:
    """Of the mean of one model's runs, its seeds, on the same resamples. Equal predictions count once."""
    unchanging = len(runs) > 1 and bool(runs[0].answers) and len({run.answers for run in runs}) == 1
    counted = runs[:1] if unchanging else runs
    made = _parts(
        np.array([run.value for run in counted]),
        np.stack([run.drawn for run in counted], axis=1),
        effective=counted[0].effective,
        df=float(np.mean([run.df for run in counted])),
    )
    return Parts(made.value, made.s, made.v_e, made.v_s, made.v_i, made.df_e, made.effective, unchanging)


def _parts(
    values: Float64[np.ndarray, " s"], drawn: Float64[np.ndarray, "R s"], *, effective: float, df: float
) -> Parts:
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    s = len(values)
    v_e = v_i = v_s = 0.0
    if len(drawn) > 1:
        grown = effective / max(effective - 1, 1e-9)
        mean = drawn.mean(axis=1)
        v_e = float(mean.var(ddof=1)) * grown
        if s > 1:
            v_i = float((drawn - mean[:, None]).var(axis=0, ddof=1).sum()) / (s * (s - 1))
    if s > 1:
        v_s = float(values.var(ddof=1)) / s
    return Parts(float(values.mean()), s, v_e, v_s, v_i, max(min(df, effective - 1), 1.0), effective)


def mean_over_tasks(tasks: Sequence[Parts]) -> Parts:
    """Of the mean over tasks that are fixed: their errors are independent, so that variances add up."""
    n = len(tasks) ** 2
    v_e = sum(p.v_e for p in tasks) / n
    spread = sum((p.v_e / n) ** 2 / p.df_e for p in tasks)
    return Parts(
        value=float(np.mean([p.value for p in tasks])),
        s=max(p.s for p in tasks),
        v_e=v_e,
        v_s=sum(p.v_s for p in tasks) / n,
        v_i=sum(p.v_s - p.v_rest for p in tasks) / n,
        df_e=max(v_e**2 / spread, 1.0) if spread else max(p.df_e for p in tasks),
        effective=sum(p.effective for p in tasks),
        df_s=float(max(sum(p.s - 1 for p in tasks), 1)),
    )


def ends(found: Parts, which: Which = "both") -> tuple[float, float]:
    """Of the interval, between 0 and 1."""
    return on_logit(found.value, math.sqrt(found.half_squared(which)), found.effective)


def on_logit(value: float, half: float, n: float) -> tuple[float, float]:
    """The interval on the logit scale: within 0 to 1, skewed as a share is. Without any error, the rule of three."""
    if 0 < value < 1 and half > 0:
        centre, step = math.log(value / (1 - value)), half / (value * (1 - value))
        return _expit(centre - step), _expit(centre + step)
    if half > 0 or value in (0.0, 1.0):
        zero = 1 - (0.5 - LEVEL / 2) ** (1 / max(n, 1.0))
        return (0.0, zero) if value < 0.5 else (1 - zero, 1.0)
    return value, value


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


# ------------------------------------------------------------------------------------------------------ two models


@dataclass(frozen=True)
class Gap:
    """Model a minus model b: value, the ends of its interval, and the variances that they are made of."""

    value: float
    low: float
    high: float
    v_e: float
    half: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return not self.low <= 0 <= self.high


def comparable(a: Sequence[Kept], b: Sequence[Kept]) -> bool:
    """Whether all of these runs were judged on the same resamples of the same test examples."""
    return len({run.same for run in (*a, *b)}) == 1


def gap(a: Sequence[Kept], b: Sequence[Kept], *, paired: bool) -> Gap:
    """How much better a is than b, each the mean over its seeds.

    paired: the k-th runs of both have the same seed, so that they share what the seed decides (the training examples,
    say); otherwise the variances of both sides' seeds are added, each with its own t quantile.
    """
    pa, pb = parts(a), parts(b)
    effective, df = pa.effective, min(pa.df_e, pb.df_e)
    if paired and len(a) == len(b):
        both = _parts(
            np.array([x.value - y.value for x, y in zip(a, b, strict=True)]),
            np.stack([x.drawn - y.drawn for x, y in zip(a, b, strict=True)], axis=1),
            effective=effective,
            df=df,
        )
        v_e, squared = both.v_e, both.half_squared()
    else:
        drawn = np.stack([_mean_drawn(a) - _mean_drawn(b)], axis=1)
        v_e = _parts(np.zeros(1), drawn, effective=effective, df=df).v_e
        squared = t_quantile(_P, df) ** 2 * v_e
        squared += sum(t_quantile(_P, p.s - 1.0) ** 2 * p.v_rest for p in (pa, pb) if p.s > 1 and p.v_rest)
    value, half = pa.value - pb.value, math.sqrt(squared)
    return Gap(value, max(value - half, -1.0), min(value + half, 1.0), v_e, half)


def _mean_drawn(runs: Sequence[Kept]) -> Float64[np.ndarray, " R"]:
    return np.asarray(np.mean([run.drawn for run in runs], axis=0))
