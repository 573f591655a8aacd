"""The k-nearest-neighbour probe."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from benchkit.classifiers.cosine import unit_rows
from benchkit.classifiers.data import check_subsets
from benchkit.interfaces import Classifier, Fitted, Labels, Problem, Subset
from benchkit.spec import param

_BLOCK = 2**24
"""Similarities held at a time."""


@dataclass(frozen=True)
class KNNParams:
    k: int = param(10, help="neighbours that vote (all training examples, where there are fewer)", low=1)
    weights: Literal["softmax", "uniform"] = param(
        "softmax", help="a vote counts exp(similarity / temperature), as in DINO (arXiv 2104.14294), or one"
    )
    temperature: float = param(0.07, help="of the softmax weights", low=1e-6)
    centre: bool = param(True, help="subtract the training mean first: a common direction says nothing of the class")


class FittedKNN(Fitted):
    def __init__(
        self,
        unit_nd: Float32[np.ndarray, "N D"],
        positive_nc: Float32[np.ndarray, "N C"],
        mean: Float32[np.ndarray, " D"],
        params: KNNParams,
    ) -> None:
        self.unit_nd, self.positive_nc, self.mean, self.params = unit_nd, positive_nc, mean, params
        self.record = {"k": min(params.k, len(unit_nd))}

    def scores(self, x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N C"]:
        rows = max(1, _BLOCK // len(self.unit_nd))
        parts = [self._scores(unit_rows(x[i : i + rows] - self.mean)) for i in range(0, len(x), rows)]
        return np.concatenate(parts) if parts else np.zeros((0, self.positive_nc.shape[1]), np.float32)

    def _scores(self, unit_bd: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B C"]:
        """The share of the neighbours' votes that each class has. Neighbours at equal distance: the first rows."""
        k = self.record["k"]
        similarity_bn = unit_bd @ self.unit_nd.T
        nearest_bk = np.argsort(-similarity_bn, axis=1, kind="stable")[:, :k]
        near_bk = np.take_along_axis(similarity_bn, nearest_bk, axis=1)
        if self.params.weights == "softmax":
            vote_bk = np.exp((near_bk - near_bk[:, :1]) / np.float32(self.params.temperature))
        else:
            vote_bk = np.ones_like(near_bk)
        vote_bk /= vote_bk.sum(axis=1, keepdims=True)
        return np.einsum("bk,bkc->bc", vote_bk, self.positive_nc[nearest_bk])


class KNN(Classifier):
    """Votes of the k nearest training examples by cosine similarity; of several labels, a vote for each."""

    Params = KNNParams

    def fit(
        self, features: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, *, seed: int, device: str = "cpu"
    ) -> Fitted:
        (fitted,) = self.fit_many(features, labels, problem, [Subset(np.arange(len(labels)), seed)], device=device)
        return fitted

    def fit_many(
        self,
        features: Float32[np.ndarray, "N D"],
        labels: Labels,
        problem: Problem,
        subsets: Sequence[Subset],
        *,
        device: str = "cpu",
    ) -> Iterator[Fitted]:
        for subset, error in zip(subsets, check_subsets("knn", features, labels, problem, subsets), strict=True):
            if error:
                raise error
            x, y = features[subset.rows], labels[subset.rows]
            mean = x.mean(axis=0, dtype=np.float64).astype(np.float32) if self.params.centre else np.zeros_like(x[0])
            positive_nc = (y[:, None] == np.arange(problem.n_classes) if y.ndim == 1 else y).astype(np.float32)
            yield FittedKNN(unit_rows(x - mean), positive_nc, mean, self.params)
