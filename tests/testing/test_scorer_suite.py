"""The scorer suite passes what is right and catches each thing that is wrong, in words that say what."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from benchkit.interfaces import Scorer
from benchkit.testing import ScorerSuite, check_scorer


class Right(Scorer):
    """Dot products with vectors of the stream, kept by reservoir sampling."""

    k = 5

    @property
    def n_prototypes(self) -> int:
        return self.k

    def fit(self, activations: Iterator[np.ndarray], *, seed: int = 0, device: str = "cpu") -> None:
        rng, kept, seen = self.generator(seed), [], 0
        for batch in activations:
            for x in batch:
                seen += 1
                if len(kept) < self.k:
                    kept.append(x)
                elif (at := rng.integers(0, seen)) < self.k:
                    kept[at] = x
        self.prototypes = np.stack(kept)

    def generator(self, seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)

    def __call__(self, activations: np.ndarray) -> np.ndarray:
        return activations @ self.prototypes.T

    def tensors(self) -> Mapping[str, np.ndarray]:
        return {"prototypes": self.prototypes}

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.prototypes = tensors["prototypes"]


class TestRight(ScorerSuite):
    scorer = Right


def test_all_checks_run_without_pytest() -> None:
    check_scorer(Right)


# ------------------------------------------------------------------------------------------------------ what is broken


class OneMore(Right):
    @property
    def n_prototypes(self) -> int:
        return self.k + 1


class None_(Right):
    @property
    def n_prototypes(self) -> Any:
        return None


class DoublePrecision(Right):
    def __call__(self, activations: np.ndarray) -> np.ndarray:
        return super().__call__(activations).astype(np.float64)


class Constant(Right):
    def __call__(self, activations: np.ndarray) -> np.ndarray:
        return np.ones((len(activations), self.k), np.float32)


class Ranks(Right):
    def __call__(self, activations: np.ndarray) -> np.ndarray:
        return super().__call__(activations).argsort(axis=0).argsort(axis=0).astype(np.float32)


class Unseeded(Right):
    def generator(self, seed: int) -> np.random.Generator:
        return np.random.default_rng()


class IgnoresItsSeed(Right):
    def generator(self, seed: int) -> np.random.Generator:
        return np.random.default_rng(0)


class SaysNoSeedChangesIt(Right):
    seeded = False


class ConsumesTwice(Right):
    """Counts the stream first, and finds nothing the second time."""

    def fit(self, activations: Iterator[np.ndarray], **options: Any) -> None:
        assert sum(len(batch) for batch in activations)
        super().fit(activations, **options)


class WritesToItsInput(Right):
    def __call__(self, activations: np.ndarray) -> np.ndarray:
        activations -= 1
        return super().__call__(activations)


class SavesNothing(Right):
    def tensors(self) -> Mapping[str, np.ndarray]:
        return {}


class SavesLists(Right):
    def tensors(self) -> Any:
        return {"prototypes": self.prototypes.tolist()}


class ForgetsTheScale(Right):
    scale = 1.0

    def fit(self, activations: Iterator[np.ndarray], **options: Any) -> None:
        super().fit(activations, **options)
        self.scale = 3.0

    def __call__(self, activations: np.ndarray) -> np.ndarray:
        return super().__call__(activations) * np.float32(self.scale)


SHAPE, SAVED = "scores_are_one_row_a_vector_and_one_column_a_prototype", "what_was_fitted_can_be_saved_and_restored"
BROKEN: list[tuple[type[Scorer], str, str]] = [
    (OneMore, SHAPE, "must be of shape [1, 6], and is [1, 5]"),
    (None_, SHAPE, "n_prototypes is None"),
    (DoublePrecision, SHAPE, "must be float32, and is float64"),
    (WritesToItsInput, SHAPE, "read-only"),
    (ConsumesTwice, SHAPE, "need at least one array to stack"),
    (Constant, "scores_tell_vectors_apart", "all vectors get the same scores"),
    (Ranks, "the_score_of_a_vector_does_not_depend_on_the_others", "scores of a vector, among others and alone"),
    (Unseeded, "one_seed_gives_one_result", "is a global generator used?"),
    (IgnoresItsSeed, "another_seed_changes_something_where_it_says_so", "fits with seeds 0 to 5 give the same scores"),
    (SaysNoSeedChangesIt, "another_seed_changes_nothing_where_it_says_so", "seeded is False, and scores after fits"),
    (SavesNothing, SAVED, "a mapping of at least one array"),
    (SavesLists, SAVED, "tensors()['prototypes'] is list"),
    (ForgetsTheScale, SAVED, "scores before saving and after restoring: they differ"),
]


@pytest.mark.parametrize(("cls", "check", "words"), BROKEN, ids=[cls.__name__ for cls, *_ in BROKEN])
def test_each_broken_scorer_is_caught(cls: type[Scorer], check: str, words: str) -> None:
    suite = type("Suite", (ScorerSuite,), {"scorer": cls})
    with pytest.raises((AssertionError, ValueError)) as caught:
        getattr(suite(), f"test_{check}")()
    assert words in str(caught.value)
