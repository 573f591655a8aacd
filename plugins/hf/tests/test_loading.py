"""What is refused, what is not, and what a checkpoint's folder says: after reports of silently wrong features."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from safetensors.numpy import load_file, save_file
from tiny_models import PICTURE, clip, image, load, vit_processor

from benchkit import BenchkitError
from benchkit_hf import families
from benchkit_hf.backbone import HF, HFParams
from benchkit_hf.families import FAMILIES, Family
from benchkit_hf.recipes import Waves

Saved = Callable[[str], Path]


def pooled(backbone: HF, x: np.ndarray) -> np.ndarray:
    return backbone.encode(backbone.preprocess(x)[None]).pooled[0]


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to, dirs_exist_ok=True))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# ------------------------------------------------------------------------------------ masked, shuffled, random tokens

MINE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class MineConfig(PretrainedConfig):
    model_type = "mine"
    def __init__(self, how="plain", patch_size=8, hidden_size=32, image_size=32, **more):
        super().__init__(**more)
        self.how, self.patch_size, self.hidden_size, self.image_size = how, patch_size, hidden_size, image_size

class MineModel(PreTrainedModel):
    config_class = MineConfig
    base_model_prefix = "mine"
    main_input_name = "pixel_values"
    def __init__(self, config):
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.post_init()
    def forward(self, pixel_values, output_hidden_states=False, return_dict=True):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        how = self.config.how
        if how == "random":
            x = x + torch.rand_like(x)
        if how == "masked":
            x = x[:, :4]
        if how == "shuffled":
            x = x[:, torch.randperm(16, generator=torch.Generator().manual_seed(0))]
        if how == "reversed":
            x = x.flip(1)
        if how == "class":
            x = torch.cat([x.mean(1, keepdim=True), x], 1)
        return BaseModelOutput(last_hidden_state=x)
"""


def mine(folder: Path, how: str) -> Path:
    (folder / "mine.py").write_text(MINE)
    auto = {"AutoConfig": "mine.MineConfig", "AutoModel": "mine.MineModel"}
    config = {"model_type": "mine", "how": how, "patch_size": 8, "hidden_size": 32, "image_size": 32, "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    weights = {
        "patches.weight": rng.standard_normal((32, 3, 8, 8), np.float32), "patches.bias": np.zeros(32, np.float32)
    }  # fmt: skip
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    vit_processor().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("random", "not the same twice .* draws random numbers"),
        ("masked", r"4 tokens of an image of 16 patches \(4 x 4\): it leaves patches out"),
        ("shuffled", "not in the order of the image's patches"),
        ("reversed", "not in the order of the image's patches"),
        ("class", "17 tokens of 16 patches, so prefix_tokens=1, not 0"),
    ],
)
def test_a_model_that_draws_drops_or_reorders_tokens_is_refused(tmp_path: Path, how: str, why: str) -> None:
    with pytest.raises(BenchkitError, match=why):
        load(mine(tmp_path, how), prefix_tokens=0, allow_remote_code=True)


def test_a_model_that_does_none_of_it_is_not(tmp_path: Path) -> None:
    backbone = load(mine(tmp_path, "plain"), prefix_tokens=0, allow_remote_code=True)
    before = backbone.fingerprint()
    (tmp_path / "mine.py").write_text(MINE.replace("return BaseModelOutput(last_hidden_state=x)", "return None"))
    assert load_fingerprint(tmp_path, backbone) != before, "code that the repository brings is part of what it computes"


def load_fingerprint(folder: Path, backbone: HF) -> str:
    backbone.__dict__.pop("folder", None)
    return backbone.fingerprint()


def test_vit_mae_gives_every_token_in_order_and_the_same_each_time(saved: Saved) -> None:
    first, second = load(saved("vit_mae")), load(saved("vit_mae"))
    batch = np.stack([first.preprocess(image(seed)) for seed in range(3)])
    one, two = (b.encode(batch, tokens=True) for b in (first, second))
    assert one.tokens is not None
    assert one.tokens.shape == (3, 16, 32)
    np.testing.assert_array_equal(one.tokens, two.tokens)
    at = first.activations(batch, ["blocks.0.resid_pre"])["blocks.0.resid_pre"]
    assert at.shape == (3, 17, 32)


# -------------------------------------------------------------------------------------------------- what lies beyond


@pytest.mark.parametrize(
    ("name", "seconds", "limit"),
    [("whisper", 60.0, "30"), ("audio-spectrogram-transformer", 1.5, "1.29"), ("clap", 15.0, "10"),
     ("clap-fusion", 20.0, "10")],
)  # fmt: skip
def test_a_clip_longer_than_the_model_hears_is_refused_at_setup(
    saved: Saved, name: str, seconds: float, limit: str
) -> None:
    with pytest.raises(BenchkitError, match=rf"hears {limit} s, and seconds={seconds:g}: what lies beyond"):
        load(saved(name), seconds=seconds)


def test_a_processor_that_leaves_off_before_the_end_or_draws_numbers_is_refused(
    saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = {**FAMILIES, "wav2vec2": Family("unknown")}
    monkeypatch.setattr(families, "FAMILIES", unknown)
    load(saved("wav2vec2"))
    own = tf.Wav2Vec2FeatureExtractor.__call__
    monkeypatch.setattr(Waves, "wanted", 16_000)
    monkeypatch.setattr(tf.Wav2Vec2FeatureExtractor, "__call__", lambda self, x, **k: own(self, 0 * x + x[0], **k))
    with pytest.raises(BenchkitError, match=r"its processor hears less than seconds=1: what lies beyond"):
        load(saved("wav2vec2"))
    rng = np.random.default_rng(0)
    noisy = lambda self, x, **k: own(self, x + rng.normal(0, 0.1, len(x)).astype(np.float32), **k)  # noqa: E731
    monkeypatch.setattr(tf.Wav2Vec2FeatureExtractor, "__call__", noisy)
    with pytest.raises(BenchkitError, match="its processor does not give the same twice"):
        load(saved("wav2vec2"))


@pytest.mark.parametrize("name", ["clap", "clap-fusion"])
def test_clap_draws_nothing_at_random_up_to_its_ten_seconds(saved: Saved, name: str) -> None:
    backbone = load(saved(name), seconds=10.0)
    x = clip(48_000, 12)
    np.testing.assert_array_equal(backbone.preprocess(x), backbone.preprocess(x))
    np.testing.assert_array_equal(pooled(backbone, x), pooled(backbone, x[:480_000]))


def test_what_is_behind_seconds_changes_nothing_and_what_is_before_does(saved: Saved) -> None:
    for name, rate in (("wav2vec2", 16_000), ("whisper", 16_000), ("wav2vec2-bert", 16_000), ("clap", 48_000)):
        backbone = load(saved(name), seconds=2.0)
        x = clip(rate, 3)
        np.testing.assert_array_equal(pooled(backbone, x), pooled(backbone, x[: 2 * rate]))
        assert not np.allclose(pooled(backbone, x), pooled(backbone, x[:rate]))


@pytest.mark.parametrize("samples", [1, 100, 399, 559, 700])
def test_a_clip_too_short_for_a_token_has_one(saved: Saved, samples: int) -> None:
    for name in ("wav2vec2", "wav2vec2-stable", "wav2vec2-bert", "whisper", "audio-spectrogram-transformer", "clap"):
        backbone = load(saved(name))
        batch = backbone.preprocess(clip(48_000, samples / 48_000))[None]
        encoded = backbone.encode(batch, tokens=True)
        assert np.isfinite(encoded.pooled).all()
        assert encoded.tokens is not None
        real = backbone.real_tokens(batch, encoded.tokens.shape[1])
        assert real is None or real.any()


# ---------------------------------------------------------------------------------------------- refused without cause


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("wav2vec2", "masked_spec_embed"), ("hubert", "masked_spec_embed"), ("wavlm", "masked_spec_embed"),
     ("data2vec-audio", "masked_spec_embed"), ("wav2vec2-bert", "masked_spec_embed"),
     ("dinov2", "embeddings.mask_token"), ("swin", "embeddings.mask_token"), ("clip", "visual_projection.weight"),
     ("vit_mae", "decoder.mask_token"), ("vit", "pooler.dense.weight")],
)  # fmt: skip
def test_a_tensor_that_only_training_reads_may_be_missing(saved: Saved, tmp_path: Path, name: str, tensor: str) -> None:
    whole = load(saved(name))
    folder = copied(saved(name), tmp_path / "less")
    tensors = load_file(folder / "model.safetensors")
    (gone,) = [k for k in tensors if k.endswith(tensor)] or [None]
    if gone:
        del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    less = load(folder)
    x = image() if whole.sample_rate is None else clip(16_000)
    np.testing.assert_array_equal(pooled(less, x), pooled(whole, x))
    assert load(folder).fingerprint() == less.fingerprint(), "what is not in the checkpoint is not drawn"


@pytest.mark.parametrize("name", ["vit", "wav2vec2", "whisper", "convnext", "resnet", "clip"])
def test_a_tensor_that_features_depend_on_may_not(saved: Saved, tmp_path: Path, name: str) -> None:
    folder = copied(saved(name), tmp_path / "less")
    tensors = load_file(folder / "model.safetensors")
    own = [k for k in sorted(tensors) if not any(part in k for part in ("decoder", "text_model", "pooler"))]
    gone = next(
        k
        for k in reversed(own)
        if ("layer." in k or "layers." in k or "stage" in k) and k.endswith(("bias", "running_mean"))
    )
    del tensors[gone]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BenchkitError, match=r"lacks '.*" + gone.split(".")[-1]):
        load(folder)


def test_a_pooler_that_is_asked_for_may_not_be_missing(saved: Saved, tmp_path: Path) -> None:
    folder = copied(saved("vit"), tmp_path / "less")
    tensors = {k: v for k, v in load_file(folder / "model.safetensors").items() if "pooler" not in k}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    load(folder)
    with pytest.raises(BenchkitError, match=r"lacks 'pooler\.dense"):
        load(folder, pool="pooler")


def test_loading_prints_nothing_of_tensors_that_are_no_concern(saved: Saved, capfd: pytest.CaptureFixture[str]) -> None:
    tf.logging.set_verbosity_warning()
    tf.logging.enable_progress_bar()
    try:
        load(saved("vit_mae"))
        assert (tf.logging.get_verbosity(), tf.logging.is_progress_bar_enabled()) == (tf.logging.WARNING, True)
    finally:
        tf.logging.set_verbosity_error()
        tf.logging.disable_progress_bar()
    shown = "".join(capfd.readouterr())
    assert "decoder" not in shown
    assert "Loading" not in shown


@pytest.mark.parametrize("name", ["clip", "siglip2", "wav2vec2", "clap"])
def test_the_newer_processor_file_alone_is_read(saved: Saved, tmp_path: Path, name: str) -> None:
    old, folder = load(saved(name)), copied(saved(name), tmp_path / "new")
    record = json.loads((folder / "preprocessor_config.json").read_text())
    part = "image_processor" if "image_processor_type" in record else "feature_extractor"
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Whatever", part: record}))
    x = image() if old.sample_rate is None else clip(old.sample_rate)
    np.testing.assert_array_equal(load(folder).preprocess(x), old.preprocess(x))


def test_no_processor_file_and_another_models_are_one_line(saved: Saved, tmp_path: Path) -> None:
    folder = copied(saved("vit"), tmp_path / "none")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(BenchkitError, match="cannot load the processor"):
        load(folder)
    folder = copied(saved("wav2vec2"), tmp_path / "other")
    shutil.copy(saved("vit") / "preprocessor_config.json", folder)
    with pytest.raises(BenchkitError, match=r"is a ViTImageProcessor.*, which is for images"):
        load(folder)


def test_dinov3s_processor_does_its_arithmetic_without_torchvision(saved: Saved, tmp_path: Path) -> None:
    folder = copied(saved("dinov3_vit"), tmp_path / "own")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    record = {
        "image_processor_type": "DINOv3ViTImageProcessorFast", "do_resize": True, "do_rescale": True,
        "do_normalize": True, "size": {"height": 32, "width": 32}, "resample": 2, "image_mean": mean, "image_std": std,
        "rescale_factor": 1 / 255, "do_center_crop": None, "crop_size": None, "data_format": "channels_first",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(record))
    x = image(0, 45, 70)
    ours = load(folder).preprocess(x)
    for c in range(3):  # Pillow's own antialiased resize of numbers, not of bytes
        plane = Image.fromarray((x[:, :, c] / 255).astype(np.float32))
        theirs = np.asarray(plane.resize((32, 32), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(ours[c], (theirs - mean[c]) / std[c], atol=1e-5)
    assert np.isfinite(pooled(load(folder), x)).all()


@pytest.mark.parametrize(
    ("model", "why"),
    [(lambda: tf.EncodecModel(tf.EncodecConfig(num_filters=2, hidden_size=8, codebook_dim=8)), "'encodec': a codec"),
     (lambda: tf.DacModel(tf.DacConfig(encoder_hidden_size=4, decoder_hidden_size=16)), "'dac': a codec"),
     (lambda: tf.BertModel(tf.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9,
                                         intermediate_size=8)), "a model of type 'bert' does not run on")],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line_at_setup_that_says_why(
    tmp_path: Path, model: Callable[[], Any], why: str
) -> None:
    model().save_pretrained(tmp_path)
    (vit_processor() if "bert" in why else tf.EncodecFeatureExtractor()).save_pretrained(tmp_path)
    with pytest.raises(BenchkitError, match=why) as caught:
        load(tmp_path, prefix_tokens=0)
    assert "\n" not in str(caught.value)


def test_a_type_that_is_not_known_is_used_as_the_user_says(tmp_path: Path) -> None:
    tf.BeitModel(tf.BeitConfig(**PICTURE)).save_pretrained(tmp_path)
    vit_processor().save_pretrained(tmp_path)
    with pytest.raises(BenchkitError, match="prefix_tokens=0 where none does"):
        load(tmp_path)
    with pytest.raises(BenchkitError, match="17 tokens of 16 patches, so prefix_tokens=1, not 0"):
        load(tmp_path, prefix_tokens=0)
    assert load(tmp_path, prefix_tokens=1).dim == 32


# --------------------------------------------------------------------------------------------------- layers and dtypes


@pytest.mark.parametrize("name", ["vit", "clip", "clap", "whisper", "wav2vec2", "convnext", "resnet"])
@pytest.mark.parametrize("layer", [-1, 9])
def test_a_layer_that_is_not_there_is_one_line(saved: Saved, name: str, layer: int) -> None:
    with pytest.raises(BenchkitError, match=rf"has hidden states 0 to \d, not {layer}"):
        load(saved(name), layer=layer)


@pytest.mark.parametrize("name", ["vit", "clip", "siglip", "whisper", "wav2vec2", "wav2vec2-stable", "wav2vec2-bert"])
def test_the_last_layer_is_what_the_last_block_gives_before_any_final_norm(saved: Saved, name: str) -> None:
    last = load(saved(name), layer=2)
    batch = last.preprocess(image() if last.sample_rate is None else clip(16_000))[None]
    at = last.activations(batch, ["blocks.1.resid_post"])["blocks.1.resid_post"][:, last.prefix_tokens :]
    np.testing.assert_allclose(last.encode(batch).pooled, at.mean(1), atol=1e-6)


@pytest.mark.parametrize("layer", [None, 1])
def test_only_the_hidden_state_that_is_wanted_is_kept(saved: Saved, layer: int | None) -> None:
    backbone = load(saved("vit"), layer=layer)
    x = torch.from_numpy(backbone.preprocess(image())[None])
    output, states = backbone._forward(x, () if layer is None else (layer,))
    assert getattr(output, "hidden_states", None) is None
    assert list(states) == ([] if layer is None else [layer])


def test_random_weights_are_drawn_in_float32_whatever_the_checkpoint_is(saved: Saved, tmp_path: Path) -> None:
    folder = copied(saved("vit"), tmp_path / "half")
    change(folder / "config.json", dtype="bfloat16")
    weights = load(folder, init="random")._encoder.layers[0].attention.q_proj.weight
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, weights.bfloat16().float())


def test_rotary_frequencies_stay_float32_as_from_pretrained_keeps_them(saved: Saved) -> None:
    ours = load(saved("dinov3_vit"), dtype="bfloat16")
    theirs = tf.DINOv3ViTModel.from_pretrained(saved("dinov3_vit"), dtype=torch.bfloat16).eval()
    (name,) = [n for n, _ in theirs.named_buffers() if n.endswith("inv_freq")]
    assert dict(ours._encoder.named_buffers())[name].dtype == torch.float32
    x = ours.preprocess(image())[None]
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(x).bfloat16()).last_hidden_state[:, 5:].mean(1)
    np.testing.assert_allclose(ours.encode(x).pooled, expected.float().numpy(), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_configuration_and_processor_are_in_the_fingerprint(saved: Saved, tmp_path: Path, file: str) -> None:
    folder = copied(saved("vit"), tmp_path / "other")
    change(folder / file, transformers_version="9.9.9")
    assert load(folder).fingerprint() == load(saved("vit")).fingerprint()
    change(folder / file, **({"layer_norm_eps": 0.1} if file == "config.json" else {"image_std": [0.1] * 3}))
    assert load(folder).fingerprint() != load(saved("vit")).fingerprint()


def test_the_versions_of_what_preprocesses_are_named(saved: Saved) -> None:
    key = load(saved("vit")).feature_key()
    assert key["transformers"] == tf.__version__
    assert key["processor"].endswith("ViTImageProcessorPil")


def test_setting_up_draws_no_number_from_the_global_generator(saved: Saved) -> None:
    masked, plain = saved("vit_mae"), saved("vit")  # whose weights are drawn when they are first asked for
    state = torch.get_rng_state()
    load(masked)
    HF(HFParams(checkpoint=str(plain))).preprocess(image())
    assert torch.equal(state, torch.get_rng_state())
