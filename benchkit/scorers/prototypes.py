"""What scorers with prototypes in the activations' own space have in common: similarity, saving, restoring."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.spec import param
from benchkit.errors import FitError
from benchkit.features.cosine import unit_rows
from benchkit.interfaces import Scorer
from benchkit.scorers.saved import as_point

Similarity = Literal["cosine", "dot", "distance"]


@dataclass(frozen=True)
class PointParams:
    """Of every scorer that is fitted on activations."""

    point: str | None = param(
        None, help="place inside the backbone, as in blocks.11.norm2; none is the backbone's own tokens"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "point", as_point(self.point))  # one name for one thing


class Prototypes(Scorer):
    """k vectors of the activation space. A subclass fits `prototypes`; its params have `k` and `similarity`.

    cosine: x·p / |x| |p|. dot: x·p. distance: -|x - p|², the negative squared Euclidean distance.
    """

    params: Any

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.prototypes: Float32[np.ndarray, "K D"] | None = None

    @property
    def n_prototypes(self) -> int:
        return self.params.k

    def __call__(self, activations: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B K"]:
        return similarities(activations, self._fitted(), self.params.similarity)

    def tensors(self) -> Mapping[str, np.ndarray]:
        return {"prototypes": self._fitted()}

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.prototypes = restored(tensors, "prototypes", (self.params.k, None), self)

    def _fitted(self) -> Float32[np.ndarray, "K D"]:
        if self.prototypes is None:
            raise FitError(f"the {_name(self)} scorer is not fitted yet")
        return self.prototypes


def similarities(
    x: Float32[np.ndarray, "B D"], prototypes: Float32[np.ndarray, "K E"], how: Similarity
) -> Float32[np.ndarray, "B K"]:
    """Higher is more alike."""
    if x.shape[1] != prototypes.shape[1]:
        raise FitError(
            f"the activations have {x.shape[1]} dimensions, and the prototypes {prototypes.shape[1]}: they are of "
            "another point or backbone"
        )
    if how == "dot":
        return x @ prototypes.T
    if how == "cosine":
        return unit_rows(x) @ unit_rows(prototypes).T
    origin = prototypes.mean(axis=0)  # distances are of differences: far from zero, squares would lose them
    a, b = x - origin, prototypes - origin
    squares = 2 * (a @ b.T) - np.einsum("bd,bd->b", a, a)[:, None] - np.einsum("kd,kd->k", b, b)
    return np.minimum(squares, 0)


def finite_batches(
    activations: Iterator[Float32[np.ndarray, "B D"]], scorer: Scorer
) -> Iterator[Float32[np.ndarray, "B D"]]:
    """The batches that hold vectors. Raises FitError for NaN and infinity."""
    for batch in activations:
        if not np.isfinite(batch).all():
            raise FitError(f"activations hold NaN or infinity, and the {_name(scorer)} scorer cannot be fitted on them")
        if len(batch):
            yield batch


def first_batch(batches: Iterator[Float32[np.ndarray, "B D"]], scorer: Scorer) -> Float32[np.ndarray, "B D"]:
    """Raises FitError where there is none."""
    first = next(batches, None)
    if first is None:
        raise FitError(f"the {_name(scorer)} scorer has no activations to be fitted on")
    return first


def restored(
    tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], scorer: Scorer
) -> Float32[np.ndarray, "..."]:
    """One of the tensors, in float32. shape: what it must be; None is any length. Raises FitError."""
    found = tensors.get(name)
    if (
        found is None
        or found.ndim != len(shape)
        or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True))
    ):
        wanted = "[" + ", ".join("any" if n is None else str(n) for n in shape) + "]"
        has = "nothing" if found is None else str(list(found.shape))
        raise FitError(f"the {_name(scorer)} scorer needs '{name}' of shape {wanted}, and is given {has}")
    return np.asarray(found, np.float32)


def _name(scorer: Scorer) -> str:
    return type(scorer).__name__.lower()
