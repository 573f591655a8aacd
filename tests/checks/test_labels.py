"""Planted failures in the labels are found, and healthy labels in any order are left alone."""

import json

import numpy as np
import pytest

from benchkit.checks import check_labels
from benchkit.interfaces import Problem


def _split(y):
    return [(y[:1200], y[1200:])]


def test_healthy_digits_are_ok(digits, ten_digits):
    x, y = digits
    check = check_labels(ten_digits, _split(y), {"train": (x[:1200], y[:1200]), "test": (x[1200:], y[1200:])})
    assert (check.name, check.status) == ("labels", "ok")
    assert check.summary.startswith("10 classes, all in train and test")
    assert check.details["alignment"]["train"]["agreement"]["0"] > 0.9
    assert json.dumps(check.details, allow_nan=False)


@pytest.mark.parametrize("offset", [-3, -1, 1, 2])
def test_labels_shifted_by_a_few_rows_fail_and_the_offset_is_named(digits, ten_digits, offset):
    x, y = digits
    shifted = np.roll(y, offset)
    check = check_labels(ten_digits, _split(shifted), {"all": (x, shifted)})
    assert check.status == "fail"
    assert "labels of 'all' seem shifted" in check.summary
    assert f"{abs(offset)} row" in check.summary
    assert ("later" if offset > 0 else "earlier") in check.summary
    assert check.details["alignment"]["all"]["offset"] == offset


def test_a_shift_in_the_test_split_alone_is_found(digits, ten_digits):
    x, y = digits
    shifted = np.roll(y[1200:], 1)
    check = check_labels(
        ten_digits, [(y[:1200], shifted)], {"train": (x[:1200], y[:1200]), "test": (x[1200:], shifted)}
    )
    assert check.status == "fail"
    assert "'test'" in check.summary
    assert "'train'" not in check.summary


def test_a_shift_is_found_where_only_some_rows_have_features(digits, ten_digits):
    x, y = digits
    rows = np.sort(np.random.default_rng(0).permutation(len(y))[:500])
    shifted = np.roll(y, 1)
    assert check_labels(ten_digits, _split(y), {"all": (x[rows], y, rows)}).status == "ok"
    check = check_labels(ten_digits, _split(shifted), {"all": (x[rows], shifted, rows)})
    assert check.details["alignment"]["all"]["offset"] == 1


def test_several_labels_an_example_shifted_by_a_row_fail(digits, multilabel):
    x, _ = digits
    problem = Problem("multilabel", 10)
    assert check_labels(problem, _split(multilabel), {"all": (x, multilabel)}).status == "ok"
    shifted = np.roll(multilabel, 1, axis=0)
    assert "shifted" in check_labels(problem, _split(shifted), {"all": (x, shifted)}).summary


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("order", ["sorted by class", "shuffled", "in blocks"])
def test_no_order_of_healthy_rows_raises_an_alarm(digits, ten_digits, order, seed):
    x, y = digits
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(y))
    if order == "sorted by class":
        rows = rows[np.argsort(y[rows], kind="stable")]
    elif order == "in blocks":  # of ten of one class, as recordings cut into clips are
        rows = rows[np.argsort(y[rows], kind="stable")]
        blocks = np.array_split(rows, len(rows) // 10)
        rows = np.concatenate([blocks[b] for b in rng.permutation(len(blocks))])
    check = check_labels(ten_digits, [(y, y)], {"all": (x[rows], y[rows])})
    assert check.status == "ok", check.summary


@pytest.mark.parametrize("seed", range(20))
def test_features_that_know_nothing_of_the_labels_raise_no_alarm_about_their_order(ten_digits, seed):
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(0, 10, 3000)) if seed % 2 else rng.integers(0, 10, 3000)
    x = rng.normal(size=(3000, 16)).astype(np.float32)
    assert check_labels(ten_digits, [(y, y)], {"all": (x, y)}).status == "ok"


def test_features_that_are_dead_missing_or_few_raise_no_alarm_here(ten_digits, digits):
    x, y = digits
    dead, nan = np.zeros_like(x), np.full_like(x, np.nan)
    few = (x[:4], y[:4])
    check = check_labels(ten_digits, _split(y), {"dead": (dead, y), "nan": (nan, y), "few": few})
    assert check.status == "ok"
    assert check.details["alignment"]["nan"]["n_pairs"] == 0


def test_a_large_split_is_sampled_and_a_shift_in_it_is_still_found(digits, ten_digits):
    x, y = digits
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(y), 20_000)
    noisy = x[rows] + rng.normal(size=(20_000, 64)).astype(np.float32)
    shifted = np.roll(y[rows], -2)
    check = check_labels(ten_digits, [(y, y)], {"all": (noisy, shifted)})
    assert check.details["alignment"]["all"]["offset"] == -2
    assert check.details["alignment"]["all"]["n_pairs"] <= 2000


def test_inverted_labels_fail_and_a_single_common_class_warns(multilabel):
    problem = Problem("multilabel", 10, tuple("abcdefghij"))
    assert check_labels(problem, _split(multilabel)).status == "ok"
    inverted = check_labels(problem, _split(1 - multilabel))
    assert inverted.status == "fail"
    assert "are they inverted?" in inverted.summary
    common = multilabel.copy()
    common[:, 2] = 1
    check = check_labels(problem, _split(common))
    assert check.status == "warn"
    assert "1 of 10 classes are on more than half of train: 'c'" in check.summary


def test_common_traits_are_only_a_warning(multilabel):
    assert check_labels(Problem("traits", 10), _split(1 - multilabel)).status == "warn"


def test_classes_without_positives_are_named(digits):
    _, y = digits
    problem = Problem("multiclass", 11, tuple("0123456789x"))
    train, test = y[:1200], y[1200:]
    check = check_labels(problem, [(train[train != 3], test[test != 7])])
    assert check.status == "warn"
    assert "2 of 11 classes have no positives in train: '3', 'x'" in check.summary
    assert "2 of 11 classes have no positives in test: '7', 'x'" in check.summary
    assert check.details["absent"] == {"train": ["3", "x"], "test": ["7", "x"]}
    assert check.details["prevalence"]["test"]["7"] == 0


def test_over_folds_a_class_is_in_test_if_it_is_in_some_and_in_train_if_it_is_in_all(ten_digits, digits):
    _, y = digits
    low, high = y[y < 5], y[y >= 5]
    check = check_labels(ten_digits, [(y, low), (y, high)])
    assert check.status == "ok"
    check = check_labels(ten_digits, [(high, low), (y, high)])
    assert check.summary == "5 of 10 classes have no positives in train: '0', '1', '2', '3', '4'"
