"""Retrieval and clustering against plain definitions and scikit-learn, on any resample, in bounded memory."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.cluster import KMeans

from benchkit.classifiers.clustering import Clustering, ClusteringParams
from benchkit.classifiers.retrieval import COLUMNS, Retrieval, RetrievalParams, by_chance, judged
from benchkit.errors import FitError
from benchkit.interfaces import Answer, Asked, Labels, Problem, Rows
from benchkit.metrics.bootstrap import resamples
from benchkit.metrics.cumulative import ones

HARMONIC = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, 100))])


def asked(x: np.ndarray, y: Labels, groups: np.ndarray | None = None) -> Asked:
    return Asked(Rows(x), y, np.arange(len(x)) if groups is None else groups)


def ask(question: Any, test: Asked, train: Asked | None, problem: Problem, seed: int = 0) -> Answer:
    answer: Answer = question.ask(test, train, problem, seed=seed)
    return answer


def value(answer: Answer, name: str) -> float:
    return float(answer.values(name, ones(len(answer.table)), ones(answer.repeats))[0])


def plain(similarity: np.ndarray, kind: np.ndarray) -> tuple[float, float, float]:
    """map_at_r, r_at_1 and AUROC of one query, by their definitions, for one order of the gallery."""
    order = np.argsort(-similarity, kind="stable")
    hits = kind[order]
    r = int(kind.sum())
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    auroc = sk.roc_auc_score(kind, similarity) if 0 < r < len(kind) else np.nan
    return float((precision * hits)[:r].sum() / r), float(hits[0]), auroc


def test_retrieval_within_test_is_what_its_definitions_say(digits: Any) -> None:
    x, y = digits.x_test[:200], digits.y_test[:200]
    groups = np.arange(200) // 3
    answer = ask(Retrieval(), asked(x, y, groups), None, digits.problem)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    wanted = []
    for i in range(200):
        found = groups != groups[i]
        wanted.append(plain((unit @ unit[i])[found], y[found] == y[i]))
    np.testing.assert_allclose(answer.table[:, [0, 1, 3]], wanted, atol=2e-4)
    np.testing.assert_array_equal(answer.table[:, 1], answer.table[:, 2])
    np.testing.assert_allclose([value(answer, name) for name in COLUMNS], answer.table.mean(axis=0), atol=1e-6)


def test_retrieval_against_train_searches_training_examples_alone(digits: Any) -> None:
    question = Retrieval(RetrievalParams(gallery="train"))
    assert question.trains(question.params)
    assert not Retrieval.trains(RetrievalParams())
    answer = ask(question, asked(digits.x_test, digits.y_test), asked(digits.x, digits.y), digits.problem)
    unit, known = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (digits.x_test, digits.x))
    nearest = digits.y[(unit @ known.T).argmax(axis=1)]
    assert value(answer, "r_at_1") == pytest.approx((nearest == digits.y_test).mean(), abs=2e-3)


def test_of_several_labels_sharing_one_is_being_of_a_kind(several: Any) -> None:
    x, y = several.x, several.y
    answer = ask(Retrieval(), asked(x, y), None, several.problem)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in np.flatnonzero(~np.isnan(answer.table[:, 0]))[:40]:
        found = np.arange(len(x)) != i
        similarity, shared = (unit @ unit[i])[found], (y @ y[i])[found]
        np.testing.assert_allclose(answer.table[i, [0, 1, 3]], plain(similarity, shared > 0), atol=2e-4)
        best = similarity.argmax()
        assert answer.table[i, 2] == pytest.approx(shared[best] / max(1, y[found][best].sum()), abs=1e-6)
    unlabelled = ~y.any(axis=1)
    assert unlabelled.any()
    assert np.isnan(answer.table[unlabelled]).all()


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6).filter(lambda v: any(k for _, k in v))
)
@settings(max_examples=40, deadline=None)
def test_what_is_equally_near_counts_as_the_mean_over_all_orders(items: list[tuple[int, bool]]) -> None:
    near, kind = np.array([s for s, _ in items], np.float32), np.array([k for _, k in items])
    orders = [np.array(order) for order in permutations(range(len(items)))]
    wanted = np.mean([plain(near[o], kind[o])[:2] for o in orders], axis=0)
    found = judged(np.sort(near), np.sort(near[kind]), HARMONIC)
    np.testing.assert_allclose(found[:2], wanted, atol=1e-9)
    if not kind.all():
        assert found[3] == pytest.approx(sk.roc_auc_score(kind, near))
        assert by_chance(len(kind), int(kind.sum()), HARMONIC)[3] == 0.5


def test_features_that_are_all_the_same_get_what_chance_gets(digits: Any) -> None:
    test = asked(np.ones((90, 5), np.float32), digits.y_test[:90])
    answer = ask(Retrieval(), test, None, digits.problem)
    for name in COLUMNS:
        assert value(answer, name) == pytest.approx(answer.chance[name], abs=1e-6)
    assert answer.chance["retrieval_auroc"] == 0.5


def test_queries_are_drawn_with_the_seed_where_they_are_too_many(digits: Any) -> None:
    few = Retrieval(RetrievalParams(queries=50))
    test = asked(digits.x_test, digits.y_test)
    once, again, other = (ask(few, test, None, digits.problem, seed).table for seed in (0, 0, 1))
    assert (~np.isnan(once[:, 0])).sum() == 50
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(np.isnan(once), np.isnan(other))
    whole = ask(Retrieval(), test, None, digits.problem).table
    known = ~np.isnan(once)
    np.testing.assert_allclose(once[known], whole[known], atol=1e-5)


def test_a_query_is_judged_alike_whatever_is_held_at_a_time(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    test = asked(digits.x_test[:100], digits.y_test[:100])
    whole = ask(Retrieval(), test, None, digits.problem).table
    monkeypatch.setattr("benchkit.classifiers.retrieval._BYTES", 4 * 100 * 7)
    monkeypatch.setattr("benchkit.classifiers.retrieval._GALLERY", 13)
    np.testing.assert_allclose(ask(Retrieval(), test, None, digits.problem).table, whole, atol=1e-4)


def test_what_cannot_be_asked_is_refused_in_one_line(digits: Any) -> None:
    x = digits.x_test[:20].copy()
    with pytest.raises(FitError, match="no test example has another of its class"):
        ask(Retrieval(), asked(x[:10], np.arange(10)), None, digits.problem)
    with pytest.raises(FitError, match="no test example has a label"):
        ask(Retrieval(), asked(x, np.zeros((20, 3), np.uint8)), None, Problem("multilabel", 3))
    with pytest.raises(FitError, match="test examples of two classes"):
        ask(Clustering(), asked(x, np.zeros(20, np.int64)), None, digits.problem)
    x[3, 1] = np.nan
    for question in (Retrieval(), Clustering()):
        with pytest.raises(FitError, match="NaN or infinity"):
            ask(question, asked(x, digits.y_test[:20]), None, digits.problem)


def test_clusters_and_their_metrics_are_scikit_learns(digits: Any) -> None:
    x, y = digits.x_test, digits.y_test
    answer = ask(Clustering(ClusteringParams(norm="none", repeats=3)), asked(x, y), None, digits.problem)
    clusters = answer.table.T.astype(int)
    theirs = KMeans(10, n_init=1, random_state=0).fit_predict(x)
    assert min(sk.normalized_mutual_info_score(theirs, each) for each in clusters) > 0.6
    for name, of in (
        ("nmi", sk.normalized_mutual_info_score),
        ("ami", sk.adjusted_mutual_info_score),
        ("ari", sk.adjusted_rand_score),
    ):
        assert value(answer, name) == pytest.approx(np.mean([of(y, each) for each in clusters]), abs=1e-9)
    assert value(answer, "silhouette") == pytest.approx(
        np.mean([sk.silhouette_score(x, c) for c in clusters]), abs=1e-4
    )


def test_on_a_resample_they_are_those_of_the_examples_that_it_draws(digits: Any) -> None:
    x, y = digits.x_test, digits.y_test
    clustering = ask(Clustering(ClusteringParams(repeats=2)), asked(x, y), None, digits.problem)
    retrieval = ask(Retrieval(), asked(x, y), None, digits.problem)
    (weights,) = resamples([len(x)], range(3), 0)
    both = np.array([[1, 2, 0], [1, 0, 2], [0, 0, 0]], np.uint16)
    for r in range(3):
        drawn = np.repeat(np.arange(len(x)), weights[:-1, r])
        wanted = [
            [of(y[drawn], clustering.table[drawn, i].astype(int)) for i in range(2)]
            for of in (sk.normalized_mutual_info_score, sk.adjusted_rand_score)
        ]
        for name, (a, b) in zip(("nmi", "ari"), wanted, strict=True):
            assert clustering.values(name, weights, both)[r] == pytest.approx([(a + b) / 2, a, b][r], abs=1e-9)
        assert retrieval.values("map_at_r", weights, ones(1).repeat(3, axis=1))[r] == pytest.approx(
            retrieval.table[drawn, 0].mean(), abs=1e-6
        )


def test_k_means_is_fitted_on_a_sample_and_assigns_all(digits: Any) -> None:
    few = Clustering(ClusteringParams(sample=200, repeats=2))
    answer = ask(few, asked(digits.x_test, digits.y_test), None, digits.problem)
    assert answer.record["fitted_on"] == 200
    assert not np.isnan(answer.table).any()
    assert value(answer, "nmi") > 0.5


def test_of_several_labels_only_examples_with_a_single_one_count_in_clustering(several: Any) -> None:
    answer = ask(Clustering(ClusteringParams(repeats=2)), asked(several.x, several.y), None, several.problem)
    assert answer.record["single_label"] == int((several.y.sum(axis=1) == 1).sum())
    assert len(answer.table) == len(several.x)
