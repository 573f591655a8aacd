"""The checks of one cell's number: chance, published, shuffled."""

import json

import numpy as np
import pytest

from benchkit.checks import check_chance, check_published, check_shuffled
from benchkit.interfaces import Problem, Published
from benchkit.metrics import chance, evaluate
from benchkit.records.report import Metric


def _rare(n=3000, c=12, seed=0):
    """Labels as a soundscape has them: each class on 1 % to 17 % of the windows, and many windows empty."""
    rng = np.random.default_rng(seed)
    return (rng.random((n, c)) < np.linspace(0.01, 0.17, c)).astype(np.uint8)


@pytest.mark.parametrize("metric", ["cmap", "micro_map", "top1"])
def test_inverted_labels_fail_even_where_the_score_looks_good(metric):
    labels = 1 - _rare()
    train, test = labels[:1500], labels[1500:]
    problem = Problem("multilabel", 12)
    scores = (test + 2 * np.random.default_rng(1).normal(size=test.shape)).astype(np.float32)
    level = chance(metric, [(train, test)], problem)
    assert level > 0.8
    check = check_chance(evaluate([metric], test, scores, problem, replicates=100)[0], level)
    assert check.status == "fail"
    assert f"a constant scorer already gets {metric} {level:.4f}" in check.summary


@pytest.mark.parametrize("metric", ["cmap", "micro_map", "top1", "auroc"])
def test_the_same_labels_the_right_way_round_are_ok(metric):
    labels = _rare()
    train, test = labels[:1500], labels[1500:]
    problem = Problem("multilabel", 12)
    scores = (2 * test + np.random.default_rng(1).normal(size=test.shape)).astype(np.float32)
    measured = evaluate([metric], test, scores, problem, replicates=200)[0]
    check = check_chance(measured, chance(metric, [(train, test)], problem))
    assert (check.name, check.status) == ("chance", "ok"), check.summary
    assert check.details["low"] == measured.low
    assert json.dumps(check.details, allow_nan=False)


@pytest.mark.parametrize("metric", ["top1", "balanced_accuracy", "macro_f1", "cmap", "micro_map", "auroc"])
@pytest.mark.parametrize("share", [0.5, 0.55])
def test_an_honest_task_of_two_classes_does_not_cry_wolf(metric, share):
    rng = np.random.default_rng(0)
    train, test = ((rng.random(800) < share).astype(np.int64) for _ in range(2))
    problem = Problem("multiclass", 2)
    scores = (np.eye(2)[test] + rng.normal(size=(800, 2))).astype(np.float32)
    measured = evaluate([metric], test, scores, problem, replicates=200)[0]
    check = check_chance(measured, chance(metric, [(train, test)], problem))
    assert check.status == "ok", check.summary


def test_a_scorer_that_is_no_better_than_a_constant_one_warns():
    test = _rare()
    problem = Problem("multilabel", 12)
    level = chance("cmap", [(test, test)], problem)
    constant = np.tile(test.mean(axis=0, dtype=np.float32), (len(test), 1))
    check = check_chance(evaluate(["cmap"], test, constant, problem, replicates=200)[0], level)
    assert check.status == "warn"
    assert "is not above" in check.summary
    noise = np.random.default_rng(0).normal(size=(len(test), 12)).astype(np.float32)
    level = chance("auroc", [(test, test)], problem)
    assert check_chance(evaluate(["auroc"], test, noise, problem, replicates=200)[0], level).status == "warn"


@pytest.mark.parametrize(("n", "c"), [(2000, 100), (400, 40)])
def test_random_scores_warn_on_many_rare_classes_where_they_beat_a_constant_scorer(n, c):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, c, n)
    problem = Problem("multiclass", c)
    level = chance("cmap", [(labels, labels)], problem)
    scores = rng.normal(size=(n, c)).astype(np.float32)
    measured = evaluate(["cmap"], labels, scores, problem, replicates=200)[0]
    assert measured.low > level
    assert check_chance(measured, level, n_test=n).status == "warn"
    informed = (scores + np.eye(c)[labels]).astype(np.float32)
    assert (
        check_chance(evaluate(["cmap"], labels, informed, problem, replicates=200)[0], level, n_test=n).status == "ok"
    )


def test_without_an_interval_the_value_itself_is_compared():
    assert check_chance(Metric("top1", 0.3), 0.25).status == "ok"
    assert check_chance(Metric("top1", 0.25), 0.25).status == "warn"


def test_one_class_that_is_everything_fails():
    only = np.zeros(50, np.int64)
    for metric in ("top1", "balanced_accuracy"):
        assert (
            check_chance(Metric(metric, 1.0), chance(metric, [(only, only)], Problem("multiclass", 2))).status == "fail"
        )


def _paper(value, metric="cmap"):
    return Published("bird-mae", "linear", -1, metric, value, "arXiv 2508.01277, table 4")


def test_a_gap_to_the_paper_beyond_the_tolerance_warns_and_names_the_source():
    check = check_published([Metric("cmap", 0.0874, 0.083, 0.092)], [_paper(0.1637)])
    assert (check.name, check.status) == ("published", "warn")
    assert check.summary == "cmap 0.0874, published 0.1637 (arXiv 2508.01277, table 4): gap -0.0763"
    assert check.details["gaps"][0]["gap"] == pytest.approx(-0.0763)
    assert check_published([Metric("cmap", 0.3, 0.29, 0.31)], [_paper(0.1637)]).status == "warn"


def test_a_paper_within_the_interval_or_the_tolerance_is_ok():
    assert check_published([Metric("cmap", 0.155, 0.15, 0.16)], [_paper(0.1637)]).status == "ok"
    assert check_published([Metric("cmap", 0.155)], [_paper(0.17)]).status == "ok"
    assert check_published([Metric("cmap", 0.155)], [_paper(0.17)], tolerance=0.01).status == "warn"


def test_metrics_that_no_paper_reports_are_no_gap():
    check = check_published([Metric("top1", 0.4)], [_paper(0.17)])
    assert (check.status, check.summary) == ("ok", "no paper is known to report this cell")


def test_a_fit_on_permuted_labels_that_beats_chance_fails():
    check = check_shuffled(Metric("cmap", 0.45, 0.4, 0.5), Metric("cmap", 0.5), 0.05, 500)
    assert (check.name, check.status) == ("shuffled", "fail")
    assert "knows the answers" in check.summary
    assert check_shuffled(Metric("cmap", 0.08, 0.06, 0.1), Metric("cmap", 0.1), 0.05, 500).status == "ok"
    assert check_shuffled(Metric("top1", 0.05), Metric("top1", 0.1), 0.1, 500).status == "ok"
    assert check_shuffled(Metric("top1", 0.15), Metric("top1", 0.16), 0.1, 500).status == "fail"
    assert check_shuffled(Metric("top1", 0.2), Metric("top1", 0.6), 0.1, 500).status == "ok"


@pytest.mark.parametrize(("n", "c"), [(40, 10), (400, 10), (3000, 12)])
def test_random_scores_pass_as_shuffled_on_small_and_on_large_test_sets(n, c):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = _rare(n, c, seed)
        labels[0] = 1
        problem = Problem("multilabel", c)
        scores = rng.normal(size=(n, c)).astype(np.float32)
        measured = evaluate(["cmap"], labels, scores, problem, replicates=100)[0]
        assert check_shuffled(measured, measured, chance("cmap", [(labels, labels)], problem), n).status == "ok"
