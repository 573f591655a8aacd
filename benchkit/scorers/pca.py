"""Principal components of the activations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.catalog.spec import param
from benchkit.errors import FitError
from benchkit.interfaces import Scorer
from benchkit.scorers.prototypes import PointParams, finite_batches, first_batch, restored


@dataclass(frozen=True)
class PCAParams(PointParams):
    k: int = param(256, help="prototypes", low=1)
    signs: Literal["one", "both"] = param(
        "one", help="one: k components; both: k / 2 components and each of them turned round"
    )
    whiten: bool = param(False, help="divide by each component's standard deviation")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.signs == "both" and self.k % 2:
            raise ValueError(f"signs=both needs an even k, not {self.k}")


class PCA(Scorer):
    """The score of a component is the projection of the centred vector on it, (x - mean) · component.

    Exact: mean and covariance are gathered from the stream in float64, batch by batch (Chan et al. 1979). The sign of a
    component means nothing, so it is the one with which its largest entry is positive; signs=both adds the other
    directions as prototypes k / 2 and on, in the same order, for what is found at a component's lower end.
    """

    Params = PCAParams
    params: PCAParams
    seeded = False

    def __init__(self, params: PCAParams | None = None) -> None:
        super().__init__(params)
        self.mean: Float32[np.ndarray, " D"] | None = None
        self.components: Float32[np.ndarray, "c D"] | None = None
        self.variance: Float32[np.ndarray, " c"] | None = None

    @property
    def n_prototypes(self) -> int:
        return self.params.k

    @property
    def n_components(self) -> int:
        return self.params.k // 2 if self.params.signs == "both" else self.params.k

    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        n, mean, scatter = covariance_of(activations, self)
        c = self.n_components
        if min(len(mean), n - 1) < c:
            raise FitError(
                f"{c} components need as many dimensions and one vector more, and there are {n} vectors of "
                f"{len(mean)} dimensions"
            )
        variance, components = principal(scatter / (n - 1))
        self.mean, self.variance = mean.astype(np.float32), variance[:c].astype(np.float32)
        self.components = components[:c].astype(np.float32)

    def __call__(self, activations: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B K"]:
        if self.mean is None or self.components is None or self.variance is None:
            raise FitError("the pca scorer is not fitted yet")
        if activations.shape[1] != len(self.mean):
            raise FitError(
                f"the activations have {activations.shape[1]} dimensions, and the components {len(self.mean)}"
            )
        components = self.components
        if self.params.whiten:
            components = components / np.sqrt(np.maximum(self.variance, np.finfo(np.float32).tiny))[:, None]
        scores = (activations - self.mean) @ components.T
        return np.concatenate([scores, -scores], axis=1) if self.params.signs == "both" else scores

    def tensors(self) -> Mapping[str, np.ndarray]:
        if self.mean is None or self.components is None or self.variance is None:
            raise FitError("the pca scorer is not fitted yet")
        return {"mean": self.mean, "components": self.components, "variance": self.variance}

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        c = self.n_components
        self.components = restored(tensors, "components", (c, None), self)
        self.mean = restored(tensors, "mean", (self.components.shape[1],), self)
        self.variance = restored(tensors, "variance", (c,), self)


def covariance_of(
    activations: Iterator[Float32[np.ndarray, "B D"]], scorer: Scorer
) -> tuple[int, Float64[np.ndarray, " D"], Float64[np.ndarray, "D D"]]:
    """Number of vectors, their mean, and the sum of the outer products of their deviations from it."""
    batches = finite_batches(activations, scorer)
    first = first_batch(batches, scorer)
    n, mean = 0, np.zeros(first.shape[1])
    scatter = np.zeros((first.shape[1], first.shape[1]))
    for batch in (b for group in ((first,), batches) for b in group):
        x = batch.astype(np.float64)
        own = x.mean(axis=0)
        x -= own
        delta = own - mean
        total = n + len(x)
        scatter += x.T @ x + np.outer(delta, delta) * (n * len(x) / total)
        mean += delta * (len(x) / total)
        n = total
    return n, mean, scatter


def principal(
    covariance: Float64[np.ndarray, "D D"],
) -> tuple[Float64[np.ndarray, " D"], Float64[np.ndarray, "D D"]]:
    """Variances, the largest first, and components, one a row, each with its largest entry positive."""
    values, vectors = np.linalg.eigh(covariance)
    components = vectors.T[::-1]
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return np.maximum(values[::-1], 0), components * signs[:, None]
