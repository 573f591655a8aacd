"""A tiny model and its processor for every type that the loader knows, by name: the type, or one of its variants."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf

from benchkit_hf.backbone import HF, HFParams

tf.logging.set_verbosity_error()
tf.logging.disable_progress_bar()

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
TEXT = {**SMALL, "vocab_size": 100}
PICTURE = {**SMALL, "image_size": 32, "patch_size": 8}
SPEECH = {**SMALL, "conv_dim": [16] * 7}
STABLE = {**SPEECH, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SWIN = {"embed_dim": 8, "image_size": 32, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4, "patch_size": 4}
NAFLEX = {**SMALL, "patch_size": 8, "num_patches": 16}
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
CLAP = {
    "patch_embeds_hidden_size": 16, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2], "hidden_size": 128,
    "spec_size": 256, "num_mel_bins": 64, "enable_fusion": False,
}  # fmt: skip
FUSION = {
    "enable_fusion": True, "enable_patch_fusion": True, "aff_block_r": 2,
}  # fmt: skip

Maker = Callable[[], tuple[Any, Any]]


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def vit_processor(side: int = 32) -> Any:
    return tf.ViTImageProcessorPil(size=square(side))


def pictures(model: type, config: type, **more: Any) -> Maker:
    return lambda: (model(config(**{**PICTURE, **more})), vit_processor())


def maps(model: type, config: type, **more: Any) -> Maker:
    return lambda: (model(config(**{**STAGES, **more})), vit_processor(64))


def speech(model: type, config: type, **more: Any) -> Maker:
    masked = more.get("feat_extract_norm") == "layer" or config is tf.Data2VecAudioConfig
    return lambda: (model(config(**{**SPEECH, **more})), tf.Wav2Vec2FeatureExtractor(return_attention_mask=masked))


MODELS: dict[str, Maker] = {
    "audio-spectrogram-transformer": lambda: (
        tf.ASTModel(tf.ASTConfig(**SMALL, max_length=128)), tf.ASTFeatureExtractor(max_length=128)
    ),
    "clap": lambda: (
        tf.ClapModel(tf.ClapConfig(text_config=TEXT, audio_config=CLAP)),
        tf.ClapFeatureExtractor(truncation="rand_trunc"),
    ),
    "clap-fusion": lambda: (
        tf.ClapModel(tf.ClapConfig(text_config=TEXT, audio_config={**CLAP, **FUSION})), tf.ClapFeatureExtractor()
    ),
    "clap_audio_model": lambda: (
        tf.ClapAudioModel(tf.ClapAudioConfig(**CLAP)), tf.ClapFeatureExtractor(truncation="rand_trunc")
    ),
    "clip": lambda: (
        tf.CLIPModel(tf.CLIPConfig(vision_config=PICTURE, text_config=TEXT)),
        tf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square(32)),
    ),
    "clip_vision_model": pictures(tf.CLIPVisionModel, tf.CLIPVisionConfig),
    "convnext": maps(tf.ConvNextModel, tf.ConvNextConfig),
    "convnextv2": maps(tf.ConvNextV2Model, tf.ConvNextV2Config),
    "data2vec-audio": speech(tf.Data2VecAudioModel, tf.Data2VecAudioConfig),
    "data2vec-vision": pictures(tf.Data2VecVisionModel, tf.Data2VecVisionConfig),
    "deit": pictures(tf.DeiTModel, tf.DeiTConfig),
    "dinov2": pictures(tf.Dinov2Model, tf.Dinov2Config),
    "dinov2_with_registers": pictures(
        tf.Dinov2WithRegistersModel, tf.Dinov2WithRegistersConfig, num_register_tokens=3
    ),
    "dinov3_convnext": maps(tf.DINOv3ConvNextModel, tf.DINOv3ConvNextConfig),
    "dinov3_vit": pictures(tf.DINOv3ViTModel, tf.DINOv3ViTConfig, num_register_tokens=4),
    "hiera": lambda: (
        tf.HieraModel(tf.HieraConfig(embed_dim=8, image_size=[64, 64], depths=[1] * 4, num_heads=[1, 1, 2, 2])),
        vit_processor(64),
    ),
    "hubert": speech(tf.HubertModel, tf.HubertConfig),
    "ijepa": pictures(tf.IJepaModel, tf.IJepaConfig),
    "regnet": maps(tf.RegNetModel, tf.RegNetConfig, embedding_size=8, groups_width=8),
    "resnet": maps(tf.ResNetModel, tf.ResNetConfig, embedding_size=8),
    "sew": speech(tf.SEWModel, tf.SEWConfig, conv_dim=[16] * 13),
    "siglip": lambda: (
        tf.SiglipModel(tf.SiglipConfig(vision_config=PICTURE, text_config=TEXT)),
        tf.SiglipImageProcessorPil(size=square(32)),
    ),
    "siglip_vision_model": pictures(tf.SiglipVisionModel, tf.SiglipVisionConfig),
    "siglip2": lambda: (
        tf.Siglip2Model(tf.Siglip2Config(vision_config=NAFLEX, text_config=TEXT)),
        tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
    ),
    "siglip2_vision_model": lambda: (
        tf.Siglip2VisionModel(tf.Siglip2VisionConfig(**NAFLEX)),
        tf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16),
    ),
    "swin": lambda: (tf.SwinModel(tf.SwinConfig(**SWIN)), vit_processor()),
    "swinv2": lambda: (tf.Swinv2Model(tf.Swinv2Config(**SWIN)), vit_processor()),
    "unispeech": speech(tf.UniSpeechModel, tf.UniSpeechConfig),
    "unispeech-sat": speech(tf.UniSpeechSatModel, tf.UniSpeechSatConfig),
    "vit": pictures(tf.ViTModel, tf.ViTConfig),
    "vit_mae": pictures(tf.ViTMAEForPreTraining, tf.ViTMAEConfig),
    "vit_msn": pictures(tf.ViTMSNModel, tf.ViTMSNConfig),
    "wav2vec2": speech(tf.Wav2Vec2Model, tf.Wav2Vec2Config),
    "wav2vec2-adapter": speech(
        tf.Wav2Vec2Model, tf.Wav2Vec2Config, feat_extract_norm="layer", add_adapter=True, output_hidden_size=48,
        num_adapter_layers=2,
    ),
    "wav2vec2-stable": speech(
        tf.Wav2Vec2Model, tf.Wav2Vec2Config, do_stable_layer_norm=True, feat_extract_norm="layer"
    ),
    "wav2vec2-bert": lambda: (tf.Wav2Vec2BertModel(tf.Wav2Vec2BertConfig(**SMALL)), tf.SeamlessM4TFeatureExtractor()),
    "wav2vec2-conformer": speech(tf.Wav2Vec2ConformerModel, tf.Wav2Vec2ConformerConfig, feat_extract_norm="layer"),
    "wavlm": speech(tf.WavLMModel, tf.WavLMConfig),
    "whisper": lambda: (tf.WhisperModel(tf.WhisperConfig(**WHISPER)), tf.WhisperFeatureExtractor()),
}  # fmt: skip
VARIANTS = ("clap-fusion", "wav2vec2-adapter", "wav2vec2-stable")
"""Those that are no types of their own."""


def save(name: str, folder: Path) -> Path:
    torch.manual_seed(0)
    model, processor = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():  # no bias at 0, no norm at 1, so that none can be forgotten
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def load(folder: Path, **params: Any) -> HF:
    backbone = HF(HFParams(checkpoint=str(folder), seconds=params.pop("seconds", 1.0), **params))
    backbone.setup("cpu")
    return backbone


def is_of_images(folder: Path) -> bool:
    return HF(HFParams(checkpoint=str(folder))).sample_rate is None


def image(seed: int = 0, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def clip(rate: int, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    wave: np.ndarray = np.random.default_rng(seed).normal(0, 0.1, round(rate * seconds)).astype(np.float32)
    return wave
