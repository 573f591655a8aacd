"""Random prototypes: the control that every learnt set of prototypes must beat."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.spec import param
from benchkit.errors import FitError
from benchkit.machine.seeds import Purpose, generator
from benchkit.scorers.prototypes import PointParams, Prototypes, Similarity, finite_batches, first_batch


@dataclass(frozen=True)
class RandomParams(PointParams):
    k: int = param(8192, help="prototypes", low=1)
    variant: Literal["activations", "directions"] = param(
        "activations", help="activation vectors drawn from the stream, or random directions"
    )
    similarity: Similarity = param("cosine", help="score of an activation vector and a prototype")


class Random(Prototypes):
    """k activation vectors, each of the stream as likely as any other (reservoir sampling, Vitter's algorithm R), or k
    directions uniform on the sphere (normalised Gaussian vectors).

    With sampled activations and cosine, a score asks how alike a patch and that patch are, whatever their norms; with
    dot, patches of large norm win everywhere.
    """

    Params = RandomParams
    params: RandomParams
    version = 2

    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        rng = generator(seed, Purpose.RANDOM_PROTOTYPES)
        batches = finite_batches(activations, self)
        first = first_batch(batches, self)
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


def _take(
    kept: Float32[np.ndarray, "K D"], batch: Float32[np.ndarray, "B D"], seen: int, rng: np.random.Generator
) -> int:
    """Puts a batch through the reservoir; how many vectors it has seen by then."""
    numbers = np.arange(seen, seen + len(batch))
    places = np.where(numbers < len(kept), numbers, rng.integers(0, numbers + 1))
    chosen = places < len(kept)
    kept[places[chosen]] = batch[chosen]  # where a place comes twice, the last vector keeps it
    return seen + len(batch)
