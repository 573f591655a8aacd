"""The k-nearest-neighbour probe."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from benchkit.catalog.spec import param
from benchkit.classifiers.data import one_column_a_class
from benchkit.classifiers.normalise import Normaliser, NormParams, fit_normaliser
from benchkit.classifiers.subsets import OneByOne
from benchkit.features.cosine import unit_rows
from benchkit.interfaces import Fitted, Labels, Problem, Subset

_BLOCK = 2**23
"""Similarities held at a time."""
_GRID = 2.0**26
"""Unit vectors are rounded to multiples of 2^-26. Products of two are then multiples of 2^-52, and no partial sum of
them exceeds 1 by more than rounding (Cauchy-Schwarz): float64 holds each of them exactly, in whatever order and with
however many threads a library adds them up. So a similarity has the same bits wherever, and in whatever batch, it is
computed."""


@dataclass(frozen=True)
class KNNParams(NormParams):
    k: int = param(10, help="neighbours that vote (all training examples, where there are fewer)", low=1)
    weights: Literal["softmax", "uniform"] = param(
        "softmax", help="a vote counts exp(similarity / temperature), as in DINO (arXiv 2104.14294), or one"
    )
    temperature: float = param(0.07, help="of the softmax weights", low=1e-6)


class FittedKNN(Fitted):
    """Scores are the share of the neighbours' votes that each class has."""

    def __init__(
        self,
        unit_nd: Float64[np.ndarray, "N D"],
        positive_nc: Float32[np.ndarray, "N C"],
        normaliser: Normaliser,
        params: KNNParams,
    ) -> None:
        self.unit_nd, self.positive_nc, self.normaliser, self.params = unit_nd, positive_nc, normaliser, params
        self.k = min(params.k, len(unit_nd))
        self.record = {"k": self.k}
        self._last: tuple[bytes, Float32[np.ndarray, "N C"]] | None = None

    def scores(self, x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N C"]:
        """Those of the last `x` are kept: seeds that share a fit are asked about the same test split one by one."""
        key = hashlib.sha256(np.ascontiguousarray(x).data).digest()
        if self._last is None or self._last[0] != key:
            rows = max(1, _BLOCK // len(self.unit_nd))
            parts = [self._scores(on_grid(unit_rows(self.normaliser(x[i : i + rows])))) for i in range(0, len(x), rows)]
            empty = np.zeros((0, self.positive_nc.shape[1]), np.float32)
            self._last = (key, np.concatenate(parts) if parts else empty)
        return self._last[1].copy()

    def _scores(self, unit_bd: Float64[np.ndarray, "B D"]) -> Float32[np.ndarray, "B C"]:
        similarity_bn = unit_bd @ self.unit_nd.T
        nearest_bk = largest(similarity_bn, self.k)
        near_bk = np.take_along_axis(similarity_bn, nearest_bk, axis=1).astype(np.float32)
        if self.params.weights == "softmax":
            vote_bk = np.exp((near_bk - near_bk.max(axis=1, keepdims=True)) / np.float32(self.params.temperature))
        else:
            vote_bk = np.ones_like(near_bk)
        vote_bk /= vote_bk.sum(axis=1, keepdims=True)
        return np.einsum("bk,bkc->bc", vote_bk, self.positive_nc[nearest_bk])


def on_grid(unit_nd: Float32[np.ndarray, "N D"]) -> Float64[np.ndarray, "N D"]:
    """Unit vectors whose similarities have no rounding error at all (see `_GRID`)."""
    return np.rint(unit_nd.astype(np.float64) * _GRID) / _GRID


def largest(x: Float[np.ndarray, "B N"], k: int) -> Int64[np.ndarray, "B k"]:
    """Where each row's k largest values are, from left to right; of equal values the first ones."""
    kth = np.partition(x, x.shape[1] - k, axis=1)[:, x.shape[1] - k, None]
    chosen = x >= kth
    for row in np.flatnonzero(np.count_nonzero(chosen, axis=1) > k):
        equal = np.flatnonzero(x[row] == kth[row])
        chosen[row, equal[k - np.count_nonzero(x[row] > kth[row]) :]] = False
    return np.nonzero(chosen)[1].reshape(len(x), k)


class KNN(OneByOne):
    """Votes of the k nearest training examples by cosine similarity; of several labels, a vote for each."""

    Params = KNNParams
    version = 2
    seedless = True

    def fit_subset(
        self, features: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, subset: Subset
    ) -> Fitted:
        x = features[subset.rows]
        normaliser = fit_normaliser(self.params, x)
        positive_nc = one_column_a_class(labels[subset.rows], problem)
        return FittedKNN(on_grid(unit_rows(normaliser(x))), positive_nc, normaliser, self.params)
