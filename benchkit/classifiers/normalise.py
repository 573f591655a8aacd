"""What every probe on pooled features does first: LayerNorm each example, then standardise each feature.

LayerNorm alone is not enough. A backbone with one dimension at 2,500, as real ones have, leaves LayerNorm with that
dimension near sqrt(D) and all others near 0, where a probe learns nothing; standardising brings them back. Both are
linear maps of the LayerNorm's output, so that a linear layer behind them can express what one behind LayerNorm can.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from benchkit.catalog.spec import param

CHUNK = 1024
"""Rows at a time: they stay in the processor's cache."""
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
    norm_eps: float = param(1e-6, help="added to the variance in LayerNorm", low=0)


@dataclass(frozen=True)
class Normaliser:
    """A fitted normalisation. mean, scale: of each feature, where features are standardised."""

    layer: bool
    eps: float
    mean: Float32[np.ndarray, " D"] | None = None
    scale: Float32[np.ndarray, " D"] | None = None

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


def fit_normaliser(params: NormParams, x: Shaped[np.ndarray, "N D"], layered: bool = False) -> Normaliser:
    """The normalisation that `params` ask for, from training features. layered: `x` went through LayerNorm already.

    A feature's variance is averaged with the median feature's, which counts as `shrinkage` examples. From a handful of
    examples, then, features keep their relative sizes, and one that happens to be constant there does not explode.
    """
    layer = params.norm in ("layer+standard", "layer")
    plain = Normaliser(layer, params.norm_eps)
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
    return Normaliser(layer, params.norm_eps, mean.astype(np.float32), scale.astype(np.float32))


def layer_norm(x: Float32[np.ndarray, "N D"], eps: float) -> None:
    """LayerNorm without weights of its own (the layer behind it has them), in place."""
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("nd,nd->n", x, x) / x.shape[1]
    x /= np.sqrt(np.maximum(variance + eps, np.finfo(np.float32).tiny))[:, None]


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, CHUNK):
        yield slice(start, min(start + CHUNK, n))
