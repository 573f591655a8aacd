"""What transformers' models do not say of themselves: which tokens come before the patches, and which part encodes."""

from dataclasses import dataclass
from typing import Any

from benchkit import BenchkitError, did_you_mean


@dataclass(frozen=True)
class Family:
    """How to read the output of one kind of model.

    part: the attribute that holds the encoder, where the model is more than one ('' is the model itself).
    prefix: tokens before the patches or frames: class token, distillation token; registers are added from the config.
    cls: whether the first of them is a class token.
    frames_per_second: of the output, where the input is padded far beyond the clip (Whisper: 30 s); the rest is cut.
    """

    part: str = ""
    prefix: int = 0
    cls: bool = False
    frames_per_second: float | None = None


FAMILIES = {
    "audio-spectrogram-transformer": Family(prefix=2, cls=True),  # class and distillation token
    "clap": Family(part="audio_model"),
    "clap_audio_model": Family(),
    "clip": Family(part="vision_model", prefix=1, cls=True),
    "clip_vision_model": Family(prefix=1, cls=True),
    "deit": Family(prefix=2, cls=True),
    "dinov2": Family(prefix=1, cls=True),
    "dinov2_with_registers": Family(prefix=1, cls=True),
    "dinov3_vit": Family(prefix=1, cls=True),
    "hubert": Family(),
    "siglip": Family(part="vision_model"),
    "siglip_vision_model": Family(),
    "siglip2": Family(part="vision_model"),
    "vit": Family(prefix=1, cls=True),
    "vit_mae": Family(prefix=1, cls=True),
    "wav2vec2": Family(),
    "wav2vec2-bert": Family(),
    "wavlm": Family(),
    "whisper": Family(part="encoder", frames_per_second=50.0),
}


def family_of(config: Any, prefix_tokens: int | None) -> Family:
    """The family of a configuration. Raises BenchkitError for an unknown one, unless the user says how to read it."""
    if prefix_tokens is not None:
        return Family(prefix=prefix_tokens, cls=prefix_tokens > 0)
    family = FAMILIES.get(config.model_type)
    if family is None:
        near = did_you_mean(config.model_type, FAMILIES)
        raise BenchkitError(
            f"the hf plugin does not know models of type '{config.model_type}'{near}"
            " (say how many tokens come before the patches, as in prefix_tokens=1)"
        )
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    return Family(family.part, family.prefix + registers, family.cls, family.frames_per_second)
