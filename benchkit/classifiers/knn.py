"""The k-nearest-neighbour probe."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

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
        self.record = {"k": self.k} | normaliser.record
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
        out_bc = np.full((len(unit_bd), self.positive_nc.shape[1]), np.nan, np.float32)
        good = np.flatnonzero(np.isfinite(unit_bd).all(axis=1))  # the others have no neighbours
        column_bm, near_bm = nearest(unit_bd[good] @ self.unit_nd.T, self.k)
        vote_bm = votes(near_bm, self.k)
        if self.params.weights == "softmax":
            vote_bm *= np.exp((near_bm - near_bm.max(axis=1, keepdims=True, initial=-1.0)) / self.params.temperature)
        vote_bm /= vote_bm.sum(axis=1, keepdims=True)
        step = max(1, _BLOCK // max(1, column_bm.shape[1] * out_bc.shape[1]))
        for start in range(0, len(good), step):
            some = slice(start, start + step)
            out_bc[good[some]] = np.einsum("bm,bmc->bc", vote_bm[some], self.positive_nc[column_bm[some]])
        return out_bc


def on_grid(unit_nd: Float32[np.ndarray, "N D"]) -> Float64[np.ndarray, "N D"]:
    """Unit vectors whose similarities have no rounding error at all (see `_GRID`)."""
    return np.rint(unit_nd.astype(np.float64) * _GRID) / _GRID


def nearest(
    similarity_bn: Float64[np.ndarray, "B N"], k: int
) -> tuple[Int64[np.ndarray, "B M"], Float64[np.ndarray, "B M"]]:
    """Columns of each row's k largest values and of all that equal the k-th, and the values; -inf is none."""
    n = similarity_bn.shape[1]
    rows, columns = np.nonzero(similarity_bn >= np.partition(similarity_bn, n - k, axis=1)[:, n - k, None])
    counts = np.bincount(rows, minlength=len(similarity_bn))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(similarity_bn), int(counts.max(initial=0)))
    column_bm, near_bm = np.zeros(shape, np.int64), np.full(shape, -np.inf)
    column_bm[rows, place], near_bm[rows, place] = columns, similarity_bn[rows, columns]
    return column_bm, near_bm


def votes(near_bm: Float64[np.ndarray, "B M"], k: int) -> Float64[np.ndarray, "B M"]:
    """1 for what is above each row's k-th largest value; all that equal it share the votes that are left of k."""
    if not near_bm.size:
        return np.zeros(near_bm.shape)
    kth = np.partition(near_bm, near_bm.shape[1] - k, axis=1)[:, near_bm.shape[1] - k, None]
    above, equal = near_bm > kth, near_bm == kth
    left = k - np.count_nonzero(above, axis=1, keepdims=True)
    return above + equal * (left / np.count_nonzero(equal, axis=1, keepdims=True))


class KNN(OneByOne):
    """Votes of the k nearest training examples by cosine similarity; of several labels, a vote for each. Examples that
    are as near as the k-th share the votes that are left."""

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
