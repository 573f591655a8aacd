"""Normalisation: LayerNorm as torch has it, standardisation as scikit-learn has it, and no harm from few examples."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from benchkit.classifiers.normalise import CHUNK, NormParams, fit_normaliser
from benchkit.classifiers.token_table import layer_norm


def rows(n: int = 300) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 20)) * np.logspace(-3, 3, 20) + rng.normal(size=20)
    x[:, 7] = 2500.0
    return x.astype(np.float32)


def test_layer_is_torchs_layer_norm() -> None:
    x = rows()
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (20,), eps=1e-6).numpy()
    np.testing.assert_allclose(fit_normaliser(NormParams(norm="layer"), x)(x), expected, atol=1e-5)


def test_standard_without_shrinkage_is_scikit_learns_and_a_constant_feature_is_0() -> None:
    x = rows()
    made = fit_normaliser(NormParams(norm="standard", shrinkage=0.0), x)(x)
    expected = StandardScaler().fit_transform(x.astype(np.float64))
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert (made[:, 7] == 0).all()


def test_both_are_one_after_the_other() -> None:
    x = rows()
    layered = fit_normaliser(NormParams(norm="layer"), x)(x)
    expected = StandardScaler().fit_transform(layered.astype(np.float64))
    made = fit_normaliser(NormParams(shrinkage=0.0), x)(x)
    np.testing.assert_allclose(made, expected, atol=2e-3)
    np.testing.assert_array_equal(fit_normaliser(NormParams(shrinkage=0.0), layered, layered=True).mean.shape, (20,))


def test_a_single_example_leaves_the_others_apart() -> None:
    x = rows()[:, :8]
    assert np.ptp(fit_normaliser(NormParams(), x[:1])(x), axis=0).min() > 0


@pytest.mark.parametrize("n", [2, 3])
def test_a_handful_of_examples_keeps_features_at_their_relative_sizes(n: int) -> None:
    x = np.random.default_rng(1).normal(size=(200, 12)).astype(np.float32)
    few = fit_normaliser(NormParams(norm="standard"), x[:n])(x)
    assert np.isfinite(few).all()
    assert few.std(axis=0).max() < 3 * few.std(axis=0).min()  # without shrinkage one feature would dwarf all others


def test_features_stay_as_they_are_without_any() -> None:
    np.testing.assert_array_equal(fit_normaliser(NormParams(norm="none"), rows())(rows()), rows())


def test_half_precision_goes_in_and_single_comes_out() -> None:
    x = rows().astype(np.float16)[:, :8]
    assert fit_normaliser(NormParams(), x)(x).dtype == np.float32


@pytest.mark.parametrize("n", [3, 5, 40])
@pytest.mark.parametrize("spread", [20.0, 600.0])
def test_a_dimension_at_2500_takes_no_part_in_what_few_examples_are_shrunk_to(n: int, spread: float) -> None:
    """The median feature's variance stands in for what few examples do not tell; the mean would be that of the loud
    one, and leave all others near 0."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 33))
    x[:, 7] = 2500 + spread * rng.normal(size=n)
    x = x.astype(np.float32)
    made = fit_normaliser(NormParams(norm="standard", shrinkage=30.0), x)
    wide = x.astype(np.float64)
    variance = wide.var(axis=0)
    shrunk = (n * variance + 30.0 * np.median(variance)) / (n + 30.0)
    assert made.mean is not None
    np.testing.assert_allclose(made.mean, wide.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.scale, 1 / np.sqrt(shrunk), rtol=1e-4)
    quiet = np.delete(made(x), 7, axis=1)
    assert 0.5 < quiet.std() < 1.5


@pytest.mark.parametrize("shrinkage", [0.5, 30.0, 300.0])
def test_shrinkage_counts_as_so_many_examples(shrinkage: float) -> None:
    x = np.random.default_rng(3).normal(size=(10, 9)).astype(np.float32) * np.arange(1, 10, dtype=np.float32)
    variance = x.astype(np.float64).var(axis=0)
    expected = (10 * variance + shrinkage * np.median(variance)) / (10 + shrinkage)
    made = fit_normaliser(NormParams(norm="standard", shrinkage=shrinkage), x)
    np.testing.assert_allclose(made.scale, expected**-0.5, rtol=1e-5)


def test_where_most_features_are_constant_the_mean_variance_stands_in() -> None:
    x = np.zeros((4, 9), np.float32)
    x[:, :2] = np.random.default_rng(4).normal(size=(4, 2))
    variance = x.astype(np.float64).var(axis=0)
    expected = (4 * variance + 30 * variance.mean()) / 34
    np.testing.assert_allclose(fit_normaliser(NormParams(norm="standard"), x).scale, expected**-0.5, rtol=1e-5)


def test_more_rows_than_are_read_at_a_time_are_measured_whole() -> None:
    x = np.random.default_rng(5).normal(size=(2 * CHUNK + 300, 6)).astype(np.float32)
    x[CHUNK:] *= 3
    x[2 * CHUNK :] += 2500
    made = fit_normaliser(NormParams(norm="standard", shrinkage=0.0), x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(made.mean, wide.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(made.scale, 1 / wide.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(made(x), (wide - wide.mean(axis=0)) / wide.std(axis=0), atol=1e-3)


def test_what_went_through_layer_norm_already_is_not_put_through_it_again() -> None:
    x = rows()[:, :9]
    layered = fit_normaliser(NormParams(norm="layer"), x)(x)
    made, again = (fit_normaliser(NormParams(), a, layered=b) for a, b in ((x, False), (3 * layered + 1, True)))
    assert made.scale is not None
    assert made.mean is not None
    np.testing.assert_allclose(3 * again.scale, made.scale, rtol=1e-4)
    np.testing.assert_allclose(again.mean, 3 * made.mean + 1, rtol=1e-4)


@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_layer_norms_epsilon_is_added_to_the_variance(eps: float) -> None:
    x = np.random.default_rng(6).normal(size=(5, 8)).astype(np.float32)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (8,), eps=eps).numpy()
    np.testing.assert_allclose(fit_normaliser(NormParams(norm="layer", norm_eps=eps), x)(x), expected, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e8, 1e25])
@pytest.mark.parametrize("norm", ["layer", "layer+standard"])
def test_the_scale_of_an_example_changes_nothing(scale: float, norm: Any) -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(50, 16)) + 0.5
    loud = 10 ** rng.uniform(-1.5, 1.5, (50, 1))
    plain, scaled = (a.astype(np.float32) for a in (x, x * loud * scale))
    expected = fit_normaliser(NormParams(norm=norm), plain)(plain)
    np.testing.assert_allclose(fit_normaliser(NormParams(norm=norm), scaled)(scaled), expected, atol=1e-4)
    tokens = layer_norm(torch.from_numpy(scaled), 0.0).numpy()
    np.testing.assert_allclose(tokens, fit_normaliser(NormParams(norm="layer"), plain)(plain), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 3.0, 2500.0, 1e-20])
def test_an_example_whose_features_are_all_equal_says_nothing(value: float) -> None:
    x = np.full((2, 33), value, np.float32)
    assert np.abs(fit_normaliser(NormParams(norm="layer"), x)(x)).max() < 0.2
    assert layer_norm(torch.from_numpy(x), 0.0).abs().max() < 0.2


@pytest.mark.parametrize("dim", [1, 2, 3, 7, 8, 9])
def test_few_features_are_not_put_through_layer_norm_and_the_record_says_so(dim: int) -> None:
    x = np.random.default_rng(8).normal(size=(30, dim)).astype(np.float32)
    made = fit_normaliser(NormParams(), x)
    assert made.layer == (dim >= 8)
    assert made.record == ({} if dim >= 8 else {"layer_norm": f"left out: {dim} features"})
    if dim < 8:
        np.testing.assert_array_equal(made(x), fit_normaliser(NormParams(norm="standard"), x)(x))
    asked = fit_normaliser(NormParams(norm="layer"), x)
    assert asked.layer == (dim >= 3), "asked for by name it is left out only where nothing would be left"
    assert bool(asked.record) == (dim < 3)


def test_what_was_constant_in_training_keeps_its_units_where_it_varies_later() -> None:
    x = rows()[:, 5:9]
    made = fit_normaliser(NormParams(norm="standard", shrinkage=0.0), x)
    later = x.copy()
    later[:, 2] += 0.25
    np.testing.assert_allclose(made(later)[:, 2], 0.25)
