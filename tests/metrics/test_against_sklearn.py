"""Every metric is scikit-learn's on the same input, ties and missing classes included."""

import subprocess
import sys
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from benchkit.errors import BenchkitError, DataError, FitError
from benchkit.interfaces import Problem
from benchkit.metrics import METRICS, chance, class_metrics, evaluate, n_classes_evaluated

unhurried = settings(deadline=None, max_examples=50)


@st.composite
def multilabel(draw):
    """Labels and scores of up to 60 examples and 5 classes: rare classes, absent classes, many ties."""
    n, c = draw(st.integers(1, 60)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = (rng.random((n, c)) < rng.choice([0.0, 0.1, 0.5, 1.0], c)).astype(np.uint8)
    return labels, _scores(rng, (n, c), draw(st.sampled_from([1, 3, 1000])))


@st.composite
def multiclass(draw):
    """Some of the classes are never the truth, and some never predicted."""
    n, c = draw(st.integers(1, 60)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.choice(rng.permutation(c)[: draw(st.integers(1, c))], n).astype(np.int64)
    return labels, _scores(rng, (n, c), draw(st.sampled_from([1, 3, 1000])))


def _scores(rng, shape, levels):
    return (rng.integers(-levels, levels, shape) / 7).astype(np.float32)


def _value(name, labels, scores, kind):
    return evaluate([name], labels, scores, Problem(kind, scores.shape[1]), replicates=0)[0].value


def _one_vs_rest(labels, n_classes):
    return labels if labels.ndim == 2 else (labels[:, None] == np.arange(n_classes)).astype(np.uint8)


@unhurried
@given(st.one_of(multilabel(), multiclass()))
def test_the_ranking_metrics_are_scikit_learns(data):
    labels, scores = data
    kind = "multilabel" if labels.ndim == 2 else "multiclass"
    truth = _one_vs_rest(labels, scores.shape[1])
    some, all_ = truth.any(axis=0), truth.all(axis=0)
    assume(some.any())
    ap = average_precision_score(truth[:, some], scores[:, some], average="macro")
    assert _value("cmap", labels, scores, kind) == pytest.approx(ap, abs=1e-12)
    micro = average_precision_score(truth, scores, average="micro")
    assert _value("micro_map", labels, scores, kind) == pytest.approx(micro, abs=1e-12)
    both = some & ~all_
    assume(both.any())
    area = roc_auc_score(truth[:, both], scores[:, both], average="macro")
    assert _value("auroc", labels, scores, kind) == pytest.approx(area, abs=1e-12)


@unhurried
@given(multilabel())
def test_the_quantiles_are_those_of_the_average_precision_of_the_classes_that_have_any(data):
    labels, scores = data
    each = [average_precision_score(y, s) for y, s in zip(labels.T, scores.T, strict=True) if y.any()]
    assume(each)
    for name, share in (("ap_q05", 0.05), ("ap_q95", 0.95)):
        expected = pytest.approx(np.quantile(each, share), abs=1e-12)
        assert _value(name, labels, scores, "traits") == expected
        made = evaluate([name], labels, scores, Problem("multilabel", scores.shape[1]), replicates=20)[0]
        assert made.value == expected
        assert made.low <= made.value <= made.high


@unhurried
@given(multiclass())
def test_the_decision_metrics_are_scikit_learns(data):
    labels, scores = data
    predicted = scores.argmax(axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's word on classes that are predicted but never true
        balanced = balanced_accuracy_score(labels, predicted)
    f1 = f1_score(labels, predicted, average="macro", zero_division=0)
    assert _value("top1", labels, scores, "multiclass") == pytest.approx((labels == predicted).mean(), abs=1e-12)
    assert _value("balanced_accuracy", labels, scores, "multiclass") == pytest.approx(balanced, abs=1e-12)
    assert _value("macro_f1", labels, scores, "multiclass") == pytest.approx(f1, abs=1e-12)


@unhurried
@given(multilabel())
def test_multilabel_top1_counts_only_examples_that_have_a_label(data):
    labels, scores = data
    right = [labels[i, scores[i].argmax()] for i in range(len(labels)) if labels[i].any()]
    assume(right)
    assert _value("top1", labels, scores, "multilabel") == pytest.approx(np.mean(right), abs=1e-12)


@unhurried
@given(st.one_of(multilabel(), multiclass()))
def test_class_metrics_are_scikit_learns_and_absent_where_undefined(data):
    labels, scores = data
    n, c = scores.shape
    problem = Problem("multilabel" if labels.ndim == 2 else "multiclass", c, tuple(f"class {k}" for k in range(c)))
    truth = _one_vs_rest(labels, c)
    made = {(m.class_name, m.name): m for m in class_metrics(labels, scores, problem, np.arange(c))}
    for k in range(c):
        n_test = int(truth[:, k].sum())
        own = {name: m for (cls, name), m in made.items() if cls == f"class {k}"}
        assert {(m.n_train, m.n_test) for m in own.values()} == {(k, n_test)}
        expected = {"ap": average_precision_score(truth[:, k], scores[:, k]) if n_test else None}
        if labels.ndim == 2:
            expected["auroc"] = roc_auc_score(truth[:, k], scores[:, k]) if 0 < n_test < n else None
        else:
            predicted = scores.argmax(axis=1) == k
            expected["recall"] = recall_score(truth[:, k], predicted) if n_test else None
            expected["precision"] = precision_score(truth[:, k], predicted) if predicted.any() else None
        assert {name: m.value for name, m in own.items()} == {
            name: None if v is None else pytest.approx(v, abs=1e-12) for name, v in expected.items()
        }
    assert n_classes_evaluated(labels, problem) == truth.any(axis=0).sum()


@unhurried
@given(multilabel(), multilabel())
def test_chance_is_the_metric_of_the_training_prior_given_to_every_example(train, test):
    c = min(train[0].shape[1], test[0].shape[1])
    train_labels, labels = train[0][:, :c], test[0][:, :c]
    assume(labels.any())
    prior = np.tile(train_labels.mean(axis=0, dtype=np.float32), (len(labels), 1))
    problem, fold = Problem("multilabel", c), [(train_labels, labels)]
    prevalence = labels.mean(axis=0)[labels.any(axis=0)].mean()
    assert chance("cmap", fold, problem) == pytest.approx(prevalence, abs=1e-6)
    micro = average_precision_score(labels, prior, average="micro")
    assert chance("micro_map", fold, problem) == pytest.approx(micro, abs=1e-6)
    if (labels.any(axis=0) & ~labels.all(axis=0)).any():
        assert chance("auroc", fold, problem) == 0.5


def test_chance_of_a_decision_is_that_of_the_most_frequent_training_class():
    problem = Problem("multiclass", 3)
    train, test = np.array([0, 1, 1, 2]), np.array([0, 0, 0, 1, 1, 2])
    always_one = np.full(6, 1)
    assert chance("top1", [(train, test)], problem) == pytest.approx(2 / 6)
    assert chance("balanced_accuracy", [(train, test)], problem) == pytest.approx(1 / 3)
    f1 = f1_score(test, always_one, average="macro", zero_division=0)
    assert chance("macro_f1", [(train, test)], problem) == pytest.approx(f1)


@unhurried
@given(st.permutations([0, 0, 0, 0, 1, 2, 2]))
def test_chance_does_not_depend_on_the_order_of_equally_frequent_classes(test):
    problem = Problem("multiclass", 4)
    test = np.array(test)
    for relabelled in (test, 3 - test):
        assert chance("top1", [(np.arange(4), relabelled)], problem) == pytest.approx(1 / 4)
    f1 = [f1_score(test, np.full(7, k), average="macro", zero_division=0) for k in range(4)]
    assert chance("macro_f1", [(np.arange(4), test)], problem) == pytest.approx(np.mean(f1))


def test_chance_over_folds_is_the_mean_of_theirs():
    problem = Problem("multiclass", 2)
    folds = [(np.array([0, 0, 1]), np.array([0, 1])), (np.array([1, 1, 0, 1]), np.array([1, 1, 1, 0]))]
    assert chance("top1", folds, problem) == pytest.approx((0.5 + 0.75) / 2)


@unhurried
@given(multiclass(), st.integers(1, 4))
def test_with_folds_a_value_is_the_mean_of_the_folds_values(data, n_folds):
    labels, scores = data
    fold = np.arange(len(labels)) % n_folds
    each = [_value("cmap", labels[fold == f], scores[fold == f], "multiclass") for f in np.unique(fold)]
    together = evaluate(["cmap"], labels, scores, Problem("multiclass", scores.shape[1]), fold=fold, replicates=0)
    assert together[0].value == pytest.approx(np.mean(each), abs=1e-12)


def test_nan_scores_are_refused_with_their_number():
    scores = np.zeros((4, 2), np.float32)
    scores[1, 0] = scores[3] = np.nan
    with pytest.raises(FitError, match="3 of 8 scores are NaN"):
        evaluate(["top1"], np.array([0, 1, 0, 1]), scores, Problem("multiclass", 2))


def test_scores_for_another_number_of_classes_are_refused():
    with pytest.raises(FitError, match="scores for 2 classes, and the task has 3"):
        evaluate(["top1"], np.array([0, 1]), np.zeros((2, 2), np.float32), Problem("multiclass", 3))


@pytest.mark.parametrize("name", ["cmap", "micro_map", "auroc", "top1"])
def test_a_metric_without_positives_is_an_error_that_names_the_fold(name):
    labels = np.array([[1, 0], [0, 1], [0, 0], [0, 0]], np.uint8)
    scores, problem = np.zeros((4, 2), np.float32), Problem("multilabel", 2)
    assert evaluate([name], labels, scores, problem)[0].value >= 0
    with pytest.raises(DataError, match=f"'{name}' is undefined: the 2 test labels in fold 1"):
        evaluate([name], labels, scores, problem, fold=np.array([0, 0, 1, 1]))


def test_an_unknown_metric_or_one_for_other_tasks_is_an_error_that_helps():
    labels, scores = np.eye(2, dtype=np.uint8), np.zeros((2, 2), np.float32)
    with pytest.raises(BenchkitError, match=r"no metric named 'cmpa'; did you mean 'cmap'\?"):
        evaluate(["cmpa"], labels, scores, Problem("multilabel", 2))
    with pytest.raises(BenchkitError, match=r"'macro_f1' is not for multilabel tasks.*cmap"):
        evaluate(["macro_f1"], labels, scores, Problem("multilabel", 2))


def test_a_label_outside_the_classes_is_an_error_that_shows_it():
    with pytest.raises(DataError, match="'7' for one, are not in 0 to 1"):
        evaluate(["top1"], np.array([0, 7]), np.zeros((2, 2), np.float32), Problem("multiclass", 2))


def test_infinite_scores_rank_first_and_last():
    scores = np.array([[np.inf], [0.0], [-np.inf]], np.float32)
    assert _value("cmap", np.array([[1], [0], [0]], np.uint8), scores, "multilabel") == 1
    assert _value("auroc", np.array([[0], [0], [1]], np.uint8), scores, "multilabel") == 0


def test_metrics_and_checks_need_numpy_only():
    program = "import sys, benchkit.metrics, benchkit.checks; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not {"sklearn", "scipy", "torch", "jax", "pandas", "numba"} & set(loaded)


def test_every_metric_has_a_name_a_one_line_summary_and_tasks_it_is_for():
    assert list(METRICS) == [
        "top1",
        "balanced_accuracy",
        "macro_f1",
        "cmap",
        "micro_map",
        "auroc",
        "auroc_birdset",
        "beans_map",
        "ap_q05",
        "ap_q95",
    ]
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.kinds
        assert "\n" not in metric.summary
        assert metric.higher_is_better


def test_birdsets_auroc_counts_a_class_without_positives_as_0() -> None:
    rng = np.random.default_rng(11)
    labels = (rng.random((60, 4)) < 0.3).astype(np.uint8)
    labels[:, 2], labels[:, 3] = 0, 1
    scores = rng.random((60, 4)).astype(np.float32)
    sound, theirs = evaluate(("auroc", "auroc_birdset"), labels, scores, Problem("multilabel", 4), replicates=0)
    each = [roc_auc_score(labels[:, c], scores[:, c]) for c in range(2)]
    assert sound.value == pytest.approx(np.mean(each))
    assert theirs.value == pytest.approx(sum(each) / 4)  # torchmetrics gives both classes 0 and says so in a warning
