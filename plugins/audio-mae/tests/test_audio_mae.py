"""Audio-MAE against timm's forward pass and torchaudio's filterbank (see timm_tiny/README.md), and its errors."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchkit import BenchkitError, SpecError, resolve
from benchkit.catalog.discovery import discover
from benchkit.media import hub as remote
from benchkit.testing.backbone import BackboneSuite
from benchkit.testing.hub import FakeHub
from benchkit_audio_mae import backbone as module
from benchkit_audio_mae.backbone import REPO, AudioMAE, Params
from benchkit_bird_mae.architecture import Architecture
from benchkit_bird_mae.spectrogram import spectrogram
from benchkit_bird_mae.vit import random_weights, sincos_positions

TIMM = Path(__file__).parent / "timm_tiny"
WAVE = (0.1 * np.random.RandomState(0).standard_normal(176_000)).astype(np.float32)


def loaded(**params) -> AudioMAE:
    backbone = AudioMAE(Params(**params))
    backbone.setup("cpu")
    return backbone


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ten", {"seconds": 10}),
        ("five", {}),
        ("cut", {"positions": "cut"}),
        ("birdmae", {"recipe": "bird-mae"}),
    ],
)
def test_features_are_those_of_timm_and_the_papers_baseline(name, params):
    expected = {k.removeprefix(f"{name}_"): v for k, v in np.load(TIMM / "expected.npz").items() if k.startswith(name)}
    backbone = loaded(path=TIMM, **params)
    batch = backbone.preprocess(WAVE)[None]
    made = spectrogram(torch.from_numpy(batch), backbone.recipe())[0].numpy()
    assert made.shape == (backbone.architecture.frames, 128)
    np.testing.assert_allclose(made[::64], expected["fbank"], atol=1e-4)
    mean = backbone.encode(batch, tokens=True)
    assert mean.tokens.shape == (1, backbone.architecture.patches, 16)
    np.testing.assert_allclose(mean.tokens[0, ::8], expected["tokens"], rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(mean.pooled[0], expected["mean"], rtol=1e-4, atol=1e-4)
    cls = loaded(path=TIMM, pool="cls", **params).encode(batch)
    np.testing.assert_allclose(cls.pooled[0], expected["cls"], rtol=1e-4, atol=1e-4)


def test_random_weights_and_noise_agree_with_plain_numpy():
    arch = Architecture(depth=2, width=16, heads=2, frames=512, fc_norm=False)
    rng = np.random.default_rng(3)
    from benchkit_bird_mae.weights import build

    w = {name: 0.3 * rng.standard_normal(t.shape).astype(np.float32) for name, t in random_weights(arch, 0).items()}
    model = build(arch, {name: torch.from_numpy(x) for name, x in w.items()}, "these")
    image = rng.standard_normal((512, 128)).astype(np.float32)
    x = model(torch.from_numpy(image)[None])
    expected = numpy_encoder(image.astype(np.float64), {k: v.astype(np.float64) for k, v in w.items()})
    np.testing.assert_allclose(x[0], expected, rtol=1e-4, atol=1e-4)
    mean = expected[1:].mean(0)
    plain = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-6)
    np.testing.assert_allclose(model.pool_mean(x)[0], plain, rtol=1e-4, atol=1e-4)


def numpy_encoder(image: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    def norm(x: np.ndarray, name: str) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    patches = [image[16 * t : 16 * t + 16, 16 * f : 16 * f + 16].ravel() for t in range(32) for f in range(8)]
    tokens = np.stack(patches) @ w["patch_embed.proj.weight"].reshape(16, 256).T + w["patch_embed.proj.bias"]
    x = np.concatenate([w["cls_token"][0], tokens]) + w["pos_embed"][0]
    for i in range(2):
        q, k, v = np.split(linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv"), 3, axis=1)
        heads = []
        for h in (slice(0, 8), slice(8, 16)):
            weight = np.exp(q[:, h] @ k[:, h].T / math.sqrt(8))
            heads.append(weight / weight.sum(1, keepdims=True) @ v[:, h])
        x = x + linear(np.concatenate(heads, 1), f"blocks.{i}.attn.proj")
        hidden = linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        x = x + linear(hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2, f"blocks.{i}.mlp.fc2")
    return x


def test_bfloat16_stays_close_and_gives_float32():
    plain, half = loaded(path=TIMM), loaded(path=TIMM, dtype="bfloat16")
    batch = plain.preprocess(WAVE)[None]
    exact, rounded = plain.encode(batch, tokens=True), half.encode(batch, tokens=True)
    for a, b in ((exact.pooled, rounded.pooled), (exact.tokens, rounded.tokens)):
        assert b.dtype == np.float32
        assert 1e-6 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.03
    assert half.fingerprint() == plain.fingerprint()


class TestConformance(BackboneSuite):
    backbone = AudioMAE(Params(path=TIMM))
    other = AudioMAE(Params(path=TIMM, init="random"))


def test_positions_for_five_seconds():
    stored = load_file(TIMM / "model.safetensors")["pos_embed"]
    grid, cut, ten = loaded(path=TIMM), loaded(path=TIMM, positions="cut"), loaded(path=TIMM, seconds=10)
    assert torch.equal(ten.module.pos_embed, stored)
    assert torch.equal(cut.module.pos_embed, stored[:, :257])
    assert torch.equal(grid.module.pos_embed, sincos_positions(grid.architecture))
    assert grid.fingerprint() == cut.fingerprint() == ten.fingerprint()  # the checkpoint is the same


def test_the_sample_rate_is_the_recipes():
    assert AudioMAE.sample_rate == AudioMAE().sample_rate == 16_000
    bird = AudioMAE(Params(recipe="bird-mae"))
    assert bird.sample_rate == 32_000
    assert bird.preprocess(WAVE).shape == (160_000,)
    assert AudioMAE(Params(seconds=10)).preprocess(WAVE).shape == (160_000,)
    assert AudioMAE().preprocess(WAVE).shape == (80_000,)


def test_the_published_size_without_weights():
    spec = resolve("model", "audio-mae,init=random")
    assert spec.build().dim == 768
    assert len(spec.build().points()) == 12 * 7 + 1
    weights = random_weights(module.BASE, 0)
    assert sum(t.numel() for t in weights.values()) == 85_648_128  # timm's count for this architecture
    assert weights["pos_embed"].shape == (1, 513, 768)


def test_random_weights_depend_on_the_seed():
    one, same, other = (loaded(path=TIMM, init="random", seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


# ------------------------------------------------------------------------------------------------------- checkpoints


def changed(folder: Path, *, config: dict | None = None, pickled: bool = False, **changes: torch.Tensor | None) -> Path:
    """timm_tiny with other tensors ('__' for '.', None leaves one out) or another configuration."""
    weights = load_file(TIMM / "model.safetensors") | {k.replace("__", "."): v for k, v in changes.items()}
    weights = {name: t for name, t in weights.items() if t is not None}
    if pickled:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    original = json.loads((TIMM / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(original if config is None else original | config))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blocks__1__attn__qkv__bias": None}, "blocks.1.attn.qkv.bias missing"),
        ({"head__weight": torch.zeros(527, 16)}, "head.weight not expected"),
        ({"pos_embed": torch.zeros(1, 257, 16)}, "pos_embed is [1, 257, 16], not [1, 513, 16]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, changes, said):
    with pytest.raises(BenchkitError, match=re.escape(said)):
        loaded(path=changed(tmp_path, **changes))


def test_torchs_own_format_is_read_without_executing_it(tmp_path):
    pickled = loaded(path=changed(tmp_path, pickled=True))
    assert pickled.fingerprint() == loaded(path=TIMM).fingerprint()
    torch.save({"weight": Path("code that would run")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BenchkitError, match="does not read as weights alone") as raised:
        loaded(path=tmp_path)
    assert "\n" not in str(raised.value)
    (tmp_path / "pytorch_model.bin").write_bytes(b"damaged")
    with pytest.raises(BenchkitError, match="does not read as weights alone"):
        loaded(path=tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "pytorch_model.bin")
    with pytest.raises(BenchkitError, match="holds no table of tensors"):
        loaded(path=tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(BenchkitError, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        loaded(path=tmp_path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "vit_bas_patch16_224"}, "did you mean 'vit_base_patch16_224'"),
        ({"model_args": {"img_size": [224, 224]}}, "is of a model for [224, 224]"),
        ({"model_args": {"qk_norm": True, "img_size": [1024, 128]}}, "not implemented: qk_norm"),
        ({"model_args": {"embed_dim": 10, "img_size": [1024, 128]}}, "a width of 10 does not divide into 12 heads"),
    ],
)
def test_a_configuration_of_another_model_is_named(tmp_path, config, said):
    with pytest.raises(BenchkitError, match=re.escape(said)):
        resolve("model", f"audio-mae,path={changed(tmp_path, config=config)}")


# -------------------------------------------------------------------------------------------------------------- specs


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("audio-mae,seconds=5,positions=grid,layer=11", "audio-mae"),
        ("audio-mae,seconds=10", "audio-mae,seconds=10"),
        ("audio-mae,recipe=bird-mae,pool=mean", "audio-mae,recipe=bird-mae"),
        ("audio-mae,dtype=float32,compile=false", "audio-mae"),
        ("audio-mae,dtype=bfloat16,compile=true", "audio-mae,compile=true,dtype=bfloat16"),
    ],
)
def test_two_spellings_of_one_model_have_one_name(text, canonical):
    assert resolve("model", text).canonical == canonical.replace("audio-mae", "audio-mae@2", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("audio-mae:as2m", "has no checkpoints"),
        ("audio-mae,seconds=10,positions=cut", "positions and recipe are of seconds=5"),
        ("audio-mae,seconds=10,recipe=bird-mae", "positions and recipe are of seconds=5"),
        ("audio-mae,layer=12", "its 12 blocks are 0 to 11"),
        ("audio-mae,init=random,revision=v1", "revision is of the hub repository"),
    ],
)
def test_a_spec_that_means_nothing_is_refused(text, said):
    with pytest.raises(SpecError, match=re.escape(said)):
        resolve("model", text)


def test_reading_a_spec_imports_no_framework():
    heavy = "torch", "jax", "transformers", "datasets", "sklearn", "huggingface_hub", "safetensors", "timm"
    code = (
        "import sys; from benchkit.catalog.resolve import resolve; "
        "s = resolve('model', 'audio-mae,seconds=10'); s.canonical; "
        f"s.build().dim; print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert discover().find("model", "audio-mae").entry.target == "benchkit_audio_mae.backbone:AudioMAE"


# -------------------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def tiny_hub(monkeypatch, tmp_path):
    """The published size is tiny here; the user's hub cache, token and proxies are out of sight."""
    tiny = Architecture(depth=2, width=16, heads=2, frames=1024, fc_norm=False)
    monkeypatch.setattr(module, "BASE", tiny)
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    remote.reach.cache_clear()
    yield
    remote.reach.cache_clear()


@pytest.mark.parametrize("pickled", [True, False])
def test_weights_come_from_the_hub_in_either_format(tiny_hub, tmp_path, monkeypatch, pickled):
    folder = tmp_path / "published"
    folder.mkdir()
    with FakeHub(changed(folder, pickled=pickled), REPO, kind="model") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.append("503")
        backbone = loaded()
    assert backbone.fingerprint() == loaded(path=TIMM).fingerprint()


def test_a_repository_without_weights_is_named(tiny_hub, tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "README.md").write_text("nothing here")
    with FakeHub(tmp_path / "published", REPO, kind="model") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(BenchkitError, match=r"has no file 'pytorch_model\.bin'"):
            loaded()


def test_without_a_network_one_line_says_what_to_do(tiny_hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BenchkitError, match=f"hf download {re.escape(REPO)} --local-dir FOLDER") as raised:
        loaded()
    assert "path=FOLDER" in str(raised.value)
    assert "\n" not in str(raised.value)
