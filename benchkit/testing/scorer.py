"""Conformance of a scorer."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from benchkit.catalog.spec import Kind
from benchkit.interfaces import Scorer
from benchkit.testing.common import (
    Suite,
    disturb_global_generators,
    expect,
    expect_array,
    expect_same,
    frozen,
    run_all,
    unharmed,
)


class ScorerSuite(Suite):
    """Subclass it in a test module: `class TestMine(ScorerSuite): spec = "my-scorer,k=64"`."""

    kind: ClassVar[Kind] = "scorer"
    attribute: ClassVar[str] = "scorer"

    scorer: Any = None
    """A class or an instance, where no `spec` is given; few prototypes make the checks fast."""
    tolerance: float = 1e-4
    """By how much scores of equal fits may differ, relative to the largest."""
    dim: int = 24
    n_vectors: int = 4100
    """How many activation vectors it is fitted on: more than it has prototypes."""

    # ------------------------------------------------------------------------------------------------------ checks

    def test_scores_are_one_row_a_vector_and_one_column_a_prototype(self) -> None:
        scorer = self.fitted
        k = scorer.n_prototypes
        expect(isinstance(k, int) and k > 0, f"n_prototypes is {k!r}, and must be a whole number above 0")
        for n in (1, 33):
            expect_array(unharmed(scorer, self.vectors(n)), (n, k), f"scores of {n} vectors")

    def test_scores_tell_vectors_apart(self) -> None:
        scores = self.fitted(self.vectors(64))
        expect(np.ptp(scores, axis=0).max() > 0, "all vectors get the same scores")

    def test_the_score_of_a_vector_does_not_depend_on_the_others(self) -> None:
        x = self.vectors(64)
        scores = self.fitted(x)
        turned = self.fitted(frozen(x[::-1]))[::-1]
        expect_same(scores, turned, self.tolerance, "scores of vectors, and of the same vectors turned round")
        expect_same(
            scores[:1], self.fitted(frozen(x[:1])), self.tolerance, "scores of a vector, among others and alone"
        )

    def test_one_seed_gives_one_result(self) -> None:
        x = self.vectors(64)
        disturb_global_generators()
        again = self.fit(seed=0)
        message = "scores after two fits with one seed (is a global generator used?)"
        expect_same(self.fitted(x), again(x), self.tolerance, message)

    def test_another_seed_changes_nothing_where_it_says_so(self) -> None:
        if not self.fitted.seeded:
            x = self.vectors(64)
            message = "seeded is False, and scores after fits with two seeds"
            expect_same(self.fitted(x), self.fit(seed=1)(x), self.tolerance, message)

    def test_another_seed_changes_something_where_it_says_so(self) -> None:
        if self.fitted.seeded:
            x = self.vectors(64)
            scores = self.fitted(x)
            others = (self.fit(seed)(x) for seed in range(1, 6))  # of few prototypes two seeds may find the same
            expect(
                any(not _same(scores, other, self.tolerance) for other in others),
                "seeded is True, and fits with seeds 0 to 5 give the same scores: draw what is random with the seed, "
                "or say seeded = False",
            )

    def test_what_was_fitted_can_be_saved_and_restored(self) -> None:
        tensors = self.fitted.tensors()
        expect(isinstance(tensors, Mapping) and tensors, "tensors() must be a mapping of at least one array")
        for name, tensor in tensors.items():
            expect(isinstance(name, str) and name, f"tensors() names something {name!r}")
            fits = isinstance(tensor, np.ndarray) and tensor.dtype.kind in "fiub"
            expect(fits, f"tensors()['{name}'] is {type(tensor).__name__}, and must be an array of numbers")
        restored: Scorer = self.make()
        restored.restore({name: frozen(tensor) for name, tensor in tensors.items()})
        x = self.vectors(64)
        same = restored.n_prototypes == self.fitted.n_prototypes
        expect(same, f"{self.fitted.n_prototypes} prototypes are restored as {restored.n_prototypes}")
        expect_same(self.fitted(x), restored(x), self.tolerance, "scores before saving and after restoring")
        again = restored.tensors()
        expect(set(again) == set(tensors), f"after restore, tensors() names {sorted(again)}, not {sorted(tensors)}")

    # -------------------------------------------------------------------------------------------- what they work on

    @property
    def fitted(self) -> Scorer:
        return self.once("fitted", lambda: self.fit(seed=0))

    def fit(self, seed: int) -> Scorer:
        """A new instance, fitted on a stream of read-only batches of uneven sizes."""
        scorer: Scorer = self.make()
        scorer.fit(self.stream(), seed=seed, device=self.device)
        return scorer

    def stream(self) -> Iterator[np.ndarray]:
        everything = self.vectors(self.n_vectors, seed=0)
        for start in range(0, self.n_vectors, 256):
            yield frozen(everything[start : start + 256])

    def vectors(self, n: int, seed: int = 1) -> np.ndarray:
        """Activation vectors [n, dim] in eight groups, float32, read-only."""
        rng = np.random.default_rng(seed)
        centres = np.random.default_rng(99).standard_normal((8, self.dim))
        return frozen((3 * centres[rng.integers(0, 8, n)] + rng.standard_normal((n, self.dim))).astype(np.float32))


def _same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    try:
        expect_same(a, b, tolerance, "")
    except AssertionError:
        return False
    return True


def check_scorer(which: Any, *, device: str = "cpu", tolerance: float = 1e-4) -> None:
    """Every check, without pytest. which: the spec of an installed plugin, a class or an instance.

    Raises AssertionError that lists what is wrong.
    """
    given = {"spec": which} if isinstance(which, str) else {"scorer": which}
    run_all(type("Checked", (ScorerSuite,), {**given, "device": device, "tolerance": tolerance}))
