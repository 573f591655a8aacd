"""birdjepa as a backbone: the conformance suite in both frameworks, damaged folders, padding, places, fine-tuning."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchkit import BenchkitError, SpecError, resolve
from benchkit.testing import BackboneSuite
from benchkit_birdjepa.config import EncoderConfig, write_config
from benchkit_birdjepa.parameters import draw

SMALL = "birdjepa,init=random,frames=128,mels=32,width=32,depth=2,heads=2,cls_tokens=2,registers=3"


class TestTorch(BackboneSuite):
    spec = SMALL


class TestModernPatches(BackboneSuite):
    spec = f"{SMALL},rope=true,qk_norm=true,swiglu=true,layerscale=true,pool=patches"


class TestJax(BackboneSuite):
    spec = f"{SMALL},framework=jax"


class TestImages(BackboneSuite):
    spec = (
        "birdjepa,init=random,modality=image,channels=3,frames=32,mels=32,patch_h=8,patch_w=8,width=32,depth=2,heads=2"
    )


class TestImagesInJax(BackboneSuite):
    spec = (
        "birdjepa,init=random,modality=image,frames=8,mels=8,patch_h=4,patch_w=4,width=32,depth=2,heads=2,framework=jax"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = EncoderConfig(128, 32, 16, 16, 32, 2, 2, n_reg_tokens=1)
    (tmp_path / "config.json").write_text(write_config(config))
    save_file(draw(config, 5), tmp_path / "model.safetensors")
    return tmp_path


def ready(text: str):
    backbone = resolve("model", text).build()
    backbone.setup("cpu")
    return backbone


def clips(backbone, *seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack(
        [backbone.preprocess((0.1 * rng.standard_normal(int(s * 32_000))).astype(np.float32)) for s in seconds]
    )


def test_both_frameworks_give_the_same_features(folder: Path) -> None:
    for pool in ("cls", "patches"):
        a, b = (ready(f"birdjepa:{folder},pool={pool},framework={f}") for f in ("torch", "jax"))
        batch = clips(a, 1.0, 0.4)
        x, y = a.encode(batch, tokens=True), b.encode(batch, tokens=True)
        np.testing.assert_allclose(x.pooled, y.pooled, atol=1e-4)
        np.testing.assert_allclose(x.tokens, y.tokens, atol=1e-4)
        assert a.fingerprint() == b.fingerprint()


def test_the_name_is_of_what_the_folder_holds(folder: Path, tmp_path: Path) -> None:
    before = resolve("model", f"birdjepa:{folder}").canonical
    assert before.startswith("birdjepa:fp-")
    weights = load_file(folder / "model.safetensors")
    weights["norm.bias"][0] += 1
    save_file(weights, folder / "model.safetensors")
    assert resolve("model", f"birdjepa:{folder}").canonical != before


def test_short_clips_are_padded_and_the_padding_is_not_averaged(folder: Path) -> None:
    backbone = ready(f"birdjepa:{folder},pool=patches")
    batch = clips(backbone, 1.0, 0.5)
    real = backbone.real_tokens(batch, backbone.config.n_patches)
    assert real is not None
    assert real.sum(axis=1).tolist() == [14, 8], "rows of 16 frames, two patches each: 1 s begins 7 of them, 0.5 s 4"
    encoded = backbone.encode(batch, tokens=True)
    for i in range(2):
        np.testing.assert_allclose(encoded.pooled[i], encoded.tokens[i][real[i]].mean(axis=0), atol=1e-5)
    alone = backbone.encode(batch[1:], tokens=True)
    np.testing.assert_allclose(alone.pooled[0], encoded.pooled[1], atol=1e-5)


def test_fine_tuning_sees_the_features_of_encode(folder: Path) -> None:
    import torch

    for pool in ("cls", "patches"):
        backbone = ready(f"birdjepa:{folder},pool={pool}")
        batch = clips(backbone, 1.0, 0.5)
        copied = backbone.trainable()
        pooled = copied.pooled(torch.from_numpy(batch))
        np.testing.assert_allclose(pooled.detach().numpy(), backbone.encode(batch).pooled, atol=1e-5)
        pooled.sum().backward()
        assert all(p.grad is not None for n, p in copied.module.named_parameters() if n in copied.depth_of)
        assert copied.depth_of["blocks.1.attn.qkv.weight"] == 2
        assert copied.depth_of["norm.weight"] == copied.top == 3


def test_places_sum_up_and_registers_are_left_out(folder: Path) -> None:
    backbone = ready(f"birdjepa:{folder}")
    points = tuple(f"blocks.1.{p}" for p in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"))
    pre, attn, mid, mlp, post = backbone.activations(clips(backbone, 1.0), points).values()
    assert pre.shape == (1, 1 + backbone.config.n_patches, 32)
    np.testing.assert_allclose(mid, pre + attn, atol=1e-5)
    np.testing.assert_allclose(post, mid + mlp, atol=1e-5)
    with pytest.raises(BenchkitError, match=r"no place 'blocks.1.norm3'; did you mean 'blocks.1.norm[12]'"):
        backbone.activations(clips(backbone, 1.0), ["blocks.1.norm3"])


def test_a_layer_is_the_normed_output_of_that_block(folder: Path) -> None:
    first, last = ready(f"birdjepa:{folder},layer=0"), ready(f"birdjepa:{folder}")
    batch = clips(last, 1.0)
    x = last.activations(batch, ["blocks.0.resid_post"])["blocks.0.resid_post"][:, 0]
    weights = load_file(folder / "model.safetensors")
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        first.encode(batch).pooled, normed * weights["norm.weight"] + weights["norm.bias"], atol=1e-4
    )
    with pytest.raises(SpecError, match="layer=2 is behind the last block, 1"):
        resolve("model", f"birdjepa:{folder},layer=2")


def test_the_anatomy_has_every_matrix_of_the_file(folder: Path) -> None:
    named = load_file(folder / "model.safetensors")
    layers = {layer.name: layer for layer in ready(f"birdjepa:{folder}").anatomy()}
    assert {f"{n}.weight" for n in layers if f"{n}.weight" in named} == {n for n in named if n.endswith(".weight")}
    assert layers["blocks.1.mlp.fc2"].block == 1


def _without(folder: Path, name: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")


def _field(folder: Path, name: str, value: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("["), "does not read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "holds no record of an encoder"),
        (lambda f: _field(f, "n_head", 2), "has a field 'n_head' that no encoder has; did you mean 'n_heads'"),
        (lambda f: _field(f, "depth", "two"), "depth is 'two', not of type int"),
        (lambda f: _field(f, "depth", True), "depth is True, not of type int"),
        (lambda f: _field(f, "n_heads", 5), "embed_dim=32 must be a multiple of n_heads=5"),
        (lambda f: _field(f, "depth", 3), "does not fit the encoder of its config.json: blocks.2"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "does not read as safetensors"),
        (lambda f: _without(f, "norm.bias"), "norm.bias missing"),
    ],
)
def test_a_damaged_folder_is_one_line(folder: Path, harm, said: str) -> None:
    harm(folder)
    with pytest.raises(BenchkitError, match=said) as e:
        ready(f"birdjepa:{folder}")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("birdjepa", "needs a folder"),
        ("birdjepa,width=64", "width is of an untrained encoder: give init=random"),
        ("birdjepa,init=random,width=100", "embed_dim=100 must be a multiple of n_heads=6"),
    ],
)
def test_what_makes_no_encoder_is_one_line(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        resolve("model", text)


def test_reading_a_spec_imports_nothing_heavy_and_torch_needs_no_jax(folder: Path) -> None:
    code = (
        "import sys; from benchkit import resolve\n"
        f"s = resolve('model', 'birdjepa:{folder}'); s.canonical; b = s.build(); b.dim\n"
        "print([m for m in ('torch', 'jax', 'safetensors') if m in sys.modules])\n"
        "b.setup('cpu'); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["[]", "False"], done.stderr
