"""The metrics of a result, gathered batch by batch: no more than a batch's activations are held.

What is measured on the same vectors is the same number for every width; only the correlation of pairs of units, which
grows with the square of the width, is of a sample.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64

from benchkit.sae import metrics

if TYPE_CHECKING:
    from torch import Tensor

CORRELATED = 4096
"""Units whose correlations are all taken; of a wider autoencoder, of so many drawn at random."""
VECTORS = 1 << 14
"""Vectors that correlations are of, at most: with 4,096 units 256 MB."""
COHERENT = 1 << 14
"""Units whose angles to all others are taken; of a wider dictionary, so many drawn at random."""


class Spread:
    """Mean and sum of squared deviations of each dimension, in float64 (merged by the formula of Chan et al. 1979)."""

    def __init__(self) -> None:
        self.n = 0
        self.mean: Tensor | float = 0.0
        self.m2: Tensor | float = 0.0

    def add(self, x: "Float[Tensor, 'B D']") -> None:
        x = x.double()
        mean = x.mean(dim=0)
        m2 = (x - mean).square().sum(dim=0)
        n = self.n + len(x)
        delta = mean - self.mean
        self.m2 = self.m2 + m2 + delta.square() * (self.n * len(x) / n)
        self.mean = self.mean + delta * (len(x) / n)
        self.n = n

    @property
    def variance(self) -> Float64[np.ndarray, " D"]:
        """Of the population, by dimension."""
        return np.asarray((self.m2 / max(1, self.n)).cpu())  # type: ignore[union-attr]

    @property
    def pooled(self) -> float:
        """Variance of all elements about their common mean."""
        mean = np.asarray(self.mean.cpu())  # type: ignore[union-attr]
        return float(self.variance.mean() + mean.var())


@dataclass(frozen=True)
class Sample:
    """The units that correlation and coherence are of: numbers, ascending; None for all of them."""

    correlated: "Tensor | None"
    coherent: "Tensor | None"

    @staticmethod
    def of(width: int, device: str) -> "Sample":
        import torch

        def drawn(most: int) -> "Tensor | None":
            if width <= most:
                return None
            generator = torch.Generator().manual_seed(0)
            return torch.randperm(width, generator=generator)[:most].sort().values.to(device)

        return Sample(drawn(CORRELATED), drawn(COHERENT))


class Measured:
    """What is known of vectors that went past. dim: of z; width: units."""

    def __init__(self, width: int, device: str, *, pairs: bool = True) -> None:
        """pairs: whether correlations will be asked for."""
        import torch

        self.width, self.n = width, 0
        self.fired = torch.zeros(width, dtype=torch.int64, device=device)
        self.squares = self.l1 = 0.0
        self.z, self.e_z, self.x, self.e_x = Spread(), Spread(), Spread(), Spread()
        self.sample = Sample.of(width, device)
        self._f: list[Tensor] | None = [] if pairs else None
        self._held = 0

    def add(
        self,
        z: "Float[Tensor, 'B D']",
        z_hat: "Float[Tensor, 'B D']",
        f: "Float[Tensor, 'B K']",
        x: "Float[Tensor, 'B D']",
        error_x: "Float[Tensor, 'B D']",
    ) -> None:
        """z, x: what is reconstructed, normalised and as it was recorded. error_x: of x (see `error_of_x`)."""
        error = z - z_hat
        self.n += len(z)
        self.squares += float(error.double().square().sum())
        self.l1 += float(f.double().abs().sum()) if f.numel() < 1 << 24 else metrics.l1(f) * len(f)
        self.fired += (f.abs() > metrics.ACTIVE).sum(dim=0)
        self.z.add(z)
        self.e_z.add(error)
        self.x.add(x)
        self.e_x.add(error_x)
        if self._f is not None and self._held < VECTORS:
            part = f[: VECTORS - self._held]
            part = part if self.sample.correlated is None else part[:, self.sample.correlated]
            self._f.append(part.clone())
            self._held += len(part)

    @property
    def frequency(self) -> "Float[Tensor, ' K']":
        """Of each unit, the share of the vectors on which it was active."""
        return self.fired.double().div(max(1, self.n)).float()

    def found(self) -> dict[str, float]:
        """Each metric by its name; NaN where it is not defined."""
        whole, rest = float(self.z.variance.sum()), float(self.e_z.variance.sum())
        by_dimension, error = self.x.variance, self.e_x.variance
        moving = by_dimension > 0
        pooled = self.x.pooled
        return {
            "mse": self.squares / max(1, self.n * len(by_dimension)),
            "explained_variance": 1 - rest / whole if whole > 0 else float("nan"),
            "explained_variance_x": (
                float(1 - (error[moving] / by_dimension[moving]).mean()) if moving.any() else float("nan")
            ),
            "explained_variance_pooled": 1 - self.e_x.pooled / pooled if pooled > 0 else float("nan"),
            "l0": float(self.fired.sum()) / max(1, self.n * self.width),
            "l1": self.l1 / max(1, self.n),
            "dead": float((self.fired == 0).double().mean()),
        }  # fmt: skip

    def pairs(self, decoder: "Float[Tensor, 'K D']") -> dict[str, float]:
        """Correlation of pairs of units, its standard error, and the dictionary's coherence; frees what was held."""
        import torch

        assert self._f is not None
        f = torch.cat(self._f)
        self._f = None
        mean, error = metrics.correlation(f, self.width)
        return {
            "correlation": mean, "correlation_error": error,
            "coherence": metrics.coherence(decoder, self.sample.coherent),
        }  # fmt: skip
