"""Statistics of each dimension of a stream of vectors, gathered in float64 while it goes past.

Means and central moments of parts are merged by the formulas of Chan et al. (1979) and, for the third and fourth,
Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments",
SAND2008-6212, equations 2.1 and 3.1. Nothing is a difference of large sums: a dimension at 2,500 that hardly moves
keeps its variance.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from benchkit.errors import DataError

BLOCK = 200_000
"""Values at a time: so many fit into a processor's cache."""
ROUNDING = 1e-12
"""Of a sum of squares, as a share of it."""


@dataclass(frozen=True)
class Moments:
    """Of n vectors. Each field is an array over the dimensions.

    count: finite values. mean: of them. m2, m3, m4: sums of powers of their deviation from it. low, high: the smallest
    and the largest (infinities where there is none). nan, inf: how many values are not finite.
    """

    count: Int64[np.ndarray, " D"]
    mean: Float64[np.ndarray, " D"]
    m2: Float64[np.ndarray, " D"]
    m3: Float64[np.ndarray, " D"]
    m4: Float64[np.ndarray, " D"]
    low: Float64[np.ndarray, " D"]
    high: Float64[np.ndarray, " D"]
    nan: Int64[np.ndarray, " D"]
    inf: Int64[np.ndarray, " D"]

    @staticmethod
    def none(dim: int) -> "Moments":
        """Of no vectors."""
        zeros, whole = np.zeros(dim), np.zeros(dim, np.int64)
        return Moments(whole, zeros, zeros, zeros, zeros, np.full(dim, np.inf), np.full(dim, -np.inf), whole, whole)

    @staticmethod
    def of(vectors: Shaped[np.ndarray, "N D"]) -> "Moments":
        """Of these vectors, of any float type."""
        dim = vectors.shape[1]
        rows = max(16, BLOCK // max(1, dim))
        total = Moments.none(dim)
        for start in range(0, len(vectors), rows):
            total = total + Moments._of_block(vectors[start : start + rows])
        return total

    @staticmethod
    def _of_block(vectors: Shaped[np.ndarray, "N D"]) -> "Moments":
        x = vectors.astype(np.float64)
        finite = np.isfinite(x)
        if finite.all():
            count = np.full(x.shape[1], len(x), np.int64)
            low, high = x.min(axis=0), x.max(axis=0)
            nan = inf = np.zeros(x.shape[1], np.int64)
            mean = x.mean(axis=0)
            x -= mean
        else:
            count = finite.sum(axis=0)
            low, high = np.where(finite, x, np.inf).min(axis=0), np.where(finite, x, -np.inf).max(axis=0)
            nan, inf = np.isnan(x).sum(axis=0), np.isinf(x).sum(axis=0)
            mean = np.where(finite, x, 0).sum(axis=0) / np.maximum(count, 1)
            x = np.where(finite, x - mean, 0)
        square = x * x
        m2 = square.sum(axis=0)
        x *= square  # in place from here on: new memory costs more than the arithmetic
        square *= square
        return Moments(count, mean, m2, x.sum(axis=0), square.sum(axis=0), low, high, nan, inf)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both parts together."""
        a, b = self.count.astype(np.float64), other.count.astype(np.float64)
        n = np.maximum(a + b, 1)
        delta = np.where((a > 0) & (b > 0), other.mean - self.mean, 0)
        mean = np.where(a == 0, other.mean, self.mean + delta * b / n)
        m2 = self.m2 + other.m2 + delta**2 * a * b / n
        m3 = self.m3 + other.m3 + delta**3 * a * b * (a - b) / n**2 + 3 * delta * (a * other.m2 - b * self.m2) / n
        m4 = (
            self.m4 + other.m4 + delta**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * delta**2 * (a * a * other.m2 + b * b * self.m2) / n**2
            + 4 * delta * (a * other.m3 - b * self.m3) / n
        )  # fmt: skip
        return Moments(
            self.count + other.count, mean, m2, m3, m4, np.minimum(self.low, other.low),
            np.maximum(self.high, other.high), self.nan + other.nan, self.inf + other.inf,
        )  # fmt: skip

    def to_record(self) -> dict[str, list[Any]]:
        """As JSON takes it, exactly; None for the infinities of a dimension without a finite value."""
        return {
            f.name: [v if np.isfinite(v) else None for v in getattr(self, f.name).tolist()] for f in fields(Moments)
        }

    @staticmethod
    def from_record(record: dict[str, list[Any]]) -> "Moments":
        """The inverse of `to_record`. Raises KeyError, TypeError or ValueError where it is none."""
        nothing = {"low": np.inf, "high": -np.inf}
        made = {}
        for f in fields(Moments):
            whole = f.name in ("count", "nan", "inf")
            values = [nothing[f.name] if v is None else v for v in record[f.name]]
            made[f.name] = np.array(values, np.int64 if whole else np.float64)
        return Moments(**made)


def mean_and_variance_without(
    whole: Moments, part: Moments
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, " D"]]:
    """Of the vectors of `whole` that are not in `part`, which is some of them: mean and population variance, NaN where
    none are left. The larger the rest, the more exact; what is below the rounding of `whole` is a variance of 0."""
    n = (whole.count - part.count).astype(np.float64)
    mean = _ratio(whole.count * whole.mean - part.count * part.mean, n)
    delta = np.where(part.count > 0, part.mean - mean, 0)
    m2 = whole.m2 - part.m2 - delta**2 * n * part.count / np.maximum(whole.count, 1)
    return mean, _ratio(np.where(m2 > ROUNDING * whole.m2, m2, 0), n)


@dataclass(frozen=True)
class Statistics:
    """What moments say of each dimension; NaN where it is not defined (no finite value, or no variance)."""

    moments: Moments

    @property
    def dim(self) -> int:
        return len(self.moments.count)

    @property
    def count(self) -> Int64[np.ndarray, " D"]:
        """Finite values."""
        return self.moments.count

    @cached_property
    def mean(self) -> Float64[np.ndarray, " D"]:
        return np.where(self.count > 0, self.moments.mean, np.nan)

    @cached_property
    def variance(self) -> Float64[np.ndarray, " D"]:
        """Of the population: divided by n."""
        return _ratio(self.moments.m2, self.count)

    @property
    def std(self) -> Float64[np.ndarray, " D"]:
        return np.sqrt(self.variance)

    @cached_property
    def min(self) -> Float64[np.ndarray, " D"]:
        return np.where(self.count > 0, self.moments.low, np.nan)

    @cached_property
    def max(self) -> Float64[np.ndarray, " D"]:
        return np.where(self.count > 0, self.moments.high, np.nan)

    @cached_property
    def skewness(self) -> Float64[np.ndarray, " D"]:
        """E[(x - mean)^3] / std^3; 0 of a Gaussian."""
        return _ratio(_ratio(self.moments.m3, self.count), self.variance**1.5)

    @cached_property
    def kurtosis(self) -> Float64[np.ndarray, " D"]:
        """E[(x - mean)^4] / variance^2, not in excess: 3 of a Gaussian."""
        return _ratio(_ratio(self.moments.m4, self.count), self.variance**2)

    @property
    def nan(self) -> Int64[np.ndarray, " D"]:
        return self.moments.nan

    @property
    def inf(self) -> Int64[np.ndarray, " D"]:
        return self.moments.inf

    @property
    def not_finite(self) -> int:
        """Values, over all dimensions, that are NaN or infinite."""
        return int(self.nan.sum() + self.inf.sum())

    def require_finite(self, what: str) -> None:
        """Raises DataError, which names `what`, where a value is NaN or infinite."""
        if self.not_finite:
            raise DataError(
                f"{what}: {int(self.nan.sum()):,} values are NaN and {int(self.inf.sum()):,} infinite; nothing can be "
                "fitted on them: record another point, or mend the model"
            )


def _ratio(a: Any, b: Any) -> Any:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=np.asarray(b) > 0)
