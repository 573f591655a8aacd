"""Each metric, against its formula in plain numpy."""

import numpy as np
import pytest
import torch

from benchkit.sae import metrics


@pytest.fixture
def z() -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((200, 7)) * 3 + 50).astype(np.float32)


@pytest.fixture
def z_hat(z: np.ndarray) -> np.ndarray:
    return (z + np.random.default_rng(1).standard_normal(z.shape)).astype(np.float32)


@pytest.fixture
def f() -> np.ndarray:
    """Some units dead, one constant, one with values below what counts as active, two alike."""
    f = np.maximum(np.random.default_rng(2).standard_normal((200, 30)) - 1, 0).astype(np.float32)
    f[:, 3] = f[:, 4] = 0
    f[:, 5], f[:, 6], f[:, 8] = 0.1, 1e-9, 3 * f[:, 7]
    return f


@pytest.fixture
def decoder() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((25, 7)).astype(np.float32)


def test_mse(z: np.ndarray, z_hat: np.ndarray) -> None:
    expected = np.mean((z.astype(np.float64) - z_hat) ** 2)
    assert metrics.mse(torch.from_numpy(z), torch.from_numpy(z_hat)) == pytest.approx(expected, rel=1e-6)


def test_explained_variance(z: np.ndarray, z_hat: np.ndarray) -> None:
    a, b = z.astype(np.float64), z_hat.astype(np.float64)
    expected = 1 - (a - b).var(axis=0).sum() / a.var(axis=0).sum()
    x, y = torch.from_numpy(z), torch.from_numpy(z_hat)
    assert metrics.explained_variance(x, y) == pytest.approx(expected, rel=1e-5)
    assert metrics.explained_variance(x, x) == 1
    assert metrics.explained_variance(x, x.mean(dim=0).expand_as(x)) == pytest.approx(0, abs=1e-6)
    assert np.isnan(metrics.explained_variance(torch.ones(3, 2), torch.ones(3, 2)))


def test_l0_counts_what_is_above_its_threshold(f: np.ndarray) -> None:
    assert metrics.l0(torch.from_numpy(f)) == pytest.approx(np.mean(np.abs(f) > 1e-8))
    assert metrics.l0(torch.from_numpy(f[:, 6:7])) == 0


def test_l1(f: np.ndarray) -> None:
    assert metrics.l1(torch.from_numpy(f)) == pytest.approx(np.abs(f).astype(np.float64).sum() / len(f))


def test_dead_units(f: np.ndarray) -> None:
    assert metrics.dead(torch.from_numpy(f)) == pytest.approx(3 / 30)


@pytest.mark.parametrize("block", [4096, 7])
def test_correlation(f: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", block)
    x = f[:, np.ptp(f, axis=0) > 0].astype(np.float64)
    c = np.abs(np.corrcoef(x.T))
    n = len(c)
    expected = c[~np.eye(n, dtype=bool)].mean()
    assert metrics.correlation(torch.from_numpy(f)) == (pytest.approx(expected, rel=1e-5), 0)
    assert metrics.correlation(torch.from_numpy(f[:, 7:9])) == (pytest.approx(1, abs=1e-5), 0)
    assert metrics.correlation(torch.from_numpy(f[:, 3:6])) == (0, 0)


@pytest.mark.parametrize("block", [4096, 4])
def test_coherence(decoder: np.ndarray, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", block)
    unit = decoder.astype(np.float64) / np.linalg.norm(decoder.astype(np.float64), axis=1, keepdims=True)
    products = np.abs(unit @ unit.T)
    np.fill_diagonal(products, 0)
    assert metrics.coherence(torch.from_numpy(decoder)) == pytest.approx(products.max(), rel=1e-6)
    assert metrics.coherence(torch.from_numpy(np.stack([decoder[0], -2 * decoder[0]]))) == pytest.approx(1)
    assert metrics.coherence(torch.eye(5)) == 0


def test_decoder_norm(decoder: np.ndarray) -> None:
    assert metrics.decoder_norm(torch.from_numpy(decoder)) == pytest.approx(np.linalg.norm(decoder, axis=1).mean())


def test_gradient_norm(decoder: np.ndarray, z: np.ndarray) -> None:
    expected = np.linalg.norm(np.concatenate([decoder.ravel(), z.ravel()]))
    assert metrics.gradient_norm([torch.from_numpy(decoder), torch.from_numpy(z)]) == pytest.approx(expected, rel=1e-5)


def test_correlation_of_a_sample_of_units_comes_with_its_error() -> None:
    """Over many samples, the truth lies within two standard errors as often as it should."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((500, 40)) @ rng.standard_normal((40, 300)) + rng.standard_normal((500, 300))
    f = torch.from_numpy(np.maximum(mixed, 0).astype(np.float32))
    truth, none = metrics.correlation(f)
    assert none == 0
    found = [metrics.correlation(f[:, np.sort(rng.choice(300, 60, replace=False))], 300) for _ in range(60)]
    errors = np.array([error for _, error in found])
    off = np.array([mean - truth for mean, _ in found])
    assert 0.7 < errors.mean() / off.std() < 1.4
    assert (np.abs(off) < 2 * errors).mean() > 0.85


def test_coherence_of_some_units_is_over_their_pairs_with_all(decoder: np.ndarray) -> None:
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    products = np.abs(unit @ unit.T)
    np.fill_diagonal(products, 0)
    some = torch.tensor([3, 11])
    assert metrics.coherence(torch.from_numpy(decoder), some) == pytest.approx(products[[3, 11]].max(), rel=1e-5)
