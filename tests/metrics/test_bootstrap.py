"""The bootstrap is the explicit loop over the same resamples, only faster and within bounded memory."""

import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from benchkit.errors import BenchkitError
from benchkit.interfaces import Problem
from benchkit.metrics import METRICS, bootstrap, evaluate, judge, paired_difference
from benchkit.metrics.cumulative import cumulative
from benchkit.metrics.scored import by_fold
from benchkit.progress import Silent


def _data(kind, n=90, c=4, seed=0, levels=12):
    """Scores with ties, one class that is rare and one that is absent."""
    rng = np.random.default_rng(seed)
    if kind == "multiclass":
        labels = rng.choice(c - 1, n, p=[0.02, 0.5, 0.48]).astype(np.int64)
        truth = np.eye(c)[labels]
    else:
        labels = (rng.random((n, c)) < [0.02, 0.3, 0.5, 0.0]).astype(np.uint8)
        truth = labels
    scores = np.round((truth + rng.normal(size=(n, c))) * levels) / levels
    return labels, scores.astype(np.float32), Problem(kind, c)


def _loop(name, labels, scores, problem, fold, replicates, seed):
    """What a bootstrap is: resampled arrays, and the plain metric of each."""
    sizes = [int((fold == f).sum()) for f in np.unique(fold)]
    counts = bootstrap.resamples(sizes, range(replicates), seed)
    values = []
    for r in range(replicates):
        each = []
        for f, weights in zip(np.unique(fold), counts, strict=True):
            drawn = np.repeat(np.flatnonzero(fold == f), weights[:-1, r])
            try:
                each.append(evaluate([name], labels[drawn], scores[drawn], problem, replicates=0)[0].value)
            except BenchkitError:
                continue  # undefined on this resample: it drops out
        values.append(np.mean(each) if each else np.nan)
    return np.array(values)


CASES = [(kind, name) for name, m in METRICS.items() for kind in m.kinds if kind in ("multiclass", "multilabel")]


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("n_folds", [1, 3])
def test_the_interval_is_that_of_an_explicit_loop_over_the_same_resamples(kind, name, n_folds):
    labels, scores, problem = _data(kind)
    fold = np.arange(len(labels)) % n_folds
    values = _loop(name, labels, scores, problem, fold, replicates=150, seed=3)
    judged = judge([name], labels, scores, problem, fold=fold, replicates=150, seed=3)
    np.testing.assert_allclose(judged.kept.drawn, values, atol=1e-9)
    made = judged.metrics[0]
    assert made.low < made.value < made.high


def test_a_class_without_positives_in_a_resample_drops_out_of_that_replicate():
    labels, scores, problem = _data("multilabel", n=30)
    counts = bootstrap.resamples([30], range(100), 0)[0]
    without = counts[np.flatnonzero(labels[:, 0])].sum(axis=0) == 0
    assert 0 < without.sum() < 100
    values = _loop("cmap", labels, scores, problem, np.zeros(30, np.int64), replicates=100, seed=0)
    judged = judge(["cmap"], labels, scores, problem, replicates=100)
    np.testing.assert_allclose(judged.kept.drawn, values, atol=1e-9)


def test_the_interval_holds_the_value_even_where_nearly_all_replicates_lie_above_it():
    rng = np.random.default_rng(0)
    n, c = 3000, 150
    labels = rng.integers(0, c, n)
    scores = (2 * np.eye(c)[labels] + rng.normal(size=(n, c))).astype(np.float32)
    problem = Problem("multiclass", c)
    folds = by_fold(labels, scores, problem, None)
    drawn = bootstrap.bootstrap(lambda w: bootstrap.over_folds(METRICS["cmap"], folds, w), [n], replicates=100, seed=0)
    made = evaluate(["cmap"], labels, scores, problem, replicates=100)[0]
    assert made.value < np.percentile(drawn, 2.5)
    assert made.low < made.value < made.high
    assert made.high - made.low == pytest.approx(2 * 1.96 * drawn.std(), rel=0.05)


@pytest.mark.parametrize("right", [0, 1, 199, 200])
def test_the_interval_of_a_share_lies_between_0_and_1_and_holds_the_share(right):
    labels, scores = np.zeros(200, np.int64), np.zeros((200, 2), np.float32)
    scores[right:, 1] = 1
    made = evaluate(["top1"], labels, scores, Problem("multiclass", 2))[0]
    assert 0 <= made.low <= made.value == right / 200 <= made.high <= 1


def test_only_the_primary_metric_has_an_interval_and_none_has_where_no_replicates_are_asked_for():
    labels, scores, problem = _data("multilabel")
    first, second = evaluate(["auroc", "cmap"], labels, scores, problem, replicates=20)
    assert first.low is not None
    assert second.low is None
    assert evaluate(["auroc"], labels, scores, problem, replicates=0)[0].high is None
    assert evaluate([], labels, scores, problem) == []


def test_resamples_draw_each_fold_whole_and_depend_only_on_seed_and_number():
    some = bootstrap.resamples([40, 7], range(70), seed=5)
    for weights, n in zip(some, [40, 7], strict=True):
        assert weights[:-1].sum(axis=0).tolist() == [n] * 70
        assert not weights[-1].any()
    again = bootstrap.resamples([40, 7], range(33, 70), seed=5)
    assert all(np.array_equal(a[:, 33:], b) for a, b in zip(some, again, strict=True))
    assert not np.array_equal(some[0], bootstrap.resamples([40, 7], range(70), seed=6)[0])


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(threads, monkeypatch):
    labels, scores, problem = _data("multilabel", n=500)
    expected = evaluate(["cmap"], labels, scores, problem, replicates=300)
    monkeypatch.setattr(bootstrap, "_threads", lambda: threads)
    assert evaluate(["cmap"], labels, scores, problem, replicates=300) == expected


def test_the_paired_difference_judges_both_models_on_the_same_resamples():
    labels, a, problem = _data("multilabel")
    b = _data("multilabel", seed=1)[1]
    fold = np.zeros(len(labels), np.int64)
    apart = [_loop("cmap", labels, s, problem, fold, replicates=100, seed=2) for s in (a, b)]
    made = paired_difference("cmap", labels, a, b, problem, replicates=100, seed=2)
    value = [evaluate(["cmap"], labels, s, problem, replicates=0)[0].value for s in (a, b)]
    assert made.value == pytest.approx(value[0] - value[1])
    moved = apart[0] - apart[1] - ((apart[0] - apart[1]).mean() - made.value)
    low, high = np.percentile(moved, [2.5, 97.5])
    assert (made.low, made.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    assert made.share_above == (moved > 0).mean() > 0.9
    same = paired_difference("cmap", labels, a, a, problem, replicates=100)
    assert (same.value, same.low, same.high, same.share_above) == (0, 0, 0, 0)


def test_progress_counts_the_replicates():
    class Counting(Silent):
        def step(self, what, total, unit=""):
            self.total, self.made = total, super().step(what, total, unit)
            return self

        def __enter__(self):
            self.shown = self.made.__enter__()
            return self.shown

        def __exit__(self, *error):
            return self.made.__exit__(*error)

    labels, scores, problem = _data("multiclass")
    progress = Counting()
    evaluate(["top1"], labels, scores, problem, replicates=333, progress=progress)
    assert progress.total == progress.shown.done == 333


def test_memory_stays_bounded_where_every_second_pair_is_positive(monkeypatch):
    monkeypatch.setattr(bootstrap, "_threads", lambda: 2)
    rng = np.random.default_rng(0)
    n, c = 20_000, 16
    labels = (rng.random((n, c)) < 0.5).astype(np.uint8)
    scores = rng.random((n, c), dtype=np.float32)
    tracemalloc.start()
    try:
        evaluate(["micro_map"], labels, scores, Problem("multilabel", c), replicates=128)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    one_array_of_all_positives = 128 * n * c // 2 * 8
    assert peak < 100e6 < one_array_of_all_positives


@given(
    st.integers(1, 40).flatmap(lambda n: arrays(np.uint16, (n, 3), elements=st.integers(0, 1023))),
    st.lists(st.integers(0, 10**6), max_size=30),
    st.integers(0, 2**32),
    st.sampled_from([1, 63, 64, 65, 8191, 8192, 8193, 20_000]),
)
@settings(max_examples=40, deadline=None)
def test_cumulative_weights_are_exact_across_blocks_and_slabs(counts, ends, seed, m):
    rng = np.random.default_rng(seed)
    order = rng.integers(0, len(counts), m).astype(np.int32)
    weights = np.concatenate([counts, np.zeros((1, 3), np.uint16)])
    ends = np.sort(np.array([0, m, *(e % (m + 1) for e in ends)], np.int64))
    plain = np.concatenate([np.zeros((1, 3)), np.cumsum(counts[order].astype(np.int64), axis=0)])[ends]
    assert np.array_equal(cumulative(weights, order, ends), plain)
