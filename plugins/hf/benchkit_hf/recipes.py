"""From decoded media to what a model's forward pass takes: each family by its processor's own recipe.

`preprocess` must give one array of one shape, and a model wants to know more than its values: how much of them is the
clip. So the array is flat, and begins with what must be known (`_packed`), except where nothing has to be.

A clip is cut at `seconds`, normalised by itself, and padded then. Which tokens are its own follows from its length as
the model's convolutions have it: a patch or frame that looks at padding in part is none of its own.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import BenchkitError, Layout, StatedInputs
from benchkit_hf.families import Family

LOUD = 2.0
"""A sample's amplitude, full scale being 1: resampling may go a little beyond that, other units go far."""
Raw = Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]


class Recipe(ABC):
    """One family's way from media to input. seconds: of clips, as the user asked."""

    main: ClassVar[str] = "pixel_values"
    """The forward pass's argument that holds the values."""
    counts: ClassVar[int] = 0
    """Numbers that the packed array begins with."""

    def __init__(self, name: str, family: Family, config: Any, processor: Any, seconds: float) -> None:
        self.name, self.family, self.config, self.processor, self.seconds = name, family, config, processor, seconds
        self.part = getattr(
            config, {"vision_model": "vision_config", "audio_model": "audio_config"}.get(family.part, ""), config
        )

    @abstractmethod
    def prepare(self, raw: Raw) -> np.ndarray:
        """One array of one shape."""

    def arguments(self, x: Any) -> dict[str, Any]:
        """The forward pass's, as torch tensors, of a batch of prepared examples, [B, ...]."""
        return {self.main: x}

    def cut(self, states: Any, prefix: int) -> Any:
        """Hidden states [B, T, D] without the tokens that no clip of `seconds` reaches. prefix: tokens before them."""
        return states

    def real(self, x: Any, n_tokens: int) -> Any:
        """Which of n_tokens tokens behind the prefix are the example's own, bool [B, T]; None: all."""
        return None

    def given(self, x: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, " n"]]:
        """The values that the model is given of each prepared example, without padding."""
        return [one.ravel() for one in x]

    def stated(self) -> StatedInputs:
        """What the processor says of these values."""
        return StatedInputs()

    def expected_tokens(self) -> int | None:
        """How many tokens `cut` leaves behind the prefix, where that follows from the configuration."""
        return None

    def layout(self) -> Layout | None:
        """Where the tokens behind the prefix lie, where that follows from the configuration."""
        return None


class Images(Recipe):
    def prepare(self, raw: Raw) -> np.ndarray:
        image = np.repeat(raw, 3, axis=2) if raw.shape[2] == 1 else raw
        made = self.processor(images=image, input_data_format="channels_last", return_tensors="np")
        return np.asarray(made["pixel_values"][0], dtype=np.float32)

    def arguments(self, x: Any) -> dict[str, Any]:
        if not self.family.masks:
            return {"pixel_values": x}
        import torch

        height, width = _pair(self.config.patch_size)
        n = (x.shape[-2] // height) * (x.shape[-1] // width)
        return {"pixel_values": x, "noise": torch.arange(n, device=x.device).expand(len(x), -1)}  # the image's order

    def stated(self) -> StatedInputs:
        return _of_pixels(self.processor)

    def layout(self) -> Layout | None:
        """Of the image as the processor leaves it: resized by its rule, then cropped in the middle."""
        size, patch = getattr(self.processor, "size", None), getattr(self.part, "patch_size", None)
        if size is None or patch is None:
            return None
        crop = getattr(self.processor, "crop_size", None) if getattr(self.processor, "do_center_crop", False) else None
        (tall, wide), (height, width) = _extent(crop or size), _pair(patch)
        if not tall or not wide:
            return None
        how = "resized to " + (
            f"a shorter edge of {_extent(size)[0] or size['shortest_edge']}" if "shortest_edge" in dict(size)
            else f"{_extent(size)[1]} x {_extent(size)[0]}"
        ) + (f", the middle {wide} x {tall}" if crop else "")  # fmt: skip
        return Layout(("row", "column"), (tall // height, wide // width), (tall, wide), ("px", "px"), how)


class Patches(Recipe):
    """SigLIP 2 of variable size: as many patches as its shape gives, at most so many, in one row."""

    counts = 2  # rows and columns of the grid of patches

    def prepare(self, raw: Raw) -> np.ndarray:
        image = np.repeat(raw, 3, axis=2) if raw.shape[2] == 1 else raw
        made = self.processor(images=image, input_data_format="channels_last", return_tensors="np")
        return _packed(made["pixel_values"][0], *made["spatial_shapes"][0])

    def arguments(self, x: Any) -> dict[str, Any]:
        values = x[:, self.counts :].reshape(len(x), -1, self.part.num_channels * self.part.patch_size**2)
        real = self.real(x, values.shape[1])
        return {"pixel_values": values, "pixel_attention_mask": real.int(), "spatial_shapes": x[:, :2].long()}

    def real(self, x: Any, n_tokens: int) -> Any:
        return _below(x[:, 0] * x[:, 1], n_tokens)

    def given(self, x: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, " n"]]:
        wide = self.part.num_channels * self.part.patch_size**2
        return [one[2 : 2 + int(one[0] * one[1]) * wide] for one in x]

    def stated(self) -> StatedInputs:
        return _of_pixels(self.processor)


class Clips(Recipe):
    """What recipes for audio share."""

    counts = 1

    @property
    def rate(self) -> int:
        return int(self.processor.sampling_rate)

    @property
    def wanted(self) -> int:
        """Samples of a clip of `seconds`."""
        return max(round(self.seconds * self.rate), self.least)

    @property
    def least(self) -> int:
        """Samples without which there is no token; a shorter clip is padded to as many."""
        return 1

    def layout(self) -> Layout | None:
        n = self.expected_tokens()
        heard = f"the first {self.seconds:g} s, padded at the end"
        return None if n is None else Layout(("time",), (n,), (self.wanted / self.rate,), ("s",), heard)

    def clip(self, raw: Raw) -> Float32[np.ndarray, " n"]:
        """What is heard of it, nothing added but zeros where it is too short for a single token."""
        cut = raw[: self.wanted]
        return np.pad(cut, (0, max(0, self.least - len(cut))))

    def within(self, longest: float) -> None:
        """Raises BenchkitError where clips are longer, in seconds, than the model hears."""
        if self.seconds > longest:
            shown = math.floor(longest * 100) / 100
            raise BenchkitError(
                f"model 'hf:{self.name}' hears {shown:g} s, and seconds={self.seconds:g}: what lies beyond would be "
                f"ignored; give seconds={shown:g} or less, and cut recordings into windows that long"
            )


class Waves(Clips):
    """wav2vec 2.0 and its relatives: the clip is normalised, then padded; a mask goes with it where the model was
    trained with one (its feature encoder normalises each frame, feat_extract_norm=layer, or its processor says so)."""

    main = "input_values"

    @property
    def least(self) -> int:
        reach = 1
        for kernel, stride in reversed(list(zip(self.config.conv_kernel, self.config.conv_stride, strict=True))):
            reach = (reach - 1) * stride + kernel
        return int(reach)

    @property
    def masked(self) -> bool:
        layered = getattr(self.config, "feat_extract_norm", "layer") == "layer"  # data2vec has no other
        return layered or bool(getattr(self.processor, "return_attention_mask", False))

    def prepare(self, raw: Raw) -> np.ndarray:
        clip = self.clip(raw)
        made = self.processor(clip, sampling_rate=self.rate, return_tensors="np")["input_values"][0]
        padding = float(getattr(self.processor, "padding_value", 0.0))
        return _packed(np.pad(made, (0, self.wanted - len(clip)), constant_values=padding), len(clip))

    def arguments(self, x: Any) -> dict[str, Any]:
        values = x[:, 1:]
        if not self.masked or bool((x[:, 0] == values.shape[1]).all()):
            return {"input_values": values}
        return {"input_values": values, "attention_mask": _below(x[:, 0], values.shape[1]).long()}

    def frames(self, samples: Any) -> Any:
        """Of so many samples, as the convolutions leave them."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def real(self, x: Any, n_tokens: int) -> Any:
        own, whole = self.frames(x[:, 0].long()), int(self.frames(self.wanted))
        if n_tokens != whole and n_tokens == self.expected_tokens():
            own = _adapted(own, self.config)
        elif n_tokens < whole:  # inside of SEW two frames are one
            own = own // (whole // n_tokens)
        return _below(own.clamp(1, n_tokens), n_tokens)

    def given(self, x: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, " n"]]:
        return [one[1 : 1 + int(one[0])] for one in x]

    def stated(self) -> StatedInputs:
        if getattr(self.processor, "do_normalize", False):
            return StatedInputs(normalised=True)
        return StatedInputs(-LOUD, LOUD)

    def expected_tokens(self) -> int | None:
        return int(_adapted(self.frames(self.wanted), self.config))


class Mel(Clips):
    """wav2vec2-bert: two mel frames of the clip make a token, and its processor's mask says which are whole."""

    main = "input_features"

    @property
    def least(self) -> int:
        return 400 + 160  # two mel frames, below which their deviation is not defined

    def prepare(self, raw: Raw) -> np.ndarray:
        values, mask = self._made(self.clip(raw))
        n = self._made(np.zeros(self.wanted, np.float32))[1].size if len(raw) < self.wanted else len(values)
        padding = float(getattr(self.processor, "padding_value", 0.0))
        return _packed(np.pad(values, ((0, n - len(values)), (0, 0)), constant_values=padding), int(mask.sum()))

    def _made(self, clip: Float32[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray]:
        made = self.processor(clip, sampling_rate=self.rate, return_attention_mask=True, return_tensors="np")
        return made["input_features"][0], made["attention_mask"][0]

    def arguments(self, x: Any) -> dict[str, Any]:
        wide = self.processor.feature_size * self.processor.stride
        values = x[:, 1:].reshape(len(x), -1, wide)
        return {"input_features": values, "attention_mask": _below(x[:, 0], values.shape[1]).long()}

    def real(self, x: Any, n_tokens: int) -> Any:
        own = x[:, 0].long()
        wide = self.processor.feature_size * self.processor.stride
        if n_tokens < (x.shape[1] - 1) // wide:
            own = _adapted(own, self.config)
        return _below(own.clamp(1, n_tokens), n_tokens)

    def given(self, x: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, " n"]]:
        wide = self.processor.feature_size * self.processor.stride
        return [one[1 : 1 + int(one[0]) * wide] for one in x]

    def stated(self) -> StatedInputs:
        return StatedInputs(normalised=True)


class Whisper(Clips):
    """A log-mel spectrogram of the clip, followed by silence up to the 30 s that the encoder always hears."""

    main = "input_features"

    def prepare(self, raw: Raw) -> np.ndarray:
        self.within(float(self.processor.chunk_length))
        clip = self.clip(raw)
        return _packed(self._spectrogram(clip), -(-len(clip) // self.processor.hop_length))

    def _spectrogram(self, clip: Float32[np.ndarray, " n"]) -> np.ndarray:
        """Of the clip and as much silence as its last frames see; all frames behind it are as the last of these, and a
        transform of 30 s would take most of the time."""
        p = self.processor
        if getattr(p, "dither", 0.0) or getattr(p, "do_normalize", False):
            return np.asarray(p(clip, sampling_rate=self.rate, return_tensors="np")["input_features"][0])
        frames = -(-(len(clip) + 2 * p.n_fft) // p.hop_length)
        if frames >= p.nb_max_frames:
            return np.asarray(p(clip, sampling_rate=self.rate, return_tensors="np")["input_features"][0])
        short = np.pad(clip, (0, frames * p.hop_length - len(clip)))
        made = p(short, sampling_rate=self.rate, padding="do_not_pad", return_tensors="np")["input_features"][0]
        silence = np.repeat(made[:, -1:], p.nb_max_frames - frames, axis=1)
        return np.concatenate([made, silence], axis=1)

    def arguments(self, x: Any) -> dict[str, Any]:
        return {"input_features": x[:, 1:].reshape(len(x), self.processor.feature_size, -1)}

    def cut(self, states: Any, prefix: int) -> Any:
        return states[:, : prefix + _half(-(-self.wanted // self.processor.hop_length))]

    def real(self, x: Any, n_tokens: int) -> Any:
        return _below(_half(x[:, 0].long()).clamp(1, n_tokens), n_tokens)

    def given(self, x: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, " n"]]:
        made = x[:, 1:].reshape(len(x), self.processor.feature_size, -1)
        return [one[:, : int(n)].ravel() for n, one in zip(x[:, 0], made, strict=True)]

    def stated(self) -> StatedInputs:
        return StatedInputs(-1.5, 3.0)  # (log10 + 4) / 4 of powers from 1e-10 to 1e8

    def expected_tokens(self) -> int | None:
        return _half(-(-self.wanted // self.processor.hop_length))


class AST(Clips):
    """Mel frames of the clip, zeros behind them. Patches overlap, and lie by frequency, then time."""

    main = "input_values"

    @property
    def least(self) -> int:
        return 400  # of one mel frame

    def prepare(self, raw: Raw) -> np.ndarray:
        self.within(((self.processor.max_length - 1) * 160 + 400) / self.rate)
        clip = self.clip(raw)
        made = self.processor(clip, sampling_rate=self.rate, return_tensors="np")["input_values"][0]
        return _packed(made, (len(clip) - 400) // 160 + 1)

    def arguments(self, x: Any) -> dict[str, Any]:
        return {"input_values": x[:, 1:].reshape(len(x), -1, self.processor.num_mel_bins)}

    @property
    def rows(self) -> int:
        return int((self.config.num_mel_bins - self.config.patch_size) // self.config.frequency_stride + 1)

    def columns(self, frames: Any) -> Any:
        return (frames - self.config.patch_size) // self.config.time_stride + 1

    @property
    def longest(self) -> int:
        """Columns of patches that a clip of `seconds` reaches."""
        return max(1, int(self.columns((self.wanted - 400) // 160 + 1)))

    def cut(self, states: Any, prefix: int) -> Any:
        import torch

        grid = states[:, prefix:].unflatten(1, (self.rows, -1))[:, :, : self.longest]
        return torch.cat([states[:, :prefix], grid.flatten(1, 2)], dim=1)

    def real(self, x: Any, n_tokens: int) -> Any:
        columns = n_tokens // self.rows
        return _below(self.columns(x[:, 0].long()).clamp(1, columns), columns).repeat(1, self.rows)

    def given(self, x: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, " n"]]:
        return [one[1 : 1 + int(one[0]) * self.processor.num_mel_bins] for one in x]

    def stated(self) -> StatedInputs:
        return StatedInputs(normalised=bool(self.processor.do_normalize))

    def expected_tokens(self) -> int | None:
        return self.rows * self.longest

    def layout(self) -> Layout | None:
        """Patches overlap; the grid covers the mel frames that clips of `seconds` have, 10 ms each."""
        frames = (self.longest - 1) * self.config.time_stride + self.config.patch_size
        return Layout(
            ("mel", "time"), (self.rows, self.longest), (self.config.num_mel_bins, 0.01 * frames), ("mel", "s"),
            f"the first {self.seconds:g} s, padded at the end",
        )  # fmt: skip


class CLAP(Clips):
    """The clip, repeated up to 10 s and padded then. It is never longer, so that nothing is cropped at random, and a
    model with fusion is told that there is nothing to fuse."""

    main = "input_features"
    counts = 0

    def prepare(self, raw: Raw) -> np.ndarray:
        self.within(float(self.processor.nb_max_samples / self.rate))
        made = self.processor(self.clip(raw), sampling_rate=self.rate, return_tensors="np")
        return np.asarray(made["input_features"][0], dtype=np.float32)

    def arguments(self, x: Any) -> dict[str, Any]:
        import torch

        return {"input_features": x, "is_longer": torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)}


class Others(Clips):
    """A type that is not known here: clips are padded with zeros to `seconds` and count whole."""

    counts = 0

    def prepare(self, raw: Raw) -> np.ndarray:
        clip = np.pad(raw[: self.wanted], (0, max(0, self.wanted - len(raw))))
        made = self.processor(clip, sampling_rate=self.rate, return_tensors="np")
        found = next((k for k in ("input_features", "input_values") if k in made), None)
        if found is None:
            raise BenchkitError(f"the processor of 'hf:{self.name}' gives {', '.join(made)}, and no features of a clip")
        return np.asarray(made[found][0], dtype=np.float32)

    def arguments(self, x: Any) -> dict[str, Any]:
        return {str(self.processor.model_input_names[0]): x}


RECIPES: dict[str, type[Recipe]] = {
    "image": Images, "patches": Patches, "wave": Waves, "mel": Mel, "whisper": Whisper, "ast": AST, "clap": CLAP,
}  # fmt: skip

_BY_PROCESSOR: dict[str, type[Recipe]] = {"Wav2Vec2FeatureExtractor": Waves, "SeamlessM4TFeatureExtractor": Mel}


def recipe_of(name: str, family: Family, config: Any, processor: Any, seconds: float) -> Recipe:
    """The family's recipe; of a type that is not known, the one that goes with its processor."""
    if family.how != "unknown":
        made = RECIPES[family.how]
    elif getattr(processor, "sampling_rate", None) is None:
        made = Patches if type(processor).__name__.startswith("Siglip2") else Images
    else:
        made = _BY_PROCESSOR.get(type(processor).__name__, Others)
        if made is Waves and not hasattr(config, "conv_kernel"):
            made = Others
    return made(name, family, config, processor, seconds)


def _of_pixels(processor: Any) -> StatedInputs:
    """Pixels from 0 to 255, as the processor scales them."""
    factor = float(processor.rescale_factor) if getattr(processor, "do_rescale", False) else 1.0
    normalised = bool(getattr(processor, "do_normalize", False))
    mean, std = (np.atleast_1d(v) for v in ((processor.image_mean, processor.image_std) if normalised else (0.0, 1.0)))
    low, high = float((-mean / std).min()), float(((255 * factor - mean) / std).max())
    doubts = ()
    if factor != 1.0 and not 1 / 260 < factor < 1 / 120:
        doubts = (f"its processor states rescale_factor={factor:.3g}, where 1/255 makes 0 to 1 of pixels",)
    return StatedInputs(low, high, normalised, doubts)


def _packed(values: np.ndarray, *counts: Any) -> Float32[np.ndarray, " n"]:
    return np.concatenate([np.array(counts, np.float32), np.asarray(values, np.float32).ravel()])


def _below(counts: Any, n: int) -> Any:
    """[B, n] bool: the first `counts` of each."""
    import torch

    return torch.arange(n, device=counts.device) < counts[:, None]


def _adapted(frames: Any, config: Any) -> Any:
    """Behind the adapter's convolutions, where the model has one."""
    for _ in range(config.num_adapter_layers if getattr(config, "add_adapter", False) else 0):
        frames = (frames - 1) // config.adapter_stride + 1
    return frames


def _half(n: Any) -> Any:
    """Behind a convolution of stride 2."""
    return (n - 1) // 2 + 1


def _extent(size: Any) -> tuple[int, int]:
    """Height and width of a processor's size; 0 where it names neither. A shorter edge alone is a square's."""
    given = dict(size) if not isinstance(size, int) else {"height": size, "width": size}
    edge = given.get("shortest_edge", 0) or 0
    return int(given.get("height") or edge), int(given.get("width") or edge)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
