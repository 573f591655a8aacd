"""Numbers that were silently wrong once, each with its right value from plain numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchkit.catalog.resolve import resolve
from benchkit.sae import SAEConfig, TrainConfig, train

Make = Callable[..., Path]


def features(n: int, dim: int, units: int, active: int, seed: int = 0) -> np.ndarray:
    """[N, D]: sums of a few of `units` random directions."""
    rng = np.random.default_rng([1, seed])
    directions = rng.standard_normal((units, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    f = np.zeros((n, units))
    for row in f:
        row[rng.choice(units, active, replace=False)] = rng.uniform(1, 2, active)
    return f @ directions


@pytest.mark.parametrize("n", [1536, 1537, 1600])
def test_batchtopk_has_k_active_units_a_vector_whatever_the_last_batch(
    n: int, as_recording: Make, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    x = features(n, 32, 64, 4) * np.exp(rng.standard_normal((n, 1)))
    shared = TrainConfig(batch_size=512, epochs=10, held_out=0.0)
    (t,) = train(
        as_recording(x), tmp_path / "t", [SAEConfig("batchtopk", 64, "dimension", k=4, lr=3e-3)], shared
    ).trained
    assert t.record["metrics"]["l0"] * 64 == pytest.approx(4, abs=0.02)
    f = resolve("scorer", f"sae:{t.path}").build()(x.astype(np.float32))
    assert (f > 0).sum(axis=1).mean() == pytest.approx(4, abs=0.02)


def test_every_width_is_measured_on_the_same_vectors(as_recording: Make, tmp_path: Path, monkeypatch) -> None:
    from benchkit.sae import session

    monkeypatch.setattr(session, "EVALUATED", 3000)
    x = np.random.default_rng(0).standard_normal((4000, 12)).astype(np.float32)
    configs = [SAEConfig("topk", width, "none", k=1) for width in (64, 512)]
    shared = TrainConfig(batch_size=700, steps=3, aux=0.0, held_out=0.0)
    for t in train(as_recording(x), tmp_path / "t", configs, shared).trained:
        assert t.record["measured_on"] == 3000
        w = load_file(t.path)
        assert t.record["metrics"]["dead"] == pytest.approx((w["frequency"] == 0).mean())
        assert w["frequency"].sum() == pytest.approx(1, abs=1e-5), "one unit a vector"
    monkeypatch.setattr(session, "EVALUATED", 4000)
    for t in train(as_recording(x, "again"), tmp_path / "all", configs, shared).trained:
        f = resolve("scorer", f"sae:{t.path}").build()(x)
        np.testing.assert_allclose(load_file(t.path)["frequency"], (f > 1e-8).mean(axis=0), atol=1e-6)


def test_units_that_did_not_fire_while_training_are_counted_too(as_recording: Make, tmp_path: Path) -> None:
    """With a window of all vectors it is the share that never fired; with a window of one batch it is more."""
    x = np.random.default_rng(0).standard_normal((2000, 12)).astype(np.float32)
    found = {}
    for after in (200, 2000):
        shared = TrainConfig(batch_size=200, aux=0.0, dead_after=after, held_out=0.0)
        (t,) = train(
            as_recording(x, str(after)), tmp_path / f"t{after}", [SAEConfig("topk", 256, "none", k=1)], shared
        ).trained
        found[after] = t.record["metrics"]["dead_in_training"]
    assert 0 <= found[2000] < found[200] < 1


def test_an_outlier_dimension_does_not_make_a_useless_autoencoder_look_best(as_recording: Make, tmp_path: Path) -> None:
    x = features(4000, 32, 64, 4)
    x[:, 5] = 3000 + 400 * np.random.default_rng(7).standard_normal(4000)
    x = x.astype(np.float32)
    configs = [SAEConfig("topk", 64, how, k=4, lr=3e-3) for how in ("none", "dimension", "layernorm", "whiten")]
    shared = TrainConfig(batch_size=256, epochs=12, held_out=0.1)
    trained = {
        t.record["autoencoder"]["normalise"]: t for t in train(as_recording(x), tmp_path / "t", configs, shared).trained
    }
    of_z = {how: t.record["metrics"]["held_out_explained_variance"] for how, t in trained.items()}
    of_x = {how: t.record["metrics"]["held_out_explained_variance_x"] for how, t in trained.items()}
    assert of_z["none"] > 0.99
    assert max(of_z, key=lambda how: of_z[how]) == "none"
    assert of_x["none"] < 0.1
    assert max(of_x, key=lambda how: of_x[how]) in ("dimension", "whiten")


@pytest.mark.parametrize("how", ["none", "dimension", "layernorm", "whiten"])
def test_the_explained_variance_of_x_is_that_of_numpy(how, as_recording: Make, tmp_path: Path) -> None:
    x = features(1500, 12, 24, 3) * 2 + np.arange(12) * 50
    x[:, 4] = 2500 + 0.4 * x[:, 4]
    x[:, 7] = 11.5
    x = x.astype(np.float32)
    shared = TrainConfig(batch_size=100, epochs=3, held_out=0.0)
    (t,) = train(as_recording(x), tmp_path / "t", [SAEConfig("topk", 48, how, k=4, lr=3e-3)], shared).trained
    w = {name: tensor.astype(np.float64) for name, tensor in load_file(t.path).items()}
    f = resolve("scorer", f"sae:{t.path}").build()(x).astype(np.float64)
    z_hat, wide = f @ w["w_dec"] + w["b_dec"], x.astype(np.float64)
    if how == "dimension":
        x_hat = z_hat * w["normalise.std"] + w["normalise.mean"]
    elif how == "whiten":
        x_hat = z_hat @ np.linalg.inv(w["normalise.whitening"]) + w["normalise.mean"]
    elif how == "layernorm":
        x_hat = z_hat * np.sqrt(wide.var(1, keepdims=True) + 1e-5) + wide.mean(1, keepdims=True)
    else:
        x_hat = z_hat
    rest, moving = wide - x_hat, np.arange(12) != 7
    metrics = t.record["metrics"]
    expected = np.mean(1 - rest.var(0)[moving] / wide.var(0)[moving])
    assert metrics["explained_variance_x"] == pytest.approx(expected, rel=2e-3, abs=2e-4)
    assert metrics["explained_variance_pooled"] == pytest.approx(1 - rest.var() / wide.var(), abs=1e-6)


@pytest.mark.parametrize("activation", ["relu", "gated", "jumprelu"])
@pytest.mark.parametrize("width", [24, 192, 768])
def test_an_autoencoder_starts_as_a_reconstruction_whatever_its_width(activation, width: int) -> None:
    """Half of the units are active at the start, and their sum is as large as the input, not K / 2D times that."""
    import torch

    from benchkit.sae.run import Run

    z = torch.from_numpy(features(2000, 24, 96, 6).astype(np.float32))
    config = SAEConfig(activation, width, "none", **({"l0": 0.01} if activation == "jumprelu" else {"l1": 0.3}))
    run = Run.start(config, z, "cpu", "x")
    f = run.model.active(run.model.pre_activations(z), training=False)
    rest, whole = (z - run.model.decode(f)).var(dim=0).sum(), z.var(dim=0).sum()
    assert float((1 - rest / whole).detach()) > 0.2
    large = Run.start(config, 1000 * z, "cpu", "x")
    g = large.model.active(large.model.pre_activations(1000 * z), training=False)
    torch.testing.assert_close((g > 0).float().mean(), (f > 0).float().mean(), atol=0.02, rtol=0)


def test_relu_is_above_nothing_after_a_few_hundred_steps(as_recording: Make, tmp_path: Path) -> None:
    """At 32 times the dimension, too, with the default learning rate."""
    x = features(6000, 24, 96, 6)
    configs = [SAEConfig("relu", 24 * times, "dimension", l1=0.3) for times in (8, 32)]
    shared = TrainConfig(batch_size=256, steps=300, epochs=50, held_out=0.0)
    for t in train(as_recording(x), tmp_path / "t", configs, shared).trained:
        assert t.record["metrics"]["explained_variance"] > 0.6
