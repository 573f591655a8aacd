"""Clustering: do the clusters of k-means, as many as there are classes, coincide with the classes?

nmi, ami    mutual information of class and cluster, over the mean of their entropies; adjusted for chance (Vinh et al.
            2010)
ari         adjusted Rand index (Hubert and Arabie 1985)
silhouette  of the clusters themselves (Rousseeuw 1987), Euclidean, of some examples

All as scikit-learn has them, and its k-means. Each is the mean over repeats with other first centres, and an interval
is over examples and repeats. Of several labels, only examples with a single one count.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from benchkit.catalog.spec import param
from benchkit.classifiers.answers import PartitionAnswer
from benchkit.errors import FitError, require
from benchkit.features.cosine import unit_rows
from benchkit.interfaces import Answer, Asked, Problem, Question, Rows
from benchkit.machine.seeds import Purpose, generator

NAMES = ("nmi", "ami", "ari", "silhouette")

_PART = 4096
_SILHOUETTES = 4096
"""Examples at most that silhouettes are computed of: each takes its distance to all of them."""
_NUMBERS = 2**27
"""Of features, at most, that k-means is fitted on."""


@dataclass(frozen=True)
class ClusteringParams:
    norm: Literal["unit", "none"] = param("unit", help="unit: each vector at length 1, so that distance is cosine's")
    repeats: int = param(10, help="k-means from other first centres", low=1, high=100)
    sample: int = param(
        50_000, help="examples that k-means is fitted on at most, drawn with the seed; all are assigned", low=2
    )


class Clustering(Question):
    """k-means at as many clusters as the test examples have classes, against these classes."""

    Params = ClusteringParams
    metrics = NAMES

    @classmethod
    def trains(cls, params: Any) -> bool:
        """Never."""
        return False

    def ask(self, test: Asked, train: Asked | None, problem: Problem, *, seed: int) -> Answer:
        require("sklearn", "benchkit-core[probes]")
        from sklearn.metrics import adjusted_mutual_info_score

        labels = single_labels(test)
        known = np.flatnonzero(labels >= 0)
        k = len(np.unique(labels[known]))
        if k < 2:
            raise FitError("clustering needs test examples of two classes, each with a single label")
        n = len(labels)
        rng = generator(seed, Purpose.QUESTION)
        most = min(self.params.sample, max(k, _NUMBERS // test.features.dim))
        fitted_on = np.sort(rng.permutation(n)[:most])
        if len(fitted_on) < k:
            raise FitError(f"clustering into {k} classes needs as many examples to fit on, and sample={most} is fewer")
        sampled = np.sort(rng.permutation(n)[:_SILHOUETTES])
        x = self._normed(test.features[fitted_on])
        if not np.isfinite(x).all():
            raise FitError("the features of some test examples hold NaN or infinity: k-means cannot be fitted on them")
        clusters = np.stack([
            self._partition(x, k, int(rng.integers(2**31 - 1)), test.features) for _ in range(self.params.repeats)
        ])  # fmt: skip
        silhouettes = self._silhouettes(self._normed(test.features[sampled]), clusters[:, sampled])
        ami = [float(adjusted_mutual_info_score(labels[known], each[known])) for each in clusters]
        permuted = labels.copy()
        permuted[known] = rng.permutation(labels[known])
        record = {
            "k": k, "fitted_on": len(fitted_on), "single_label": len(known),
            "repeats": [{"ami": value} for value in ami],
        }  # fmt: skip
        chance = {"nmi": _nmi(permuted, clusters), "ami": 0.0, "ari": 0.0, "silhouette": 0.0}
        return PartitionAnswer(labels, clusters, sampled, silhouettes, ami, chance, record)

    def _normed(self, x: Float32[np.ndarray, "n D"]) -> Float32[np.ndarray, "n D"]:
        return unit_rows(x) if self.params.norm == "unit" else x

    def _partition(self, x: Float32[np.ndarray, "n D"], k: int, state: int, rows: Rows) -> Int64[np.ndarray, " N"]:
        from sklearn.cluster import KMeans

        model = KMeans(k, n_init=1, random_state=state).fit(x)
        if len(rows) == len(x):
            return model.labels_.astype(np.int64)
        starts = range(0, len(rows), _PART)
        return np.concatenate([model.predict(self._normed(rows[i : i + _PART])) for i in starts]).astype(np.int64)

    def _silhouettes(
        self, x: Float32[np.ndarray, "s D"], clusters: Int64[np.ndarray, "k s"]
    ) -> Float32[np.ndarray, "k s"]:
        """NaN where a partition of these examples is of one cluster, or each of its own."""
        from sklearn.metrics import pairwise_distances, silhouette_samples

        apart = pairwise_distances(x)
        np.fill_diagonal(apart, 0.0)
        made = np.full(clusters.shape, np.nan, np.float32)
        for i, each in enumerate(clusters):
            if 1 < len(np.unique(each)) < len(each):
                made[i] = silhouette_samples(apart, each, metric="precomputed")
        return made


def single_labels(asked: Asked) -> Int64[np.ndarray, " n"]:
    """The class of each example; -1 where it has none, or several."""
    if asked.labels.ndim == 1:
        return asked.labels.astype(np.int64)
    one = asked.labels.sum(axis=1) == 1
    return np.where(one, asked.labels.argmax(axis=1), -1).astype(np.int64)


def _nmi(labels: Int64[np.ndarray, " n"], clusters: Int64[np.ndarray, "k n"]) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    known = labels >= 0
    return float(np.mean([normalized_mutual_info_score(labels[known], each[known]) for each in clusters]))
