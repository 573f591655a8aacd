"""Conformance of a classifier."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from benchkit.catalog.spec import Kind
from benchkit.errors import FitError
from benchkit.interfaces import Classifier, Fitted, Problem, Subset, TaskKind
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

CLASSES, DIM, TOKENS = 4, 16, 5


class ClassifierSuite(Suite):
    """Subclass it in a test module: `class TestMine(ClassifierSuite): spec = "my-probe"`."""

    kind: ClassVar[Kind] = "classifier"
    attribute: ClassVar[str] = "classifier"

    classifier: Any = None
    """A class or an instance, where no `spec` is given."""
    tolerance: float = 1e-3
    """By how much scores of equal fits may differ, relative to the largest."""
    learns: float = 0.9
    """What it must reach on classes that are far apart: accuracy, or AUROC within each class for several labels."""
    learns_from_one: float = 0.7
    """The accuracy it must reach on such classes from one example of each."""

    # ------------------------------------------------------------------------------------------------------ checks

    def test_it_says_what_it_needs_and_what_it_solves(self) -> None:
        classifier = self.make()
        needs, kinds = classifier.needs, classifier.kinds
        expect(needs in ("pooled", "tokens", "raw"), f"needs is {needs!r}, not 'pooled', 'tokens' or 'raw'")
        known = isinstance(kinds, tuple) and kinds and set(kinds) <= {"multiclass", "multilabel", "detection", "traits"}
        expect(known, f"kinds is {kinds!r}, and must be a tuple of multiclass, multilabel, detection, traits")

    def test_scores_are_one_row_an_example_and_one_column_a_class(self) -> None:
        for x, y, test, _, problem in self.problems():
            scores = self.scores(self.fit(x, y, problem), test)
            expect_array(scores, (len(test), CLASSES), f"scores of a {problem.kind} problem")

    def test_it_learns_classes_that_are_far_apart(self) -> None:
        for x, y, test, truth, problem in self.problems():
            self.expect_learnt(self.scores(self.fit(x, y, problem), test), truth, "classes that are far apart")

    def test_constant_dimensions_do_no_harm(self) -> None:
        if self.make().needs == "raw":  # preprocessed examples have the size that the backbone takes
            return
        for x, y, test, truth, problem in self.problems():
            padded, padded_test = (np.concatenate([a, 0 * a[..., :2] + [0, 1]], axis=-1) for a in (x, test))
            fitted = self.fit(padded.astype(np.float32), y, problem)
            scores = self.scores(fitted, frozen(padded_test.astype(np.float32)))
            expect_array(scores, (len(test), CLASSES), "scores with constant dimensions")
            self.expect_learnt(scores, truth, "features with constant dimensions")

    def test_one_example_a_class_is_enough_or_a_fit_error(self) -> None:
        for x, y, test, truth, problem in self.problems():
            rows = one_shot(y)
            if (fitted := self.fit_or_none(x[rows], y[rows], problem)) is not None:
                scores = self.scores(fitted, test)
                expect_array(scores, (len(test), CLASSES), "scores after one example a class")
                if problem.kind == "multiclass":
                    self.expect_learnt(scores, truth, "one example a class", self.learns_from_one)

    def test_a_class_without_examples_gets_scores_or_a_fit_error(self) -> None:
        for x, y, test, _, problem in self.problems():
            rows = np.flatnonzero(y != CLASSES - 1) if y.ndim == 1 else np.flatnonzero(y[:, -1] == 0)
            if (fitted := self.fit_or_none(x[rows], y[rows], problem)) is not None:
                expect_array(self.scores(fitted, test), (len(test), CLASSES), "scores where a class has no example")

    def test_the_order_of_training_rows_does_not_matter_to_whether_it_learns(self) -> None:
        for x, y, test, truth, problem in self.problems():
            rows = np.argsort(y if y.ndim == 1 else y[:, 0], kind="stable")
            for order in (rows, rows[::-1]):
                scores = self.scores(self.fit(x[order], y[order], problem), test)
                self.expect_learnt(scores, truth, "training rows sorted by class")

    def test_the_score_of_an_example_does_not_depend_on_the_others(self) -> None:
        for x, y, test, _, problem in self.problems():
            fitted = self.fit(x, y, problem)
            scores = self.scores(fitted, test)
            turned = self.scores(fitted, frozen(test[::-1]))[::-1]
            expect_same(scores, turned, self.tolerance, "scores of the test rows, and of the same rows turned round")
            alone = self.scores(fitted, frozen(test[:1]))
            expect_same(scores[:1], alone, self.tolerance, "scores of an example, among others and alone")

    def test_one_seed_gives_one_result(self) -> None:
        for x, y, test, _, problem in self.problems():
            for seed in (0, 7):
                first = self.scores(self.fit(x, y, problem, seed), test)
                disturb_global_generators()
                again = self.scores(self.fit(x, y, problem, seed), test)
                expect_same(
                    first, again, self.tolerance, f"scores of two fits with seed {seed} (is a global generator used?)"
                )

    def test_fit_many_gives_what_fit_gives(self) -> None:
        for x, y, test, _, problem in self.problems():
            everything, few = np.arange(len(x)), one_shot(y)
            subsets = [Subset(everything, 0), Subset(everything[::2], 1), Subset(everything, 3)]
            if self.fit_or_none(x[few], y[few], problem, seed=2) is not None:
                subsets.append(Subset(few, 2))
            many = self.make().fit_many(x, y, problem, subsets, device=self.device)
            expect(isinstance(many, Iterator), f"fit_many gives {type(many).__name__}, not a stream")
            fits = list(many)
            expect(len(fits) == len(subsets), f"fit_many gives {len(fits)} results for {len(subsets)} subsets")
            for i, (subset, fitted) in enumerate(zip(subsets, fits, strict=True)):
                alone = self.scores(self.fit(x[subset.rows], y[subset.rows], problem, subset.seed), test)
                message = f"scores of fit, and of fit_many ({i})"
                expect_same(alone, self.scores(fitted, test), self.tolerance, message)

    def test_the_record_of_a_fit_can_be_stored(self) -> None:
        for x, y, _, _, problem in self.problems():
            record = self.fit(x, y, problem).record
            try:
                json.dumps(dict(record), allow_nan=False)
            except (TypeError, ValueError) as e:
                raise AssertionError(f"Fitted.record is {record!r}, which JSON cannot hold: {e}") from e

    # -------------------------------------------------------------------------------------------- what they work on

    def features(self, x: np.ndarray) -> np.ndarray:
        """The features the classifier gets for points [N, 16]. Override it for one that needs raw examples, and `make`
        so that it binds a backbone that takes them."""
        needs = self.make().needs
        expect(needs != "raw", "override features(x), which gives preprocessed examples for points [N, 16]")
        return x if needs == "pooled" else np.repeat(x[:, None, :], TOKENS, axis=1)

    def problems(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Problem]]:
        """For each kind it solves: training features and labels, test features and labels, the problem; read-only."""
        for kind in self.make().kinds:
            x, y = blobs(kind, 12 * CLASSES, seed=0)
            test, truth = blobs(kind, 20 * CLASSES, seed=1)
            problem = Problem(kind, CLASSES, tuple(f"class {i}" for i in range(CLASSES)))
            yield frozen(self.features(x)), frozen(y), frozen(self.features(test)), truth, problem

    def fit(self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int = 0) -> Fitted:
        """A fit on a new instance, from arrays that cannot be written to."""
        classifier: Classifier = self.make()
        features, labels = frozen(x), frozen(y)
        fitted = classifier.fit(features, labels, problem, seed=seed, device=self.device)
        same = np.array_equal(features, x) and np.array_equal(labels, y)
        expect(same, "fit modifies the features or labels it is given")
        expect(isinstance(fitted, Fitted), f"fit gives {type(fitted).__name__}, not a benchkit.Fitted")
        return fitted

    def fit_or_none(self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int = 0) -> Fitted | None:
        """None where the classifier says in one line that it cannot be fitted on so little."""
        try:
            return self.fit(x, y, problem, seed)
        except FitError as e:
            line = str(e)
        expect(line.isprintable(), f"a FitError must be one line, and is {line!r}")
        return None

    def scores(self, fitted: Fitted, x: np.ndarray) -> Any:
        return unharmed(fitted.scores, frozen(x))

    def expect_learnt(self, scores: np.ndarray, truth: np.ndarray, what: str, at_least: float | None = None) -> None:
        least = self.learns if at_least is None else at_least
        if truth.ndim == 1:
            value = float((scores.argmax(axis=1) == truth).mean())
            expect(value >= least, f"{what}: accuracy is {value:.2f}, below {least}")
        else:
            value = min(_auroc(scores[:, c], truth[:, c]) for c in range(CLASSES))
            expect(value >= least, f"{what}: the worst class has an AUROC of {value:.2f}, below {least}")


def check_classifier(which: Any, *, device: str = "cpu", tolerance: float = 1e-3) -> None:
    """Every check, without pytest. which: the spec of an installed plugin, a class or an instance.

    Raises AssertionError that lists what is wrong.
    """
    given = {"spec": which} if isinstance(which, str) else {"classifier": which}
    run_all(type("Checked", (ClassifierSuite,), {**given, "device": device, "tolerance": tolerance}))


def blobs(kind: TaskKind, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, 16] float32 and their labels; each class lies in a direction of its own, far from the others."""
    rng = np.random.default_rng(seed)
    noise = 0.4 * rng.standard_normal((n, DIM))
    if kind == "multiclass":
        y = rng.permutation(np.arange(n) % CLASSES)
        return (4.0 * np.eye(DIM)[y] + noise).astype(np.float32), y.astype(np.int64)
    y_nc = (rng.random((n, CLASSES)) < 0.4).astype(np.uint8)
    return (4.0 * y_nc @ np.eye(DIM)[:CLASSES] + noise).astype(np.float32), y_nc


def one_shot(y: np.ndarray) -> np.ndarray:
    """Rows with the first example of each class."""
    firsts = [np.flatnonzero(y == c if y.ndim == 1 else y[:, c])[0] for c in range(CLASSES)]
    return np.unique(firsts)


def _auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    gaps = scores[truth == 1][:, None] - scores[truth == 0][None]
    return float((gaps > 0).mean() + 0.5 * (gaps == 0).mean())
