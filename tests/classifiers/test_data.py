"""Held-out rows are stratified as far as they can be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchkit.classifiers.data import hold_out
from benchkit.errors import FitError
from benchkit.interfaces import Problem

fractions = st.floats(0.05, 0.6)


@given(labels=st.lists(st.integers(0, 4), min_size=1, max_size=60), fraction=fractions, seed=st.integers(0, 5))
def test_every_class_with_two_examples_is_on_both_sides(labels: list[int], fraction: float, seed: int) -> None:
    y = np.array(labels)
    split = hold_out("it", y, Problem("multiclass", 5), fraction, seed, strict=False)
    assert sorted([*split.train, *split.val]) == list(range(len(y)))
    for c, n in zip(*np.unique(y, return_counts=True), strict=True):
        held = int((y[split.val] == c).sum())
        assert (held == 0) if n == 1 else (1 <= held < n)
        if n > 1:
            assert abs(held - fraction * n) <= 1


@given(labels=arrays(np.uint8, (40, 6), elements=st.integers(0, 1)), fraction=fractions, seed=st.integers(0, 5))
def test_an_only_positive_stays_in_training(labels: np.ndarray, fraction: float, seed: int) -> None:
    split = hold_out("it", labels, Problem("multilabel", 6), fraction, seed, strict=False)
    assert sorted([*split.train, *split.val]) == list(range(40))
    for c in range(6):
        if labels[:, c].sum() == 1:
            assert labels[split.train, c].sum() == 1


def test_rare_labels_are_on_both_sides_in_their_proportion() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((1000, 5)) < [0.5, 0.2, 0.05, 0.02, 0.005]).astype(np.uint8)
    split = hold_out("it", labels, Problem("multilabel", 5), 0.2, 0)
    share = labels[split.val].sum(axis=0) / labels.sum(axis=0)
    assert len(split.val) == pytest.approx(200, abs=20)
    np.testing.assert_allclose(share, 0.2, atol=0.07)


def test_another_seed_holds_out_other_rows_and_the_same_seed_the_same() -> None:
    y = np.arange(100) % 4
    a, b, c = (hold_out("it", y, Problem("multiclass", 4), 0.25, seed).val.tolist() for seed in (0, 0, 1))
    assert a == b != c


def test_a_class_with_one_example_is_named() -> None:
    problem = Problem("multiclass", 3, ("wren", "robin", "crane"))
    with pytest.raises(FitError, match=r"class 'robin' has a single training example, and it holds out .* give val=0"):
        hold_out("it", np.array([0, 0, 1, 2, 2]), problem, 0.2, 0)
    with pytest.raises(FitError, match="no class has two positive training examples"):
        hold_out("it", np.eye(3, dtype=np.uint8), Problem("multilabel", 3), 0.2, 0)
