"""Choosing prototypes: scikit-learn's average precision for every pair, and the best of each trait."""

import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import average_precision_score

from benchkit.errors import FitError
from benchkit.traits import average_precisions, choose


@st.composite
def images(draw):
    """Scores [N, K] with many ties or none, and labels [N, T] with traits that none or all of the images have."""
    n, k, t = draw(st.integers(1, 50)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([1, 2, 10, 10**6]))
    scores = (rng.integers(-levels, levels, (n, k)) / 7).astype(np.float32)
    labels = (rng.random((n, t)) < rng.choice([0.0, 0.1, 0.5, 1.0], t)).astype(np.uint8)
    return scores, labels


def one_by_one(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([[average_precision_score(y, s) if y.any() else np.nan for y in labels.T] for s in scores.T])


@settings(deadline=None, max_examples=80)
@given(images())
def test_every_average_precision_is_scikit_learns_with_ties_and_empty_traits(data):
    scores, labels = data
    np.testing.assert_allclose(average_precisions(scores, labels), one_by_one(scores, labels), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(images())
def test_the_first_prototype_with_the_highest_average_precision_is_chosen(data):
    scores, labels = data
    expected = average_precisions(scores, labels)
    chosen = choose(scores, labels)
    for t, y in enumerate(labels.T):
        assert chosen.decided[t] == (0 < y.sum() < len(y))
        if chosen.decided[t]:
            assert chosen.prototype[t] == np.flatnonzero(expected[:, t] >= expected[:, t].max() - 1e-12)[0]
        else:
            assert chosen.prototype[t] == 0
        np.testing.assert_allclose(chosen.ap[t], expected[:, t].max() if y.any() else np.nan, rtol=0, atol=1e-12)


@pytest.mark.parametrize("between", [0, 2000])
def test_prototypes_that_are_equally_good_but_for_rounding_are_equally_good(between: int) -> None:
    """Positives at ranks 2 and 3 have the average precision of those at 1 and 12: (1/2 + 2/3) / 2 = (1 + 2/12) / 2."""
    labels = np.array([1, 1, *[0] * 10], np.uint8)[:, None]
    first, second = (
        -np.array([*ranks, *sorted({*range(1, 13)} - {*ranks})], np.float32) for ranks in ((2, 3), (1, 12))
    )
    worse = np.arange(12, dtype=np.float32)[:, None].repeat(between, axis=1)  # so that they come in two chunks
    for one, two in ((first, second), (second, first)):
        scores = np.concatenate([worse, one[:, None], worse, two[:, None]], axis=1)
        assert choose(scores, labels).prototype.tolist() == [between]


def test_many_prototypes_of_many_images_in_chunks_agree_with_scikit_learn_to_1e_6():
    rng = np.random.default_rng(0)
    labels = (rng.random((900, 40)) < rng.uniform(0.005, 0.5, 40)).astype(np.uint8)
    scores = np.maximum(rng.standard_normal((900, 700)) - 1, 0).astype(np.float32)  # as of a ReLU: mostly ties
    scores[:, ::2] = rng.standard_normal((900, 350))
    ap = average_precisions(scores, labels)
    assert ap.shape == (700, 40)
    for k, t in zip(rng.integers(0, 700, 300), rng.integers(0, 40, 300), strict=True):
        assert ap[k, t] == pytest.approx(average_precision_score(labels[:, t], scores[:, k]), abs=1e-6)
    assert choose(scores, labels).prototype.tolist() == ap.argmax(axis=0).tolist()


def test_a_prototype_that_knows_a_trait_is_found_among_many():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 3)) < 0.2).astype(np.uint8)
    scores = rng.standard_normal((200, 1000)).astype(np.float32)
    for t, k in enumerate((999, 3, 512)):
        scores[:, k] = labels[:, t] + 0.01 * scores[:, k]
    chosen = choose(scores, labels)
    assert chosen.prototype.tolist() == [999, 3, 512]
    assert chosen.ap.tolist() == [1, 1, 1]


def test_infinite_scores_rank_first_and_last():
    scores = np.array([[np.inf, -np.inf], [0.0, 0.0], [-np.inf, np.inf]], np.float32)
    assert average_precisions(scores, np.array([[1], [0], [0]], np.uint8)).tolist() == [[1.0], [1 / 3]]


def test_scores_that_are_not_numbers_are_refused():
    scores = np.zeros((4, 2), np.float32)
    scores[1, 1] = np.nan
    with pytest.raises(FitError, match=re.escape("scores of images are not numbers")):
        choose(scores, np.ones((4, 1), np.uint8))
