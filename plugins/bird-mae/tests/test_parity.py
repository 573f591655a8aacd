"""Features equal to the published model's: on the reference fixtures, and against plain numpy on weights of our own."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from benchkit_bird_mae.architecture import Architecture
from benchkit_bird_mae.backbone import BirdMAE, Params
from benchkit_bird_mae.spectrogram import spectrogram
from benchkit_bird_mae.vit import PLACES, sincos_positions
from benchkit_bird_mae.weights import build

FIXTURES = ["bird_mae_tiny", "bird_mae_outlier"]


class Reference:
    """A published fixture, and a backbone that has loaded its weights."""

    def __init__(self, folder, **params):
        self.folder = folder
        self.expected = np.load(folder / "expected.npz")
        self.backbone = self.load(**params)
        self.batch = np.stack([self.backbone.preprocess(self.expected[f"wave{i}"]) for i in range(2)])

    def load(self, **params):
        backbone = BirdMAE(Params(path=self.folder, **params))
        backbone.setup("cpu")
        return backbone


@pytest.fixture(params=FIXTURES, scope="module")
def reference(request, shared):
    return Reference(shared / "fixtures" / request.param)


def assert_near(ours, theirs, tolerance=1e-4):
    """Relative to each vector's length; and, lest an outlier hide the others, to each dimension's size too."""
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    error = np.abs(ours.astype(np.float64) - theirs)
    assert (np.linalg.norm(error, axis=-1) <= tolerance * np.linalg.norm(theirs, axis=-1)).all()
    axes = tuple(range(theirs.ndim - 1))
    size = np.abs(theirs).max(axes)
    assert (error.max(axes) <= tolerance * (size + np.median(size))).all()


def test_the_spectrogram_of_a_real_recording(reference):
    ours = spectrogram(torch.from_numpy(reference.batch), reference.backbone.recipe()).numpy()
    error = np.abs(ours - reference.expected["fbank"])
    assert error.max() < 1e-3
    assert error.mean() < 1e-4
    padded = ours[:, 498:]
    assert (padded == ours.min(axis=(1, 2), keepdims=True)).all()  # each with its own


def test_pooled_features_and_tokens(reference):
    mean = reference.backbone.encode(reference.batch, tokens=True)
    assert_near(mean.pooled, reference.expected["pooled_mean"])
    assert mean.tokens.shape == (2, 256, 64)
    assert_near(mean.tokens, reference.expected["tokens"])
    cls = reference.load(pool="cls").encode(reference.batch)
    assert_near(cls.pooled, reference.expected["pooled_cls"])
    assert cls.tokens is None


def test_activations_at_every_place_that_the_fixture_names(reference):
    points = [name for name in reference.expected if name.startswith("blocks.")]
    assert len(points) == 4 * reference.backbone.architecture.depth
    shown = reference.backbone.activations(reference.batch, points)
    assert list(shown) == points
    for point in points:
        assert_near(shown[point], reference.expected[point])


def test_from_the_published_spectrogram_on_the_encoder_is_exact_to_rounding(reference):
    model = reference.backbone.module
    shown = {}
    x = model(torch.from_numpy(reference.expected["fbank"]), tap=lambda name, value: shown.setdefault(name, value))
    assert_near(model.pool_mean(x).numpy(), reference.expected["pooled_mean"], 1e-5)
    assert_near(x[:, 1:].numpy(), reference.expected["tokens"], 1e-5)
    for point in (name for name in reference.expected if name.startswith("blocks.")):
        assert_near(shown[point].numpy(), reference.expected[point], 1e-5)


def test_activations_fit_together(reference):
    last = reference.backbone.architecture.depth - 1
    points = [f"blocks.{i}.{place}" for i in (0, last) for place in PLACES] + ["norm"]
    shown = reference.backbone.activations(reference.batch, points)
    for i in (0, last):
        at = {place: shown[f"blocks.{i}.{place}"] for place in PLACES}
        np.testing.assert_allclose(at["resid_mid"], at["resid_pre"] + at["attn_out"], rtol=1e-6)
        np.testing.assert_allclose(at["resid_post"], at["resid_mid"] + at["mlp_out"], rtol=1e-6)
    cls = reference.load(pool="cls").encode(reference.batch).pooled
    np.testing.assert_allclose(shown["norm"][:, 0], cls, rtol=1e-5, atol=1e-6)


def test_an_outlier_dimension_is_found_where_it_is_written_and_gone_behind_the_norm(shared):
    outlier = Reference(shared / "fixtures" / "bird_mae_outlier")
    shown = outlier.backbone.activations(outlier.batch, ["blocks.0.attn_out", "blocks.0.mlp_out", "blocks.1.norm2"])
    largest = {point: np.abs(x).max((0, 1)) for point, x in shown.items()}
    assert largest["blocks.0.mlp_out"].argmax() == 17
    assert largest["blocks.0.mlp_out"][17] > 1000
    assert largest["blocks.0.attn_out"].max() < 10
    assert largest["blocks.1.norm2"].max() < 10


def test_an_intermediate_layer_passes_the_same_norms(reference):
    last = reference.backbone.architecture.depth - 1
    model = reference.backbone.module
    points = [f"blocks.{last - 1}.resid_post"]
    stream = torch.from_numpy(reference.backbone.activations(reference.batch, points)[points[0]])
    mean = reference.load(layer=last - 1).encode(reference.batch, tokens=True)
    np.testing.assert_array_equal(mean.tokens, stream[:, 1:])
    np.testing.assert_allclose(mean.pooled, model.fc_norm(stream[:, 1:].mean(1)), rtol=1e-5, atol=1e-6)
    cls = reference.load(layer=last - 1, pool="cls").encode(reference.batch)
    np.testing.assert_allclose(cls.pooled, model.norm(stream[:, 0]), rtol=1e-5, atol=1e-6)


def test_tokens_for_the_prototypical_head_are_normed_and_less_the_class_token(reference):
    shown = reference.backbone.activations(reference.batch, ["norm"])["norm"]
    normed = reference.load(tokens="norm").encode(reference.batch, tokens=True)
    focal = reference.load(tokens="focal").encode(reference.batch, tokens=True)
    np.testing.assert_allclose(normed.tokens, shown[:, 1:], atol=1e-5)
    np.testing.assert_allclose(focal.tokens, shown[:, 1:] - shown[:, :1], atol=1e-5)
    np.testing.assert_array_equal(normed.pooled, reference.backbone.encode(reference.batch).pooled)


def test_bfloat16_stays_close_and_keeps_the_residual_stream(reference):
    backbone = reference.load(dtype="bfloat16")
    encoded = backbone.encode(reference.batch, tokens=True)
    expected = reference.expected["pooled_mean"]
    error = np.linalg.norm(encoded.pooled - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert (error < 0.03).all()
    assert (error > 1e-6).all()  # it did something
    written = np.abs(reference.expected["tokens"][..., 17]).max()
    assert np.abs(encoded.tokens[..., 17]).max() == pytest.approx(written, rel=0.01)
    assert backbone.fingerprint() == reference.backbone.fingerprint()


COMPILED = """
import sys
import numpy as np
from pathlib import Path
from benchkit_bird_mae.backbone import BirdMAE, Params

folder = Path(sys.argv[1])
plain, compiled = BirdMAE(Params(path=folder)), BirdMAE(Params(path=folder, compile=True))
plain.setup("cpu")
compiled.setup("cpu")
batch = np.stack([plain.preprocess(np.load(folder / "expected.npz")["wave0"])])
np.testing.assert_allclose(compiled.encode(batch).pooled, plain.encode(batch).pooled, rtol=1e-4, atol=1e-5)
np.testing.assert_array_equal(*(b.activations(batch, ["blocks.1.norm2"])["blocks.1.norm2"] for b in (plain, compiled)))
print("equal", all(block._compiled_call_impl is not None for block in compiled.module.blocks))
"""


@pytest.mark.slow
def test_compiled_blocks_compute_the_same(shared):
    # In a process of its own: the shape checks that the tests turn on cannot be compiled.
    folder = shared / "fixtures" / "bird_mae_tiny"
    done = subprocess.run([sys.executable, "-c", COMPILED, str(folder)], capture_output=True, text=True)
    assert done.stdout.strip() == "equal True", done.stderr


def test_an_example_does_not_depend_on_its_neighbours(reference):
    rng = np.random.default_rng(0)
    loud = 100 * rng.standard_normal(reference.batch[:1].shape, dtype=np.float32)
    among = reference.backbone.encode(np.concatenate([loud, reference.batch[1:], 0 * loud, loud]), tokens=True)
    alone = reference.backbone.encode(reference.batch[1:], tokens=True)
    np.testing.assert_allclose(among.pooled[1], alone.pooled[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(among.tokens[1], alone.tokens[0], rtol=1e-5, atol=1e-4)


def test_clips_are_cut_or_filled_with_zeros_to_five_seconds():
    backbone = BirdMAE(Params())
    long = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    np.testing.assert_array_equal(backbone.preprocess(long), long[:160_000])
    short = backbone.preprocess(long[:1000])
    assert short.shape == (160_000,)
    np.testing.assert_array_equal(short[:1000], long[:1000])
    assert not short[1000:].any()


def test_positions_are_the_published_ones(reference):
    ours = sincos_positions(reference.backbone.architecture)
    np.testing.assert_allclose(ours, reference.backbone.module.pos_embed, atol=2e-6)


# ----------------------------------------------------------------------------- weights and audio that are not in shared


def numpy_encoder(wave: np.ndarray, w: dict[str, np.ndarray], heads: int, depth: int) -> dict[str, np.ndarray]:
    """One clip in float64, with loops where the model has reshapes."""
    mel = numpy_filterbank(wave - wave.mean())
    image = np.full((512, 128), mel.min())
    image[: len(mel)] = mel
    image = (image + 7.2) / (2 * 4.43)

    kernel = w["patch_embed.proj.weight"][:, 0]
    tokens = [w["cls_token"][0, 0]]
    for t in range(32):
        for f in range(8):
            patch = image[16 * t : 16 * t + 16, 16 * f : 16 * f + 16]
            tokens.append((kernel * patch).sum((1, 2)) + w["patch_embed.proj.bias"])
    x = np.stack(tokens) + w["pos_embed"][0]

    found = {}
    for i in range(depth):
        p = f"blocks.{i}."
        n = norm(x, w, p + "norm1")
        qkv = n @ w[p + "attn.qkv.weight"].T + w[p + "attn.qkv.bias"]
        q, k, v = np.split(qkv, 3, axis=1)
        size = q.shape[1] // heads
        mixed = []
        for h in range(heads):
            s = slice(h * size, (h + 1) * size)
            scores = q[:, s] @ k[:, s].T / math.sqrt(size)
            weight = np.exp(scores - scores.max(1, keepdims=True))
            mixed.append(weight / weight.sum(1, keepdims=True) @ v[:, s])
        x = x + np.concatenate(mixed, 1) @ w[p + "attn.proj.weight"].T + w[p + "attn.proj.bias"]
        n = found[p + "norm2"] = norm(x, w, p + "norm2")
        hidden = n @ w[p + "mlp.fc1.weight"].T + w[p + "mlp.fc1.bias"]
        hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
        x = x + hidden @ w[p + "mlp.fc2.weight"].T + w[p + "mlp.fc2.bias"]
    return found | {
        "tokens": x[1:],
        "mean": norm(x[1:].mean(0), w, "fc_norm"),
        "cls": norm(x[0], w, "norm"),
    }


def norm(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / scale * w[name + ".weight"] + w[name + ".bias"]


def numpy_filterbank(wave: np.ndarray) -> np.ndarray:
    edges = np.linspace(*(1127 * np.log(1 + hz / 700) for hz in (20, 16_000)), 130)
    at = 1127 * np.log(1 + np.arange(512) * 31.25 / 700)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.maximum(0, np.minimum((at - left) / (centre - left), (right - at) / (right - centre)))
    rows = []
    for start in range(0, len(wave) - 799, 320):
        frame = wave[start : start + 800] - wave[start : start + 800].mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * np.hanning(800), 1024))[:512] ** 2
        rows.append(np.log(np.maximum(power @ triangles, np.finfo(np.float32).eps)))
    return np.array(rows)


def test_random_weights_and_noise_agree_with_plain_numpy(tmp_path):
    arch = Architecture(depth=2, width=32, heads=2)
    rng = np.random.default_rng(7)
    with torch.device("meta"):
        from benchkit_bird_mae.vit import ViT

        shapes = {name: tuple(t.shape) for name, t in ViT(arch).state_dict().items()}
    weights = {name: 0.2 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size_x": 512}')

    waves = [rng.normal(0.1, 0.3, 170_000), rng.normal(0, 0.01, 90_000)]
    waves = [wave.astype(np.float32) for wave in waves]
    backbone = BirdMAE(Params(path=tmp_path))
    backbone.setup("cpu")
    batch = np.stack([backbone.preprocess(wave) for wave in waves])
    ours = backbone.encode(batch, tokens=True)
    cls = BirdMAE(Params(path=tmp_path, pool="cls"))
    cls.setup("cpu")
    shown = backbone.activations(batch, ["blocks.0.norm2", "blocks.1.norm2"])

    exact = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    for i, wave in enumerate(waves):
        clip = np.zeros(160_000)
        clip[: len(wave)] = wave[:160_000]
        expected = numpy_encoder(clip, exact, heads=2, depth=2)
        assert_near(ours.pooled[i], expected["mean"])
        assert_near(cls.encode(batch).pooled[i], expected["cls"])
        assert_near(ours.tokens[i], expected["tokens"])
        for point, x in shown.items():
            assert_near(x[i], expected[point])


def test_a_build_keeps_no_gradients_and_no_dropout():
    from benchkit_bird_mae.vit import random_weights

    arch = Architecture(depth=1, width=32, heads=2)
    model = build(arch, random_weights(arch, 0), "these")
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
