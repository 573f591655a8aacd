"""Normalisation: LayerNorm as torch has it, standardisation as scikit-learn has it, and no harm from few examples."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from benchkit.classifiers.normalise import NormParams, fit_normaliser


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
