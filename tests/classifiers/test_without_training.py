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
from benchkit.classifiers.knn import KNN, KNNParams, nearest, on_grid, votes
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


def test_the_nearest_are_found_and_those_as_near_as_the_kth_share_what_is_left() -> None:
    rng = np.random.default_rng(0)
    unit = normalize(rng.integers(-2, 3, (40, 3)) + 0.0).astype(np.float32)  # full of ties
    asked = unit[:15]
    exact = np.round(asked.astype(np.float64) @ unit.T.astype(np.float64), 6)
    for k in (1, 7, 40):
        column, near = nearest(exact, k)
        found = np.zeros(exact.shape)
        np.add.at(found, (np.arange(15)[:, None], column), votes(near, k))
        for i, row in enumerate(exact):
            kth = np.sort(row)[-k]
            above, equal = row > kth, row == kth
            expected = above + equal * (k - above.sum()) / equal.sum()
            np.testing.assert_allclose(found[i], expected, atol=1e-6)


@pytest.mark.parametrize("weights", ["softmax", "uniform"])
@pytest.mark.parametrize("k", [1, 4, 6, 10])
def test_equal_examples_of_two_classes_give_each_half_of_the_votes_in_whatever_order(weights: Any, k: int) -> None:
    x = np.tile(np.random.default_rng(0).normal(size=37).astype(np.float32), (6, 1))
    y = np.array([0, 0, 0, 1, 1, 1])
    for order in (np.arange(6), np.arange(6)[::-1]):
        fitted = KNN(KNNParams(k=k, weights=weights, norm="none")).fit(x, y[order], Problem("multiclass", 2), seed=0)
        np.testing.assert_array_equal(fitted.scores(x[:2]), np.full((2, 2), 0.5, np.float32))


def test_a_test_example_that_is_not_finite_has_no_neighbours_and_the_others_keep_theirs(digits: Any) -> None:
    x, y, x_test, _ = digits
    bad = x_test[:20].copy()
    bad[3, 5], bad[7, 0] = np.nan, np.inf
    fitted = KNN().fit(x, y, DIGITS, seed=0)
    scores, whole = fitted.scores(bad), fitted.scores(x_test[:20])
    assert np.isnan(scores[[3, 7]]).all()
    rest = np.delete(np.arange(20), [3, 7])
    np.testing.assert_array_equal(scores[rest], whole[rest])


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


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_logreg_works_with_one_example_of_a_class_and_of_each_class(digits: Any, kind: Any) -> None:
    x, y, x_test, y_test = digits
    firsts = np.array([np.flatnonzero(y == c)[0] for c in range(10)])
    labels = y if kind == "multiclass" else np.eye(10, dtype=np.uint8)[y]
    one_each = LogReg().fit(x[firsts], labels[firsts], Problem(kind, 10), seed=0)
    assert (one_each.record["c"], one_each.record["c_not_chosen"]) == (1.0, "no class has two training examples")
    assert (one_each.scores(x_test).argmax(axis=1) == y_test).mean() > 0.5
    tail = np.union1d(np.flatnonzero(y != 3)[:200], firsts)
    long_tailed = LogReg().fit(x[tail], labels[tail], Problem(kind, 10), seed=0)
    assert len(long_tailed.record["validation_loss"]) == 5
    assert (long_tailed.scores(x_test).argmax(axis=1) == y_test).mean() > 0.75


def test_logreg_says_where_it_did_not_converge_also_while_c_is_chosen(digits: Any) -> None:
    x, y, *_ = digits
    record = LogReg(LogRegParams(max_iter=2)).fit(x[:200], y[:200], DIGITS, seed=0).record
    assert not record["converged"]
    assert 10.0 in record["not_converged"]
    assert "not_converged" not in LogReg().fit(x[:200], y[:200], DIGITS, seed=0).record


def test_balanced_weights_are_scikit_learns(digits: Any) -> None:
    x, y, x_test, _ = digits
    rows = np.flatnonzero((y != 8) | (np.arange(len(y)) < 60))
    fitted = LogReg(LogRegParams(c=0.1, norm="none", weights="balanced")).fit(x[rows], y[rows], DIGITS, seed=0)
    theirs = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced").fit(x[rows], y[rows])
    np.testing.assert_allclose(fitted.scores(x_test), theirs.predict_log_proba(x_test), atol=0.02)


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
