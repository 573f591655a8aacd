"""The plain regression is scikit-learn's, and says where a probe hides what the features say."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchkit.checks.converged import check_converged
from benchkit.checks.plain import check_plain, plain_scores
from benchkit.interfaces import Problem
from benchkit.records.report import Metric


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
@pytest.mark.parametrize("wide", [False, True])
def test_its_scores_are_scikit_learns(kind: Any, wide: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 300 if wide else 6)).astype(np.float32), np.arange(120) % 3
    x[:, :3] += 1.5 * np.eye(3)[y] + 40
    labels = y if kind == "multiclass" else np.eye(3, dtype=np.uint8)[y]
    found = plain_scores(x[:90], labels[:90], x[90:], Problem(kind, 3))
    scaler = StandardScaler().fit(x[:90])
    train, test = scaler.transform(x[:90]), scaler.transform(x[90:])
    if kind == "multiclass":
        model = LogisticRegression(max_iter=5000, tol=1e-8).fit(train, y[:90])
        theirs = model.decision_function(test)
        found, theirs = (z - z.mean(axis=1, keepdims=True) for z in (found, theirs))
    else:
        fits = [LogisticRegression(max_iter=5000, tol=1e-8).fit(train, labels[:90, c]) for c in range(3)]
        theirs = np.stack([fit.decision_function(test) for fit in fits], axis=1)
    np.testing.assert_allclose(found, theirs, atol=0.05)


def test_digits_are_told_apart_as_well_as_by_scikit_learn() -> None:
    data = load_digits()
    x, y = data.data.astype(np.float32), data.target
    scores = plain_scores(x[:512], y[:512], x[512:], Problem("multiclass", 10))
    scaler = StandardScaler().fit(x[:512])
    theirs = LogisticRegression(max_iter=3000).fit(scaler.transform(x[:512]), y[:512])
    assert (scores.argmax(axis=1) == theirs.predict(scaler.transform(x[512:]))).mean() > 0.97


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_constant_features_and_classes_never_or_always_seen_do_no_harm(kind: Any) -> None:
    x = np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)
    x[:, 2] = 7.0
    y = (x[:, 0] > 0).astype(np.int64)
    labels = y if kind == "multiclass" else np.stack([y, 1 - y, np.ones(40), np.zeros(40)], axis=1).astype(np.uint8)
    scores = plain_scores(x, labels, x, Problem(kind, 4))
    assert np.isfinite(scores).all()
    assert (
        (scores[:, 1 if kind == "multiclass" else 0] > scores[:, 0 if kind == "multiclass" else 1]) == (y == 1)
    ).all()
    assert (scores[:, 3] < scores[:, :2].max(axis=1)).all()


def metric(value: float, half: float = 0.02) -> Metric:
    return Metric("top1", value, value - half, value + half)


@pytest.mark.parametrize(
    ("ours", "plain", "layered", "untrained", "words"),
    [
        (0.50, 1.00, 0.51, False, "give norm=standard"),
        (0.50, 1.00, 0.51, True, "give norm=standard"),
        (0.80, 0.95, 0.95, False, "settings do not suit"),
        (0.80, 0.95, 0.95, True, None),  # neighbours lose to a regression now and then
        (0.93, 0.95, None, False, None),
        (0.97, 0.95, None, False, None),
    ],
)
def test_it_warns_where_the_intervals_lie_apart(
    ours: float, plain: float, layered: float | None, untrained: bool, words: str | None
) -> None:
    check = check_plain(
        metric(ours), metric(plain), None if layered is None else metric(layered),
        untrained=untrained, n_train=512, n_test=1000,
    )  # fmt: skip
    assert check.status == ("warn" if words else "ok")
    if words:
        assert words in check.summary
    assert f"a plain logistic regression on 512 examples gets top1 {plain:.4f}" in check.summary


def test_a_solver_that_stopped_short_is_told_also_while_c_was_chosen() -> None:
    assert check_converged([{"steps": 3}]) is None
    good = check_converged([{"converged": True}])
    assert good is not None
    assert good.status == "ok"
    folds = check_converged([{"converged": True}, {"converged": False, "not_converged": [10.0]}])
    assert folds is not None
    assert folds.status == "warn"
    assert "in 1 of 2 folds" in folds.summary
    assert "at C = 10" in folds.summary
