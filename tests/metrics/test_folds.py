"""Folds of unequal size: each counts as much as any other, in values, intervals and the numbers of classes."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from benchkit.errors import BenchkitError
from benchkit.interfaces import Problem
from benchkit.metrics import bootstrap, chance, class_metrics, evaluate, judge, paired_difference

SIZES = (20, 55, 130)


def unequal(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Problem]:
    """Labels, scores and folds that lie among each other; the last class is in the largest fold alone."""
    rng = np.random.default_rng(0)
    n = sum(SIZES)
    fold = rng.permutation(np.repeat(np.arange(3), SIZES))
    if kind == "multiclass":
        labels = rng.choice(3, n, p=[0.5, 0.3, 0.2])
        labels[fold == 2] = rng.choice(4, SIZES[2])
        truth = np.eye(4)[labels]
    else:
        labels = (rng.random((n, 4)) < [0.3, 0.4, 0.5, 0.5]).astype(np.uint8)
        labels[fold != 2, 3] = 0
        truth = labels
    noise = np.array([2.0, 1.0, 0.3])[fold][:, None]  # so that the folds differ in how well they are solved
    scores = np.round((truth + noise * rng.normal(size=truth.shape)) * 12) / 12
    return labels, scores.astype(np.float32), fold, Problem(kind, 4)


def cmap(labels: np.ndarray, scores: np.ndarray) -> float:
    truth = np.eye(4)[labels] if labels.ndim == 1 else labels
    some = truth.any(axis=0)
    return float(average_precision_score(truth[:, some], scores[:, some], average="macro"))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_the_value_is_the_mean_over_folds_and_no_mean_over_examples(kind: str) -> None:
    labels, scores, fold, problem = unequal(kind)
    each = [cmap(labels[fold == f], scores[fold == f]) for f in range(3)]
    made = evaluate(["cmap"], labels, scores, problem, fold=fold, replicates=0)[0]
    assert made.value == pytest.approx(np.mean(each), abs=1e-12)
    assert abs(np.average(each, weights=SIZES) - made.value) > 0.05


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_replicates_draw_from_each_fold_as_many_as_it_has_and_count_folds_alike(kind: str) -> None:
    labels, scores, fold, problem = unequal(kind)
    counts = bootstrap.resamples(SIZES, range(150), seed=3)
    assert [w[:-1].sum(axis=0).tolist() for w in counts] == [[n] * 150 for n in SIZES]
    values = []
    for r in range(150):
        each = []
        for f, weights in enumerate(counts):
            drawn = np.repeat(np.flatnonzero(fold == f), weights[:-1, r])
            try:
                each.append(evaluate(["cmap"], labels[drawn], scores[drawn], problem, replicates=0)[0].value)
            except BenchkitError:
                continue
        values.append(np.mean(each))
    kept = judge(["cmap"], labels, scores, problem, fold=fold, replicates=150, seed=3).kept
    assert kept is not None
    np.testing.assert_allclose(kept.drawn, values, atol=1e-9)


def test_a_classs_number_is_the_mean_over_the_folds_that_define_it() -> None:
    labels, scores, fold, problem = unequal("multilabel")
    made = {(m.class_name, m.name): m for m in class_metrics(labels, scores, problem, np.arange(4), fold=fold)}
    for c in range(4):
        with_any = [f for f in range(3) if labels[fold == f, c].any()]
        assert len(with_any) == (1 if c == 3 else 3)
        for name, score in (("ap", average_precision_score), ("auroc", roc_auc_score)):
            expected = [score(labels[fold == f, c], scores[fold == f, c]) for f in with_any]
            m = made[str(c), name]
            assert m.value == pytest.approx(np.mean(expected), abs=1e-12)
            assert (m.n_train, m.n_test) == (c, labels[:, c].sum())


def test_recall_and_precision_of_a_class_are_means_over_folds_too() -> None:
    labels, scores, fold, problem = unequal("multiclass")
    made = {(m.class_name, m.name): m.value for m in class_metrics(labels, scores, problem, np.arange(4), fold=fold)}
    predicted = scores.argmax(axis=1)
    for c in range(4):
        there = [f for f in range(3) if (labels[fold == f] == c).any()]
        recall = [recall_score(labels[fold == f] == c, predicted[fold == f] == c) for f in there]
        assert made[str(c), "recall"] == pytest.approx(np.mean(recall), abs=1e-12)
        said = [f for f in range(3) if (predicted[fold == f] == c).any()]
        precision = [(labels[fold == f][predicted[fold == f] == c] == c).mean() for f in said]
        assert made[str(c), "precision"] == pytest.approx(np.mean(precision), abs=1e-12)


def test_a_paired_difference_counts_folds_alike() -> None:
    labels, a, fold, problem = unequal("multilabel")
    b = a[:, ::-1].copy()
    each = [cmap(labels[fold == f], a[fold == f]) - cmap(labels[fold == f], b[fold == f]) for f in range(3)]
    made = paired_difference("cmap", labels, a, b, problem, fold=fold, replicates=50)
    assert made.value == pytest.approx(np.mean(each), abs=1e-12)
    assert made.low is not None
    assert made.high is not None
    assert made.low < made.value < made.high


def test_chance_of_unequal_folds_is_the_mean_of_theirs() -> None:
    labels, _, fold, problem = unequal("multilabel")
    pairs = [(labels[fold != f], labels[fold == f]) for f in range(3)]
    prevalence = [test.mean(axis=0)[test.any(axis=0)].mean() for _, test in pairs]
    assert chance("cmap", pairs, problem) == pytest.approx(np.mean(prevalence), abs=1e-6)


@pytest.mark.parametrize("counts", [(3, 1, 1, 1), (2, 2, 2, 1), (5, 5, 1, 1), (4, 4, 4, 4)])
def test_chance_weighs_classes_of_equal_test_counts_by_how_many_there_are(counts: tuple[int, ...]) -> None:
    """Every class is as frequent in training, so the constant scorer prefers any of the four as often."""
    problem, train, test = Problem("multiclass", 4), np.arange(4), np.repeat(np.arange(4), counts)
    assert chance("top1", [(train, test)], problem) == pytest.approx(1 / 4)
    each = [2 * n / sum(counts) / (1 + n / sum(counts)) / 4 for n in counts]
    assert chance("macro_f1", [(train, test)], problem) == pytest.approx(np.mean(each))
    two = np.array([0, 0, 1, 1, 2])  # the first two are the most frequent
    assert chance("top1", [(two, test)], problem) == pytest.approx((counts[0] + counts[1]) / 2 / sum(counts))
