"""Every type that the loader knows against transformers' own recipe, written here a second time: its processor called
as its documentation says, the model's forward pass, and the mean of what is the example's own."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from tiny_models import MODELS, VARIANTS, clip, image, is_of_images, load

from benchkit_hf.backbone import HF
from benchkit_hf.families import FAMILIES, table

Saved = Callable[[str], Path]
Recipe = tuple[torch.Tensor, torch.Tensor]
"""An example's own tokens [T, D], and its pooled features [D]."""
RATES = {"clap": 48_000, "clap-fusion": 48_000, "clap_audio_model": 48_000}
SHORT = 0.307
"""Seconds, and no whole number of frames."""
AUDIO = [n for n in MODELS if isinstance(MODELS[n]()[1], tf.SequenceFeatureExtractor)]
IMAGES = [n for n in MODELS if n not in AUDIO]


def model_of(folder: Path) -> Any:
    of_its_own = folder.name.startswith("clap_audio_model")
    model = (tf.ClapAudioModel if of_its_own else tf.AutoModel).from_pretrained(folder).eval()
    part = {"clap": "audio_model", "whisper": "encoder"}.get(model.config.model_type, "vision_model")
    return getattr(model, part) if part in dict(model.named_children()) else model


@torch.inference_mode()
def of_image(name: str, folder: Path, x: np.ndarray) -> Recipe:
    processor = tf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    made, model = processor(images=x, return_tensors="pt"), model_of(folder)
    if name == "vit_mae":
        model.config.mask_ratio = 0.0
        made["noise"] = torch.arange(16)[None]
    out = model(**made)
    states = out.last_hidden_state
    if states.ndim == 4:
        return states[0].flatten(1).T, out.pooler_output[0].flatten()
    if name in ("hiera", "dinov3_convnext"):
        return states[0, int(name == "dinov3_convnext") :], out.pooler_output[0]
    n = int(made["pixel_attention_mask"].sum()) if "pixel_attention_mask" in made else None
    prefix = len(states[0]) - 16 if name not in ("siglip2", "siglip2_vision_model", "swin", "swinv2") else 0
    return states[0, prefix:][:n], states[0, prefix:][:n].mean(0)


@torch.inference_mode()
def of_clip(name: str, folder: Path, x: np.ndarray, seconds: float) -> Recipe:
    extract, model = tf.AutoFeatureExtractor.from_pretrained(folder), model_of(folder)
    rate = extract.sampling_rate
    kind = type(extract).__name__
    if kind == "Wav2Vec2FeatureExtractor":
        size = round(seconds * rate)
        made = extract(
            x,
            sampling_rate=rate,
            padding="max_length",
            max_length=size,
            return_attention_mask=True,
            return_tensors="pt",
        )
        if not extract.return_attention_mask:
            del made["attention_mask"]
        states = model(**made).last_hidden_state[0]
        own = states[: int(model._get_feat_extract_output_lengths(torch.tensor(len(x))))]
    elif kind == "SeamlessM4TFeatureExtractor":
        frames = (round(seconds * rate) - 400) // 160 + 1
        made = extract(x, sampling_rate=rate, padding="max_length", max_length=frames + frames % 2, return_tensors="pt")
        own = model(**made).last_hidden_state[0][made["attention_mask"][0].bool()]
    elif kind == "WhisperFeatureExtractor":
        made = extract(x, sampling_rate=rate, return_attention_mask=True, return_tensors="pt")
        frames = int(made["attention_mask"].sum())
        own = model(made["input_features"]).last_hidden_state[0, : (frames + 1) // 2]
    elif kind == "ASTFeatureExtractor":
        frames = (len(x) - 400) // 160 + 1
        states = model(**extract(x, sampling_rate=rate, return_tensors="pt")).last_hidden_state[0, 2:]
        own = states.unflatten(0, (12, 12))[:, : (frames - 16) // 10 + 1].flatten(0, 1)
    else:
        made = extract(x, sampling_rate=rate, return_tensors="pt")
        made["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
        own = model(**made).last_hidden_state[0].flatten(1).T
    return own, own.mean(0)


def agrees(backbone: HF, x: np.ndarray, expected: Recipe) -> None:
    """Alone, and in a batch with another one of full length."""
    own, pooled = expected
    other = image(9, 32, 32) if x.ndim == 3 else clip(backbone.sample_rate or 0, 1.0, 9)
    for batch in ([x], [other, x]):
        made = np.stack([backbone.preprocess(one) for one in batch])
        encoded = backbone.encode(made, tokens=True)
        assert encoded.tokens is not None
        real = backbone.real_tokens(made, encoded.tokens.shape[1])
        mine = encoded.tokens[-1] if real is None else encoded.tokens[-1][real[-1]]
        np.testing.assert_allclose(mine, own.numpy(), atol=2e-5)
        np.testing.assert_allclose(encoded.pooled[-1], pooled.numpy(), atol=2e-5)
        assert encoded.pooled.shape[1] == backbone.dim


def test_every_known_type_is_here() -> None:
    assert set(MODELS) - set(VARIANTS) == set(FAMILIES)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_gives_what_transformers_recipe_gives(saved: Saved, name: str) -> None:
    assert is_of_images(saved(name))
    backbone = load(saved(name))
    for x in (image(), image(1, 20, 64)):
        agrees(backbone, x, of_image(name, saved(name), x))


@pytest.mark.parametrize("name", AUDIO)
def test_a_full_and_a_short_clip_give_what_transformers_recipe_gives(saved: Saved, name: str) -> None:
    backbone = load(saved(name))
    assert backbone.sample_rate == RATES.get(name, 16_000)
    for seconds in (1.0, SHORT):
        x = clip(backbone.sample_rate, seconds)
        agrees(backbone, x, of_clip(name, saved(name), x, 1.0))


@pytest.mark.parametrize("name", [n for n in AUDIO if "clap" not in n])
def test_fine_tuning_and_activations_see_the_same_real_tokens(saved: Saved, name: str) -> None:
    backbone = load(saved(name))
    assert backbone.sample_rate is not None
    batch = np.stack([backbone.preprocess(clip(backbone.sample_rate, s, 3)) for s in (SHORT, 1.0)])
    pooled = backbone.trainable().pooled(torch.from_numpy(batch)).detach().numpy()
    np.testing.assert_allclose(pooled, backbone.encode(batch).pooled, atol=2e-5)
    last = load(saved(name), layer=2)
    point = "blocks.1.resid_post"
    states = last.activations(batch, [point])[point][:, last.prefix_tokens :]
    real = last.real_tokens(batch, states.shape[1])
    assert real is not None
    assert not real.all()
    means = np.stack([x[keep].mean(0) for x, keep in zip(states, real, strict=True)])
    np.testing.assert_allclose(last.encode(batch).pooled, means, atol=2e-5)


@pytest.mark.parametrize("name", ["wav2vec2-stable", "wav2vec2-bert"])
def test_with_a_mask_the_length_of_the_padding_changes_nothing(saved: Saved, name: str) -> None:
    x = clip(16_000, 0.8)
    features = []
    for seconds in (0.8, 1.0, 2.3):
        backbone = load(saved(name), seconds=seconds)
        features.append(backbone.encode(backbone.preprocess(x)[None]).pooled)
    np.testing.assert_allclose(features[1], features[0], atol=2e-5)
    np.testing.assert_allclose(features[2], features[0], atol=2e-5)


@pytest.mark.parametrize("seconds", [0.2, 1.0, 1.01, 1.015, 4.99])
def test_whispers_spectrogram_is_its_processors_without_the_thirty_seconds(saved: Saved, seconds: float) -> None:
    backbone = load(saved("whisper"), seconds=5.0)
    x = clip(16_000, seconds) * np.linspace(0, 5, round(16_000 * seconds), dtype=np.float32)
    ours = backbone.preprocess(x)[1:].reshape(80, -1)
    theirs = tf.WhisperFeatureExtractor()(x, sampling_rate=16_000, return_tensors="np")["input_features"][0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("name", ["vit", "dinov3_vit", "wav2vec2", "wav2vec2-bert", "whisper", "convnext", "resnet"])
def test_hidden_states_have_the_numbers_that_transformers_gives_them(saved: Saved, name: str) -> None:
    backbone = load(saved(name))
    x = image() if name in IMAGES else clip(16_000)
    batch = backbone.preprocess(x)[None]
    arguments = backbone.recipe.arguments(torch.from_numpy(batch))
    with torch.inference_mode():
        states = model_of(saved(name))(**arguments, output_hidden_states=True).hidden_states
    for layer, state in list(enumerate(states))[:-1]:
        got = load(saved(name), layer=layer).encode(batch, tokens=True)
        state = state.flatten(2).transpose(1, 2) if state.ndim == 4 else state[:, backbone.prefix_tokens :]
        assert got.tokens is not None
        np.testing.assert_allclose(got.tokens, state[:, : got.tokens.shape[1]].numpy(), atol=1e-5)


def test_the_table_in_the_docs_is_the_loaders_own() -> None:
    page = Path(__file__).parents[3] / "docs" / "hf.md"
    (shown,) = re.findall(r"^\| type .*?(?=\n\n)", page.read_text() + "\n\n", re.M | re.S)
    assert shown + "\n" == table()
