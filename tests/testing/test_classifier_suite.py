"""The classifier suite passes what is right and catches each thing that is wrong, in words that say what."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from benchkit.errors import FitError
from benchkit.interfaces import Classifier, Fitted, Problem, Subset
from benchkit.testing import ClassifierSuite, check_classifier


class Means(Fitted):
    """Nearest class mean, for one label or several."""

    def __init__(self, means: np.ndarray) -> None:
        self.means = means
        self.record = {"means": len(means)}

    def scores(self, x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1, x.shape[-1]).mean(axis=1)
        return (flat @ self.means.T - 0.5 * (self.means**2).sum(axis=1)).astype(np.float32)


class Right(Classifier):
    def fit(
        self, features: np.ndarray, labels: np.ndarray, problem: Problem, *, seed: int, device: str = "cpu"
    ) -> Fitted:
        flat = features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)
        wanted = np.eye(problem.n_classes)[labels] if labels.ndim == 1 else labels
        n = np.maximum(wanted.sum(axis=0), 1)[:, None]
        return self.fitted(((wanted.T @ flat) / n).astype(np.float32))

    def fitted(self, means: np.ndarray) -> Fitted:
        return Means(means)


class OfTokens(Right):
    needs = "tokens"
    kinds = ("multiclass",)


class TestRight(ClassifierSuite):
    classifier = Right


class TestOfTokens(ClassifierSuite):
    classifier = OfTokens


class Refuses(Right):
    """Needs every class, and says so."""

    def fit(self, features: np.ndarray, labels: np.ndarray, *args: Any, **options: Any) -> Fitted:
        if labels.ndim == 1 and len(np.unique(labels)) < args[0].n_classes:
            raise FitError("class 'class 3' has no training example")
        return super().fit(features, labels, *args, **options)


class TestRefuses(ClassifierSuite):
    classifier = Refuses


def test_all_checks_run_without_pytest() -> None:
    check_classifier(Right)


# ------------------------------------------------------------------------------------------------------ what is broken


class OddNeeds(Right):
    needs: Any = "features"


class OddKinds(Right):
    kinds: Any = ("regression",)


class FittedToNothing(Right):
    def fit(self, *args: Any, **options: Any) -> Any:
        return None


class LabelsNotScores(Right):
    class Wrong(Means):
        def scores(self, x: np.ndarray) -> np.ndarray:
            return super().scores(x).argmax(axis=1)

    def fitted(self, means: np.ndarray) -> Fitted:
        return self.Wrong(means)


class DoublePrecision(Right):
    class Wrong(Means):
        def scores(self, x: np.ndarray) -> np.ndarray:
            return super().scores(x).astype(np.float64)

    def fitted(self, means: np.ndarray) -> Fitted:
        return self.Wrong(means)


class Negated(Right):
    class Wrong(Means):
        def scores(self, x: np.ndarray) -> np.ndarray:
            return -super().scores(x)

    def fitted(self, means: np.ndarray) -> Fitted:
        return self.Wrong(means)


class Standardises(Right):
    """Divides by the deviation of each dimension, zero or not."""

    def fit(self, features: np.ndarray, *args: Any, **options: Any) -> Fitted:
        with np.errstate(invalid="ignore", divide="ignore"):
            return super().fit(features / features.std(axis=0), *args, **options)


class SplitsForValidation(Right):
    """Holds three rows of four out, though there may be one row a class."""

    def fit(self, features: np.ndarray, labels: np.ndarray, *args: Any, **options: Any) -> Fitted:
        return super().fit(features[::4], labels[::4], *args, **options)


class NaNWithoutExamples(Right):
    def fit(
        self, features: np.ndarray, labels: np.ndarray, problem: Problem, *, seed: int, device: str = "cpu"
    ) -> Fitted:
        wanted = np.eye(problem.n_classes)[labels] if labels.ndim == 1 else labels
        with np.errstate(invalid="ignore", divide="ignore"):
            return Means((wanted.T @ features / wanted.sum(axis=0)[:, None]).astype(np.float32))


class FitErrorOfTwoLines(Right):
    def fit(self, features: np.ndarray, labels: np.ndarray, *args: Any, **options: Any) -> Fitted:
        if len(labels) <= args[0].n_classes:
            raise FitError("too few examples:\nlook at the log")
        return super().fit(features, labels, *args, **options)


class FirstHalf(Right):
    """Sees the first half of the training rows alone."""

    def fit(self, features: np.ndarray, labels: np.ndarray, *args: Any, **options: Any) -> Fitted:
        half = max(len(labels) // 2, 1)
        return super().fit(features[:half], labels[:half], *args, **options)


class Normalises(Right):
    """By the statistics of the test set: the scores of one example depend on the others."""

    class Wrong(Means):
        def scores(self, x: np.ndarray) -> np.ndarray:
            return super().scores(x - x.mean(axis=0))

    def fitted(self, means: np.ndarray) -> Fitted:
        return self.Wrong(means)


class GlobalGenerator(Right):
    def fitted(self, means: np.ndarray) -> Fitted:
        return Means((means + 0.1 * np.random.rand(*means.shape)).astype(np.float32))


class SeedsLost(Right):
    """fit_many trains each subset with the first one's seed."""

    def fit(self, *args: Any, seed: int, **options: Any) -> Fitted:
        means = super().fit(*args, seed=seed, **options).means  # type: ignore[attr-defined]
        return Means(means + np.float32(0.01) * np.random.default_rng(seed).standard_normal(means.shape, np.float32))

    def fit_many(
        self, features: np.ndarray, labels: np.ndarray, problem: Problem, subsets: Sequence[Subset], **options: Any
    ) -> Iterator[Fitted]:
        return super().fit_many(features, labels, problem, [Subset(s.rows, 0) for s in subsets], **options)


class SubsetsTurnedRound(Right):
    def fit_many(
        self, features: np.ndarray, labels: np.ndarray, problem: Problem, subsets: Sequence[Subset], **options: Any
    ) -> Iterator[Fitted]:
        return super().fit_many(features, labels, problem, subsets[::-1], **options)


class OneTooFew(Right):
    def fit_many(
        self, features: np.ndarray, labels: np.ndarray, problem: Problem, subsets: Sequence[Subset], **options: Any
    ) -> Iterator[Fitted]:
        return super().fit_many(features, labels, problem, subsets[1:], **options)


class WritesToItsInput(Right):
    def fit(self, features: np.ndarray, *args: Any, **options: Any) -> Fitted:
        features -= 1
        return super().fit(features, *args, **options)


class WritesThroughTorch(Right):
    """torch shares the memory of an array and does not know that it is read-only."""

    def fit(self, features: np.ndarray, *args: Any, **options: Any) -> Fitted:
        import torch

        torch.from_numpy(features).sub_(1)
        return super().fit(features, *args, **options)


class WritesWhenScoring(Right):
    class Wrong(Means):
        def scores(self, x: np.ndarray) -> np.ndarray:
            x *= 2
            return super().scores(x)

    def fitted(self, means: np.ndarray) -> Fitted:
        return self.Wrong(means)


class RecordOfArrays(Right):
    def fitted(self, means: np.ndarray) -> Fitted:
        fitted = Means(means)
        fitted.record = {"loss": np.float32(1)}
        return fitted


class RecordOfNaN(Right):
    def fitted(self, means: np.ndarray) -> Fitted:
        fitted = Means(means)
        fitted.record = {"loss": float("nan")}
        return fitted


SHAPE = "scores_are_one_row_an_example_and_one_column_a_class"
BROKEN: list[tuple[type[Classifier], str, str]] = [
    (OddNeeds, "it_says_what_it_needs_and_what_it_solves", "needs is 'features'"),
    (OddKinds, "it_says_what_it_needs_and_what_it_solves", "kinds is ('regression',)"),
    (FittedToNothing, SHAPE, "fit gives NoneType, not a benchkit.Fitted"),
    (LabelsNotScores, SHAPE, "must be of shape [80, 4], and is [80]"),
    (DoublePrecision, SHAPE, "must be float32, and is float64"),
    (WritesToItsInput, SHAPE, "read-only"),
    (WritesThroughTorch, SHAPE, "fit modifies the features or labels it is given"),
    (WritesWhenScoring, SHAPE, "read-only"),
    (Negated, "it_learns_classes_that_are_far_apart", "accuracy is 0.00, below 0.9"),
    (Standardises, "constant_dimensions_do_no_harm", "holds NaN or infinity"),
    (SplitsForValidation, "one_example_a_class_is_enough_or_a_fit_error", "one example a class: accuracy is"),
    (FitErrorOfTwoLines, "one_example_a_class_is_enough_or_a_fit_error", "a FitError must be one line"),
    (NaNWithoutExamples, "a_class_without_examples_gets_scores_or_a_fit_error", "holds NaN or infinity"),
    (FirstHalf, "the_order_of_training_rows_does_not_matter_to_whether_it_learns", "training rows sorted by class"),
    (Normalises, "the_score_of_an_example_does_not_depend_on_the_others", "among others and alone: they differ"),
    (GlobalGenerator, "one_seed_gives_one_result", "is a global generator used?"),
    (SeedsLost, "fit_many_gives_what_fit_gives", "scores of fit, and of fit_many (1)"),
    (SubsetsTurnedRound, "fit_many_gives_what_fit_gives", "scores of fit, and of fit_many (0)"),
    (OneTooFew, "fit_many_gives_what_fit_gives", "fit_many gives 3 results for 4 subsets"),
    (RecordOfArrays, "the_record_of_a_fit_can_be_stored", "which JSON cannot hold"),
    (RecordOfNaN, "the_record_of_a_fit_can_be_stored", "which JSON cannot hold"),
]


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize(("cls", "check", "words"), BROKEN, ids=[cls.__name__ for cls, *_ in BROKEN])
def test_each_broken_classifier_is_caught(cls: type[Classifier], check: str, words: str) -> None:
    suite = type("Suite", (ClassifierSuite,), {"classifier": cls})
    with pytest.raises((AssertionError, ValueError)) as caught:
        getattr(suite(), f"test_{check}")()
    assert words in str(caught.value)


def test_a_classifier_of_raw_examples_must_say_what_they_are() -> None:
    class Raw(Right):
        needs = "raw"

    suite = type("Suite", (ClassifierSuite,), {"classifier": Raw})
    with pytest.raises(AssertionError, match=r"override features\(x\)"):
        next(suite().problems())
