"""One step of a training: its learning rate, its L1 weight and its clipping, as they reach the weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchkit.sae import SAEConfig, TrainConfig, train
from benchkit.sae.config import l1_scale_at, scale_at
from benchkit.sae.model import Autoencoder
from benchkit.sae.run import Run

TOPK = SAEConfig("topk", 12, "none", k=2, lr=0.01)
RELU = SAEConfig("relu", 12, "none", l1=0.7, lr=0.01)
PLAIN = TrainConfig(aux=0.0, warmup=0.0, decay="constant", l1_warmup=0.0)


def vectors(n: int = 64, dim: int = 6) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0)) * 2 + 1


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
def test_the_rate_of_every_step_is_the_schedules(decay: Any) -> None:
    z, shared = vectors(), TrainConfig(aux=0.0, warmup=0.3, decay=decay)
    run = Run.start(TOPK, z, "cpu", "x")
    for number in range(10):
        run.step(z, number, 10, shared, log=False)
        (group,) = run.optimiser.param_groups
        assert group["lr"] == pytest.approx(0.01 * scale_at(number, 10, 0.3, decay))


@pytest.mark.parametrize(("number", "share"), [(0, 1 / 5), (3, 4 / 5), (5, 1.0), (9, 1 / 5)])
def test_a_step_moves_the_weights_by_its_rate(number: int, share: float) -> None:
    """Adam's first step moves each weight that has a gradient by the learning rate."""
    z = vectors()
    run = Run.start(TOPK, z, "cpu", "x")
    before = run.model.b_dec.detach().clone()
    run.step(z, number, 10, TrainConfig(aux=0.0, warmup=0.5, decay="linear"), log=False)
    assert float((run.model.b_dec.detach() - before).abs().max()) == pytest.approx(0.01 * share, rel=1e-3)


@pytest.mark.parametrize("number", [0, 2, 7, 9])
def test_the_l1_penalty_has_the_weight_of_its_step(number: int) -> None:
    z = vectors()
    run = Run.start(RELU, z, "cpu", "x")
    model = run.model
    f = model.active(model.pre_activations(z), training=True)
    weight = 0.7 * l1_scale_at(number, 10, 0.8)
    loss = (z - model.decode(f)).square().sum(dim=1).mean() + weight * f.abs().sum(dim=1).mean()
    expected = torch.autograd.grad(loss, model.w_enc)[0]
    run.step(z, number, 10, TrainConfig(aux=0.0, l1_warmup=0.8), log=False)
    assert model.w_enc.grad is not None
    torch.testing.assert_close(model.w_enc.grad, expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_is_of_its_own_step_alone() -> None:
    z, other = vectors(), vectors(32)
    run = Run.start(TOPK, z, "cpu", "x")
    run.step(z, 0, 10, PLAIN, log=False)
    model = run.model
    f = model.active(model.pre_activations(other), training=True)
    expected = torch.autograd.grad((other - model.decode(f)).square().sum(dim=1).mean(), model.b_dec)[0]
    run.step(other, 1, 10, PLAIN, log=False)
    assert model.b_dec.grad is not None
    torch.testing.assert_close(model.b_dec.grad, expected, rtol=1e-4, atol=1e-6)


def test_a_step_turns_directions_and_neither_lengthens_nor_shortens_them() -> None:
    """Adam would remember what is taken away afterwards."""
    z = vectors()
    run = Run.start(TOPK, z, "cpu", "x")
    before = run.model.w_dec.detach().clone()
    run.step(z, 0, 10, PLAIN, log=False)
    grad = run.model.w_dec.grad
    assert grad is not None
    assert grad.abs().max() > 0.1
    torch.testing.assert_close((grad * before).sum(dim=1), torch.zeros(12), rtol=0, atol=1e-3)
    torch.testing.assert_close(run.model.w_dec.detach().norm(dim=1), torch.ones(12))


def test_where_half_of_the_units_are_active_the_encoder_begins_as_long_as_reconstructs_best() -> None:
    z = vectors()
    model = Run.start(RELU, z, "cpu", "x").model
    made = (model.pre_activations(z).relu() @ model.w_dec).detach()
    wanted = z - model.b_dec.detach()
    assert float((made * wanted).sum() / (made * made).sum()) == pytest.approx(1, rel=1e-4)
    assert float(model.w_enc.detach().norm(dim=0).mean()) < 0.9
    torch.testing.assert_close(Run.start(TOPK, z, "cpu", "x").model.w_enc.detach().norm(dim=0), torch.ones(12))


def test_l1_warms_up_from_its_first_step_on() -> None:
    assert [l1_scale_at(i, 10, 0.8) for i in (0, 3, 7, 8, 9)] == [1 / 8, 4 / 8, 1, 1, 1]
    assert [l1_scale_at(i, 10, 0.0) for i in (0, 9)] == [1, 1]


def test_more_l1_gives_smaller_activations() -> None:
    def l1_of(weight: float) -> float:
        z = vectors(256)
        run = Run.start(SAEConfig("relu", 12, "none", l1=weight, lr=0.01), z, "cpu", "x")
        for i in range(150):
            run.step(z, i, 150, PLAIN, log=False)
        return run.measure(z, run.model.active(run.model.pre_activations(z), training=False).detach(), z)["l1"]

    assert l1_of(3.0) < 0.7 * l1_of(0.1)


@pytest.mark.parametrize("clip", [None, 0.5, 1e9])
def test_gradients_are_clipped_where_that_is_asked_for(clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    z = 30 * vectors()
    run = Run.start(TOPK, z, "cpu", "x")
    norms: list[float] = []
    step = run.optimiser.step

    def watched() -> None:
        squares = [float(p.grad.square().sum()) for p in run.model.parameters.values() if p.grad is not None]
        norms.append(sum(squares) ** 0.5)
        step()

    monkeypatch.setattr(run.optimiser, "step", watched)
    run.step(z, 0, 10, TrainConfig(aux=0.0, clip=clip), log=True)
    assert run.last_gradient > 100, "what is logged is the norm before clipping"
    assert norms == [pytest.approx(0.5 if clip == 0.5 else run.last_gradient, rel=1e-3)]


def test_units_count_as_dead_from_so_many_vectors_without_firing_on() -> None:
    z = vectors(64)
    run = Run.start(SAEConfig("topk", 30, "none", k=1), z, "cpu", "x")
    fires = (run.model.active(run.model.pre_activations(z), training=True) > 0).any(dim=0)
    assert fires.any()
    assert not fires.all()
    run.step(z, 0, 10, PLAIN, log=False)
    np.testing.assert_array_equal(run.since.numpy(), np.where(fires.numpy(), 0, 64))
    for dead_after, has_a_part in ((129, False), (128, True)):
        run = Run.start(SAEConfig("topk", 30, "none", k=1), z, "cpu", "x")
        run.since += 64
        run.step(z, 0, 10, TrainConfig(aux=1.0, dead_after=dead_after, warmup=0.0, decay="constant"), log=False)
        assert run.model.w_enc.grad is not None
        assert bool(run.model.w_enc.grad[:, ~fires].any()) == has_a_part


def test_each_seed_begins_elsewhere_and_one_seed_at_the_same_place() -> None:
    config = {s: SAEConfig("topk", 9, "none", k=2, seed=s) for s in (0, 1)}
    made = [Autoencoder(config[s], 4, torch.zeros(4), "cpu").w_dec.detach() for s in (0, 1, 0)]
    assert torch.equal(made[0], made[2])
    assert float((made[0] - made[1]).abs().max()) > 0.1


def test_a_trainings_seed_draws_the_order_of_the_vectors(as_recording: Callable[..., Path], tmp_path: Path) -> None:
    recording = as_recording(np.random.default_rng(0).standard_normal((400, 6)))
    made = []
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        shared = TrainConfig(batch_size=32, held_out=0.0, seed=seed)
        (t,) = train(recording, tmp_path / name, [TOPK], shared).trained
        made.append(load_file(t.path)["w_dec"])
    np.testing.assert_array_equal(made[0], made[2])
    assert np.abs(made[0] - made[1]).max() > 1e-3


def test_the_steps_of_a_training_are_numbered_for_its_schedule(
    as_recording: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    step = Run.step

    def watched(self: Run, z: Any, number: int, steps: int, *rest: Any, **more: Any) -> None:
        seen.append((number, steps))
        step(self, z, number, steps, *rest, **more)

    monkeypatch.setattr(Run, "step", watched)
    recording = as_recording(np.random.default_rng(0).standard_normal((100, 6)))
    train(recording, tmp_path / "t", [TOPK], TrainConfig(batch_size=32, epochs=2, held_out=0.0))
    assert seen == [(i, 8) for i in range(8)]
    seen.clear()
    train(recording, tmp_path / "u", [TOPK], TrainConfig(batch_size=32, epochs=2, steps=5, held_out=0.0))
    assert seen == [(i, 5) for i in range(5)]
