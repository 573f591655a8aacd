"""muP's numbers equal microsoft/mup's; the coordinate check, which the standard parameterisation fails; the width at
which a rate that is too large hurts."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchkit import resolve
from benchkit_birdjepa import encoder
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.objectives.context import Context
from benchkit_birdjepa.optimisers import Optimiser, make
from benchkit_birdjepa.parameterisation import Parameterisation
from benchkit_birdjepa.schedules import Schedule

MUP = Parameterisation("mup", base_width=64, init="fan_in")
STANDARD = Parameterisation("standard", init="fan_in")
CLASSES = 10


def sized(width: int, depth: int = 3) -> EncoderConfig:
    """Heads of 16, 32 patches of 16 values."""
    return EncoderConfig(32, 16, 4, 4, width, depth, width // 16)


@cache
def examples() -> tuple[jax.Array, jax.Array]:
    """Ten patterns in noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, 256)
    x = rng.standard_normal((CLASSES, 32, 16))[labels] + 1.5 * rng.standard_normal((256, 32, 16))
    return jnp.asarray(x[:, None], jnp.float32), jnp.asarray(labels)


def trained(
    width: int, how: Parameterisation, optimiser: Optimiser, steps: int, n: int = 32,
    look: Callable[[int, Any, Any], None] | None = None,
) -> np.ndarray:  # fmt: skip
    """The loss of every step. look: is shown the parameters before each."""
    config = how.scaled(sized(width))
    context = Context(config, CLASSES, readout=how.readout(config), read_std=how.read_std(config))
    made = resolve("objective", "supervised").build()
    own = made.init(jax.random.key(0), context)
    params: Any = encoder.stacked(how.draw(config, 0), config) | own
    transform = make(optimiser, Schedule("wsd", min(5, steps // 2), 0), steps, config, how)
    x, labels = examples()

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, labels: jax.Array) -> Any:
        data = {"x": x, "labels": labels}
        loss, grads = jax.value_and_grad(lambda p: made.loss(p, data, None, 0, context)[0])(params)
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses = transform.init(params), []
    for i in range(steps):
        if look is not None:
            look(i, params, context)
        start = i * n % 256
        params, state, loss = step(params, state, x[start : start + n], labels[start : start + n])
        losses.append(float(loss))
    if look is not None:
        look(steps, params, context)
    return np.array(losses)


# ------------------------------------------------------------------------------------------------------------- numbers

THEIRS = {
    "b.qkv.weight": "blocks.attn.qkv.weight", "b.o.weight": "blocks.attn.proj.weight",
    "b.f1.weight": "blocks.mlp.fc1.weight", "b.f2.weight": "blocks.mlp.fc2.weight", "pos": "pos_embed_hw",
    "cls": "cls_tokens", "pe.weight": "patch_embed.proj.weight", "hd.weight": "objective.head.weight",
    "pe.bias": "patch_embed.proj.bias", "b.n1.weight": "blocks.norm1.weight", "b.g1": "blocks.gamma1",
    "b.qkv.bias": "blocks.attn.qkv.bias", "n.weight": "norm.weight",
}  # fmt: skip


@pytest.mark.parametrize("width", [64, 128, 256, 512])
def test_rates_decay_and_first_weights_equal_the_packages(shared: Path, width: int) -> None:
    e = json.loads((shared / "fixtures/pretraining/mup.json").read_text())
    config, how = sized(width), Parameterisation("mup", base_width=e["base_width"])
    for theirs, ours in THEIRS.items():
        record, factors = e["widths"][str(width)]["params"][theirs], how.factors(ours, config, "adamw", "keller")
        assert record["adamw"]["lr"] == pytest.approx(e["lr"] * factors.rate)
        assert record["adamw"]["wd"] == pytest.approx(e["weight_decay"] * factors.decay)
        if (std := record["init_std_for_std_0.02"]) is not None:
            assert how.std(ours, (1, 1), config) == pytest.approx(std, rel=0.03)
    assert how.readout(config) * width == e["base_width"]
    assert how.factors("norm.weight", config, "adamw", "keller").eps == 64 / width


def test_muons_rate_falls_with_moonlights_scale_alone() -> None:
    name = "blocks.mlp.fc1.weight"
    assert MUP.factors(name, sized(256), "muon", "keller").rate == 1
    moonlight = MUP.factors(name, sized(256), "muon", "moonlight")
    assert (moonlight.rate, moonlight.decay) == (0.5, 2)


def test_logits_and_depth_have_their_factors_which_the_folder_keeps() -> None:
    how = Parameterisation("mup", base_width=64, base_head_dim=16, base_depth=2)
    config = how.scaled(EncoderConfig(32, 16, 4, 4, 128, 4, 2))
    assert config.attention_scale == 4 / 64
    assert config.residual_scale == 0.5
    assert how.factors("blocks.mlp.fc1.weight", config, "adamw", "keller").eps == 0.25
    base = EncoderConfig(32, 16, 4, 4, 64, 2, 4)
    assert how.scaled(base) == base


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", [Optimiser(), Optimiser("muon", muon_scale="moonlight")])
def test_at_the_base_width_both_are_the_same_to_the_bit(optimiser: Optimiser) -> None:
    ends: list[dict[str, np.ndarray]] = []

    def look(i: int, params: Any, context: Context) -> None:
        if i == 3:
            ends.append({n: np.asarray(x) for n, x in params.items()})

    for how in (MUP, STANDARD):
        trained(64, how, optimiser, 3, 8, look)
    assert ends[0].keys() == ends[1].keys()
    assert all((ends[0][n] == ends[1][n]).all() for n in ends[0])


# ---------------------------------------------------------------------------------------------------- coordinate check

WIDTHS = (64, 128, 256)
PLACES = ("attn_out", "mlp_out", "resid_post")


def slopes(how: Parameterisation, widths: tuple[int, ...] = WIDTHS, steps: int = 5) -> dict[str, float]:
    """Of log mean |x| over log width after some steps, of every block's places."""
    sizes: dict[str, list[float]] = {}
    x, _ = examples()

    def look(i: int, params: Any, context: Context) -> None:
        if i != steps:
            return

        def keep(name: str, values: jax.Array) -> None:
            if name.rpartition(".")[2] in PLACES:
                found[name] = jnp.abs(values).mean()

        @jax.jit
        def run(params: Any) -> Any:
            encoder.encode(params, context.config, *encoder.patchify(x[:16, 0], context.config), tap=keep)
            return dict(found)

        found: dict[str, jax.Array] = {}
        for name, size in run(params).items():
            sizes.setdefault(name, []).append(float(size))

    for width in widths:
        trained(width, how, Optimiser(lr=2**-7, weight_decay=0.0, b2=0.95, clip=0.0), steps, 16, look)
    logs = np.log(widths)
    return {n: float(np.polyfit(logs, np.log(v), 1)[0]) for n, v in sizes.items()}


class WithoutSlowerMatrices(Parameterisation):
    """What fails the check: hidden matrices at the embedding's rate."""

    def factors(self, name: str, *rest: Any) -> Any:
        return super().factors("norm.weight", *rest)


@pytest.mark.slow
def test_the_coordinate_check_is_passed_by_mup_and_failed_without() -> None:
    ours = slopes(MUP)
    assert len(ours) == 9
    assert max(map(abs, ours.values())) < 0.15, ours
    assert max(slopes(STANDARD).values()) > 0.5
    assert max(slopes(WithoutSlowerMatrices("mup", init="fan_in")).values()) > 0.5


@pytest.mark.slow
def test_at_four_times_the_best_rate_width_helps_under_mup_and_hurts_without() -> None:
    steep = Optimiser(lr=2**-5, weight_decay=0.0, b2=0.95, clip=0.0)
    ends = {how.kind: [trained(w, how, steep, 60)[-10:].mean() for w in (64, 256)] for how in (MUP, STANDARD)}
    assert ends["mup"][0] == ends["standard"][0]
    assert ends["mup"][1] < ends["mup"][0], ends
    assert ends["standard"][1] > ends["standard"][0], ends
