"""Conformance of a question: a class that asks features without a probe."""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from benchkit.catalog.spec import Kind
from benchkit.interfaces import Answer, Asked, Labels, Problem, Question, Rows
from benchkit.metrics import METRICS
from benchkit.metrics.cumulative import ones
from benchkit.testing.classifier import CLASSES, blobs
from benchkit.testing.common import Suite, disturb_global_generators, expect, frozen, run_all


class QuestionSuite(Suite):
    """Subclass it in a test module: `class TestMine(QuestionSuite): spec = "my-question"`."""

    kind: ClassVar[Kind] = "classifier"
    attribute: ClassVar[str] = "question"

    question: Any = None
    """A class or an instance, where no `spec` is given."""
    tolerance: float = 1e-3
    """By how much a metric may differ for the same examples in another order."""
    tells: float = 0.3
    """By how much its primary metric must be above chance on classes that are far apart."""

    # ------------------------------------------------------------------------------------------------------ checks

    def test_its_metrics_have_names_of_their_own(self) -> None:
        question = self.make()
        expect(isinstance(question, Question), f"{type(question).__name__} is no benchkit.Question")
        names = question.metrics
        fine = isinstance(names, tuple) and names and len(set(names)) == len(names)
        expect(fine and all(isinstance(n, str) and n.isidentifier() for n in names),
               f"metrics is {names!r}, and must be a tuple of names, each once, the primary one first")  # fmt: skip
        shared = [name for name in names if name in METRICS]
        expect(not shared, f"metrics names {', '.join(shared)}, which benchkit has for probes: give another name")

    def test_an_answer_has_a_row_for_each_example_and_a_chance_for_each_metric(self) -> None:
        for answer, test, _, question in self.answers():
            expect(isinstance(answer, Answer), f"ask gives {type(answer).__name__}, not a benchkit.Answer")
            n, k = len(test.labels), len(answer.columns)
            table = answer.table
            fine = isinstance(table, np.ndarray) and table.shape == (n, k) and table.dtype == np.float32
            expect(fine, f"Answer.table must be float32 [{n}, {k}], a row an example and a column each")
            for name in question.metrics:
                chance = answer.chance.get(name)
                expect(isinstance(chance, float), f"Answer.chance has {chance!r} for {name}, and must have a float")

    def test_classes_that_are_far_apart_are_told_from_chance(self) -> None:
        for answer, _, _, question in self.answers():
            primary = question.metrics[0]
            gain = self.value(answer, primary) - answer.chance[primary]
            expect(gain >= self.tells, f"{primary} of classes that are far apart is {gain:+.3f} from chance")

    def test_permuted_labels_fall_to_chance(self) -> None:
        for _, test, problem, question in self.answers():
            rng = np.random.default_rng(0)
            permuted = Asked(test.features, rng.permutation(test.labels), test.groups)
            answer = question.ask(permuted, self.train(permuted), problem, seed=0)
            primary = question.metrics[0]
            gain = self.value(answer, primary) - answer.chance[primary]
            expect(gain < self.tells, f"{primary} on permuted labels is {gain:+.3f} from chance")

    def test_the_order_of_examples_does_not_matter(self) -> None:
        for answer, test, problem, question in self.answers():
            turned = Asked(Rows(test.features[:][::-1]), test.labels[::-1], test.groups[::-1])
            primary = question.metrics[0]
            a, b = self.value(answer, primary), self.value(self.ask(question, turned, problem), primary)
            expect(abs(a - b) <= max(self.tolerance, 0.1 * (answer.repeats > 1)),
                   f"{primary} is {a:.4f}, and {b:.4f} for the same examples turned round")  # fmt: skip

    def test_one_seed_gives_one_answer(self) -> None:
        for answer, test, problem, _ in self.answers():
            disturb_global_generators()
            again = self.ask(self.make(), test, problem)
            expect(np.array_equal(answer.table, again.table, equal_nan=True), "two answers with one seed differ")

    def test_metrics_are_those_of_the_examples_that_a_resample_draws(self) -> None:
        for answer, _, _, question in self.answers():
            n = len(answer.table)
            twice, all_repeats = 2 * ones(n), 2 * ones(answer.repeats)
            for name in question.metrics:
                once, doubled = self.value(answer, name), answer.values(name, twice, all_repeats)
                expect(isinstance(doubled, np.ndarray) and doubled.shape == (1,), f"values('{name}') must be [R]")
                close = abs(float(doubled[0]) - once) < 0.05
                expect(close, f"{name} is {once:.4f}, and {float(doubled[0]):.4f} with each example drawn twice")

    def test_its_record_can_be_stored(self) -> None:
        for answer, *_ in self.answers():
            try:
                json.dumps(dict(answer.record), allow_nan=False)
            except (TypeError, ValueError) as e:
                raise AssertionError(f"Answer.record is {answer.record!r}, which JSON cannot hold: {e}") from e

    # -------------------------------------------------------------------------------------------- what they work on

    def answers(self) -> Iterator[tuple[Answer, Asked, Problem, Any]]:
        """For each kind that it is for: an answer about classes that are far apart."""
        for kind in self.make().kinds:
            problem = Problem(kind, CLASSES, tuple(f"class {i}" for i in range(CLASSES)))
            test, question = self.asked(*blobs(kind, 20 * CLASSES, seed=1)), self.make()
            yield self.ask(question, test, problem), test, problem, question

    def ask(self, question: Any, test: Asked, problem: Problem) -> Any:
        return question.ask(test, self.train(test), problem, seed=0)

    def asked(self, x: np.ndarray, y: Labels) -> Asked:
        return Asked(Rows(frozen(x)), frozen(y), np.arange(len(x)))

    def train(self, test: Asked) -> Asked | None:
        """Training examples, where it asks about any."""
        question = self.make()
        if not question.trains(question.params):
            return None
        return self.asked(*blobs("multiclass" if test.labels.ndim == 1 else "multilabel", 12 * CLASSES, seed=0))

    def value(self, answer: Answer, name: str) -> float:
        return float(answer.values(name, ones(len(answer.table)), ones(answer.repeats))[0])


def check_question(which: Any) -> None:
    """Every check, without pytest. which: the spec of an installed plugin, a class or an instance.

    Raises AssertionError that lists what is wrong.
    """
    given = {"spec": which} if isinstance(which, str) else {"question": which}
    run_all(type("Checked", (QuestionSuite,), given))
