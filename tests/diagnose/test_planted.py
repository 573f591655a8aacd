"""Faults planted in a healthy backbone are found, and named by their place, their weights and what helps."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchkit.diagnose.run import Looked, conclude

from .conftest import Weights

Look = Callable[..., Looked]
Plant = Callable[..., str]
DIM = 29


def only_origin(looked: Looked) -> object:
    assert not looked.healthy
    assert {o.dim for o in looked.origins} == {DIM}, looked.verdict
    return looked.origins[0]


def add(name: str, index: object, value: float) -> Callable[[Weights], None]:
    def change(w: Weights) -> None:
        w[name][index] += value

    return change


def scale(name: str, index: object, factor: float) -> Callable[[Weights], None]:
    def change(w: Weights) -> None:
        w[name][index] *= factor

    return change


WRITTEN = {
    "fc2 bias of the first block": (add("blocks.0.mlp.fc2.bias", DIM, 900.0), "MLP", 0, "blocks.0.mlp.fc2", "bias"),
    "fc2 bias of the last block": (add("blocks.2.mlp.fc2.bias", DIM, 900.0), "MLP", 2, "blocks.2.mlp.fc2", "bias"),
    "negative": (add("blocks.1.mlp.fc2.bias", DIM, -900.0), "MLP", 1, "blocks.1.mlp.fc2", "bias"),
    "moderate": (add("blocks.1.mlp.fc2.bias", DIM, 18.0), "MLP", 1, "blocks.1.mlp.fc2", "bias"),
    "moderate and negative": (add("blocks.0.attn.proj.bias", DIM, -18.0), "attention", 0, "blocks.0.attn.proj", "bias"),
    "attention output bias": (add("blocks.1.attn.proj.bias", DIM, 300.0), "attention", 1, "blocks.1.attn.proj", "bias"),
    "fc2 weights": (scale("blocks.1.mlp.fc2.weight", DIM, 300.0), "MLP", 1, "blocks.1.mlp.fc2", "weight"),
    "one fc2 weight": (add("blocks.1.mlp.fc2.weight", (DIM, 100), 500.0), "MLP", 1, "blocks.1.mlp.fc2", "weight"),
    "attention output weights": (
        scale("blocks.2.attn.proj.weight", DIM, 500.0), "attention", 2, "blocks.2.attn.proj", "weight",
    ),
    "patch projection bias": (add("patch_embed.proj.bias", DIM, 200.0), "embedding", None, "patch_embed.proj", "bias"),
    "patch projection weights": (
        scale("patch_embed.proj.weight", DIM, 100.0), "embedding", None, "patch_embed.proj", "weight",
    ),
    "positions": (add("pos_embed", (0, slice(None), DIM), 100.0), "embedding", None, "pos_embed", "positions"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRITTEN)
def test_the_writer_of_an_outlier_dimension_is_named(planted: Plant, look: Look, what: str) -> None:
    change, module, block, layer, part = WRITTEN[what]
    looked = look(planted(change))
    origin = only_origin(looked)
    assert (origin.module, origin.block, origin.layer, origin.part) == (module, block, layer, part), looked.verdict
    if block is not None:
        place = "attn_out" if module == "attention" else "mlp_out"
        assert origin.first == f"blocks.{block}.{place}"
    if part == "bias":
        assert (origin.peak.value < 0) == ("negative" in what)
        assert origin.peak.where == "in every token"
    assert origin.passed_by or block == 2  # nothing was learnt to suppress it
    first = origin.first if block is not None else "blocks.0.resid_pre"
    healthy_before = [j.healthy for j in looked.judged[: [j.point for j in looked.judged].index(first)]]
    assert all(healthy_before)
    assert not looked.at("blocks.2.resid_post").healthy
    raw, *ways = looked.effects
    assert raw.point == "blocks.2.resid_post"
    better = {e.name: e for e in ways}
    assert better["normalise per dimension"].norm_share < raw.norm_share
    assert better["whiten"].participation > raw.participation
    assert "normalise per dimension, or whiten" in looked.remedy
    assert looked.others[0].dims.count(DIM) == 1


@pytest.mark.parametrize("name", ["cls_token", "pos_embed"])
def test_an_outlier_in_the_class_token_alone_is_found(planted: Plant, look: Look, name: str) -> None:
    looked = look(planted(add(name, (0, 0, DIM), 60.0)))
    origin = only_origin(looked)
    assert (origin.module, origin.layer) == ("embedding", name)
    assert (origin.peak.where, origin.peak.positions, origin.peak.first_position) == ("at some positions", 1, 0)
    assert looked.at("pooled").healthy  # the mean of the patch tokens never sees it


def test_an_outlier_at_a_few_positions_is_found(planted: Plant, look: Look) -> None:
    looked = look(planted(add("pos_embed", (0, [50, 51, 120], DIM), -18.0)))
    origin = only_origin(looked)
    assert (origin.module, origin.layer, origin.part) == ("embedding", "pos_embed", "positions")
    assert (origin.peak.positions, origin.peak.first_position) == (3, 50)
    assert origin.peak.value < 0


def test_two_dimensions_at_once_have_an_origin_each(planted: Plant, look: Look) -> None:
    def change(w: Weights) -> None:
        w["blocks.0.mlp.fc2.bias"][7] += 700.0
        w["blocks.2.attn.proj.bias"][40] -= 90.0

    looked = look(planted(change))
    found = {o.dim: (o.module, o.block, o.layer) for o in looked.origins}
    assert found == {7: ("MLP", 0, "blocks.0.mlp.fc2"), 40: ("attention", 2, "blocks.2.attn.proj")}
    assert looked.at("blocks.1.resid_post").dims == (7,)


@pytest.mark.parametrize("norm", ["blocks.1.norm1", "blocks.2.norm2", "norm"])
@pytest.mark.parametrize(("part", "value"), [("weight", 60.0), ("bias", -60.0)])
def test_a_norm_that_makes_an_outlier_is_named_and_the_stream_is_healthy(
    planted: Plant, look: Look, norm: str, part: str, value: float
) -> None:
    looked = look(planted(add(f"{norm}.{part}", DIM, value)))
    origin = only_origin(looked)
    assert (origin.module, origin.first, origin.layer, origin.part) == ("norm", norm, norm, part)
    assert not looked.at(norm).healthy
    assert all(j.healthy for j in looked.judged if j.stats.place.kind == "residual")
    assert "record at blocks.2.resid_post" in looked.remedy.lower()


def test_the_norm_of_pooled_features_is_looked_at_too(planted: Plant, look: Look) -> None:
    looked = look(planted(add("fc_norm.weight", DIM, 50.0)))
    origin = only_origin(looked)
    assert (origin.first, origin.layer, origin.part) == ("pooled", "fc_norm", "weight")
    assert [j.point for j in looked.judged if not j.healthy] == ["pooled"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(planted: Plant, look: Look, value: float) -> None:
    looked = look(planted(add("blocks.1.mlp.fc2.weight", (3, 4), value)))
    assert [f.kind for f in looked.findings] == ["nan"]
    assert "block 1's MLP (blocks.1.mlp_out)" in looked.verdict
    assert "blocks.1.mlp.fc2 (1 of 16,384)" in looked.verdict
    assert looked.at("blocks.1.norm2").healthy
    assert not looked.at("blocks.1.mlp_out").healthy
    assert not looked.effects


def test_broken_weights_that_no_place_uses_are_told_of(look: Look, shared: Path) -> None:
    healthy = look(f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}")
    layers = (replace(healthy.layers[0], n_nan=3), *healthy.layers[1:])
    looked = conclude(replace(healthy, layers=layers), None)
    assert not looked.healthy
    assert f"{layers[0].name} (3 of" in looked.verdict
    assert looked.verdict.endswith("none of the places that are shown uses them. Repair or fetch the checkpoint anew: "
                                   "nothing recorded behind the first NaN can be used.")  # fmt: skip
    assert looked.effects == ()


def test_an_overflow_is_told_from_broken_weights(planted: Plant, look: Look) -> None:
    def change(w: Weights) -> None:
        w["blocks.0.mlp.fc2.weight"] *= 1e38

    looked = look(planted(change))
    assert "though every weight that is shown is finite: an overflow" in looked.verdict


def test_dead_dimensions_are_counted_where_they_are(planted: Plant, look: Look) -> None:
    dead = [5, 6, 50]

    def change(w: Weights) -> None:
        for name in ("patch_embed.proj", *(f"blocks.{i}.{x}" for i in range(3) for x in ("attn.proj", "mlp.fc2"))):
            w[f"{name}.weight"][dead] = 0.0
            w[f"{name}.bias"][dead] = 0.0
        w["pos_embed"][..., dead] = 0.0
        w["cls_token"][..., dead] = 0.0

    looked = look(planted(change))
    assert not looked.healthy
    assert looked.at("blocks.2.resid_post").zero == tuple(dead)
    assert "3 dimensions (5, 6, 50) are dead (zero in every token) at blocks.0.resid_pre" in looked.verdict
    assert "leave the dead dimensions out" in looked.remedy.lower()


def test_a_model_that_gives_the_same_for_every_input_is_dead(planted: Plant, look: Look) -> None:
    def change(w: Weights) -> None:
        w["patch_embed.proj.weight"][:] = 0.0

    looked = look(planted(change))
    assert looked.findings[0].kind == "dead"
    assert "same for every example" in looked.verdict


BLOWN_UP = {
    "a hidden unit's weights": (scale("blocks.1.mlp.fc2.weight", (slice(None), 33), 3000.0), "MLP",
                                "input unit 33 of blocks.1.mlp.fc2 has output weights"),
    "a hidden unit's bias": (add("blocks.1.mlp.fc1.bias", 7, 1000.0), "MLP", "blocks.1.mlp.fc1.bias[7] is 1,000"),
    "a value's bias": (add("blocks.1.attn.qkv.bias", 140, 1000.0), "attention", "blocks.1.attn.qkv.bias[140] is 1,000"),
    "a whole matrix": (scale("blocks.1.mlp.fc2.weight", slice(None), 300.0), "MLP",
                       "blocks.1.mlp.fc2.weight is 298 times as large as in the median block"),
}  # fmt: skip


@pytest.mark.parametrize("what", BLOWN_UP)
def test_a_module_that_blows_up_every_dimension_is_named(planted: Plant, look: Look, what: str) -> None:
    change, module, words = BLOWN_UP[what]
    looked = look(planted(change))
    found = next(f for f in looked.findings if f.kind == "growth")
    assert f"Block 1's {module} makes all of the residual stream" in looked.verdict
    assert words in found.text
    place, after = ("attn_out", "resid_mid") if module == "attention" else ("mlp_out", "resid_post")
    assert found.points == (f"blocks.1.{place}", f"blocks.1.{after}")
    assert not looked.at(f"blocks.1.{after}").healthy
    assert f"Record before blocks.1.{place}" in looked.remedy


@pytest.mark.parametrize(("name", "row"), [("cls_token", 0), ("pos_embed", 77)])
def test_a_token_that_is_large_in_every_dimension_is_named(planted: Plant, look: Look, name: str, row: int) -> None:
    looked = look(planted(scale(name, (0, row), 900.0)))
    (found,) = looked.findings
    assert (found.kind, found.points[0]) == ("tokens", "blocks.0.resid_pre")
    assert f"token position {row}" in found.text
    assert f"from {name}" in found.text
    assert looked.at("blocks.2.norm2").healthy


def test_many_dimensions_of_one_origin_are_told_of_together(planted: Plant, look: Look) -> None:
    looked = look(planted(add("blocks.1.mlp.fc2.bias", slice(10, 18), 200.0)))
    assert {o.dim for o in looked.origins} == set(range(10, 18))
    (found,) = looked.findings
    assert found.text.startswith("8 dimensions (")
    assert "come from block 1's MLP" in found.text


def test_an_outlier_that_grows_from_block_to_block_has_no_single_writer(planted: Plant, look: Look) -> None:
    def change(w: Weights) -> None:
        for i in range(3):
            w[f"blocks.{i}.mlp.fc2.bias"][DIM] += 6.0

    origin = only_origin(look(planted(change)))
    assert origin.module == "several modules"
    assert "blocks.1.mlp_out" in origin.because
    assert "blocks.0.mlp_out" in origin.because


def test_an_outlier_in_single_tokens_that_come_with_the_input_is_found(planted: Plant, look: Look) -> None:
    """A hidden unit that few patches excite, and that writes to one dimension."""

    def change(w: Weights) -> None:
        w["blocks.1.mlp.fc1.weight"][9] = 0.0
        w["blocks.1.mlp.fc1.weight"][9, 1] = 40.0
        w["blocks.1.mlp.fc1.bias"][9] = -40.0 * 2.6  # about the 99th percentile of norm2 there
        w["blocks.1.mlp.fc2.weight"][:, 9] = 0.0
        w["blocks.1.mlp.fc2.weight"][DIM, 9] = 20.0

    looked = look(planted(change))
    assert np.quantile(looked.at("blocks.1.norm2").stats.sample_nd[:, 1], 0.9) < 2.6
    origin = only_origin(looked)
    assert (origin.module, origin.block, origin.layer, origin.part) == ("MLP", 1, "blocks.1.mlp.fc2", "weight")
    assert "from input unit 9" in origin.because
