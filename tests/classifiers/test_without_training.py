"""centroid, knn and logreg against scikit-learn and plain formulas, on real digits and on hand-made labels."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize

from benchkit.classifiers.centroid import Centroid, CentroidParams
from benchkit.classifiers.knn import KNN, KNNParams, largest, on_grid
from benchkit.classifiers.logreg import LogReg, LogRegParams
from benchkit.errors import FitError
from benchkit.features.cosine import unit_rows
from benchkit.interfaces import Problem, Subset

DIGITS = Problem("multiclass", 10, tuple(map(str, range(10))))


def test_centroid_is_the_nearest_centroid_of_unit_vectors(digits: Any) -> None:
    x, y, x_test, _ = digits
    fitted = Centroid(CentroidParams(norm="none")).fit(x, y, DIGITS, seed=0)
    means = np.stack([normalize(x)[y == c].mean(axis=0) for c in range(10)])
    similarity = normalize(x_test) @ normalize(means).T / 0.1
    np.testing.assert_allclose(fitted.scores(x_test), log_softmax(similarity, axis=1), atol=1e-4)
    theirs = NearestCentroid().fit(normalize(x), y).predict(normalize(x_test))
    assert (fitted.scores(x_test).argmax(axis=1) == theirs).mean() > 0.97  # Euclidean means are not normalised


def test_the_temperature_changes_no_ranking_of_several_labels(digits: Any) -> None:
    x, y, x_test, _ = digits
    several = np.eye(10, dtype=np.uint8)[y]
    problem = Problem("multilabel", 10)
    a, b = (Centroid(CentroidParams(temperature=t)).fit(x, several, problem, seed=0).scores(x_test) for t in (0.1, 2.0))
    np.testing.assert_allclose(a * 0.1, b * 2.0, atol=1e-5)


def test_a_class_that_centroid_never_saw_scores_lowest(digits: Any) -> None:
    x, y, x_test, _ = digits
    scores = Centroid(CentroidParams()).fit(x[y != 3], y[y != 3], DIGITS, seed=0).scores(x_test)
    assert (scores.argmin(axis=1) == 3).all()


@pytest.mark.parametrize("k", [1, 5, 10])
def test_uniform_knn_is_scikit_learns(digits: Any, k: int) -> None:
    x, y, x_test, _ = digits
    fitted = KNN(KNNParams(k=k, weights="uniform", norm="none")).fit(x, y, DIGITS, seed=0)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(x, y).predict_proba(x_test)
    agree = np.isclose(fitted.scores(x_test), theirs, atol=1e-6).all(axis=1)
    assert agree.mean() > 0.99  # neighbours at equal distance may be chosen otherwise


def test_softmax_knn_is_its_formula() -> None:
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(size=(20, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32)
    y = rng.integers(0, 2, (20, 5)).astype(np.uint8)
    fitted = KNN(KNNParams(k=6, norm="none")).fit(x, y, Problem("multilabel", 5), seed=0)
    for i, query in enumerate(x_test):
        similarity = normalize(x) @ query / np.linalg.norm(query)
        nearest = np.argsort(-similarity)[:6]
        votes = np.exp(similarity[nearest] / 0.07)
        np.testing.assert_allclose(fitted.scores(x_test)[i], votes @ y[nearest] / votes.sum(), atol=1e-5)


def test_the_largest_values_are_found_and_the_first_of_equal_ones() -> None:
    x = np.random.default_rng(0).integers(0, 6, (50, 20)).astype(np.float32)  # full of ties
    for k in (1, 7, 20):
        expected = np.sort(np.argsort(-x, axis=1, kind="stable")[:, :k], axis=1)
        np.testing.assert_array_equal(largest(x, k), expected)


def test_seeds_that_see_the_same_rows_share_one_fit_and_other_features_get_other_scores(digits: Any) -> None:
    x, y, x_test, _ = digits
    rows = np.arange(len(x))
    first, second = KNN().fit_many(x, y, DIGITS, [Subset(rows, 0), Subset(rows, 1)])
    assert first is second
    whole = first.scores(x_test)
    np.testing.assert_array_equal(first.scores(x_test), whole)
    np.testing.assert_allclose(first.scores(x_test[::-1]), whole[::-1], atol=1e-5)


@pytest.mark.parametrize("probe", [Centroid(), KNN(), LogReg(LogRegParams(c=0.1))])
def test_a_dimension_at_2500_does_not_hide_the_others(digits: Any, probe: Any) -> None:
    x, y, x_test, y_test = digits
    rng = np.random.default_rng(0)
    loud, loud_test = (np.c_[a, 2500 + 20 * rng.standard_normal(len(a))].astype(np.float32) for a in (x, x_test))
    accuracy = (probe.fit(loud, y, DIGITS, seed=0).scores(loud_test).argmax(axis=1) == y_test).mean()
    assert accuracy > 0.85


def test_more_neighbours_than_examples_are_all_of_them() -> None:
    x, y = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    fitted = KNN(KNNParams(k=10)).fit(x, y, Problem("multiclass", 3), seed=0)
    assert fitted.record["k"] == 3
    assert (fitted.scores(x).argmax(axis=1) == y).all()


@pytest.mark.parametrize("probe", [Centroid(CentroidParams()), KNN(KNNParams()), LogReg(LogRegParams(c=1.0))])
def test_fitting_many_subsets_is_fitting_each(digits: Any, probe: Any) -> None:
    x, y, x_test, _ = digits
    rows = np.random.default_rng(0).permutation(len(x))
    subsets = [Subset(np.sort(rows[:n]), seed) for n in (40, 80) for seed in (0, 1)]
    for subset, fitted in zip(subsets, probe.fit_many(x, y, DIGITS, subsets), strict=True):
        alone = probe.fit(x[subset.rows], y[subset.rows], DIGITS, seed=subset.seed)
        np.testing.assert_array_equal(fitted.scores(x_test), alone.scores(x_test))


def test_logreg_is_scikit_learns_on_standardised_features(digits: Any) -> None:
    x, y, x_test, y_test = digits
    fitted = LogReg(LogRegParams(c=0.1, norm="standard", shrinkage=0.0)).fit(x, y, DIGITS, seed=0)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=0.1, max_iter=1000).fit(scaler.transform(x), y)
    np.testing.assert_allclose(fitted.scores(x_test), theirs.predict_log_proba(scaler.transform(x_test)), atol=0.02)
    assert (fitted.scores(x_test).argmax(axis=1) == y_test).mean() > 0.94


def test_logreg_chooses_c_on_held_out_rows_and_says_which(digits: Any) -> None:
    x, y, *_ = digits
    noise = np.random.default_rng(0).integers(0, 10, 200)
    chosen = {}
    for name, labels in (("true", y[:200]), ("noise", noise)):
        record = LogReg(LogRegParams()).fit(x[:200], labels, DIGITS, seed=0).record
        losses = {float(c): loss for c, loss in record["validation_loss"].items()}
        assert record["c"] == min(losses, key=lambda c: losses[c])
        chosen[name] = record["c"]
    assert chosen["noise"] == 0.001  # nothing to be learnt asks for the strongest penalty
    assert chosen["true"] > chosen["noise"]


def test_logreg_of_several_labels_is_one_model_a_class() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    y = (x[:, :3] + rng.normal(scale=0.5, size=(200, 3)) > 0.5).astype(np.uint8)
    y = np.concatenate([y, np.zeros((200, 1), np.uint8)], axis=1)
    probe = LogReg(LogRegParams(c=1.0, norm="standard", shrinkage=0.0))
    scores = probe.fit(x, y, Problem("multilabel", 4), seed=0).scores(x)
    scaled = StandardScaler().fit_transform(x)
    for c in range(3):
        theirs = LogisticRegression(C=1.0).fit(scaled, y[:, c]).decision_function(scaled)
        np.testing.assert_allclose(scores[:, c], theirs, atol=0.02)
    assert (scores[:, 3] == scores[0, 3]).all()


def test_of_ten_classes_two_may_be_in_training(digits: Any) -> None:
    x, y, *_ = digits
    pair = (y == 3) | (y == 8)
    probabilities = np.exp(LogReg(LogRegParams(c=1.0)).fit(x[pair], y[pair], DIGITS, seed=0).scores(x[pair]))
    np.testing.assert_allclose(probabilities[:, 3] + probabilities[:, 8], 1.0, atol=1e-4)
    assert (probabilities.argmax(axis=1) == y[pair]).mean() > 0.99


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array([0, 1, 1, 1]), "class 'zero' has a single training example, and logreg"),
        (np.array([1, 1, 1, 1]), "all 4 training examples are of class 'one'"),
    ],
)
def test_what_logreg_cannot_be_fitted_on_is_one_line(labels: np.ndarray, words: str) -> None:
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    with pytest.raises(FitError, match=words) as caught:
        LogReg(LogRegParams()).fit(x, labels, Problem("multiclass", 2, ("zero", "one")), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("probe", [Centroid(CentroidParams()), KNN(KNNParams()), LogReg(LogRegParams(c=1.0))])
def test_nan_features_are_refused(probe: Any) -> None:
    x = np.zeros((4, 3), np.float32)
    x[2, 1] = np.nan
    with pytest.raises(FitError, match="1 of 4 training examples hold NaN or infinity"):
        probe.fit(x, np.array([0, 1, 0, 1]), Problem("multiclass", 2), seed=0)


def test_a_similarity_has_the_same_bits_in_whatever_batch_and_memory_it_is_computed() -> None:
    """A BLAS adds up in another order for one row than for many, and with other threads: the sums here are exact."""
    rng = np.random.default_rng(5)
    x, y, x_test = rng.standard_normal((300, 384)), rng.integers(0, 10, 300), rng.standard_normal((200, 384))
    fitted = KNN(KNNParams()).fit(x.astype(np.float32), y, Problem("multiclass", 10), seed=0)
    whole = fitted.scores(x_test.astype(np.float32))
    for n in (1, 3, 17, 199):
        np.testing.assert_array_equal(fitted.scores(x_test[:n].astype(np.float32)), whole[:n])
    order = rng.permutation(300)
    turned = KNN(KNNParams()).fit(np.asfortranarray(x[order], np.float32), y[order], Problem("multiclass", 10), seed=0)
    np.testing.assert_allclose(turned.scores(np.asfortranarray(x_test, np.float32)), whole, rtol=0, atol=1e-5)
    unit = on_grid(unit_rows(rng.standard_normal((50, 1000)).astype(np.float32)))
    exact = [[float(sum(Fraction(a) * Fraction(b) for a, b in zip(u, v, strict=True))) for v in unit[:3]] for u in unit]
    np.testing.assert_array_equal(unit @ unit[:3].T, exact)
