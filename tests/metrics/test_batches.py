"""Rankings of more groups of equal scores than are worked on at a time: nothing is lost between one piece and the next.

Metrics walk through groups of ties 1,024 at a time, and through rows 8,192 at a time.
"""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import average_precision_score, roc_auc_score

from benchkit.interfaces import Problem
from benchkit.metrics import bootstrap, class_metrics, cumulative, evaluate, judge, paired_difference
from benchkit.metrics.cumulative import ones, total
from benchkit.metrics.ranks import auroc, average_precision, rank


def many(levels: int, n: int = 9000, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of so many levels that over 2,048 groups of equal scores hold a positive, in each class."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, classes)) < [0.7, 0.5, 0.6][:classes]).astype(np.uint8)
    scores = np.round((labels + rng.normal(size=labels.shape)) * levels) / levels
    for c in range(classes):
        assert len(np.unique(scores[labels[:, c] == 1, c])) > 2048
    return labels, scores.astype(np.float32)


@pytest.mark.parametrize("levels", [800, 10**5])
def test_values_are_scikit_learns_beyond_2048_groups(levels: int) -> None:
    labels, scores = many(levels)
    problem = Problem("multilabel", 3)
    wanted = evaluate(["cmap", "micro_map", "auroc", "ap_q05", "ap_q95"], labels, scores, problem, replicates=0)
    each = [average_precision_score(y, s) for y, s in zip(labels.T, scores.T, strict=True)]
    assert {m.name: m.value for m in wanted} == pytest.approx(
        {
            "cmap": np.mean(each),
            "micro_map": average_precision_score(labels, scores, average="micro"),
            "auroc": roc_auc_score(labels, scores, average="macro"),
            "ap_q05": np.quantile(each, 0.05),
            "ap_q95": np.quantile(each, 0.95),
        },
        abs=1e-12,
    )
    made = class_metrics(labels, scores, problem, labels.sum(axis=0).astype(np.int64))
    assert [m.value for m in made if m.name == "ap"] == pytest.approx(each, abs=1e-12)


@pytest.mark.parametrize("name", ["micro_map", "cmap", "auroc"])
def test_replicates_are_those_of_resampled_arrays_beyond_2048_groups(name: str) -> None:
    labels, scores = many(10**4, n=5000, classes=2)
    problem = Problem("multilabel", 2)
    (weights,) = bootstrap.resamples([len(labels)], range(12), seed=4)
    values = []
    for r in range(12):
        drawn = np.repeat(np.arange(len(labels)), weights[:-1, r])
        y, s = labels[drawn], scores[drawn]
        score = roc_auc_score if name == "auroc" else average_precision_score
        values.append(score(y, s, average="micro" if name == "micro_map" else "macro"))
    kept = judge([name], labels, scores, problem, replicates=12, seed=4).kept
    assert kept is not None
    np.testing.assert_allclose(kept.drawn, values, atol=1e-12)


def test_differences_beyond_2048_groups_are_those_of_the_two_values() -> None:
    labels, a = many(10**4, n=5000, classes=2)
    b = (a + np.random.default_rng(1).normal(size=a.shape)).astype(np.float32)
    made = paired_difference("micro_map", labels, a, b, Problem("multilabel", 2), replicates=20)
    expected = [average_precision_score(labels, s, average="micro") for s in (a, b)]
    assert made.value == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert made.low is not None
    assert made.high is not None
    assert 0 < made.low < made.value < made.high


@settings(deadline=None, max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32), batch=st.integers(1, 7), slab=st.sampled_from([64, 128, 8192]))
def test_how_a_ranking_is_cut_into_pieces_changes_nothing(data: Any, seed: int, batch: int, slab: int) -> None:
    rng = np.random.default_rng(seed)
    n, levels = data.draw(st.integers(1, 150)), data.draw(st.sampled_from([1, 4, 1000]))
    positive = rng.random(n) < data.draw(st.sampled_from([0.05, 0.5, 1.0]))
    scores = (rng.integers(-levels, levels, n) / 7).astype(np.float32)
    weights = np.concatenate([rng.multinomial(n, np.full(n, 1 / n), 3).T, np.zeros((1, 3))]).astype(np.uint16)
    before = cumulative._BATCH, cumulative._SLAB
    cumulative._BATCH, cumulative._SLAB = batch, slab
    try:
        ranks = rank(positive, scores)
        ap, area = average_precision(ranks, weights), auroc(ranks, weights, total(weights))
        plain = float(average_precision(ranks, ones(n))[0])
    finally:
        cumulative._BATCH, cumulative._SLAB = before
    assert plain == pytest.approx(average_precision_score(positive, scores) if positive.any() else np.nan, nan_ok=True)
    for r in range(3):
        drawn = np.repeat(np.arange(n), weights[:-1, r])
        y, s = positive[drawn], scores[drawn]
        assert ap[r] == pytest.approx(average_precision_score(y, s) if y.any() else np.nan, abs=1e-12, nan_ok=True)
        both = y.any() and not y.all()
        assert area[r] == pytest.approx(roc_auc_score(y, s) if both else np.nan, abs=1e-12, nan_ok=True)
