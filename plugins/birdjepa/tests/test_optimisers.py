"""Every parameter by its rule; steps equal the references; schedules equal the stored ones."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from benchkit import BenchkitError, resolve
from benchkit_birdjepa import encoder
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.objectives.context import Context
from benchkit_birdjepa.optimisers import Optimiser, accumulated, make, orthogonalised, rules
from benchkit_birdjepa.parameterisation import Parameterisation
from benchkit_birdjepa.parameters import draw
from benchkit_birdjepa.schedules import Schedule, schedule

CONFIG = EncoderConfig(32, 32, 16, 16, 32, 3, 2, n_reg_tokens=1, use_qk_norm=True, use_swiglu=True, use_layerscale=True)
FLAT = Schedule("constant")


@cache
def all_parameters(config: EncoderConfig = CONFIG) -> dict[str, Any]:
    found = encoder.stacked(draw(config, 0), config)
    for spec in ("lejepa,hidden=16", "pixio,block=1,width=16,depth=2,heads=2", "supervised"):
        made = resolve("objective", spec).build()
        found |= made.init(jax.random.key(0), Context(config, n_classes=3))
    return found


def test_the_matrices_of_blocks_and_they_alone_go_to_muon() -> None:
    of = rules(Optimiser("muon"), all_parameters(), CONFIG, Parameterisation())
    names = ("attn.qkv", "attn.proj", "mlp.w1", "mlp.w2", "mlp.w3")
    ours = {f"{p}blocks.{n}.weight" for p in ("", "objective.decoder.") for n in names}
    assert {n for n, r in of.items() if r.optimiser == "muon"} == ours
    assert of["blocks.attn.qkv.weight"].rate == 0.02
    assert of["blocks.attn.qkv.bias"].rate == 1e-3


def test_matrices_and_they_alone_decay() -> None:
    of = rules(Optimiser(), all_parameters(), CONFIG, Parameterisation())
    kept = {n for n, r in of.items() if not r.decay}
    assert {n for n in of if n.endswith("bias") or "norm" in n or "gamma" in n or "token" in n or "pos_" in n} == kept
    tokens = rules(Optimiser(decay_tokens=True), all_parameters(), CONFIG, Parameterisation())
    assert {n for n in kept if tokens[n].decay} == {n for n in of if "token" in n or "pos_" in n}


@pytest.mark.parametrize("case", ["tall", "wide", "square"])
@pytest.mark.parametrize(
    ("reference", "how", "steps", "tolerance"),
    [
        ("keller_f32", {}, 3, 2e-5), ("torch_original_f32", {}, 3, 1e-4), ("keller", {"ns_dtype": "bfloat16"}, 3, 0.12),
        ("torch_match_rms_f32", {"muon_scale": "moonlight"}, 3, 1e-4),
        ("optax_width", {"nesterov": "optax"}, 3, 3e-4), ("optax_width_nonesterov", {"nesterov": "none"}, 3, 3e-4),
    ],
)  # fmt: skip
def test_muon_equals_its_references(
    shared: Path, case: str, reference: str, how: dict[str, Any], steps: int, tolerance: float
) -> None:
    e = load_file(shared / "fixtures/pretraining/muon.safetensors")
    weight, grads = e[f"{case}.weight"], e[f"{case}.grads"]
    config = Optimiser("muon", muon_lr=0.02, muon_decay=0.1, clip=0.0, **how)
    plain = EncoderConfig(32, 32, 16, 16, 32, 1, 2)
    name = "blocks.attn.proj.weight"
    transform = make(config, FLAT, 10, plain)
    params: Any = {name: jnp.asarray(weight)[None]}
    state, before = transform.init(params), weight
    for i in range(steps):
        updates, state = transform.update({name: jnp.asarray(grads[i])[None]}, state, params)
        params = optax.apply_updates(params, updates)
        after, expected = np.asarray(params[name][0]), e[f"{case}.{reference}"][i]
        assert np.linalg.norm(after - expected) < tolerance * np.linalg.norm(expected - before)
        before = expected


def test_stacked_blocks_are_separate_matrices(shared: Path) -> None:
    e = load_file(shared / "fixtures/pretraining/muon.safetensors")
    x = jnp.asarray(e["stacked.grads"][0])
    together = orthogonalised(x)
    for one, alone in zip(x, together, strict=True):
        np.testing.assert_allclose(orthogonalised(one), alone, atol=1e-6)


def test_queries_keys_and_values_are_three_matrices_to_muon() -> None:
    rng = np.random.default_rng(0)
    g = rng.standard_normal((1, 96, 32)).astype(np.float32)
    g[:, 64:] *= 30
    name = "blocks.attn.qkv.weight"
    transform = make(Optimiser("muon", muon_lr=1.0, clip=0.0), FLAT, 1, EncoderConfig(32, 32, 16, 16, 32, 1, 2))
    params = {name: jnp.zeros((1, 96, 32))}
    updates, _ = transform.update({name: jnp.asarray(g)}, transform.init(params), params)
    norms = np.linalg.norm(np.asarray(updates[name]).reshape(3, 32, 32), axis=(1, 2))
    assert norms.max() / norms.min() < 1.2
    assert (np.asarray(orthogonalised(jnp.zeros((4, 4)))) == 0).all()
    singular = np.linalg.svd(np.asarray(orthogonalised(jnp.asarray(g[0, :32]))), compute_uv=False)
    assert singular.max() < 1.3


def test_adamw_equals_optax() -> None:
    params = {n: x for n, x in all_parameters().items() if "objective" not in n}
    rng = np.random.default_rng(0)
    mask = {n: r.decay > 0 for n, r in rules(Optimiser(), params, CONFIG, Parameterisation()).items()}
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule(Schedule(warmup=2), 5), 0.9, 0.95, 1e-8, weight_decay=0.3, mask=mask),
    )
    ours = make(Optimiser(lr=1.0, weight_decay=0.3, b2=0.95), Schedule(warmup=2), 5, CONFIG)
    a, b, p, q = ours.init(params), theirs.init(params), params, params
    first, second = jax.jit(ours.update), jax.jit(theirs.update)
    for _ in range(3):
        grads = {n: jnp.asarray(rng.standard_normal(x.shape, np.float32)) for n, x in params.items()}
        u, a = first(grads, a, p)
        v, b = second(grads, b, q)
        p, q = optax.apply_updates(p, u), optax.apply_updates(q, v)
    for name in params:
        np.testing.assert_allclose(p[name], q[name], rtol=2e-5, atol=2e-5)


def test_a_block_learns_slower_than_the_next_and_the_average_follows() -> None:
    params = all_parameters()
    transform = make(Optimiser(lr=1.0, weight_decay=0.0, layer_decay=0.5, ema=0.9, clip=0.0), FLAT, 5, CONFIG)
    ones = {n: jnp.ones_like(x) for n, x in params.items()}
    updates, state = jax.jit(transform.update)(ones, transform.init(params), params)
    steps = np.asarray(updates["blocks.mlp.w1.weight"])[:, 0, 0]
    np.testing.assert_allclose(steps, [-0.125, -0.25, -0.5], rtol=1e-5)
    np.testing.assert_allclose(updates["patch_embed.proj.weight"], -0.0625, rtol=1e-5)
    for name in ("norm.weight", "objective.head.weight"):
        np.testing.assert_allclose(updates[name], -1, rtol=1e-5)
    np.testing.assert_allclose(state.ema["norm.weight"], 0.9 * 1 + 0.1 * (1 - 1), rtol=1e-5)
    assert not make(Optimiser(), FLAT, 5, CONFIG).init(params).ema


@pytest.mark.parametrize("pieces", [2, 4])
def test_pieces_of_a_batch_give_the_gradient_of_the_whole(pieces: int) -> None:
    w = jnp.arange(3.0)
    data = {"x": jax.random.normal(jax.random.key(0), (8, 3)), "y": jnp.arange(8.0)}

    def step(batch: Any, key: Any) -> Any:
        return jax.value_and_grad(lambda w: jnp.square(batch["x"] @ w - batch["y"]).mean())(w)

    whole, parts = step(data, None), accumulated(step, data, jax.random.key(1), pieces)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), whole, parts)
    with pytest.raises(BenchkitError, match=r"a batch of 8 .* 3 pieces"):
        accumulated(step, data, jax.random.key(1), 3)


def test_schedules_equal_the_stored_ones(shared: Path) -> None:
    e = json.loads((shared / "fixtures/pretraining/schedules.json").read_text())
    shapes = {
        "wsd_linear": "linear", "wsd_one_minus_sqrt": "sqrt", "wsd_cosine": "cosine", "wsd_square": "square",
        "wsd_minicpm_exponential_half_life_T10": "exponential",
    }  # fmt: skip
    t = np.arange(101)
    for name, shape in shapes.items():
        np.testing.assert_allclose(schedule(Schedule("wsd", 10, 20, shape), 100)(t), e[name], atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(schedule(Schedule("cosine", 10), 100)(t), e["cosine"], atol=1e-6)


@pytest.mark.parametrize(
    ("config", "total", "at", "expected"),
    [
        (Schedule("wsd"), 4, [0, 3, 4], [1, 1, 1]), (Schedule("wsd", decay=4), 4, [0, 2, 4], [1, 0.5, 0]),
        (Schedule("wsd", warmup=2), 4, [0, 1, 2, 4], [0, 0.5, 1, 1]),
        (Schedule("cosine", warmup=4), 4, [2, 4], [0.5, 1]),
        (Schedule("wsd", 1, 0), 1, [0, 1], [0, 1]), (Schedule("wsd", 0, 1), 1, [0, 1], [1, 0]),
        (Schedule("cosine", floor=0.1), 10, [0, 10, 99], [1, 0.1, 0.1]),
        (Schedule("wsd", 2, 2), 4, [1, 2, 3], [0.5, 1, 0.5]),
    ],
)  # fmt: skip
def test_parts_of_length_0_drop_out(config: Schedule, total: int, at: list[int], expected: list[float]) -> None:
    np.testing.assert_allclose(schedule(config, total)(np.array(at)), expected, atol=1e-6)


def test_parts_longer_than_the_whole_are_one_line() -> None:
    with pytest.raises(BenchkitError, match="a warm-up of 3 and a decay of 3 are longer than 5 updates"):
        schedule(Schedule("wsd", 3, 3), 5)
