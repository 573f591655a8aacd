"""Random prototypes: the control that every learnt set of prototypes must beat."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from benchkit.classifiers.cosine import unit_rows
from benchkit.errors import FitError
from benchkit.interfaces import Scorer
from benchkit.spec import param


@dataclass(frozen=True)
class RandomParams:
    k: int = param(8192, help="prototypes", low=1)
    variant: Literal["activations", "directions"] = param(
        "activations", help="activation vectors drawn from the stream, or random directions"
    )
    similarity: Literal["cosine", "dot"] = param("cosine", help="score of an activation vector and a prototype")


class Random(Scorer):
    """k activation vectors, each of the stream as likely as any other (reservoir sampling, Vitter's algorithm R), or k
    directions uniform on the sphere."""

    Params = RandomParams
    params: RandomParams

    def __init__(self, params: RandomParams | None = None) -> None:
        super().__init__(params)
        self.prototypes: Float32[np.ndarray, "K D"] | None = None

    @property
    def n_prototypes(self) -> int:
        return self.params.k

    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        rng = np.random.default_rng(seed)
        batches = (_finite(b) for b in activations if len(b))
        first = next(batches, None)
        if first is None:
            raise FitError("the random scorer has no activations to be fitted on")
        if self.params.variant == "directions":
            drawn = rng.standard_normal((self.params.k, first.shape[1]), np.float32)
            self.prototypes = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
            return
        kept = np.empty((self.params.k, first.shape[1]), np.float32)
        seen = _take(kept, first, 0, rng)
        for batch in batches:
            seen = _take(kept, batch, seen, rng)
        if seen < self.params.k:
            raise FitError(
                f"k={self.params.k} prototypes need as many activations, and there are {seen}: give k={seen}"
            )
        self.prototypes = kept

    def __call__(self, activations: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B K"]:
        if self.prototypes is None:
            raise FitError("the random scorer is not fitted yet")
        if self.params.similarity == "dot":
            return activations @ self.prototypes.T
        return unit_rows(activations) @ unit_rows(self.prototypes).T

    def tensors(self) -> Mapping[str, np.ndarray]:
        if self.prototypes is None:
            raise FitError("the random scorer is not fitted yet")
        return {"prototypes": self.prototypes}

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        prototypes = tensors.get("prototypes")
        if prototypes is None or prototypes.ndim != 2 or len(prototypes) != self.params.k:
            shape = None if prototypes is None else prototypes.shape
            raise FitError(f"a random scorer with k={self.params.k} needs 'prototypes' of shape [k, D], not {shape}")
        self.prototypes = np.asarray(prototypes, np.float32)


def _finite(batch: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B D"]:
    if not np.isfinite(batch).all():
        raise FitError("activations hold NaN or infinity, and no prototypes can be drawn from them")
    return batch


def _take(
    kept: Float32[np.ndarray, "K D"], batch: Float32[np.ndarray, "B D"], seen: int, rng: np.random.Generator
) -> int:
    """Puts a batch through the reservoir; how many vectors it has seen by then."""
    numbers = np.arange(seen, seen + len(batch))
    places = np.where(numbers < len(kept), numbers, rng.integers(0, numbers + 1))
    chosen = places < len(kept)
    kept[places[chosen]] = batch[chosen]  # where a place comes twice, the last vector keeps it
    return seen + len(batch)
