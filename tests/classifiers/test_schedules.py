"""The learning rate of each step, and which decay each weight has: by their formulas, and as they reach the weights."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from benchkit.catalog.resolve import resolve
from benchkit.classifiers import tuner
from benchkit.classifiers.attentive import Attentive, AttentiveParams
from benchkit.classifiers.data import Split
from benchkit.classifiers.linear import Linear, LinearParams
from benchkit.classifiers.mlp import MLP, MLPParams
from benchkit.classifiers.params import TrainParams
from benchkit.classifiers.prototypical import Prototypical, PrototypicalParams
from benchkit.classifiers.streams import Stream
from benchkit.interfaces import Problem
from benchkit.machine.seeds import Purpose, generator

TWO = Problem("multiclass", 2)


def rates(n: int = 64, **params: Any) -> list[float]:
    """Of every step, one a pass."""
    stream = Stream(Split(np.arange(n), np.arange(0)), 0, (TrainParams(**({"min_steps": 0, "batch": n} | params)),))
    return [stream.rate(step) for step in range(stream.steps)]


def test_the_first_steps_rise_evenly_from_near_0() -> None:
    made = rates(epochs=100, warmup=0.1)
    assert made[:12] == pytest.approx([*(k / 11 for k in range(1, 12)), 0.5 * (1 + math.cos(math.pi / 90))])
    assert rates(epochs=10, warmup=0.25)[:4] == pytest.approx(
        [1 / 3.5, 2 / 3.5, 3 / 3.5, 0.5 * (1 + math.cos(math.pi * 0.5 / 7.5))]
    )


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_after_that_they_fall_along_half_a_cosine(warmup: float) -> None:
    made, warm = rates(epochs=100, warmup=warmup), round(100 * warmup)
    expected = [0.5 * (1 + math.cos(math.pi * (t - warm) / (100 - warm))) for t in range(warm, 100)]
    assert made[warm:] == pytest.approx(expected)
    assert made[warm] == 1.0


def test_a_constant_schedule_rises_too_and_then_stays() -> None:
    assert rates(epochs=10, warmup=0.3, schedule="constant") == pytest.approx([0.25, 0.5, 0.75, *[1.0] * 7])
    assert rates(epochs=5, schedule="constant") == [1.0] * 5


def test_the_whole_of_a_training_is_what_its_part_is_of() -> None:
    """Few examples get more passes, and their warm-up is a part of those."""
    assert rates(epochs=5, min_steps=40, warmup=0.5)[:20] == pytest.approx([k / 21 for k in range(1, 21)])


def moved(probe: Any, x: np.ndarray, y: np.ndarray, steps: int) -> list[np.ndarray]:
    """By how much the largest weight moves in each of the first steps, relative to the first."""
    from benchkit.classifiers import trainer

    seen: list[torch.Tensor] = []
    step = trainer._Run._step

    def watched(self: Any, *given: Any) -> torch.Tensor:
        seen.append(torch.cat([w.detach().flatten().clone() for w in self.w.values()]))
        return step(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._Run, "_step", watched)
        probe.fit(x, y, TWO, seed=0)
    return [float((b - a).abs().max()) for a, b in pairwise(seen[: steps + 1])]


def test_the_schedule_reaches_the_weights() -> None:
    """With a gradient that stays the same Adam moves a weight by the learning rate, whatever the gradient."""
    x, y = np.eye(2, 8, dtype=np.float32), np.array([0, 1])
    params = LinearParams(lr=1e-4, weight_decay=0.0, norm="none", epochs=40, min_steps=0, warmup=0.25, eps=1e-30)
    expected = [1e-4 * rate for rate in rates(2, epochs=40, warmup=0.25)[:20]]
    assert moved(Linear(params), x, y, 20) == pytest.approx(expected, rel=0.02)


def test_the_schedule_reaches_the_backbone_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[list[float]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *given: Any) -> Any:
        used.append([group["lr"] for group in self.param_groups])
        return step(self, *given)

    monkeypatch.setattr(tuner.torch.optim.AdamW, "step", watched)
    backbone = resolve("model", "random-vit,size=8,patch=4,width=16,depth=2,heads=2").build()
    backbone.setup("cpu")
    probe = resolve(
        "classifier", "finetune,lr=0.001,layer_decay=0.5,epochs=10,min_steps=0,batch=4,warmup=0.4,precision=float32"
    ).build()
    probe.bind(backbone)
    x = np.stack([backbone.preprocess(np.full((8, 8, 1), 60 * i, np.uint8)) for i in range(4)])
    probe.fit(x, np.array([0, 0, 1, 1]), TWO, seed=0)
    expected = rates(4, epochs=10, warmup=0.4)
    assert len(used) == 10
    for k, rate in enumerate(expected):
        assert set(np.round(np.array(used[k]) / rate, 9)) == {0.000125, 0.00025, 0.0005, 0.001}


def test_weights_of_a_fine_tuned_backbone_decay_and_move_as_they_are_told() -> None:
    backbone = resolve("model", "random-vit,size=8,patch=4,width=16,depth=1,heads=2").build()
    backbone.setup("cpu")
    for decay in ("matrices", "all"):
        params = resolve("classifier", f"finetune,weight_decay=0.3,lr=0.001,layer_decay=0.5,decay={decay}").params
        trainable = backbone.trainable()
        tuned = tuner.Tuner(trainable, backbone.dim, params)
        head = tuner.Head(backbone.dim, 2, params)
        names = {id(p): name for name, p in tuned.parameters.items()} | {
            id(head.weight): "head.weight",
            id(head.bias): "head.bias",
        }
        of = {
            names[id(p)]: (group["lr"], group["weight_decay"]) for group in tuned.groups(head) for p in group["params"]
        }
        assert set(of) == set(names.values())
        for name, found in of.items():
            matrix = name.endswith("weight") and "norm" not in name
            before_the_head = trainable.top - trainable.depth_of.get(name, trainable.top)
            decayed = 0.3 if matrix or decay == "all" else 0.0
            assert found == (pytest.approx(0.001 * 0.5**before_the_head), decayed), name


# --------------------------------------------------------------------------------------------------------------- decay


def test_each_part_of_a_prototypical_probe_has_its_own_rate_and_decay() -> None:
    params = PrototypicalParams(lr=1e-3, prototype_lr=2e-3, weight_decay=3e-3, last_weight_decay=4e-3)
    net = Prototypical(params).net((12, 8), 3)
    assert {name: net.rate(name, params) for name in net.init(np.random.default_rng(0))} == {
        "prototypes": (2e-3, 3e-3), "connections": (1e-3, 4e-3), "bias": (1e-3, 4e-3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("probe", "shape"),
    [
        (Linear(LinearParams(lr=0.5, weight_decay=0.25)), (8,)),
        (MLP(MLPParams(lr=0.5, weight_decay=0.25, hidden=(4,))), (8,)),
        (Attentive(AttentiveParams(lr=0.5, weight_decay=0.25)), (12, 8)),
    ],
)
def test_rates_and_decays_are_those_asked_for(probe: Any, shape: tuple[int, ...]) -> None:
    net = probe.net(shape, 3)
    found = [net.rate(name, probe.params) for name in net.init(np.random.default_rng(0))]
    assert {rate for rate, _ in found} == {0.5}
    assert {decay for _, decay in found} <= {0.25, 0.0}
    assert (0.5, 0.25) in found


@pytest.mark.parametrize("fused", [1, 10**9])
def test_each_head_and_each_part_of_it_decays_and_moves_at_its_own_rate(
    fused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of two prototypical heads, from where they begin: Adam moves by the rate, after a decay of rate times
    weight."""
    from benchkit.classifiers import trainer
    from benchkit.classifiers.trained import fit_grid
    from benchkit.interfaces import Subset

    monkeypatch.setattr(trainer, "FUSED", fused)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 12, 8)).astype(np.float32), np.arange(6) % 2
    one = {"epochs": 1, "min_steps": 0, "warmup": 0.0, "schedule": "constant", "prototypes": 2, "grad_clip": 0.0}
    plain = PrototypicalParams(lr=1e-3, prototype_lr=2e-3, weight_decay=0.0, last_weight_decay=0.0, eps=1e-30, **one)
    decaying = PrototypicalParams(
        lr=1e-3, prototype_lr=2e-3, weight_decay=30.0, last_weight_decay=4.0, eps=1e-30, **one
    )
    grid = [(Prototypical(p), Subset(np.arange(6), 0)) for p in (plain, decaying)]
    a, b = ({k: w.numpy() for k, w in f.weights.items()} for f in fit_grid(grid, x, y, TWO))  # type: ignore[attr-defined]
    first = Prototypical(plain).net((12, 8), 2).init(generator(0, Purpose.INIT))
    for name, rate, decay in (("prototypes", 2e-3, 30.0), ("connections", 1e-3, 4.0), ("bias", 1e-3, 4.0)):
        np.testing.assert_allclose(b[name] - a[name], -rate * decay * first[name], rtol=1e-3, atol=1e-6)
        assert abs(a[name] - first[name]).max() == pytest.approx(rate, rel=1e-2)
