"""Statistics of a stream are those of the whole, however it is cut."""

import json

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.activations.moments import Moments, Statistics, mean_and_variance_without
from benchkit.errors import DataError


def merged(x: np.ndarray, cuts: list[int]) -> Moments:
    total = Moments.none(x.shape[1])
    for part in np.split(x, sorted(cuts)):
        total = total + Moments.of(part)
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 200), max_size=12))
def test_moments_of_parts_are_those_of_the_whole(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.gamma(1.5, 2.0, (200, 3)) * [1, 100, 0.01] + [0, 2500, -3]).astype(np.float32)
    found, wide = Statistics(merged(x, cuts)), x.astype(np.float64)
    np.testing.assert_allclose(found.mean, wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, wide.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.skewness, scipy.stats.skew(wide), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.kurtosis, scipy.stats.kurtosis(wide, fisher=False), rtol=1e-7)
    np.testing.assert_array_equal(found.min, wide.min(axis=0))
    np.testing.assert_array_equal(found.max, wide.max(axis=0))
    assert found.count.tolist() == [200] * 3


def test_a_dimension_far_from_zero_keeps_its_variance() -> None:
    x = np.random.default_rng(0).standard_normal((4000, 1)) * 1e-3 + 1e6
    np.testing.assert_allclose(Statistics(merged(x, [7, 900, 901])).variance, x.var(axis=0), rtol=1e-6)


def test_values_that_are_not_finite_are_counted_and_left_out() -> None:
    x = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float16)
    clean = Statistics(Moments.of(x[3:]))
    x[0, 1], x[1, 1], x[2, 1] = np.nan, np.inf, -np.inf
    found = Statistics(merged(x, [2, 20]))
    assert (found.nan.tolist(), found.inf.tolist(), found.count.tolist()) == ([0, 1], [0, 2], [50, 47])
    for name in ("mean", "variance", "kurtosis", "min", "max"):
        np.testing.assert_allclose(getattr(found, name)[1], getattr(clean, name)[1], rtol=1e-9)
    with pytest.raises(DataError, match="norm2: 1 values are NaN and 2 infinite"):
        found.require_finite("norm2")


def test_a_dimension_without_a_value_or_without_variance_has_no_made_up_numbers() -> None:
    found = Statistics(merged(np.array([[np.nan, 2.0]] * 4), [2]))
    assert np.isnan([found.mean[0], found.variance[0], found.min[0], found.kurtosis[0], found.kurtosis[1]]).all()
    assert (found.mean[1], found.variance[1]) == (2, 0)


def test_records_are_exact() -> None:
    moments = Moments.of(np.array([[np.nan, 0.1], [np.nan, 0.7]]))
    again = Moments.from_record(json.loads(json.dumps(moments.to_record(), allow_nan=False)))
    for name in moments.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(moments, name))


def test_mean_and_variance_of_what_is_left_are_those_of_the_rest_alone() -> None:
    """Where a dimension moves little around 2,500, too, and where only the part that is taken away moves."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 4)) * [1, 1e-3, 100, 1] + [0, 2500, -3, 0]
    x[300:, 3], x[:300, 3] = 7.25, rng.standard_normal(300) * 50
    mean, variance = mean_and_variance_without(Moments.of(x), Moments.of(x[:300]))
    np.testing.assert_allclose(mean, x[300:].mean(0), rtol=1e-12)
    np.testing.assert_allclose(variance[:3], x[300:, :3].var(0), rtol=1e-6)
    assert variance[3] == 0
    whole = mean_and_variance_without(Moments.of(x), Moments.none(4))
    np.testing.assert_allclose(whole, [x.mean(0), x.var(0)], rtol=1e-9)
    assert np.isnan(mean_and_variance_without(Moments.of(x), Moments.of(x))).all()
