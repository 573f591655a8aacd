"""Is one place healthy? The rule for outlier dimensions, stated once."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from benchkit.diagnose.gather import Stats
from benchkit.diagnose.words import amount, dims_in_words

RATIO = 10.0
TOKEN_RATIO = 15.0
SINGLE_RATIO = 100.0
NORM_FLOOR = 3.0
QUARTER = 0.25
DEAD = 1e-10

RULE = (
    "An outlier dimension is one whose root mean square over examples, at any token position, is at least "
    f"{RATIO:g} times the median dimension's (over all tokens, or there where that is more); or that exceeds it "
    f"{TOKEN_RATIO:g}-fold in some token of a quarter of the examples, or {SINGLE_RATIO:g}-fold in any token. After a "
    f"LayerNorm it must also exceed {NORM_FLOOR:g} times the norm's median weight: normalised values have unit scale, "
    "and the others may be small only because an outlier before the norm was divided out of them. A token position is "
    f"large where its median dimension is {RATIO:g} times that of the median position."
)
"""A relative form of the rules of Dettmers et al. 2022 (arXiv 2208.07339, section 3: magnitude at least 6, in 25 % of
layers and 6 % of tokens) and of Sun et al. 2024 (arXiv 2402.17762, section 2: above 100, and 1,000 times the median),
which are of language models' scales. Untrained ViTs of 32 to 512 dimensions stay below 7 on recordings, noise and
silence at every place."""

Where = Literal["in every token", "at some positions", "in scattered tokens"]


@dataclass(frozen=True)
class Outlier:
    """value: signed, where it is largest. ratio: of its size to the usual one. positions: how many, of T, and the first
    of them. share: of the mean squared norm; variance_share: of the variance."""

    dim: int
    value: float
    ratio: float
    where: Where
    positions: int
    first_position: int
    share: float
    variance_share: float


@dataclass(frozen=True)
class Judged:
    """What one place was found to be. constant: dimensions with one value in all tokens, zero: those of them at zero.
    tokens: positions that are large in every dimension. problems: in words; without any it is healthy.
    """

    stats: Stats
    outliers: tuple[Outlier, ...] = ()
    constant: tuple[int, ...] = ()
    zero: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()

    @property
    def point(self) -> str:
        return self.stats.place.point

    @property
    def healthy(self) -> bool:
        return not self.problems

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(o.dim for o in self.outliers)

    def outlier(self, dim: int) -> Outlier | None:
        return next((o for o in self.outliers if o.dim == dim), None)

    def with_problem(self, text: str) -> "Judged":
        return replace(self, problems=(*self.problems, text))


def judge(stats: Stats, norm_weight: float | None = None, inputs_differ: bool = True) -> Judged:
    """norm_weight: the median magnitude of a norm's weights, where the place is behind one that is known.
    inputs_differ: False where all examples are the same, so that features may be too."""
    if not stats.finite:
        found = [f"{n:,} {what}" for n, what in ((stats.n_nan, "NaN"), (stats.n_infinite, "infinite")) if n]
        share = (stats.n_nan + stats.n_infinite) / max(1, stats.n)
        return Judged(stats, problems=(f"{' and '.join(found)} values ({share:.1%})",))
    outliers = find_outliers(stats, norm_weight)
    fixed = stats.low_d == stats.high_d
    constant = tuple(int(d) for d in np.flatnonzero(fixed))
    zero = tuple(int(d) for d in np.flatnonzero(fixed & (stats.low_d == 0)))
    problems = []
    if outliers:
        top = outliers[0]
        more = f" and {len(outliers) - 1} more" if len(outliers) > 1 else ""
        problems.append(f"dimension {top.dim}{more}: {amount(top.ratio)} times the usual size {top.where}")
    tokens = large_tokens(stats)
    if tokens:
        problems.append(f"{len(tokens)} token position{'s' * (len(tokens) > 1)} large in every dimension")
    pooled = stats.place.kind == "pooled"
    if pooled and len(stats.pooled_ed) > 1 and inputs_differ and _variation(stats) < DEAD:
        problems.append("the same for every example: dead")
    elif constant and not (pooled and (not inputs_differ or len(stats.pooled_ed) == 1)):
        problems.append(f"{dims_in_words(constant)} constant in every token")
    return Judged(stats, outliers, constant, zero, tuple(problems), tokens)


def find_outliers(stats: Stats, norm_weight: float | None = None) -> tuple[Outlier, ...]:
    """By RULE, the largest first."""
    usual = stats.scale
    if not usual:
        return ()
    by_position = stats.ratio_td.max(axis=0)
    by_token = np.quantile(stats.peak_ed, 1 - QUARTER, axis=0, method="lower") / usual
    single = stats.peak_d / usual
    behind_norm = stats.place.kind == "norm" or norm_weight is not None
    floor = NORM_FLOOR * (norm_weight if norm_weight is not None else 1.0) if behind_norm else 0.0
    found = (by_position >= RATIO) | (by_token >= TOKEN_RATIO) | (single >= SINGLE_RATIO)
    found &= stats.peak_d >= floor
    made = [describe(stats, int(d), bool(by_position[d] >= RATIO)) for d in np.flatnonzero(found)]
    return tuple(sorted(made, key=lambda o: -o.ratio))


def large_tokens(stats: Stats) -> tuple[int, ...]:
    """Positions where the median dimension is at least RATIO times what is usual over the positions."""
    by_position = np.median(stats.position_rms_td, axis=1)
    usual = float(np.median(by_position))
    if not usual or stats.place.kind in ("norm", "pooled"):
        return ()
    return tuple(int(t) for t in np.flatnonzero(by_position >= RATIO * usual))


def describe(stats: Stats, dim: int, by_position: bool = True) -> Outlier:
    """How large a dimension is, and where. by_position: False where it is so in scattered tokens only."""
    usual = max(stats.scale, 1e-30)
    sign = 1.0 if stats.high_d[dim] >= -stats.low_d[dim] else -1.0
    squares, variance = stats.rms_d**2, np.maximum(stats.rms_d**2 - stats.mean_d**2, 0)
    shares = float(squares[dim] / squares.sum()), float(variance[dim] / variance.sum()) if variance.sum() else 0.0
    if not by_position:
        size = float(stats.peak_d[dim])
        return Outlier(dim, sign * size, size / usual, "in scattered tokens", 0, 0, *shares)
    at = positions_of(stats, dim)
    size = float(np.sqrt((stats.position_rms_td[at, dim].astype(np.float64) ** 2).mean()))
    where: Where = "in every token" if at.mean() >= 0.9 else "at some positions"
    return Outlier(dim, sign * size, size / usual, where, int(at.sum()), int(np.argmax(at)), *shares)


def positions_of(stats: Stats, dim: int) -> Bool[np.ndarray, " T"]:
    """The token positions where the dimension is an outlier, if it is one at any; else where it is about as large as
    where it is largest."""
    column = stats.ratio_td[:, dim]
    top = float(column.max())
    return column >= (max(RATIO, 0.1 * top) if top >= RATIO else 0.5 * top)


def _variation(stats: Stats) -> float:
    """Variance over examples as a share of the mean square, summed over dimensions."""
    square = float((stats.rms_d**2).sum())
    return float(stats.pooled_ed.astype(np.float64).var(axis=0).sum() / square) if square else 0.0
