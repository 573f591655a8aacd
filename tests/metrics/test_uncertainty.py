"""Intervals over examples and seeds: their quantiles, what they add up, what they cover, and who is among the best."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from benchkit.metrics.best import Column, among_the_best, column, mean_of, places
from benchkit.metrics.bootstrap import resamples
from benchkit.metrics.influences import auroc, average_precision
from benchkit.metrics.quantiles import t_quantile
from benchkit.metrics.uncertainty import Kept, Parts, ends, gap, on_logit, parts


def kept(value: float, drawn: np.ndarray, effective: float = 200.0, answers: str = "", df: float = 199.0) -> Kept:
    return Kept(value, drawn, effective, df, "same", answers)


@pytest.mark.parametrize("df", [1.0, 2.0, 2.7, 19.0, 199.0, 1e5, 1e9])
def test_quantiles_of_t_are_scipys(df: float) -> None:
    assert t_quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-8)


def test_a_single_run_has_the_interval_of_its_examples_on_the_logit_scale() -> None:
    drawn = 0.8 + 0.03 * np.random.default_rng(0).standard_normal(1000)
    found = parts([kept(0.8, drawn)])
    half = stats.t.ppf(0.975, 199) * drawn.std(ddof=1) * np.sqrt(200 / 199)
    step = half / (0.8 * 0.2)
    logit = np.log(4)
    assert ends(found) == pytest.approx((1 / (1 + np.exp(-logit + step)), 1 / (1 + np.exp(-logit - step))))
    assert (found.v_s, found.v_rest) == (0, 0)


def test_seeds_add_their_variance_with_their_own_quantile_less_what_examples_have_already() -> None:
    rng = np.random.default_rng(1)
    common, values = 0.02 * rng.standard_normal(1000), (0.7, 0.8, 0.9)
    own = 0.01 * rng.standard_normal((3, 1000))
    found = parts([kept(v, v + common + e) for v, e in zip(values, own, strict=True)])
    drawn = np.stack([v + common + e for v, e in zip(values, own, strict=True)])
    v_i = (drawn - drawn.mean(0)).var(axis=1, ddof=1).sum() / 6
    v_e = drawn.mean(0).var(ddof=1) * 200 / 199
    assert found.v_rest == pytest.approx(0.01 / 3 - v_i)
    squared = stats.t.ppf(0.975, 199) ** 2 * v_e + stats.t.ppf(0.975, 2) ** 2 * (0.01 / 3 - v_i)
    assert found.half_squared() == pytest.approx(squared)


def test_equal_predictions_of_all_seeds_are_one_run() -> None:
    drawn = 0.8 + 0.03 * np.random.default_rng(0).standard_normal(1000)
    one, three = parts([kept(0.8, drawn)]), parts([kept(0.8, drawn, answers="x")] * 3)
    assert three.unchanging
    assert ends(three) == ends(one)


def test_without_any_error_the_interval_is_the_rule_of_three() -> None:
    found = parts([kept(1.0, np.ones(1000), effective=50.0)])
    assert ends(found) == (pytest.approx(1 - (1 - 0.025 ** (1 / 50))), 1.0)
    assert on_logit(0.0, 0.0, 50.0)[1] == pytest.approx(1 - 0.025 ** (1 / 50))


def test_ten_windows_of_each_recording_are_drawn_together() -> None:
    groups = np.repeat(np.arange(20), 10)
    (weights,) = resamples([200], range(50), 0, [groups])
    by_group = weights[:200].reshape(20, 10, 50)
    assert (by_group == by_group[:, :1]).all()
    assert (by_group[:, 0].sum(axis=0) == 20).all()
    assert weights.sum(axis=0).tolist() == [200] * 50


def test_recordings_are_drawn_fold_by_fold_unless_one_is_in_several() -> None:
    apart = resamples([40, 40], range(30), 0, [np.arange(40) // 8, 5 + np.arange(40) // 8])
    assert all((w.sum(axis=0) == 40).all() for w in apart)
    across = resamples([40, 40], range(30), 0, [np.arange(40) // 8, np.arange(40) // 8])
    assert np.array_equal(across[0], across[1])


@pytest.mark.parametrize("ties", [False, True])
def test_leaving_one_example_out_is_what_scikit_learn_says(ties: bool) -> None:
    rng = np.random.default_rng(3)
    y = rng.random(40) < 0.3
    x = (rng.integers(0, 6, 40) if ties else rng.standard_normal(40)).astype(np.float32)
    found = average_precision(y, x)
    assert found.without is not None
    whole = average_precision_score(y, x)
    left = [average_precision_score(np.delete(y, i), np.delete(x, i)) - whole for i in range(40)]
    np.testing.assert_allclose(found.without, left, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_influences_are_derivatives(ties: bool) -> None:
    rng = np.random.default_rng(4)
    y = rng.random(40) < 0.3
    x = (rng.integers(0, 6, 40) if ties else rng.standard_normal(40)).astype(np.float32)
    m, step = y.sum(), 1e-5
    for made, score in ((average_precision(y, x), average_precision_score), (auroc(y, x), roc_auc_score)):
        slopes = [(score(y, x, sample_weight=1 + step * (np.arange(40) == i)) - score(y, x)) / step for i in range(40)]
        more_k = np.sqrt((40 - m) / (39 - m)) if score is roc_auc_score else 1.0
        scaled = np.array(slopes) * np.where(y, np.sqrt(m / (m - 1)), more_k)
        np.testing.assert_allclose(made.each, scaled, atol=1e-5)


def test_a_difference_is_paired_by_examples_and_seeds() -> None:
    rng = np.random.default_rng(5)
    common, luck = 0.05 * rng.standard_normal(1000), 0.1 * rng.standard_normal(3)
    a = [kept(0.8 + e, 0.8 + e + common) for e in luck]
    b = [kept(0.7 + e, 0.7 + e + common) for e in luck]
    assert gap(a, b, paired=True).clear
    assert gap(a, b, paired=True).half < 1e-6
    assert gap(a, b, paired=False).half > 0.1


def test_of_tied_models_the_set_of_the_best_loses_any_in_seven_percent_at_most() -> None:
    """A small part of `bench/intervals.py marks`: Gaussian errors, ten tied models, three seeds, seeds as large."""
    rng, lost = np.random.default_rng(6), 0
    cov = np.full((10, 10), 0.5) + 0.5 * np.eye(10)
    root = np.linalg.cholesky(cov)
    for i in range(300):
        seeds = np.sqrt(3) * rng.standard_normal((10, 3))
        values = root @ rng.standard_normal(10) + seeds.mean(axis=1)
        pooled = seeds.var(axis=1, ddof=1).mean() / 3
        lost += not all(among_the_best(Column(values, cov, np.full(10, pooled), 20), seed=i))
    assert lost / 300 <= 0.07 + 0.038


def test_what_is_clearly_worse_is_not_among_the_best_and_has_a_later_place() -> None:
    of = Column(np.array([0.9, 0.895, 0.7, 0.6]), 1e-4 * np.eye(4), np.zeros(4), 0)
    assert among_the_best(of) == [True, True, False, False]
    assert places(of) == [(1, 2), (1, 2), (3, 3), (4, 4)]


def test_the_mean_over_tasks_adds_their_covariances() -> None:
    of = Column(np.array([0.9, 0.8]), 1e-2 * np.eye(2), np.full(2, 1e-3), 4)
    both = mean_of([of, of])
    assert both.cov[0, 0] == pytest.approx(5e-3)
    assert (both.seeds[0], both.df) == (pytest.approx(5e-4), 8)


def test_what_a_seed_does_to_all_models_alike_is_taken_out_where_it_draws_the_training_examples() -> None:
    rng = np.random.default_rng(7)
    luck, noise = 0.2 * rng.standard_normal(4), 1e-3 * rng.standard_normal((3, 1000))
    models = [[kept(0.5 + 0.1 * i + e, 0.5 + 0.1 * i + e + noise[i]) for e in luck] for i in range(3)]
    assert column(models, shared=True).seeds.max() < 1e-9
    assert column(models, shared=True).df == 6
    assert column(models).seeds.min() > 1e-3


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 3.0])
def test_of_gaussian_errors_at_three_seeds_the_interval_covers_what_it_says(ratio: float) -> None:
    """The Gaussian part of `bench/intervals.py`, in a linear scale; seeds' deviations differ from cell to cell."""
    rng, n = np.random.default_rng(8), 20_000
    deviation = ratio * np.exp(0.5 * rng.standard_normal((n, 1)) - 0.25)
    seeds = deviation * rng.standard_normal((n, 3))
    error = rng.standard_normal(n) + seeds.mean(axis=1)
    of = [Parts(0.5, 3, 1.0, v, 0.0, 1e9, 1e9) for v in (seeds.var(axis=1, ddof=1) / 3)]
    covered = np.mean([abs(e) <= np.sqrt(p.half_squared()) for e, p in zip(error, of, strict=True)])
    assert 0.942 <= covered <= 0.977
