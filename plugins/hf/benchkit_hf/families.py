"""What transformers' models do not say of themselves: which tokens come before the patches, which part encodes, how a
short input is filled up, and how far they hear. docs/hf.md shows it as a table, which `table` makes."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from benchkit import BenchkitError, did_you_mean

How = Literal["image", "patches", "wave", "mel", "whisper", "ast", "clap", "unknown"]
"""How raw media become the model's input: a name of benchkit_hf.recipes.RECIPES."""


@dataclass(frozen=True)
class Family:
    """How to feed one kind of model, and how to read its output.

    how: see above. part: the attribute that holds the encoder, where the model is more than one ('' is the model
    itself). prefix: tokens before the patches or frames: class token, distillation token; registers are added from the
    config. cls: whether the first of them is a class token. own: whether pool=auto is the model's own pooling, as of
    convolutional networks. masks: whether its forward pass masks and shuffles patches unless it is told the order.
    rate: what models of this type were trained at, in Hz, which their configuration does not say. model: transformers'
    class, for what AutoModel does not know.
    """

    how: How
    part: str = ""
    prefix: int = 0
    cls: bool = False
    own: bool = False
    masks: bool = False
    rate: int | None = None
    model: str = "AutoModel"


_VIT = Family("image", prefix=1, cls=True)
_MAPS = Family("image", own=True)
_WAVE = Family("wave", rate=16_000)

FAMILIES = {
    "audio-spectrogram-transformer": Family("ast", prefix=2, cls=True, rate=16_000),  # class and distillation token
    "clap": Family("clap", part="audio_model", rate=48_000),
    "clap_audio_model": Family("clap", rate=48_000, model="ClapAudioModel"),
    "clip": replace(_VIT, part="vision_model"),
    "clip_vision_model": _VIT,
    "convnext": _MAPS,
    "convnextv2": _MAPS,
    "data2vec-audio": _WAVE,
    "data2vec-vision": _VIT,
    "deit": Family("image", prefix=2, cls=True),
    "dinov2": _VIT,
    "dinov2_with_registers": _VIT,
    "dinov3_convnext": Family("image", prefix=1, own=True),  # its pooled map comes first
    "dinov3_vit": _VIT,
    "hiera": _MAPS,
    "hubert": _WAVE,
    "ijepa": Family("image"),
    "regnet": _MAPS,
    "resnet": _MAPS,
    "sew": _WAVE,
    "siglip": Family("image", part="vision_model"),
    "siglip_vision_model": Family("image"),
    "siglip2": Family("patches", part="vision_model"),
    "siglip2_vision_model": Family("patches"),
    "swin": Family("image"),
    "swinv2": Family("image"),
    "unispeech": _WAVE,
    "unispeech-sat": _WAVE,
    "vit": _VIT,
    "vit_mae": replace(_VIT, masks=True),
    "vit_msn": _VIT,
    "wav2vec2": _WAVE,
    "wav2vec2-bert": Family("mel", rate=16_000),
    "wav2vec2-conformer": _WAVE,
    "wavlm": _WAVE,
    "whisper": Family("whisper", part="encoder", rate=16_000),
}

CODECS = ("dac", "encodec", "mimi", "moshi", "snac", "vocos", "xcodec", "xcodec2")


def family_of(config: Any, prefix_tokens: int | None) -> Family:
    """The family of a configuration. Raises BenchkitError for an unknown one, unless the user says how to read it, and
    for one that cannot be used whatever the user says."""
    kind = config.model_type
    if kind in CODECS:
        raise BenchkitError(
            f"the hf plugin cannot use models of type '{kind}': a codec gives codes to decode from, and no features of "
            "a clip; `benchkit models` lists backbones for audio"
        )
    family = FAMILIES.get(kind)
    if family is None and prefix_tokens is None:
        near = did_you_mean(kind, FAMILIES)
        raise BenchkitError(
            f"the hf plugin does not know models of type '{kind}'{near} (say how many tokens come before the patches "
            "or frames: prefix_tokens=0 where none does, as in I-JEPA or SEW, prefix_tokens=1 with a class token, and "
            "more with registers)"
        )
    if prefix_tokens is not None:
        return replace(family or Family("unknown"), prefix=prefix_tokens, cls=prefix_tokens > 0)
    assert family is not None
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    return replace(family, prefix=family.prefix + registers)


# ------------------------------------------------------------------------------------------------ the table in the docs

_WORDS: dict[How, tuple[str, str, str]] = {
    "image": ("patches", "the image, as its processor resizes and crops it", "none"),
    "patches": ("patches", "the image, in at most `max_num_patches`", "masked in attention, not pooled"),
    "wave": ("frames, 50 a second", "`seconds`, no limit", "normalised before it is padded; masked; not pooled"),
    "mel": ("frames, 50 a second", "`seconds`, no limit", "normalised before it is padded; masked; not pooled"),
    "whisper": ("frames, 50 a second", "30 s; a longer `seconds` is refused", "to 30 s, as it was trained; not pooled"),
    "ast": ("patches, by frequency, then time", "`max_length` frames, 10.2 s; a longer `seconds` is refused",
            "after the clip's own frames, as it was trained; patches with none are not pooled"),
    "clap": ("cells of the last stage's map", "10 s; a longer `seconds` is refused",
             "the clip is repeated, as it was trained; nothing is left out"),
    "unknown": ("", "", ""),
}  # fmt: skip


def table() -> str:
    """A row in Markdown for each type, its tokens, pool=auto, window and padding."""
    rows = ["| type | tokens | `pool=auto` | window | padding |", "|---|---|---|---|---|"]
    for name, family in sorted(FAMILIES.items()):
        tokens, window, padding = _WORDS[family.how]
        if family.own or name in ("swin", "swinv2"):
            tokens = "cells of the last stage's map"
        first = f"behind {family.prefix} that are left out (registers too)" if family.prefix else ""
        pooling = "the model's own (mean, with its norm)" if family.own else "mean of the tokens"
        rows.append(f"| `{name}` | {' '.join(filter(None, (tokens, first)))} | {pooling} | {window} | {padding} |")
    return "\n".join(rows) + "\n"
