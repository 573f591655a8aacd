"""Losses, their parts and gradients equal the official code's; what BirdJEPA's published code does otherwise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from benchkit import BenchkitError, SpecError, resolve
from benchkit_birdjepa import encoder
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.objectives.context import Context
from benchkit_birdjepa.objectives.sigreg import directions, invariance, sigreg
from benchkit_birdjepa.parameters import draw

TINY = EncoderConfig(64, 32, 8, 8, 32, 2, 2, n_cls_tokens=2)


@pytest.fixture
def doubles() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def objective(text: str) -> Any:
    return resolve("objective", text).build()


def started(text: str, config: EncoderConfig = TINY, **how: Any) -> tuple[Any, dict[str, Any], Context]:
    context, made = Context(config, **how), objective(text)
    own = made.init(jax.random.key(1), context)
    assert all(n.startswith("objective.") for n in own)
    return made, encoder.stacked(draw(config, 0), config) | own, context


def batch(n: int, views: int, config: EncoderConfig = TINY, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, views, config.input_h, config.input_w)).astype(np.float32)
    return {"x": jnp.asarray(x)}


def lossed(made: Any, params: Any, data: Any, context: Context, key: int = 0) -> Any:
    return jax.jit(lambda p, d: made.loss(p, d, jax.random.key(key), 0, context))(params, data)


def stepped(made: Any, params: Any, data: Any, context: Context) -> Any:
    """The loss and its gradient."""
    return jax.jit(jax.value_and_grad(lambda p: made.loss(p, data, jax.random.key(0), 0, context)[0]))(params)


# -------------------------------------------------------------------------------------------------------------- LeJEPA


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("case", ["v4b8p16k256", "v4b6p16k64", "v2b5p7k32", "v8b3p16k64", "v1b64p16k256"])
def test_lejepa_of_projections_equals_the_official_code(shared: Path, case: str) -> None:
    e = {n[len(case) + 1 :]: x for n, x in load_file(shared / "fixtures/pretraining/lejepa.safetensors").items()
         if n.startswith(case)}  # fmt: skip
    proj, raw = jnp.asarray(e["proj"]), jnp.asarray(e["directions_raw"])
    along, context = raw / jnp.linalg.norm(raw, axis=0, keepdims=True), Context(TINY)
    terms = {
        "sigreg": lambda p: sigreg(p, along, context),
        "sigreg_flat_views": lambda p: sigreg(p.reshape(1, -1, p.shape[-1]), along, context),
        "inv": invariance,
        "inv_global2": lambda p: invariance(p, 2),
        "lejepa": lambda p: objective(f"lejepa,views={len(p)}").of_projections(p, along, context)[0],
    }
    for name, term in terms.items():
        if f"f64.{name}" not in e:
            continue
        value, gradient = jax.jit(jax.value_and_grad(term))(proj)
        np.testing.assert_allclose(value, e[f"f64.{name}"], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(gradient, e[f"f64.{name}_grad"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_identical_views_are_where_their_centre_is_and_the_order_of_examples_means_nothing(norm: str) -> None:
    made, params, context = started(f"lejepa,views=3,hidden=16,norm={norm}")
    one = batch(5, 1)
    same = {"x": jnp.repeat(one["x"], 3, axis=1)}
    _, out = lossed(made, params, same, context)
    assert out.parts["invariance"] < 1e-9
    differing, order = batch(5, 3), np.array([3, 0, 4, 1, 2])
    a, _ = lossed(made, params, differing, context)
    b, _ = lossed(made, params, {"x": differing["x"][order]}, context)
    np.testing.assert_allclose(a, b, rtol=1e-5)
    assert out.encoded.cls.shape == (15, 2, 32), "the views of one example lie together"
    np.testing.assert_allclose(out.encoded.cls[0], out.encoded.cls[2], atol=1e-5)


def test_sigreg_has_its_floor_at_a_normal_distribution_and_grows_with_the_batch_at_a_point() -> None:
    along = directions(jax.random.key(0), 16, 256)
    np.testing.assert_allclose(jnp.linalg.norm(along, axis=0), 1, rtol=1e-6)
    for n in (64, 4096):
        normal = jax.random.normal(jax.random.key(1), (2, n, 16))
        assert 0.9 < sigreg(normal, along, Context(TINY)) < 1.3
        np.testing.assert_allclose(sigreg(0 * normal, along, Context(TINY)), 0.40205 * n, rtol=1e-3)


def test_batch_norm_sees_all_views_and_layer_norm_no_other_example() -> None:
    for norm, alone in (("batch", False), ("layer", True)):
        made, params, context = started(f"lejepa,views=2,hidden=16,norm={norm}")
        pooled = jax.random.normal(jax.random.key(0), (8, 32))
        a = made.projected(params, pooled, context)
        b = made.projected(params, pooled.at[4:].multiply(3), context)
        assert bool(jnp.allclose(a[:4], b[:4], atol=1e-5)) is alone


# --------------------------------------------------------------------------------------------------------------- Pixio


class Official:
    """The stored official model under this package's names: its image of 64 x 64 x 3 is a picture 192 wide."""

    config = EncoderConfig(64, 192, 8, 24, 32, 2, 2, n_cls_tokens=3, norm_eps=1e-6, gelu="exact")
    spec = "pixio,block=2,ratio=0.75,width=24,depth=3,heads=2"

    def __init__(self, shared: Path) -> None:
        self.e = load_file(shared / "fixtures/pretraining/pixio.safetensors")

    def named(self, of: str) -> dict[str, np.ndarray]:
        """Parameters or gradients. A class token and its position are one sum; their gradients are the same."""
        found = {n[len(of) + 1 :]: x for n, x in self.e.items() if n.startswith(f"{of}.")}
        pos = found.pop("pos_embed")
        d = "objective.decoder."
        named = {
            "patch_embed.proj.weight": found.pop("patch_embed.proj.weight").transpose(0, 2, 3, 1).reshape(32, -1),
            "pos_embed_hw": pos[:, 3:].reshape(1, 8, 8, 32),
            "cls_tokens": found.pop("cls_token") + (pos[:, :3] if of == "param" else 0),
            f"{d}pos_embed": found.pop("decoder_pos_embed"), f"{d}mask_token": found.pop("mask_token"),
        }  # fmt: skip
        for name, x in found.items():
            if name.startswith("decoder_blocks."):
                inner = name.split(".", 2)[2]
                stack = [found[f"decoder_blocks.{i}.{inner}"] for i in range(3)]
                named[f"{d}blocks.{inner}"] = np.stack(stack)
            elif name.startswith("decoder_"):
                named[f"{d}{name[8:]}"] = x
            else:
                named[name] = x
        return encoder.stacked(named, self.config) if of == "param" else named

    @property
    def places(self) -> np.ndarray:
        return np.argsort(self.e["mask"], axis=1, kind="stable")


@pytest.mark.usefixtures("doubles")
def test_pixio_and_every_gradient_equal_the_official_code(shared: Path) -> None:
    official = Official(shared)
    e, made, context = official.e, objective(official.spec), Context(official.config, dtype=jnp.float64)
    patches, grid = encoder.patchify(jnp.asarray(e["imgs"].transpose(0, 2, 3, 1).reshape(3, 64, 192)), official.config)
    np.testing.assert_array_equal(patches, e["patchify"])
    hidden = int(e["mask"][0].sum())

    def loss(params: Any, made: Any) -> Any:
        return made.of_order(params, patches, grid, jnp.asarray(official.places), hidden, None, context)[0]

    params = official.named("param")
    value, gradients = jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, made)
    np.testing.assert_allclose(value, e["loss"], rtol=1e-10)
    np.testing.assert_allclose(loss(params, objective(f"{official.spec},target=raw")), e["loss_raw_pixels"], rtol=1e-8)
    biased = objective(f"{official.spec},variance=biased")
    np.testing.assert_allclose(loss(params, biased), e["loss_norm_biased"], rtol=1e-10)
    found = {n: v for n, v in gradients.items() if not n.startswith("blocks.")}
    found |= {f"blocks.{i}.{n[7:]}": v[i] for n, v in gradients.items() if n.startswith("blocks.") for i in range(2)}
    expected = official.named("grad")
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], atol=1e-9 * max(1, np.abs(expected[name]).max()))


@pytest.mark.parametrize(
    ("grid", "block", "ratio", "fill", "hidden", "whole"),
    [
        ((32, 8), 4, 0.75, False, 192, True), ((32, 8), 4, 0.7, False, 192, True), ((16, 16), 4, 0.6, False, 160, True),
        ((12, 12), 4, 0.75, False, 112, True), ((32, 8), 4, 0.6, True, 153, False),
        ((128, 2), 2, 0.75, False, 192, True), ((64, 4), 1, 0.75, False, 192, True),
    ],
)  # fmt: skip
def test_whole_blocks_are_hidden_and_filled_up_on_demand(
    grid: tuple[int, int], block: int, ratio: float, fill: bool, hidden: int, whole: bool
) -> None:
    from benchkit_birdjepa.objectives.masks import hiding, order

    how = hiding(grid, block, ratio, fill)
    assert how.patches == hidden
    n = grid[0] * grid[1]
    places = np.asarray(order(jax.random.key(0), 6, grid, how))
    assert (np.sort(places, axis=1) == np.arange(n)).all()
    assert len({tuple(sorted(p[n - hidden :])) for p in places}) == 6, "each example has its own"
    mask = np.zeros((6, n))
    np.put_along_axis(mask, places[:, n - hidden :], 1, axis=1)
    shares = mask.reshape(6, grid[0] // block, block, grid[1] // block, block).mean(axis=(2, 4))
    assert np.isin(shares, (0, 1)).all() == whole
    assert (shares == 1).sum(axis=(1, 2)).min() >= hidden // block**2


@pytest.mark.parametrize(("block", "ratio"), [(3, 0.75), (4, 0.0), (1, 1.0)])
def test_masks_that_do_not_fit_are_one_line(block: int, ratio: float) -> None:
    with pytest.raises(BenchkitError, match=r"take another$"):
        started(f"pixio,block={block},ratio={ratio},width=16,depth=1,heads=2")


def test_hidden_patches_reach_no_token_and_seen_ones_no_target() -> None:
    made, params, context = started("pixio,block=2,width=16,depth=1,heads=2")
    key, x = jax.random.key(3), batch(2, 1)["x"]
    from benchkit_birdjepa.objectives.masks import hiding, order

    how = hiding(TINY.grid, 2, 0.75, False)
    places = np.asarray(order(key, 2, TINY.grid, how))
    patches, grid = encoder.patchify(x[:, 0], TINY)

    @jax.jit
    def of_order(params: Any, patches: Any) -> Any:
        return made.of_order(params, patches, grid, jnp.asarray(places), how.patches, None, context)

    def at(some: np.ndarray) -> Any:
        changed = np.array(patches)
        for i in range(2):
            changed[i, some[i]] += 1 + np.arange(64)
        return of_order(params, jnp.asarray(changed))

    base, hidden, seen = at(places[:, :0]), at(places[:, -how.patches :]), at(places[:, : -how.patches])
    np.testing.assert_array_equal(base[1].encoded.patches, hidden[1].encoded.patches)
    np.testing.assert_array_equal(base[1].encoded.cls, hidden[1].encoded.cls)
    assert not np.allclose(base[0], hidden[0])
    assert not np.allclose(base[1].encoded.patches, seen[1].encoded.patches)


@pytest.mark.slow
@pytest.mark.parametrize(
    "deviation", ["class_tokens=mean", "mask_token=encoder", "variance=biased", "fill=true,ratio=0.7"]
)
def test_what_birdjepa_does_otherwise_is_a_parameter(deviation: str) -> None:
    losses = []
    for spec in ("pixio,block=2,width=16,depth=1,heads=2", f"pixio,block=2,width=16,depth=1,heads=2,{deviation}"):
        made, params, context = started(spec)
        value, gradients = stepped(made, params, batch(4, 1), context)
        assert np.isfinite(value)
        assert all(np.abs(g).max() > 0 for n, g in gradients.items() if "qkv.bias" not in n), "all take part"
        losses.append(float(value))
    assert losses[0] != losses[1]


# ---------------------------------------------------------------------------------------------------------- supervised


def test_supervised_is_the_cross_entropy_of_a_linear_head() -> None:
    made, params, context = started("supervised", n_classes=5)
    x, labels = batch(6, 1)["x"], np.array([0, 1, 2, 3, 4, 0])
    loss, out = lossed(made, params, {"x": x, "labels": jnp.asarray(labels)}, context)
    pooled = np.asarray(encoder.encode(params, TINY, *encoder.patchify(x[:, 0], TINY)).cls.mean(1))
    logits = pooled @ np.asarray(params["objective.head.weight"]).T
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), labels]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(out.parts["accuracy"], (logits.argmax(1) == labels).mean())
    mixed = np.eye(5)[labels] * 0.7 + np.eye(5)[labels[::-1]] * 0.3
    soft, _ = lossed(made, params, {"x": x, "labels": jnp.asarray(mixed)}, context)
    np.testing.assert_allclose(soft, (np.log(np.exp(logits).sum(1)) - (mixed * logits).sum(1)).mean(), rtol=1e-5)


def test_several_labels_are_each_a_binary_cross_entropy() -> None:
    made, params, context = started("supervised,labels=multi,pool=patches,views=2", n_classes=3)
    x, labels = batch(4, 2)["x"], np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    loss, _ = lossed(made, params, {"x": x, "labels": jnp.asarray(labels)}, context)
    flat = x.reshape(8, 64, 32)
    pooled = np.asarray(encoder.encode(params, TINY, *encoder.patchify(flat, TINY)).patches.mean(1))
    p = 1 / (1 + np.exp(-pooled @ np.asarray(params["objective.head.weight"]).T))
    twice = np.repeat(labels, 2, axis=0)
    np.testing.assert_allclose(loss, -(twice * np.log(p) + (1 - twice) * np.log(1 - p)).mean(), rtol=1e-5)


def test_an_objective_that_cannot_be_is_one_line() -> None:
    with pytest.raises(BenchkitError, match="needs data with labels of 2 classes or more, not 0"):
        started("supervised")
    for text, said in (
        ("lejepa,view=2", "did you mean 'views'"), ("lejepa,global_views=9", "global_views=9 of views=4"),
        ("pixi", "did you mean 'pixio'"), ("pixio,width=10", "width=10 must be a multiple of heads=16"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=said):
            resolve("objective", text)


# ----------------------------------------------------------------------------------------------------------------- all


SMALL = ["supervised", "lejepa,views=2,hidden=16", "pixio,block=2,width=16,depth=1,heads=2"]


@pytest.mark.parametrize("spec", SMALL)
def test_what_a_probe_sees_has_no_gradient(spec: str) -> None:
    made, params, context = started(spec, n_classes=3)
    data = batch(4, made.views) | {"labels": jnp.array([0, 1, 2, 0])}

    def seen(params: Any) -> Any:
        _, out = made.loss(params, data, jax.random.key(0), 0, context)
        return jnp.square(out.encoded.cls).sum() + jnp.square(out.encoded.patches).sum()

    assert all((np.asarray(g) == 0).all() for g in jax.jit(jax.grad(seen))(params).values())


@pytest.mark.slow
@pytest.mark.parametrize("spec", SMALL)
def test_remat_scan_and_drop_path_are_the_trainings_to_choose(spec: str) -> None:
    made, params, _ = started(spec, n_classes=3)
    data = batch(4, made.views) | {"labels": jnp.array([0, 1, 2, 0])}

    def value(**how: Any) -> tuple[float, Any]:
        context = Context(TINY, n_classes=3, **how)
        return stepped(made, params, data, context)

    base, gradients = value()
    for how in ({"scan": False}, {"remat": "dots"}, {"remat": "full"}):
        other, theirs = value(**how)
        np.testing.assert_allclose(base, other, rtol=1e-5)
        for name, g in gradients.items():
            np.testing.assert_allclose(g, theirs[name], atol=1e-5)
    assert value(drop_path=0.5)[0] == value(drop_path=0.5)[0] != base
