"""Encoders saved by transformers itself at a tiny size, read back by the plugin and compared with transformers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from safetensors.numpy import load_file, save_file
from tiny_models import MODELS, PICTURE, load, square

from benchkit import BenchkitError, resolve
from benchkit_hf.backbone import HF
from benchkit_hf.blocks import PLACES, blocks_of

IMAGES = ("vit", "dinov2", "dinov3_vit", "clip", "siglip")
AST = "audio-spectrogram-transformer"
TOKENS = {"vit": 16, "dinov2": 16, "dinov3_vit": 16, "clip": 16, "siglip": 16, AST: 108, "wav2vec2": 49,
          "wav2vec2-stable": 49, "hubert": 49, "wavlm": 49, "whisper": 50, "clap": 64}  # fmt: skip


def raw(name: str, backbone: HF, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if name in IMAGES:
        return rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert backbone.sample_rate is not None
    return rng.normal(0, 0.1, backbone.sample_rate).astype(np.float32)


@pytest.mark.parametrize("name", TOKENS)
def test_features_are_transformers_own(saved: Callable[[str], Path], name: str) -> None:
    backbone = load(saved(name))
    x = raw(name, backbone)
    encoded = backbone.encode(np.stack([backbone.preprocess(x)] * 2), tokens=True)

    model = MODELS[name]()[0].from_pretrained(saved(name)).eval()
    part = backbone.family.part
    encoder = getattr(model, part) if part else model
    images = tf.AutoImageProcessor.from_pretrained(saved(name), backend="pil") if name in IMAGES else None
    with torch.inference_mode():
        if images is not None:
            theirs = encoder(**images(images=x, return_tensors="pt"))
        else:
            extract = tf.AutoFeatureExtractor.from_pretrained(saved(name))
            theirs = encoder(**extract(x, sampling_rate=backbone.sample_rate, return_tensors="pt"))
    states = theirs.last_hidden_state
    if states.ndim == 4:
        states = states.flatten(2).transpose(1, 2)
    patches = states[0, -TOKENS[name] :] if name != "whisper" else states[0, : TOKENS[name]]
    if name == AST:  # 12 rows of patches, and of 12 columns 9 that the clip of 98 frames fills
        patches = states[0, 2:].unflatten(0, (12, 12))[:, :9].flatten(0, 1)
    assert encoded.tokens is not None
    assert encoded.tokens.shape == (2, TOKENS[name], backbone.dim)
    np.testing.assert_allclose(encoded.tokens[0], patches.numpy(), atol=1e-5)
    np.testing.assert_allclose(encoded.pooled[0], patches.mean(0).numpy(), atol=1e-5)
    np.testing.assert_allclose(encoded.pooled[0], encoded.pooled[1], atol=1e-5)


def test_layer_zero_is_the_embedding_and_the_places_are_those_of_each_block(saved: Callable[[str], Path]) -> None:
    first, last = load(saved("vit"), layer=0), load(saved("vit"))
    batch = np.stack([last.preprocess(raw("vit", last, s)) for s in range(3)])
    found = last.activations(batch, last.points())
    assert list(found) == ["embeddings", *(f"blocks.{i}.{place}" for i in (0, 1) for place in PLACES), "norm"]
    np.testing.assert_allclose(found["embeddings"][:, 1:].mean(1), first.encode(batch).pooled, atol=1e-6)
    np.testing.assert_array_equal(found["embeddings"], found["blocks.0.resid_pre"])
    with pytest.raises(BenchkitError, match=r"no place 'blocks\.2\.resid_post'"):
        last.activations(batch, ["blocks.2.resid_post"])
    with pytest.raises(BenchkitError, match="hidden states 0 to 2, not 3"):
        load(saved("vit"), layer=3)


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov3_vit", "clip", "siglip", AST, "whisper"])
def test_places_and_weights_of_a_pre_norm_encoder_give_what_it_computes(
    saved: Callable[[str], Path], name: str
) -> None:
    """In numpy: each norm of its input, what is read and written, and the sums of the residual stream."""
    backbone = load(saved(name))
    batch = np.stack([backbone.preprocess(raw(name, backbone, s)) for s in range(2)])
    at = backbone.activations(batch, backbone.points())
    layers = list(backbone.anatomy())
    by_role = {(w.block, w.role): w for w in layers}
    assert {w.role for w in layers} >= {"norm1", "attn_in", "attn_out", "norm2", "mlp_in", "mlp_out", "norm"}
    for i in (0, 1):
        pre, mid, post = (at[f"blocks.{i}.{place}"] for place in ("resid_pre", "resid_mid", "resid_post"))
        np.testing.assert_allclose(pre + at[f"blocks.{i}.attn_out"], mid, atol=1e-5)
        np.testing.assert_allclose(mid + at[f"blocks.{i}.mlp_out"], post, atol=1e-5)
        for place, x in (("norm1", pre), ("norm2", mid)):
            norm = by_role[i, place]
            normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
            np.testing.assert_allclose(normed * norm.weight + norm.bias, at[f"blocks.{i}.{place}"], rtol=0.2, atol=0.2)
    np.testing.assert_array_equal(at["blocks.0.resid_post"], at["blocks.1.resid_pre"])

    if name != "clip":  # whose last norm sees the class token alone
        np.testing.assert_allclose(
            at["norm"][:, -TOKENS[name] :], backbone.encode(batch, tokens=True).tokens, atol=1e-5
        )

    block = blocks_of(backbone._encoder)[1][1]
    last = next(p for n, p in block.named_parameters() if n.endswith(("fc2.bias", "down_proj.bias")))
    before = by_role[1, "mlp_out"].bias.copy()
    last.data[3] += 5.0
    bias = next(w.bias for w in backbone.anatomy() if (w.block, w.role) == (1, "mlp_out"))
    moved = backbone.activations(batch, ["blocks.1.mlp_out"])["blocks.1.mlp_out"] - at["blocks.1.mlp_out"]
    np.testing.assert_allclose(moved.mean((0, 1)), bias - before, atol=1e-5)
    assert bias[3] - before[3] > 1e-5


def test_an_encoder_of_other_blocks_shows_its_hidden_states_and_no_weights(saved: Callable[[str], Path]) -> None:
    backbone = load(saved("wav2vec2"))
    assert backbone.points() == ("embeddings", "blocks.0.resid_post", "blocks.1.resid_post")
    assert list(backbone.anatomy()) == []
    found = backbone.activations(backbone.preprocess(raw("wav2vec2", backbone))[None], backbone.points())
    assert {x.shape for x in found.values()} == {(1, 49, 32)}
    assert not any(point.endswith("norm1") for point in load(saved("clap")).points())  # its stages differ in tokens


def test_pools_differ_and_one_that_is_not_there_is_named(saved: Callable[[str], Path]) -> None:
    pooled = {}
    for pool in ("mean", "cls", "pooler"):
        backbone = load(saved("clip"), pool=pool)
        pooled[pool] = backbone.encode(backbone.preprocess(raw("clip", backbone))[None]).pooled
    assert not np.allclose(pooled["mean"], pooled["cls"])
    assert not np.allclose(pooled["cls"], pooled["pooler"])
    backbone = load(saved("wav2vec2"), pool="cls")
    with pytest.raises(BenchkitError, match="no class token: use pool=mean"):
        backbone.encode(backbone.preprocess(raw("wav2vec2", backbone))[None])


def test_random_weights_are_another_model_and_the_same_for_a_seed(saved: Callable[[str], Path]) -> None:
    kinds: tuple[dict[str, Any], ...] = ({}, {"init": "random", "seed": 1}, {"init": "random", "seed": 2})
    prints = [load(saved("vit"), **kind).fingerprint() for kind in kinds]
    assert len(set(prints)) == 3
    state = torch.get_rng_state()
    assert load(saved("vit"), **kinds[1]).fingerprint() == prints[1]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("damage", ["missing", "extra", "misshapen"])
def test_a_wrong_tensor_is_named(saved: Callable[[str], Path], tmp_path: Path, damage: str) -> None:
    for file in saved("vit").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(k for k in sorted(tensors) if k.endswith("weight") and "layer" in k)
    if damage == "missing":
        del tensors[name]
    elif damage == "extra":
        name = name.replace("weight", "surplus")
        tensors[name] = np.zeros(3, np.float32)
    else:
        tensors[name] = np.zeros((3, 5), np.float32)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BenchkitError) as caught:
        load(tmp_path)
    assert name.split(".")[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_head_of_a_finetuned_checkpoint_is_no_concern(tmp_path: Path) -> None:
    config = tf.ViTConfig(**PICTURE, num_labels=7)
    tf.ViTForImageClassification(config).save_pretrained(tmp_path)
    tf.ViTImageProcessorPil(size=square(32)).save_pretrained(tmp_path)
    backbone = load(tmp_path)
    assert backbone.encode(backbone.preprocess(raw("vit", backbone))[None]).pooled.shape == (1, 32)


def test_grey_images_and_audio_of_any_length_fit(saved: Callable[[str], Path]) -> None:
    image, audio = load(saved("vit")), load(saved(AST))
    assert image.preprocess(np.zeros((8, 8, 1), np.uint8)).shape == (3, 32, 32)
    shapes = {audio.preprocess(np.zeros(n, np.float32)).shape for n in (100, 16000, 99999)}
    assert len(shapes) == 1
    with pytest.raises(BenchkitError, match="takes audio"):
        audio.preprocess(np.zeros((8, 8, 1), np.uint8))


def test_an_unknown_type_asks_for_prefix_tokens(tmp_path: Path) -> None:
    tf.BeitModel(tf.BeitConfig(**PICTURE)).save_pretrained(tmp_path)
    tf.ViTImageProcessorPil(size=square(32)).save_pretrained(tmp_path)
    with pytest.raises(BenchkitError, match="prefix_tokens=1"):
        load(tmp_path)
    backbone = load(tmp_path, prefix_tokens=1)
    encoded = backbone.encode(backbone.preprocess(raw("vit", backbone))[None], tokens=True)
    assert encoded.tokens is not None
    assert encoded.tokens.shape == (1, 16, 32)


def test_remote_code_is_refused_unless_allowed(saved: Callable[[str], Path], tmp_path: Path) -> None:
    config = (saved("vit") / "config.json").read_text()
    marker = tmp_path / "executed"
    (tmp_path / "config.json").write_text(
        config.replace('"model_type": "vit"', '"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig"}')
    )
    (tmp_path / "mine.py").write_text(f"open({str(marker)!r}, 'w')\nclass MyConfig: pass\n")
    with pytest.raises(BenchkitError, match="allow_remote_code=true executes it"):
        load(tmp_path)
    assert not marker.exists()


def test_a_repository_out_of_reach_is_one_line_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    backbone = resolve("model", "hf:facebook/dinov2-small").build()
    with pytest.raises(BenchkitError, match="hf download facebook/dinov2-small"):
        backbone.setup("cpu")


def test_a_folder_enters_the_identity_by_its_contents(saved: Callable[[str], Path]) -> None:
    assert resolve("model", f"hf:{saved('vit')},pool=cls").canonical.startswith("hf@2:fp-")
    assert resolve("model", "hf:facebook/dinov2-small").canonical == "hf@2:facebook/dinov2-small"


# ---------------------------------------------------------------------------------------------------------- fine-tuning

EDGES = {
    "vit": ("embeddings.patch_embeddings.projection.weight", "layernorm.weight"),
    "dinov2": ("embeddings.patch_embeddings.projection.weight", "layernorm.weight"),
    "dinov3_vit": ("embeddings.patch_embeddings.weight", "norm.weight"),
    "clip": ("pre_layrnorm.weight", "post_layernorm.weight"),
    "siglip": ("embeddings.patch_embedding.weight", "post_layernorm.weight"),
    AST: ("embeddings.patch_embeddings.projection.weight", "layernorm.weight"),
    "wav2vec2": ("encoder.layer_norm.weight", None),
    "wav2vec2-stable": ("feature_projection.projection.weight", "encoder.layer_norm.weight"),
    "hubert": ("encoder.layer_norm.weight", None),
    "wavlm": ("encoder.layer_norm.weight", None),
    "whisper": ("conv1.weight", "layer_norm.weight"),
    "clap": ("audio_encoder.patch_embed.proj.weight", "audio_encoder.norm.weight"),
}
"""A parameter before the blocks, and one behind them (none: the last block's norm is the last)."""


def batch_of(name: str, backbone: HF) -> np.ndarray:
    return np.stack([backbone.preprocess(raw(name, backbone, seed)) for seed in range(2)])


@pytest.mark.parametrize("name", EDGES)
def test_a_copy_of_the_encoder_is_fine_tuned_and_each_block_has_its_depth(
    saved: Callable[[str], Path], name: str
) -> None:
    backbone = load(saved(name))
    batch = batch_of(name, backbone)
    before, fingerprint = backbone.encode(batch).pooled, backbone.fingerprint()
    trainable = backbone.trainable()
    named = dict(trainable.module.named_parameters())
    assert trainable.top == (5 if name == "clap" else 3)
    assert set(trainable.depth_of) == set(named)
    first, last = EDGES[name]
    assert trainable.depth_of[first] == 0
    assert last is None or trainable.depth_of[last] == trainable.top
    blocks = {n: d for n, d in trainable.depth_of.items() if re.search(r"(^|\.)layers?\.1\.", n)}
    assert set(blocks.values()) == {2}

    for parameter in named.values():
        parameter.requires_grad_()
    pooled = trainable.pooled(torch.from_numpy(batch))
    np.testing.assert_allclose(pooled.detach().numpy(), before, atol=1e-5)
    (pooled * torch.arange(pooled.shape[1])).sum().backward()
    assert {trainable.depth_of[n] for n, p in named.items() if p.grad is not None} >= set(range(trainable.top))
    with torch.no_grad():
        for parameter in named.values():
            parameter.add_(0.1)
    np.testing.assert_array_equal(backbone.encode(batch).pooled, before)
    assert backbone.fingerprint() == fingerprint


def test_only_the_blocks_up_to_the_pooled_layer_are_fine_tuned(saved: Callable[[str], Path]) -> None:
    backbone = load(saved("vit"), layer=1)
    trainable, batch = backbone.trainable(), batch_of("vit", backbone)
    assert trainable.top == 2
    assert set(trainable.depth_of.values()) == {0, 1}
    pooled = trainable.pooled(torch.from_numpy(batch)).detach().numpy()
    np.testing.assert_allclose(pooled, backbone.encode(batch).pooled, atol=1e-5)


def test_half_precision_is_fine_tuned_in_float32(saved: Callable[[str], Path]) -> None:
    backbone = load(saved("vit"), dtype="bfloat16")
    trainable, batch = backbone.trainable(), batch_of("vit", backbone)
    assert {p.dtype for p in trainable.module.parameters()} == {torch.float32}
    pooled = trainable.pooled(torch.from_numpy(batch)).detach().numpy()
    np.testing.assert_allclose(pooled, backbone.encode(batch).pooled, atol=0.05)


@pytest.mark.parametrize("name", ["vit", "wav2vec2"])
def test_bfloat16_is_another_name_and_stays_close(saved: Callable[[str], Path], name: str) -> None:
    plain, half = load(saved(name)), load(saved(name), dtype="bfloat16")
    batch = batch_of(name, plain)
    exact, rounded = plain.encode(batch, tokens=True), half.encode(batch, tokens=True)
    for a, b in ((exact.pooled, rounded.pooled), (exact.tokens, rounded.tokens)):
        assert a is not None
        assert b is not None
        assert b.dtype == np.float32
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert 1e-6 < error < 0.03
    spec = f"hf:{saved(name)}"
    names = [resolve("model", spec + more).canonical for more in ("", ",dtype=bfloat16", ",compile=true")]
    assert len(set(names)) == 3
    assert resolve("model", f"{spec},dtype=float32,compile=false").canonical == names[0]


@pytest.mark.slow
def test_a_compiled_encoder_computes_the_same(saved: Callable[[str], Path]) -> None:
    plain, compiled = load(saved("vit")), load(saved("vit"), compile=True)
    batch = batch_of("vit", plain)
    ran = torch._dynamo.utils.counters["frames"]
    before = ran["ok"]
    exact, fast = plain.encode(batch, tokens=True), compiled.encode(batch, tokens=True)
    assert ran["ok"] > before
    np.testing.assert_allclose(fast.pooled, exact.pooled, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fast.tokens, exact.tokens, rtol=1e-4, atol=1e-5)
    assert compiled.fingerprint() == plain.fingerprint()
    point = "blocks.1.norm2"
    shown = [b.activations(batch, [point])[point] for b in (plain, compiled)]
    np.testing.assert_array_equal(*shown)
    trainable = compiled.trainable()
    np.testing.assert_allclose(trainable.pooled(torch.from_numpy(batch)).numpy(), exact.pooled, rtol=1e-4, atol=1e-5)
