"""Identical examples in train and test are found, named, and counted once."""

import hashlib

import numpy as np

from benchkit.checks import check_leakage


def _hashes(images):
    return np.array([int.from_bytes(hashlib.sha256(i.tobytes()).digest()[:8]) for i in images], np.uint64)


def _ids(prefix, n):
    return [f"{prefix}{i}" for i in range(n)]


def test_different_examples_are_ok(digits):
    h = _hashes(digits[0])
    check = check_leakage([(h[:1200], h[1200:])], [(_ids("train/", 1200), _ids("test/", 597))])
    assert (check.name, check.status) == ("leakage", "ok")
    assert check.summary == "none of 597 test examples is in train"


def test_a_train_example_in_test_fails_and_both_are_named(digits):
    h = _hashes(digits[0])
    train, test = h[:1200], h[1200:].copy()
    test[[4, 9]] = train[[17, 0]]
    check = check_leakage([(train, test)], [(_ids("train/", 1200), _ids("test/", 597))])
    assert check.status == "fail"
    assert "2 of 597 test examples are also in train: test 'test/4' is train 'train/17'" in check.summary
    assert check.details["pairs"] == [
        {"train": "train/17", "test": "test/4"},
        {"train": "train/0", "test": "test/9"},
    ]


def test_two_copies_that_meet_in_several_folds_are_one_pair(digits):
    h = _hashes(digits[0][:100])
    h[70] = h[10]
    ids = _ids("clip", 100)
    fold = np.arange(100) // 50
    folds = [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(2)]
    check = check_leakage(
        [(h[train], h[test]) for train, test in folds],
        [([ids[i] for i in train], [ids[i] for i in test]) for train, test in folds],
    )
    assert check.status == "fail"
    assert check.summary == "2 of 100 test examples are also in train: test 'clip10' is train 'clip70'"
    assert check.details["n_pairs"] == 1


def test_copies_on_the_same_side_of_every_fold_do_not_count():
    h = np.array([1, 1, 2, 3], np.uint64)
    assert (
        check_leakage([(h[:2], h[2:]), (h[2:], h[:2])], [(["a", "b"], ["c", "d"]), (["c", "d"], ["a", "b"])]).status
        == "ok"
    )


def test_many_leaks_are_counted_and_only_the_first_few_named(digits):
    h = _hashes(digits[0])
    ids = _ids("", len(h))
    check = check_leakage([(h, h)], [(ids, ids)])
    assert check.summary.startswith("1,797 of 1,797")
    assert check.summary.endswith(", ...")
    assert len(check.details["pairs"]) == 20


def test_an_empty_train_leaks_nothing():
    empty = np.empty(0, np.uint64)
    assert check_leakage([(empty, np.array([1], np.uint64))], [([], ["a"])]).status == "ok"
