"""Where weights come from, and what is said where they do not fit or cannot be had."""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchkit import BenchkitError, SpecError, resolve
from benchkit.catalog.discovery import discover
from benchkit.media import hub as remote
from benchkit.testing.backbone import BackboneSuite
from benchkit.testing.hub import COMMIT, FakeHub
from benchkit_bird_mae import backbone as module
from benchkit_bird_mae.architecture import Architecture
from benchkit_bird_mae.backbone import BirdMAE, Params
from benchkit_bird_mae.vit import random_weights

SMALL = Architecture(depth=2, width=32, heads=2)
CONFIG = {"depth": 2, "embed_dim": 32, "num_heads": 2}
CLIP = np.random.default_rng(0).standard_normal((2, 160_000)).astype(np.float32)


def checkpoint(folder: Path, seed: int = 0, config: dict | None = None, **changes: torch.Tensor | None) -> Path:
    """A checkpoint folder. changes: tensors by name, with '__' for '.'; None leaves one out."""
    weights: dict[str, torch.Tensor | None] = dict(random_weights(SMALL, seed))
    weights |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: t for name, t in weights.items() if t is not None}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    return folder


def loaded(**params) -> BirdMAE:
    backbone = BirdMAE(Params(**params))
    backbone.setup("cpu")
    return backbone


class TestConformance(BackboneSuite):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _small(cls, tmp_path_factory):
        cls.backbone = BirdMAE(Params(path=checkpoint(tmp_path_factory.mktemp("one"))))
        cls.other = BirdMAE(Params(path=checkpoint(tmp_path_factory.mktemp("two"), seed=1)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks__1__norm2__weight": None}, "blocks.1.norm2.weight missing"),
        ({"head__weight": torch.zeros(21, 32)}, "head.weight not expected"),
        ({"cls_token": torch.zeros(1, 1, 16)}, "cls_token is [1, 1, 16], not [1, 1, 32]"),
        ({"pos_embed": torch.zeros(1, 513, 32)}, "pos_embed is [1, 513, 32], not [1, 257, 32]"),
        ({"norm__bias": torch.zeros(32, dtype=torch.int64)}, "norm.bias not of floating point"),
        ({"norm__bias": None, "extra": torch.zeros(1)}, "norm.bias missing; extra not expected"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, changes, said):
    folder = checkpoint(tmp_path, **changes)
    with pytest.raises(BenchkitError, match=re.escape(said)) as raised:
        loaded(path=folder)
    assert str(folder / "model.safetensors") in str(raised.value)
    assert "\n" not in str(raised.value)


def test_half_precision_checkpoints_are_read_as_float32(tmp_path):
    half = {name.replace(".", "__"): t.half() for name, t in random_weights(SMALL, 0).items()}
    backbone = loaded(path=checkpoint(tmp_path, **half))
    assert all(p.dtype == torch.float32 for p in backbone.module.parameters())


@pytest.mark.parametrize("damage", [b"", b"not safetensors at all", "cut"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else damage)
    with pytest.raises(BenchkitError, match=r"model.safetensors' does not read as safetensors"):
        loaded(path=tmp_path)


def test_a_pickle_is_never_opened(tmp_path):
    path = checkpoint(tmp_path) / "model.safetensors"
    torch.save(random_weights(SMALL, 0), path)
    with pytest.raises(BenchkitError, match="does not read as safetensors"):
        loaded(path=tmp_path)


def test_a_folder_without_weights_or_configuration_is_named(tmp_path):
    with pytest.raises(BenchkitError, match=r"must hold config\.json and model\.safetensors"):
        resolve("model", f"bird-mae,path={tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(BenchkitError, match=r"holds no model\.safetensors"):
        loaded(path=tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"depth": 2, "embed_dim": 32}, "has no 'num_heads'"),
        ({**CONFIG, "qk_norm": True}, "qk_norm=True, and only qk_norm=False is implemented"),
        ({**CONFIG, "num_heads": 3}, "a width of 32 does not divide into 3 heads"),
        ({**CONFIG, "depth": "two"}, "describes no architecture"),
        ([1], "holds no JSON object"),
    ],
)
def test_a_configuration_that_is_not_understood_is_named(tmp_path, config, said):
    checkpoint(tmp_path, config=config)
    with pytest.raises(BenchkitError, match=re.escape(said)):
        resolve("model", f"bird-mae,path={tmp_path}")


def test_the_hubs_own_configuration_is_understood(tmp_path):
    published = CONFIG | {
        "auto_map": {"AutoModel": "modeling_bird_mae.BirdMAEModel"}, "img_size_x": 512, "img_size_y": 128,
        "patch_size": 16, "in_chans": 1, "mlp_ratio": 4, "qkv_bias": True, "qk_norm": False, "init_values": None,
        "norm_layer_eps": 1e-6, "global_pool": "mean", "pos_trainable": False, "drop_rate": 0.0,
    }  # fmt: skip
    assert loaded(path=checkpoint(tmp_path, config=published)).architecture == SMALL


# ------------------------------------------------------------------------------------------------------ fingerprints


def test_a_fingerprint_is_of_the_weights_and_nothing_else(tmp_path):
    one = loaded(path=checkpoint(tmp_path / "one")).fingerprint()
    assert loaded(path=checkpoint(tmp_path / "moved"), pool="cls", layer=0).fingerprint() == one
    changed = random_weights(SMALL, 0)["norm.bias"].clone()
    changed[5] += 1e-3
    assert loaded(path=checkpoint(tmp_path / "two", norm__bias=changed)).fingerprint() != one
    four_heads = checkpoint(tmp_path / "heads", config=CONFIG | {"num_heads": 4})
    assert loaded(path=four_heads).fingerprint() != one


def test_nothing_is_computed_before_setup(tmp_path):
    backbone = BirdMAE(Params(path=checkpoint(tmp_path)))
    assert backbone.dim == 32
    assert len(backbone.points()) == 2 * 7 + 1
    for call in (backbone.fingerprint, lambda: backbone.encode(CLIP)):
        with pytest.raises(BenchkitError, match=r"call setup\(device\) first"):
            call()


def test_a_worker_gets_a_copy_that_needs_no_weights(tmp_path):
    backbone = loaded(path=checkpoint(tmp_path))
    fresh = pickle.loads(pickle.dumps(BirdMAE(backbone.params)))
    np.testing.assert_array_equal(fresh.preprocess(CLIP[0][:999]), backbone.preprocess(CLIP[0][:999]))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(BenchkitError, match="cannot use the device 'cuda:99'"):
        BirdMAE(Params(init="random")).setup("cuda:99")


def test_a_place_that_is_not_there_is_named_with_the_nearest(tmp_path):
    with pytest.raises(BenchkitError, match=r"no place 'blocks.1.norm3'; did you mean 'blocks.1.norm"):
        loaded(path=checkpoint(tmp_path)).activations(CLIP, ["blocks.1.norm3"])


# ----------------------------------------------------------------------------------------------------- random weights


def test_random_weights_depend_on_the_seed_alone(tmp_path):
    folder = checkpoint(tmp_path)
    one, same, other = (loaded(path=folder, init="random", seed=seed) for seed in (3, 3, 4))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    np.testing.assert_array_equal(one.encode(CLIP).pooled, same.encode(CLIP).pooled)
    assert np.abs(one.encode(CLIP).pooled - other.encode(CLIP).pooled).max() > 0.1


def test_the_generators_state_outside_changes_nothing():
    torch.manual_seed(0)
    one = random_weights(SMALL, 5)
    torch.manual_seed(1)
    two = random_weights(SMALL, 5)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("size", "width", "blocks"), [("base", 768, 12), ("large", 1024, 24), ("huge", 1280, 32)])
def test_published_sizes(size, width, blocks):
    spec = resolve("model", f"bird-mae:{size},init=random")
    assert spec.build().dim == width
    assert spec.build().architecture.depth == blocks
    assert f"blocks.{blocks - 1}.norm2" in spec.build().points()


# ------------------------------------------------------------------------------------------------------------ specs


def test_two_spellings_of_one_model_have_one_name(shared, tmp_path):
    names = [
        resolve("model", text).canonical
        for text in ("bird-mae", "bird-mae:base,pool=mean", "bird-mae,layer=11", "bird-mae,revision=main,layer=none")
    ]
    assert set(names) == {"bird-mae@2"}
    assert resolve("model", "bird-mae:large,layer=20,pool=cls").canonical == "bird-mae@2:large,layer=20,pool=cls"
    assert resolve("model", f"bird-mae,revision={COMMIT}").canonical == f"bird-mae@2,revision={COMMIT}"
    tiny = shared / "fixtures" / "bird_mae_tiny"
    here = resolve("model", f"bird-mae,path={tiny}").canonical
    moved = checkpoint(tmp_path / "moved")
    for name in ("config.json", "model.safetensors"):
        (moved / name).write_bytes((tiny / name).read_bytes())
    (moved / "README.md").write_text("a note beside the weights")
    assert resolve("model", f"bird-mae,path={moved},layer=2").canonical == here
    assert "path=fp-" in here


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bird-mae:small", "'small', which is none of base, large, huge"),
        ("bird-mae,layer=12", "layer is 12, and its 12 blocks are 0 to 11"),
        ("bird-mae,layer=-1", "below the least allowed, 0"),
        ("bird-mae,seed=3", "seed is of init=random"),
        ("bird-mae,init=random,revision=v1", "revision is of the hub repository"),
        ("bird-mae:large,path=FOLDER", "leave out ':large'"),
        ("bird-mae,path=nowhere", "there is no such file or folder"),
    ],
)
def test_a_spec_that_means_nothing_is_refused_in_one_line(tmp_path, text, said):
    with pytest.raises(SpecError, match=re.escape(said)) as raised:
        resolve("model", text.replace("FOLDER", str(checkpoint(tmp_path))))
    assert "\n" not in str(raised.value)


def test_reading_a_spec_imports_no_framework():
    heavy = "torch", "jax", "transformers", "datasets", "sklearn", "huggingface_hub", "safetensors"
    code = (
        "import sys; from benchkit.catalog.resolve import resolve; "
        "s = resolve('model', 'bird-mae:large,layer=3'); s.canonical; "
        f"s.build().dim; print([m for m in {heavy} if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_plugin_is_discovered():
    entry = discover().find("model", "bird-mae").entry
    assert entry.target == "benchkit_bird_mae.backbone:BirdMAE"


# -------------------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def small_base(monkeypatch, tmp_path):
    """The published base is small here; the user's hub cache, token and proxies are out of sight."""
    monkeypatch.setitem(module.SIZES, "base", SMALL)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    remote.reach.cache_clear()
    yield
    remote.reach.cache_clear()


def test_weights_come_from_the_hub_through_a_network_that_falters(small_base, tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "published", seed=3)
    with FakeHub(folder, "DBD-research-group/Bird-MAE-Base", kind="model") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.extend(["503", "drop"])
        backbone = loaded()
    assert backbone.fingerprint() == loaded(path=folder).fingerprint()
    assert {path for path, _ in hub.requests} == {"model.safetensors"}


def test_a_revision_that_is_not_there_is_named(small_base, tmp_path, monkeypatch):
    with FakeHub(checkpoint(tmp_path / "published"), "DBD-research-group/Bird-MAE-Base", kind="model") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(BenchkitError, match="'DBD-research-group/Bird-MAE-Base' has no revision 'v9'"):
            loaded(revision="v9")


@pytest.mark.parametrize("how", ["blocked", "HF_HUB_OFFLINE"])
def test_without_a_network_one_line_says_what_to_do(small_base, monkeypatch, how):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BenchkitError) as raised:
        loaded()
    message = str(raised.value)
    assert "hf download DBD-research-group/Bird-MAE-Base --local-dir FOLDER" in message
    assert "path=FOLDER" in message
    assert "\n" not in message
