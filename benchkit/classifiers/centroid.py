"""The nearest-centroid probe: no training, so what it gets is the geometry of the features themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Shaped

from benchkit.classifiers.cosine import unit_rows
from benchkit.classifiers.data import check_subsets
from benchkit.interfaces import Classifier, Fitted, Labels, Problem, Subset
from benchkit.spec import param


@dataclass(frozen=True)
class CentroidParams:
    temperature: float = param(0.1, help="similarities are divided by it; it changes no ranking", low=1e-6)
    centre: bool = param(True, help="subtract the training mean first: a common direction says nothing of the class")


class FittedCentroid(Fitted):
    def __init__(
        self,
        centroids: Float32[np.ndarray, "C D"],
        mean: Float32[np.ndarray, " D"],
        empty: Shaped[np.ndarray, " C"],
        temperature: float,
    ) -> None:
        self.centroids, self.mean, self.empty, self.temperature = centroids, mean, empty, temperature

    def scores(self, x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N C"]:
        similarity_nc = unit_rows(x - self.mean) @ self.centroids.T / np.float32(self.temperature)
        similarity_nc[:, self.empty] = np.float32(-1 / self.temperature)  # never seen: as unlike as can be
        return similarity_nc


class Centroid(Classifier):
    """Cosine similarity to the mean of each class's unit-length features (of several labels: of its positives)."""

    Params = CentroidParams

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
        """Each subset costs one product of its own rows: what a single fit costs, for the seed plays no part."""
        for subset, error in zip(subsets, check_subsets("centroid", features, labels, problem, subsets), strict=True):
            if error:
                raise error
            x, y = features[subset.rows], labels[subset.rows]
            mean = x.mean(axis=0, dtype=np.float64).astype(np.float32) if self.params.centre else np.zeros_like(x[0])
            positive_nc = (y[:, None] == np.arange(problem.n_classes) if y.ndim == 1 else y).astype(np.float32)
            centroids = unit_rows(positive_nc.T @ unit_rows(x - mean))
            yield FittedCentroid(centroids, mean, positive_nc.sum(axis=0) == 0, self.params.temperature)
