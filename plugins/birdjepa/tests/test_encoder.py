"""Outputs and gradients equal the published implementation's, in JAX and in torch."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchkit_birdjepa import encoder, twin
from benchkit_birdjepa.config import EncoderConfig, read_config
from benchkit_birdjepa.parameters import draw, read_parameters

FIXTURES = ["plain", "registers", "modern"]


class Reference:
    def __init__(self, folder: Path) -> None:
        self.config = read_config(folder)
        self.named = read_parameters(folder, self.config)
        self.expected = load_file(folder / "expected.safetensors")

    def torch(self) -> twin.Encoder:
        model = twin.Encoder(self.config)
        model.load_state_dict({n: torch.from_numpy(x) for n, x in self.named.items()})
        return model


@pytest.fixture(params=FIXTURES, scope="module")
def reference(request: Any, shared: Path) -> Reference:
    return Reference(shared / "fixtures" / "birdjepa" / request.param)


def near(ours: Any, theirs: np.ndarray, tolerance: float = 1e-4) -> None:
    """Relative to the largest value; a gradient that is 0 but for rounding (of a key's bias) has the floor's size."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    if theirs.size:
        assert np.abs(ours - theirs).max() <= tolerance * max(np.abs(theirs).max(), 0.05)


def test_patches_lie_row_by_row(reference: Reference) -> None:
    e = reference.expected
    for patches, grid in (
        encoder.patchify(jnp.asarray(e["x"]), reference.config),
        twin.patchify(torch.from_numpy(e["x"]), reference.config),
    ):
        np.testing.assert_array_equal(np.asarray(patches), e["patches"])
        np.testing.assert_array_equal(np.asarray(grid), e["grid"])


@pytest.mark.parametrize("way", ["scan", "unrolled", "dots", "full"])
def test_outputs_and_every_gradient_in_jax(reference: Reference, way: str) -> None:
    e, config = reference.expected, reference.config
    how: dict[str, Any] = {"scan": way != "unrolled", "remat": way if way in ("dots", "full") else "none"}

    def loss(params: encoder.Params) -> tuple[jax.Array, encoder.Encoded]:
        out = encoder.encode(params, config, jnp.asarray(e["patches"]), jnp.asarray(e["grid"]), **how)
        return (out.patches * e["loss.w_patches"]).sum() + (out.cls * e["loss.w_cls"]).sum(), out

    with jax.default_matmul_precision("highest"):
        (value, out), grads = jax.value_and_grad(loss, has_aux=True)(encoder.stacked(reference.named, config))
    near(out.patches, e["out.patches"])
    near(out.cls, e["out.cls"])
    near(out.reg, e["out.reg"])
    near(value.reshape(1), e["loss"])
    found = encoder.unstacked(grads, config)
    assert found.keys() == {n[5:] for n in e if n.startswith("grad.")}
    for name, gradient in found.items():
        near(gradient, e[f"grad.{name}"])


def test_outputs_and_every_gradient_in_torch(reference: Reference) -> None:
    e, model = reference.expected, reference.torch()
    out = model(torch.from_numpy(e["patches"]), torch.from_numpy(e["grid"]).long())
    loss = (out.patches * torch.from_numpy(e["loss.w_patches"])).sum() + (
        out.cls * torch.from_numpy(e["loss.w_cls"])
    ).sum()
    loss.backward()
    near(out.patches.detach(), e["out.patches"])
    near(out.cls.detach(), e["out.cls"])
    near(out.reg.detach(), e["out.reg"])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        near(parameter.grad, e[f"grad.{name}"])


def test_a_subset_of_the_patches_is_encoded_by_its_places(reference: Reference) -> None:
    e, config = reference.expected, reference.config
    seen = np.take_along_axis(e["patches"], e["visible"][:, :, None], 1)
    grid = np.take_along_axis(e["grid"], e["visible"][:, :, None], 1)
    ours = encoder.encode(encoder.stacked(reference.named, config), config, jnp.asarray(seen), jnp.asarray(grid))
    theirs = reference.torch()(torch.from_numpy(seen), torch.from_numpy(grid).long())
    for out in (ours, [t.detach() for t in theirs]):
        near(out[0], e["visible.cls"])
        near(out[1], e["visible.patches"])


def test_the_order_in_which_patches_are_given_changes_nothing(reference: Reference) -> None:
    e, config = reference.expected, reference.config
    params, order = (
        encoder.stacked(reference.named, config),
        np.random.default_rng(1).permutation(e["patches"].shape[1]),
    )
    out = encoder.encode(params, config, jnp.asarray(e["patches"][:, order]), jnp.asarray(e["grid"][:, order]))
    near(out.patches, e["out.patches"][:, order])
    near(out.cls, e["out.cls"])


ROPE_REGISTERS = EncoderConfig(
    input_h=32, input_w=32, patch_h=8, patch_w=16, embed_dim=32, depth=2, n_heads=2, n_cls_tokens=2, n_reg_tokens=3,
    use_rope=True, use_swiglu=True, use_layerscale=True, layerscale_init=0.5,
)  # fmt: skip


def test_registers_do_not_turn_with_rotary_positions() -> None:
    """Moving all patches by one row and column turns them alike: attention among them is the same, and what registers
    and class tokens see of them changes only if those turned too."""
    config = ROPE_REGISTERS
    params = encoder.stacked(draw(config, 0), config)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32))
    patches, grid = encoder.patchify(x, config)
    out = encoder.encode(params, config, patches, grid)
    one = config.__class__(**{**config.__dict__, "n_reg_tokens": 0})
    bare = encoder.encode({n: v for n, v in params.items() if n != "reg_tokens"}, one, patches, grid)
    assert not np.allclose(out.patches, bare.patches, atol=1e-4), "registers take part"
    swapped = {**params, "reg_tokens": params["reg_tokens"][:, ::-1]}
    turned = encoder.encode(swapped, config, patches, grid)
    near(turned.patches, np.asarray(out.patches))  # the place of a register means nothing
    near(turned.reg[:, ::-1], np.asarray(out.reg))


@pytest.mark.parametrize(
    "config",
    [
        ROPE_REGISTERS,
        EncoderConfig(64, 32, 4, 16, 48, 3, 4, use_qk_norm=True),
        EncoderConfig(64, 32, 8, 16, 48, 3, 4, norm_eps=1e-3, gelu="exact", attention_scale=0.9, residual_scale=0.5),
    ],
)
def test_both_frameworks_agree_in_every_combination(config: EncoderConfig) -> None:
    named = draw(config, 3)
    model = twin.Encoder(config)
    model.load_state_dict({n: torch.from_numpy(x) for n, x in named.items()})
    x = np.random.default_rng(0).standard_normal((2, config.input_h, config.input_w)).astype(np.float32)
    theirs = model(*twin.patchify(torch.from_numpy(x), config))
    ours = encoder.encode(encoder.stacked(named, config), config, *encoder.patchify(jnp.asarray(x), config))
    for a, b in zip(ours, theirs, strict=True):
        near(a, b.detach().numpy())


def test_places_inside_a_block_sum_up_and_are_the_same_in_both_frameworks(reference: Reference) -> None:
    e, config = reference.expected, reference.config
    ours: dict[str, np.ndarray] = {}
    theirs: dict[str, np.ndarray] = {}
    params = encoder.stacked(reference.named, config)
    encoder.encode(
        params,
        config,
        jnp.asarray(e["patches"]),
        jnp.asarray(e["grid"]),
        tap=lambda n, x: ours.update({n: np.asarray(x)}),
    )
    reference.torch()(
        torch.from_numpy(e["patches"]), torch.from_numpy(e["grid"]).long(),
        tap=lambda n, x: theirs.update({n: x.detach().numpy()}),
    )  # fmt: skip
    assert ours.keys() == theirs.keys()
    for name in ours:
        near(ours[name], theirs[name])
    for i in range(config.depth):
        b = f"blocks.{i}."
        near(ours[b + "resid_mid"], ours[b + "resid_pre"] + ours[b + "attn_out"])
        near(ours[b + "resid_post"], ours[b + "resid_mid"] + ours[b + "mlp_out"])


def test_bfloat16_is_near_float32(reference: Reference) -> None:
    e, config = reference.expected, reference.config
    params = encoder.stacked(reference.named, config)
    out = encoder.encode(params, config, jnp.asarray(e["patches"]), jnp.asarray(e["grid"]), dtype=jnp.bfloat16)
    assert out.patches.dtype == jnp.float32
    assert np.linalg.norm(out.patches - e["out.patches"]) < 0.03 * np.linalg.norm(e["out.patches"])
    assert np.abs(out.patches - e["out.patches"]).max() > 1e-4, "it is not float32"
