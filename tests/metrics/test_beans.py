"""The mAP that BEANS reports."""

from pathlib import Path

import numpy as np
import pytest

from benchkit.interfaces import Problem
from benchkit.metrics import evaluate


def test_beans_map_is_the_published_one_and_ours_stands_beside_it(shared: Path) -> None:
    given = np.load(shared / "fixtures" / "beans" / "map.npz")
    labels, problem = given["targets"].astype(np.uint8), Problem("detection", 7)
    theirs, ours = evaluate(["beans_map", "cmap"], labels, given["scores"], problem, replicates=0)
    assert abs(theirs.value - given["map"]) < 1e-6
    present = labels.any(axis=0)
    assert abs(ours.value - given["ap"][present].mean()) < 1e-6


def test_equal_scores_count_in_the_order_of_the_examples() -> None:
    labels, scores = np.array([[1], [0], [0], [1]], np.uint8), np.zeros((4, 1), np.float32)
    theirs, ours = evaluate(["beans_map", "cmap"], labels, scores, Problem("detection", 1), replicates=0)
    assert (theirs.value, ours.value) == (pytest.approx((1 + 2 / 4) / 2, abs=1e-12), 0.5)


def test_it_has_an_interval() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.2).astype(np.uint8)
    (found,) = evaluate(["beans_map"], labels, rng.normal(size=(200, 3)).astype(np.float32), Problem("detection", 3))
    assert found.low is not None
    assert found.low < found.value < found.high  # type: ignore[operator]
