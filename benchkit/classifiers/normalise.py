"""What every probe on pooled features does first: LayerNorm each example, then standardise each feature.

LayerNorm alone is not enough. A backbone with one dimension at 2,500, as real ones have, leaves LayerNorm with that
dimension near sqrt(D) and all others near 0, where a probe learns nothing; standardising brings them back. Both are
linear maps of the LayerNorm's output, so that a linear layer behind them can express what one behind LayerNorm can.

LayerNorm takes two numbers from each example: what all its features share, and its length. Of a few features that is
most of what there is, so that it is left out there; what wider ones say by these two is lost too, which the check
`plain` looks for (docs/probes.md says when to give norm=standard).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from benchkit.catalog.spec import param

CHUNK = 1024
"""Rows at a time: they stay in the processor's cache."""
NARROW = 8
"""Features below which layer+standard is standard: LayerNorm would leave a constant of one, and a sign of two."""
LIMIT = 1e-12
"""Added to the variance in LayerNorm of features whose largest is 1: where all are equal, rounding must not speak."""
_RESOLUTION = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class NormParams:
    """How features are normalised."""

    norm: Literal["layer+standard", "layer", "standard", "none"] = param(
        "layer+standard", help="LayerNorm of each example, standardisation of each feature, both or none"
    )
    shrinkage: float = param(
        30.0, help="examples' worth of the median variance in each feature's variance, so that few examples do", low=0
    )
    norm_eps: float = param(
        0.0,
        help="added to the variance in LayerNorm; 0: what rounding leaves, at whatever scale the features are",
        low=0,
    )


@dataclass(frozen=True)
class Normaliser:
    """A fitted normalisation. mean, scale: of each feature, where features are standardised. left_out: the number of
    features where LayerNorm was asked for and is left out, because they are too few."""

    layer: bool
    eps: float
    mean: Float32[np.ndarray, " D"] | None = None
    scale: Float32[np.ndarray, " D"] | None = None
    left_out: int = 0

    @property
    def record(self) -> dict[str, str]:
        """What a fit's record must say of it."""
        return {"layer_norm": f"left out: {self.left_out} features"} if self.left_out else {}

    def __call__(self, x: Shaped[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
        """A normalised copy."""
        made = np.empty(x.shape, np.float32)
        for rows in _chunks(len(x)):
            part = made[rows]
            part[...] = x[rows]
            if self.layer:
                layer_norm(part, self.eps)
            if self.mean is not None and self.scale is not None:
                part -= self.mean
                part *= self.scale
        return made


def plain_normaliser(params: NormParams, dim: int) -> Normaliser:
    """The part that needs no training features: LayerNorm, where it is asked for and leaves something."""
    asked = params.norm in ("layer+standard", "layer")
    layer = asked and dim >= (NARROW if params.norm == "layer+standard" else 3)
    return Normaliser(layer, params.norm_eps, left_out=dim if asked and not layer else 0)


def fit_normaliser(params: NormParams, x: Shaped[np.ndarray, "N D"], layered: bool = False) -> Normaliser:
    """The normalisation that `params` ask for, from training features. layered: `x` went through LayerNorm already.

    A feature's variance is averaged with the median feature's, which counts as `shrinkage` examples. From a handful of
    examples, then, features keep their relative sizes, and one that happens to be constant there does not explode.
    """
    plain = plain_normaliser(params, x.shape[1])
    if params.norm in ("layer", "none"):
        return plain
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    shift: Float64[np.ndarray, " D"] | None = None
    for rows in _chunks(len(x)):
        part = x[rows] if layered else plain(x[rows])
        if shift is None:
            shift = part[0].astype(np.float64)  # sums of squares around any one example lose no digits
        part = part - shift
        total += part.sum(axis=0)
        squares += np.square(part).sum(axis=0)
    assert shift is not None
    n = len(x)
    variance = np.maximum(squares / n - np.square(total / n), 0.0)
    typical = float(np.median(variance)) or float(variance.mean())
    shrunk = (n * variance + params.shrinkage * typical) / (n + params.shrinkage)
    mean = shift + total / n
    constant = shrunk <= np.square(_RESOLUTION * mean)
    scale = 1.0 / np.sqrt(np.where(constant, 1.0, shrunk))
    return replace(plain, mean=mean.astype(np.float32), scale=scale.astype(np.float32))


def layer_norm(x: Float32[np.ndarray, "N D"], eps: float) -> None:
    """LayerNorm without weights of its own (the layer behind it has them), in place. eps of 0: LIMIT, of features whose
    largest is 1."""
    if not eps:
        largest = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
        x /= np.where((largest > 0) & (largest < np.inf), largest, np.float32(1))
        eps = LIMIT
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("nd,nd->n", x, x) / x.shape[1]
    x /= np.sqrt(np.maximum(variance + eps, np.finfo(np.float32).tiny))[:, None]


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK):
        yield slice(start, min(start + CHUNK, n))
