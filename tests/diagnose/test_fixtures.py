"""The reference fixtures and healthy models: what is wrong is said, and nothing else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchkit.catalog.resolve import resolve
from benchkit.diagnose.inputs import Inputs
from benchkit.diagnose.places import POOLED, Place, places
from benchkit.diagnose.run import Looked
from benchkit.diagnose.run import look as look_at
from benchkit.progress import Silent
from benchkit_bird_mae.architecture import Architecture
from benchkit_bird_mae.vit import random_weights

Look = Callable[..., Looked]


@pytest.fixture
def esc10(shared: Path) -> str:
    return f"esc50,root={shared / 'data' / 'esc10'}"


def test_the_planted_fixture_is_unhealthy_but_for_what_its_norms_give(look: Look, shared: Path, esc10: str) -> None:
    folder = shared / "fixtures" / "bird_mae_outlier"
    dim = json.loads((folder / "config.json").read_text())["outlier_dim"]
    looked = look(f"bird-mae,path={folder}", examples=32, also=[resolve("task", esc10)])
    (origin,) = looked.origins
    assert (origin.dim, origin.module, origin.block, origin.first) == (dim, "MLP", 0, "blocks.0.mlp_out")
    assert (origin.layer, origin.part) == ("blocks.0.mlp.fc2", "bias")
    assert f"column {dim} of its output weights" in origin.because
    assert origin.peak.value == pytest.approx(2200, rel=0.01)
    assert origin.reaches == (7, 7)
    assert origin.suppressed_by == tuple(f"blocks.{i}.{norm}" for i in (1, 2, 3) for norm in ("norm1", "norm2"))
    assert origin.passed_by == ("norm", "fc_norm")
    assert [(o.name, o.dims) for o in looked.others] == [("white noise", (dim,)), ("esc50/clips", (dim,))]
    for j in looked.judged:
        place = j.stats.place
        behind = place.block is not None and (place.block > 0 or place.name in ("mlp_out", "resid_post"))
        assert j.healthy == (not behind or place.kind == "norm" or (place.kind == "module" and place.block != 0)) or (
            j.point in ("norm", "pooled")
        ), j.point
    assert not looked.at("norm").healthy
    assert not looked.at("pooled").healthy
    raw, norm2, per_dimension, white = looked.effects
    assert (raw.point, norm2.point) == ("blocks.3.resid_post", "blocks.3.norm2")
    assert raw.norm_share > 0.999
    assert norm2.variance_share < 1e-3 < 0.3 < raw.variance_share
    assert per_dimension.norm_share == pytest.approx(1 / 64)
    assert raw.participation < norm2.participation < white.participation
    assert raw.neighbours is not None
    assert "Record after norm2 (blocks.3.norm2, which is healthy)" in looked.remedy


def test_the_healthy_fixture_is_called_healthy(look: Look, shared: Path) -> None:
    looked = look(f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}", examples=32)
    assert looked.healthy
    assert all(j.healthy for j in looked.judged)
    assert (looked.origins, looked.effects, looked.remedy) == ((), (), "")
    assert looked.verdict.startswith("Healthy")
    assert len(looked.judged) == 3 * 6 + 1 + 1 + 1  # the embedding, the final norm and the pooled features too


def saved(folder: Path, arch: Architecture, seed: int) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"depth": arch.depth, "embed_dim": arch.width, "n_heads": arch.heads})
    )
    save_file(random_weights(arch, seed), folder / "model.safetensors")
    return f"bird-mae,path={folder}"


@pytest.mark.parametrize(("depth", "width", "seed"), [(2, 32, 0), (4, 64, 1), (3, 192, 2), (1, 512, 3)])
def test_untrained_models_of_any_size_are_healthy_on_recordings_noise_and_silence(
    look: Look, tmp_path: Path, depth: int, width: int, seed: int
) -> None:
    model = saved(tmp_path / "model", Architecture(depth, width, 4), seed)
    looked = look(model)
    assert looked.healthy, looked.verdict
    backbone = resolve("model", model).build()
    backbone.setup("cpu")
    rng = np.random.default_rng(seed)
    waves = {
        "noise": rng.normal(0, 0.5, (2, 160_000)).astype(np.float32),
        "silence": np.zeros((2, 160_000), np.float32),
        "a click": np.eye(1, 160_000, 80_000, dtype=np.float32),
    }
    wanted = [*places(backbone.points()), Place.of(POOLED)]
    for name, wave in waves.items():
        judged = look_at(backbone, wanted, Inputs.of(name, wave), looked.layers, Silent())
        assert [(name, j.point, j.problems) for j in judged if not j.healthy] == []


@pytest.mark.parametrize("spec", ["random-vit,depth=3,width=64,heads=2", "random-vit,depth=2,width=96,pool=cls,seed=5"])
def test_an_untrained_image_model_is_healthy(look: Look, spec: str) -> None:
    looked = look(spec, task="digits", examples=32)
    assert looked.healthy, looked.verdict


def test_untrained_encoders_from_transformers_are_healthy_and_a_planted_one_is_not(look: Look, tmp_path: Path) -> None:
    tf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
             "image_size": 32, "patch_size": 8}  # fmt: skip
    for name, model in (
        ("vit", tf.ViTModel(tf.ViTConfig(**small))),
        ("dinov2", tf.Dinov2Model(tf.Dinov2Config(**small, layerscale_value=0.5))),
    ):
        model.save_pretrained(tmp_path / name)
        tf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / name)
        looked = look(f"hf:{tmp_path / name}", task="digits")
        assert looked.healthy, looked.verdict
    last = next(p for n, p in model.named_parameters() if n.endswith("layer.1.mlp.fc2.bias"))
    last.data[11] = 300.0
    model.save_pretrained(tmp_path / "planted")
    tf.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "planted")
    (origin,) = look(f"hf:{tmp_path / 'planted'}", task="digits").origins
    assert (origin.dim, origin.module, origin.block, origin.part) == (11, "MLP", 1, "bias")
    assert origin.peak.value == pytest.approx(150, rel=0.05)  # what the layer scale leaves of it
