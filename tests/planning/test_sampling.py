"""Which training examples a cell uses."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.errors import FitError
from benchkit.interfaces import Problem
from benchkit.planning.sampling import subset

SEEDS = st.integers(0, 2**40)

MULTICLASS = [5, 18, 32, 33, 37, 43, 46, 51, 59]
MULTILABEL = [3, 4, 8, 13, 18, 20, 31, 56]
TRAITS = [4, 13, 21, 43, 58]
"""What the documented rule gave when it was written; other rows are another benchmark."""


def problem(kind, n_classes):
    return Problem(kind, n_classes, tuple(f"class-{c}" for c in range(n_classes)))


@st.composite
def multiclass(draw):
    """Labels of classes that have 3 to 12 examples each, shuffled, and how many classes there are."""
    sizes = draw(st.lists(st.integers(3, 12), min_size=1, max_size=6))
    labels = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels), len(sizes)


@st.composite
def multilabel(draw):
    """[N, C] labels; rows may have none, some columns may be empty, the others have at least 4 examples."""
    n, c = draw(st.integers(20, 60)), draw(st.integers(1, 6))
    labels = np.random.default_rng(draw(st.integers(0, 10**6))).random((n, c)) < draw(st.floats(0.05, 0.5))
    labels[: 4 * c] |= np.tile(np.eye(c, dtype=bool), (4, 1))[: len(labels[: 4 * c])]
    labels[:, labels.sum(axis=0) < 4] = False
    labels[0, 0] = labels[1, 0] = labels[2, 0] = labels[3, 0] = True
    return labels.astype(np.uint8)


@given(multiclass(), SEEDS)
def test_multiclass_subsets_hold_exactly_k_of_every_class_and_are_nested(data, seed):
    labels, n_classes = data
    smaller: set[int] = set()
    for k in (1, 2, 3):
        rows = subset(labels, k, seed, problem("multiclass", n_classes))
        assert np.bincount(labels[rows], minlength=n_classes).tolist() == [k] * n_classes
        assert (np.diff(rows) > 0).all()
        assert smaller < set(rows.tolist())
        smaller = set(rows.tolist())


@given(multilabel(), SEEDS)
def test_multilabel_subsets_hold_at_least_k_of_every_class_that_has_examples_and_are_nested(labels, seed):
    there = labels.sum(axis=0) > 0
    smaller: set[int] = set()
    for k in (1, 2, 3, 4):
        rows = subset(labels, k, seed, problem("multilabel", labels.shape[1]))
        counts = labels[rows].sum(axis=0)
        assert (counts[there] >= k).all()
        assert (counts[~there] == 0).all()
        assert len(rows) <= k * there.sum()
        assert (np.diff(rows) > 0).all()
        assert smaller <= set(rows.tolist())
        smaller = set(rows.tolist())


@given(multilabel(), SEEDS)
def test_no_example_is_taken_for_a_class_that_others_have_filled_already(labels, seed):
    labels = np.concatenate([labels, labels[:, :1]], axis=1)  # the last class always comes with the first
    rows = subset(labels, 2, seed, problem("multilabel", labels.shape[1]))
    assert rows.tolist() == subset(labels[:, :-1], 2, seed, problem("multilabel", labels.shape[1] - 1)).tolist()


@given(multiclass(), SEEDS, st.integers(1, 3))
def test_one_label_an_example_gives_the_same_rows_as_multiclass_and_as_multilabel(data, seed, k):
    labels, n_classes = data
    onehot = np.eye(n_classes, dtype=np.uint8)[labels]
    one = subset(labels, k, seed, problem("multiclass", n_classes))
    assert one.tolist() == subset(onehot, k, seed, problem("multilabel", n_classes)).tolist()


@given(multiclass(), SEEDS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_other_classes_does_not_matter(data, seed, k, random):
    labels, n_classes = data
    others = np.flatnonzero(labels != 0).tolist()
    shuffled = labels.copy()
    shuffled[np.array(others, int)] = labels[np.array(random.sample(others, len(others)), int)]
    chosen = [subset(y, k, seed, problem("multiclass", n_classes)) for y in (labels, shuffled)]
    first, second = ([r for r in rows.tolist() if labels[r] == 0] for rows in chosen)
    assert first == second


@given(multiclass(), SEEDS, st.integers(1, 2))
def test_an_example_that_may_not_be_used_is_replaced_and_the_others_stay(data, seed, k):
    labels, n_classes = data
    before = subset(labels, k, seed, problem("multiclass", n_classes))
    bad = int(before[0])
    after = subset(labels, k, seed, problem("multiclass", n_classes), valid=np.arange(len(labels)) != bad)
    assert len(set(after.tolist()) - set(before.tolist())) == 1
    assert set(before.tolist()) - set(after.tolist()) == {bad}


@given(st.integers(10, 40), st.integers(1, 8), SEEDS)
def test_of_traits_too_one_that_may_not_be_used_is_replaced_and_the_others_stay(n: int, k: int, seed: int) -> None:
    labels = np.zeros((n, 2), np.uint8)
    before = subset(labels, k, seed, problem("traits", 2))
    bad = int(before[0])
    after = subset(labels, k, seed, problem("traits", 2), valid=np.arange(n) != bad)
    assert len(after) == k
    assert set(before.tolist()) - set(after.tolist()) == {bad}


@given(multilabel(), SEEDS, st.integers(1, 3))
def test_an_example_that_was_not_drawn_may_go_without_a_change(labels, seed, k):
    c = labels.shape[1]
    before = subset(labels, k, seed, problem("multilabel", c))
    valid = np.ones(len(labels), bool)
    valid[np.setdiff1d(np.arange(len(labels)), before)[::2]] = False
    assert subset(labels, k, seed, problem("multilabel", c), valid=valid).tolist() == before.tolist()


def test_seeds_differ_and_one_seed_repeats():
    labels = np.repeat(np.arange(4), 50)
    chosen = [tuple(subset(labels, 5, seed, problem("multiclass", 4)).tolist()) for seed in (*range(20), 0)]
    assert len(set(chosen)) == 20
    assert chosen[0] == chosen[-1]


@pytest.mark.parametrize("distance", [1, 2, 100, 1000, 2**16, 2**31, 2**32, 2**40])
def test_seeds_however_far_apart_draw_others(distance: int) -> None:
    labels = np.repeat(np.arange(4), 50)
    for seed in (0, 7):
        a, b = (subset(labels, 5, s, problem("multiclass", 4)).tolist() for s in (seed, seed + distance))
        assert a != b


def test_every_class_has_an_order_of_its_own() -> None:
    labels = np.tile(np.arange(3), 40)
    rows = subset(labels, 5, 0, problem("multiclass", 3))
    assert len({tuple(rows[labels[rows] == c] // 3) for c in range(3)}) == 3


@settings(max_examples=5)
@given(st.integers(0, 2**40))
def test_every_example_is_as_likely_as_its_neighbours(start):
    labels = np.zeros(10, np.int64)
    taken = np.zeros(10)
    for seed in range(start, start + 400):
        taken[subset(labels, 3, seed, problem("multiclass", 1))] += 1
    assert (np.abs(taken - 120) < 60).all()  # six standard deviations of a binomial (400, 0.3)


def test_the_rows_are_the_same_on_every_machine():
    labels = np.arange(60) % 3
    onehot = np.eye(3, dtype=np.uint8)[labels]
    onehot[::7, 0] = 1
    assert subset(labels, 3, 0, problem("multiclass", 3)).tolist() == MULTICLASS
    assert subset(onehot, 3, 7, problem("multilabel", 3)).tolist() == MULTILABEL
    assert subset(onehot, 5, 1, problem("traits", 3)).tolist() == TRAITS


def test_traits_are_counted_in_total_and_nested():
    labels = np.random.default_rng(0).integers(0, 2, (40, 3)).astype(np.uint8)
    chosen = [set(subset(labels, n, 3, problem("traits", 3)).tolist()) for n in range(1, 41)]
    assert [len(rows) for rows in chosen] == list(range(1, 41))
    assert all(a < b for a, b in pairwise(chosen))
    with pytest.raises(FitError, match="n_train=41 is more than the 40 training examples"):
        subset(labels, 41, 3, problem("traits", 3))


def test_all_means_every_row_that_may_be_used_labelled_or_not():
    labels = np.array([[1, 0], [0, 0], [0, 1]], np.uint8)
    assert subset(labels, -1, 0, problem("multilabel", 2)).tolist() == [0, 1, 2]
    assert subset(labels, -1, 0, problem("multilabel", 2), valid=np.array([True, True, False])).tolist() == [0, 1]


@pytest.mark.parametrize("n_train", [0, -2])
def test_a_number_that_means_nothing_is_refused(n_train):
    with pytest.raises(FitError, match=f"n_train={n_train} is no number of training examples"):
        subset(np.zeros(3, np.int64), n_train, 0, problem("multiclass", 1))


def test_a_class_that_is_too_small_is_named_with_its_size_and_what_would_work():
    labels = np.array([0] * 9 + [1] * 3 + [2] * 9)
    with pytest.raises(FitError) as raised:
        subset(labels, 5, 0, problem("multiclass", 4))
    assert str(raised.value) == (
        "n_train=5 needs 5 training examples of every class, and class 'class-1' has 3: "
        "the largest n_train that works is 3 (-1 uses all)"
    )
    assert len(subset(labels, 3, 0, problem("multiclass", 4))) == 9


def test_several_classes_that_are_too_small_are_counted_and_the_worst_is_named():
    onehot = np.eye(3, dtype=np.uint8)[[0, 0, 0, 1, 1, 2, 2, 2, 2, 2]]
    with pytest.raises(FitError, match=re.escape("2 of 3 classes have fewer (the smallest, 'class-1', has 2)")):
        subset(onehot, 4, 0, problem("multilabel", 3))


def test_an_unusable_example_does_not_count_towards_its_class():
    labels, valid = np.array([0, 0, 1, 1]), np.array([True, True, True, False])
    with pytest.raises(FitError, match="class 'class-1' has 1: the largest n_train that works is 1"):
        subset(labels, 2, 0, problem("multiclass", 2), valid)


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(FitError, match="none of the 2 training examples can be used"):
        subset(np.array([0, 1]), -1, 0, problem("multiclass", 2), valid=np.zeros(2, bool))
    with pytest.raises(FitError, match="none of the training examples has one of the 2 classes"):
        subset(np.zeros((3, 2), np.uint8), 1, 0, problem("multilabel", 2))
    with pytest.raises(FitError, match="seed=-1 is negative"):
        subset(np.array([0, 1]), 1, -1, problem("multiclass", 2))
