"""What storing activations in fewer bits loses, by dimension, found while they are written.

float16 has 11 significant bits, so a dimension at 3,000 is stored in steps of 2: one that moves by 0.4 there becomes a
constant. Below 6e-8 everything becomes 0. Both look like healthy numbers afterwards.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

BLOCK = 200_000
"""Values at a time."""
LOST = 0.01
"""Share of a dimension's variance, from which on it is said to be lost."""


@dataclass(frozen=True)
class Rounding:
    """Of n vectors. Each field is an array over the dimensions, of their finite values.

    count: how many. mean, m2: of the values before rounding, their mean and the sum of squared deviations from it.
    error: the sum of squared differences between before and after.
    """

    count: Float64[np.ndarray, " D"]
    mean: Float64[np.ndarray, " D"]
    m2: Float64[np.ndarray, " D"]
    error: Float64[np.ndarray, " D"]

    @staticmethod
    def of(before: Shaped[np.ndarray, "N D"], after: Shaped[np.ndarray, "N D"]) -> "Rounding":
        dim = before.shape[1]
        rows = max(16, BLOCK // max(1, dim))
        total = Rounding(*np.zeros((4, dim)))
        for start in range(0, len(before), rows):
            total = total + Rounding._of_block(before[start : start + rows], after[start : start + rows])
        return total

    @staticmethod
    def _of_block(before: Shaped[np.ndarray, "N D"], after: Shaped[np.ndarray, "N D"]) -> "Rounding":
        x, y = before.astype(np.float64), after.astype(np.float64)
        finite = np.isfinite(x)
        if not finite.all():
            x, y = np.where(finite, x, 0), np.where(finite, y, 0)
        count = finite.sum(axis=0).astype(np.float64)
        mean = x.sum(axis=0) / np.maximum(count, 1)
        return Rounding(
            count, mean, (np.where(finite, x - mean, 0) ** 2).sum(axis=0), ((x - y) ** 2).sum(axis=0)
        )  # fmt: skip

    def __add__(self, other: "Rounding") -> "Rounding":
        """Of both parts together (Chan et al. 1979)."""
        n = np.maximum(self.count + other.count, 1)
        delta = np.where((self.count > 0) & (other.count > 0), other.mean - self.mean, 0)
        mean = np.where(self.count == 0, other.mean, self.mean + delta * other.count / n)
        m2 = self.m2 + other.m2 + delta**2 * self.count * other.count / n
        return Rounding(self.count + other.count, mean, m2, self.error + other.error)

    @property
    def share(self) -> Float64[np.ndarray, " D"]:
        """Mean squared rounding error over the variance, 1 at most; 0 of a dimension that never changes."""
        ratio = np.divide(self.error, self.m2, out=np.zeros_like(self.m2), where=self.m2 > 0)
        return np.minimum(ratio, 1)

    @property
    def lost(self) -> dict[int, float]:
        """Dimensions that lost more than 1 % of their variance, the worst first, and how much of it."""
        share = self.share
        worst = np.argsort(-share, kind="stable")
        return {int(d): float(share[d]) for d in worst if share[d] > LOST}

    def to_record(self) -> dict[str, list[float]]:
        """As JSON takes it, exactly."""
        return {name: getattr(self, name).tolist() for name in ("count", "mean", "m2", "error")}

    @staticmethod
    def from_record(record: dict[str, Any]) -> "Rounding":
        """The inverse of `to_record`. Raises KeyError, TypeError or ValueError where it is none."""
        return Rounding(*(np.array(record[name], np.float64) for name in ("count", "mean", "m2", "error")))
