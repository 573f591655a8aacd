"""The parts of an autoencoder, against plain numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchkit.activations import Moments, Statistics
from benchkit.errors import BenchkitError
from benchkit.sae.config import SAEConfig, TrainConfig, l1_scale_at, product, scale_at
from benchkit.sae.losses import auxiliary_loss
from benchkit.sae.model import Autoencoder, activate
from benchkit.sae.normalise import covariance_about, fit_normalisation, normalised
from benchkit.sae.run import Run

NONE = {"threshold": torch.tensor(0.0)}


def pre(b: int = 6, k: int = 20) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((b, k)).astype(np.float32)


def test_relu_keeps_what_is_positive() -> None:
    found = activate(torch.from_numpy(pre()), SAEConfig("relu", 20, "none", l1=1.0), NONE, training=True)
    np.testing.assert_array_equal(found, np.maximum(pre(), 0))


@pytest.mark.parametrize("training", [True, False])
def test_topk_keeps_the_largest_of_each_vector(training: bool) -> None:
    p = np.maximum(pre(), 0)
    p[p < np.sort(p, axis=1)[:, -3:-2]] = 0
    found = activate(torch.from_numpy(pre()), SAEConfig("topk", 20, "none", k=3), NONE, training=training)
    np.testing.assert_array_equal(found, p)


def test_topk_keeps_nothing_below_zero() -> None:
    found = activate(-torch.ones(2, 20), SAEConfig("topk", 20, "none", k=3), NONE, training=True)
    assert not found.any()


def test_batchtopk_keeps_the_largest_of_the_batch_and_afterwards_what_is_above_the_threshold() -> None:
    config = SAEConfig("batchtopk", 20, "none", k=3)
    p = np.maximum(pre(), 0)
    p[p < np.sort(p.ravel())[-18]] = 0
    found = activate(torch.from_numpy(pre()), config, NONE, training=True)
    np.testing.assert_array_equal(found, p)
    assert len({int(n) for n in (found > 0).sum(dim=1)}) > 1, "of some vectors more are kept than of others"
    later = activate(torch.from_numpy(pre()), config, {"threshold": torch.tensor(0.9)}, training=False)
    np.testing.assert_array_equal(later, np.where(pre() > 0.9, pre(), 0))


@pytest.mark.parametrize("sizes", [(10, 11, 12), (16, 16, 1), (1, 40), (33,)])
def test_the_threshold_lets_k_a_vector_pass_however_the_vectors_are_cut_into_batches(sizes: tuple[int, ...]) -> None:
    """A short last batch counts for its vectors alone."""
    model = Autoencoder(SAEConfig("batchtopk", 40, "none", k=2), 8, torch.zeros(8), "cpu")
    n = sum(sizes)
    z = torch.from_numpy(pre(n, 8) * np.exp(np.random.default_rng(1).standard_normal((n, 1))).astype(np.float32))
    model.calibrate(z.split(sizes), n)
    p = np.sort(np.maximum(z.numpy() @ model.w_enc.detach().numpy(), 0).ravel())
    assert float(model.threshold) == pytest.approx((p[-2 * n - 1] + p[-2 * n]) / 2, rel=1e-5)
    assert int((model.active(model.pre_activations(z), training=False) > 0).sum()) == 2 * n
    model.calibrate(z.split(sizes), n - 1)
    assert int((model.active(model.pre_activations(z[: n - 1]), training=False) > 0).sum()) == 2 * (n - 1)


def test_a_threshold_is_a_number_and_stored_as_one(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from benchkit.scorers.saved import write_tensors

    write_tensors(tmp_path / "f", {"threshold": np.array(0.5, np.float32)}, {"kind": "sae"})
    assert load_file(tmp_path / "f")["threshold"].shape == ()


@pytest.mark.parametrize("rectified", [True, False])
def test_the_auxiliary_loss_lets_dead_units_reconstruct_the_rest(rectified: bool) -> None:
    rng = np.random.default_rng(1)
    p, w, e = (
        pre(6, 20),
        rng.standard_normal((20, 5)).astype(np.float32),
        rng.standard_normal((6, 5)).astype(np.float32) + 3,
    )
    dead = np.zeros(20, bool)
    dead[[2, 5, 7, 11, 13]] = True
    of = np.maximum(p, 0) if rectified else p
    chosen = np.where(dead, p, -np.inf)
    chosen = np.where(chosen >= np.sort(chosen, axis=1)[:, -3:-2], of, 0)
    variance = e.var(axis=0).sum()
    expected = ((e - chosen @ w) ** 2).sum(axis=1).mean() / variance
    tensors = [torch.from_numpy(x) for x in (p, w, e, dead)]
    assert float(auxiliary_loss(*tensors, 3, rectified=rectified)) == pytest.approx(expected, rel=1e-5)
    of_all = ((e - np.where(dead, of, 0) @ w) ** 2).sum(axis=1).mean() / variance
    assert float(auxiliary_loss(*tensors, 10, rectified=rectified)) == pytest.approx(of_all / 2, rel=1e-5)


def test_the_auxiliary_loss_is_the_same_however_small_the_rest_has_become() -> None:
    """As the published code has it: it is a share of the rest's variance, and does not fade with the rest."""
    p, w, e = torch.from_numpy(pre(6, 20)), torch.zeros(20, 5), torch.randn(6, 5)
    dead = torch.ones(20, dtype=torch.bool)
    large, small = (float(auxiliary_loss(p, w, scale * e, dead, 3)) for scale in (1.0, 1e-3))
    assert small == pytest.approx(large, rel=1e-4)
    assert float(auxiliary_loss(p, w, e[:1], dead, 3)) == 0, "of one vector alone the rest has no variance"


def test_a_step_weighs_the_auxiliary_loss_by_the_variance_of_the_first_batch() -> None:
    z = torch.randn(64, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    run = Run.start(SAEConfig("topk", 30, "none", k=2), z, "cpu", "x")
    model, dead = run.model, torch.arange(30) < 10
    run.since[:10] = 10**6
    with torch.no_grad():  # above 0, and never among the largest two
        model.w_enc[:, :10] *= 1e-3
        model.b_enc[:10] = 1e-4
    pre_z = model.pre_activations(z)
    z_hat = model.decode(model.active(pre_z, training=True))
    e = (z - z_hat).detach()
    f = pre_z[:, :10].relu()
    f = torch.where(f >= f.topk(3, dim=1).values[:, -1:], f, 0.0)
    rest = (e - f @ model.w_dec[:10]).square().sum(dim=1).mean() / e.var(dim=0, correction=0).sum()
    loss = (z - z_hat).square().sum(dim=1).mean() + 0.25 * z.var(dim=0, correction=0).sum() * rest
    expected = torch.autograd.grad(loss, model.w_enc)[0]
    assert not (model.active(pre_z, training=True)[:, dead] > 0).any()
    run.step(z, 0, 10, TrainConfig(aux=0.25, aux_k=3, dead_after=1000), log=False)
    assert model.w_enc.grad is not None
    assert expected[:, dead].abs().max() > 1e-3
    torch.testing.assert_close(model.w_enc.grad, expected, rtol=1e-4, atol=1e-5)


def test_a_dead_unit_gets_a_gradient_from_it_alone() -> None:
    p = torch.full((4, 3), -1.0, requires_grad=True)
    dead = torch.tensor([False, True, False])
    e = torch.arange(8.0).reshape(4, 2)
    auxiliary_loss(p, torch.ones(3, 2), e, dead, 1, rectified=False).backward()
    assert p.grad is not None
    assert (p.grad[:, 1] != 0).all()
    assert not p.grad[:, [0, 2]].any()


def test_the_decoders_gradient_is_at_right_angles_to_it_and_its_length_stays() -> None:
    model = Autoencoder(SAEConfig("topk", 30, "none", k=4), 6, torch.zeros(6), "cpu")
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    (model.decode(model.active(model.pre_activations(z), training=True)) - z).square().sum().backward()
    assert model.w_dec.grad is not None
    along = (model.w_dec.grad * model.w_dec).sum(dim=1)
    assert along.abs().max() > 0.1
    model.remove_parallel_gradient()
    assert (model.w_dec.grad * model.w_dec).sum(dim=1).abs().max() < 1e-4
    model.w_dec.data *= 3
    model.constrain()
    np.testing.assert_allclose(model.w_dec.detach().norm(dim=1), 1, rtol=1e-6)


# --------------------------------------------------------------------------------------------------------------- inputs


def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((4000, 5)) * [1, 2, 0.5, 4, 3] @ rng.standard_normal((5, 5))
    return (mixed + np.array([0, 2500, -3, 1, 10])).astype(np.float32)


@pytest.mark.parametrize("how", ["none", "dimension", "layernorm", "whiten"])
def test_inputs_are_normalised_as_asked(how) -> None:
    x = vectors()
    wide = x.astype(np.float64)
    statistics = Statistics(Moments.of(x))
    mean, variance = statistics.mean, statistics.variance
    covariance = covariance_about(iter(np.array_split(x, 7)), mean)
    np.testing.assert_allclose(covariance, np.cov(wide.T, bias=True), rtol=1e-5, atol=1e-4)
    tensors = {k: torch.from_numpy(v) for k, v in fit_normalisation(how, mean, variance, covariance).items()}
    z = normalised(torch.from_numpy(x), how, tensors).numpy()
    if how == "none":
        np.testing.assert_array_equal(z, x)
    elif how == "dimension":
        np.testing.assert_allclose(z, (wide - wide.mean(0)) / wide.std(0), atol=2e-4)
    elif how == "layernorm":
        rows = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(z, rows, atol=1e-5)
    else:
        np.testing.assert_allclose(np.cov(z.T, bias=True), np.eye(5), atol=2e-3)
        np.testing.assert_allclose(z.mean(0), 0, atol=2e-3)


def test_whitening_divides_no_component_by_less_than_a_hundredth_of_the_typical_one() -> None:
    """What lies below is rounding, and would be blown up to the size of everything else."""
    variances = np.array([9.0, 4.0, 1.0, 1e-3, 1e-9])
    made = fit_normalisation("whiten", np.zeros(5), variances, np.diag(variances))
    lengths = np.sort(np.linalg.norm(made["whitening"], axis=0))
    np.testing.assert_allclose(lengths, [1 / 3, 1 / 2, 1, 1000**0.5, 100], rtol=1e-4)


def test_dimensions_that_never_change_are_only_centred() -> None:
    x = vectors()
    x[:, 2] = 7
    statistics = Statistics(Moments.of(x))
    mean, variance = statistics.mean, statistics.variance
    for how in ("dimension", "whiten"):
        covariance = covariance_about(iter([x]), mean)
        tensors = {k: torch.from_numpy(v) for k, v in fit_normalisation(how, mean, variance, covariance).items()}
        assert torch.isfinite(normalised(torch.from_numpy(x), how, tensors)).all()


# ------------------------------------------------------------------------------------------------------------ schedules


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [scale_at(i, 100, 0.1, "linear") for i in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10:] == pytest.approx(1 - np.arange(90) / 90)
    cosine = [scale_at(i, 100, 0.1, "cosine") for i in range(100)]
    assert cosine[10:] == pytest.approx(0.5 * (1 + np.cos(np.pi * np.arange(90) / 90)))
    assert {scale_at(i, 100, 0.0, "constant") for i in range(100)} == {1.0}
    assert [l1_scale_at(i, 10, 0.4) for i in range(10)] == [0.25, 0.5, 0.75, *[1.0] * 7]


def test_options_that_are_repeated_give_their_product() -> None:
    made = product(["relu", "topk"], [8, 16], [2, 4], [0.1], ["none", "whiten"], [1e-3], [0, 1])
    assert len(made) == len(set(made)) == 8 + 16
    assert {c.name for c in made} >= {"relu-w8-l1_0.1-none-lr0.001-s0", "topk-w16-k4-whiten-lr0.001-s1"}
    assert len({c.name for c in made}) == 24


@pytest.mark.parametrize(
    ("activation", "k", "l1", "message"),
    [
        (["relu"], [], [], "--activation relu needs --l1"),
        (["topk"], [], [], "topk needs --k"),
        (["topk"], [4], [0.1], "--l1 is of --activation relu and gated, which are not asked for"),
        (["relu"], [4], [0.1], "--k is of --activation topk, batchtopk and matryoshka"),
        (["gated"], [], [], "gated needs --l1"),
        (["jumprelu"], [], [], "jumprelu needs --l0"),
        (["topk"], [9], [], "--k 9 is no number of active units, of 8"),
        (["relu"], [], [-1.0], "--l1 -1.0 is no weight"),
    ],
)
def test_options_that_do_not_go_together_are_named(activation, k, l1, message) -> None:
    with pytest.raises(BenchkitError, match=message):
        product(activation, [8], k, l1, ["none"], [1e-3], [0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aux": -1.0}, "--aux -1.0 is no weight"),
        ({"clip": 0.0}, "--clip 0.0 is no norm"),
        ({"held_out": 1.0}, "--held-out 1.0 is no share"),
        ({"batch_size": 0}, "--batch-size 0 is too few"),
        ({"aux_k": 0}, "--aux-k 0 is too few"),
        ({"warmup": 1.5}, "--warmup 1.5 is no share"),
    ],
)
def test_settings_of_a_training_that_mean_nothing_are_named(settings, message) -> None:
    with pytest.raises(BenchkitError, match=message):
        TrainConfig(**settings)
