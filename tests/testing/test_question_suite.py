"""The suite of questions catches each thing that is wrong, in words that say what."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from benchkit.classifiers.answers import MeanAnswer
from benchkit.interfaces import Answer, Asked, Problem, Question
from benchkit.testing import QuestionSuite, check_question


class Right(Question):
    """Whether the nearest has the same label, or shares one."""

    metrics = ("nearest",)
    chance: Mapping[str, float] = MappingProxyType({"nearest": 0.3})

    @classmethod
    def trains(cls, params: Any) -> bool:
        return False

    def ask(self, test: Asked, train: Asked | None, problem: Problem, *, seed: int) -> Answer:
        x, y = test.features[:], test.labels
        apart = ((x[:, None] - x[None]) ** 2).sum(axis=2)
        np.fill_diagonal(apart, np.inf)
        near = apart.argmin(axis=1)
        hit = y[near] == y if y.ndim == 1 else (y[near] * y).any(axis=1)
        return MeanAnswer(self.metrics, self.made(hit[:, None].astype(np.float32)), self.chance, {})

    def made(self, table: np.ndarray) -> np.ndarray:
        return table


class TestRight(QuestionSuite):
    question = Right


class OfProbes(Right):
    metrics = ("top1",)


class NoChance(Right):
    chance: Mapping[str, float] = MappingProxyType({})


class TooFew(Right):
    def made(self, table: np.ndarray) -> np.ndarray:
        return table[1:]


class Knows(Right):
    def made(self, table: np.ndarray) -> np.ndarray:
        return np.ones_like(table)


class Blind(Right):
    def made(self, table: np.ndarray) -> np.ndarray:
        return np.zeros_like(table)


class ByGlobalChance(Right):
    def made(self, table: np.ndarray) -> np.ndarray:
        return (table + 1e-3 * np.random.rand(*table.shape)).astype(np.float32)


BROKEN: list[tuple[type[Question], str]] = [
    (OfProbes, "metrics names top1, which benchkit has for probes"),
    (NoChance, "Answer.chance has None for nearest"),
    (TooFew, "Answer.table must be float32"),
    (Knows, "on permuted labels is \\+0.700 from chance"),
    (Blind, "of classes that are far apart is -0.300 from chance"),
    (ByGlobalChance, "two answers with one seed differ"),
]


@pytest.mark.parametrize(("broken", "said"), BROKEN, ids=lambda x: getattr(x, "__name__", None))
def test_what_is_wrong_is_said(broken: type[Question], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_question(broken)
