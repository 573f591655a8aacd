"""The nearest-centroid probe: no training, so what it gets is the geometry of the features themselves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from benchkit.catalog.spec import param
from benchkit.classifiers.data import log_softmax, one_column_a_class
from benchkit.classifiers.normalise import Normaliser, NormParams, fit_normaliser
from benchkit.classifiers.subsets import OneByOne
from benchkit.features.cosine import unit_rows
from benchkit.interfaces import Fitted, Labels, Problem, Subset


@dataclass(frozen=True)
class CentroidParams(NormParams):
    temperature: float = param(
        0.1, help="similarities are divided by it before the softmax; it changes no ranking of several labels", low=1e-6
    )


class FittedCentroid(Fitted):
    """Scores are log-probabilities for one label, similarities for several. empty: classes without an example."""

    def __init__(
        self,
        centroids: Float32[np.ndarray, "C D"],
        empty: Bool[np.ndarray, " C"],
        normaliser: Normaliser,
        temperature: float,
        softmax: bool,
    ) -> None:
        self.centroids, self.empty, self.normaliser = centroids, empty, normaliser
        self.temperature, self.softmax = temperature, softmax
        if normaliser.record:
            self.record = normaliser.record

    def scores(self, x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N C"]:
        similarity_nc = unit_rows(self.normaliser(x)) @ self.centroids.T
        similarity_nc[:, self.empty] = -1.0  # never seen: as unlike as can be
        scores_nc = similarity_nc / np.float32(self.temperature)
        return log_softmax(scores_nc) if self.softmax else scores_nc


class Centroid(OneByOne):
    """Cosine similarity to the mean of each class's unit-length features (of several labels: of its positives)."""

    Params = CentroidParams
    version = 2
    seedless = True

    def fit_subset(
        self, features: Float32[np.ndarray, "N D"], labels: Labels, problem: Problem, subset: Subset
    ) -> Fitted:
        """One product of the subset's rows."""
        x = features[subset.rows]
        normaliser = fit_normaliser(self.params, x)
        positive_nc = one_column_a_class(labels[subset.rows], problem)
        centroids = unit_rows(positive_nc.T @ unit_rows(normaliser(x)))
        empty = positive_nc.sum(axis=0) == 0
        return FittedCentroid(centroids, empty, normaliser, self.params.temperature, problem.kind == "multiclass")
