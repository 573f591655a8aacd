"""birdjepa:FOLDER, an encoder from a folder with config.json and model.safetensors, computed in JAX or in torch.

Source: samuelstevens/birdjepa. Input as Bird-MAE's: 32 kHz, Kaldi filterbank of 10 ms frames, padded with the clip's
own minimum, (x + 7.2) / (2 * 4.43).
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from benchkit import (
    Backbone,
    BenchkitError,
    Encoded,
    Layout,
    Modality,
    Trainable,
    Weights,
    did_you_mean,
    param,
    require,
)
from benchkit_birdjepa.config import CONFIG, PLACES, WEIGHTS, EncoderConfig, read_config

RATE, HOP, FRAME = 32_000, 320, 800
"""Samples a second, from frame to frame, and in a frame."""


@dataclass(frozen=True)
class BirdJEPAParams:
    """The fields of the architecture count for init=random alone; a checkpoint brings its own."""

    checkpoint: Path | None = param(None, place=(CONFIG, WEIGHTS), help=f"a folder with {CONFIG} and {WEIGHTS}")
    init: Literal["pretrained", "random"] = param("pretrained", help="random: an untrained encoder, as a control")
    seed: int = param(0, low=0, help="of init=random")
    pool: Literal["cls", "patches"] = param("cls", help="mean of the class tokens, or of the patches, after the norm")
    layer: int | None = param(None, low=0, help="block whose output is normed and used, from 0; none is the last")
    framework: Literal["torch", "jax"] = param("torch", help="what computes it; features agree to 1e-4")
    dtype: Literal["float32", "bfloat16"] = param("float32", help="of matrix products and attention")
    frames: int = param(512, low=1, help="of the spectrogram, 10 ms each")
    mels: int = param(128, low=1, help="mel bins")
    patch_h: int = param(16, low=1, help="frames of a patch")
    patch_w: int = param(16, low=1, help="mel bins of a patch")
    width: int = param(384, low=1, help="of a token")
    depth: int = param(12, low=1, help="blocks")
    heads: int = param(6, low=1, help="attention heads")
    cls_tokens: int = param(1, low=1, help="class tokens")
    registers: int = param(0, low=0, help="register tokens")
    rope: bool = param(False, help="rotary positions in place of a learnt table")
    qk_norm: bool = param(False, help="LayerNorm of each head's queries and keys")
    swiglu: bool = param(False, help="SwiGLU in place of the MLP")
    layerscale: bool = param(False, help="a learnt factor for each dimension of what a block adds")
    modality: Literal["audio", "image"] = param("audio", help="image: frames and mels are rows and columns of pixels")
    channels: int = param(1, low=1, high=3, help="of an image, 1 (grey) or 3")

    def __post_init__(self) -> None:
        own = [n for n in ARCHITECTURE if getattr(self, n) != DEFAULTS[n]]
        if self.init == "pretrained" and own:
            raise ValueError(f"{own[0]} is of an untrained encoder: give init=random, or leave it out")
        if self.init == "random" and self.checkpoint is not None and own:
            raise ValueError(f"{own[0]} is the checkpoint's to say: leave out one of the two")
        if self.init == "pretrained" and self.checkpoint is None:
            raise ValueError("it needs a folder, 'birdjepa:FOLDER', or init=random for an untrained encoder")
        if self.init == "random" and self.checkpoint is None:
            _ = self.config
        if self.layer is not None and self.layer >= self.config.depth:
            raise ValueError(f"layer={self.layer} is behind the last block, {self.config.depth - 1}")

    @cached_property
    def config(self) -> EncoderConfig:
        if self.checkpoint is not None:
            return read_config(self.checkpoint)
        return EncoderConfig(
            self.frames, self.mels, self.patch_h, self.patch_w, self.width, self.depth, self.heads, self.cls_tokens,
            self.registers, use_rope=self.rope, use_qk_norm=self.qk_norm, use_swiglu=self.swiglu,
            use_layerscale=self.layerscale, modality=self.modality, channels=self.channels,
        )  # fmt: skip


ARCHITECTURE = (
    "frames", "mels", "patch_h", "patch_w", "width", "depth", "heads", "cls_tokens", "registers", "rope", "qk_norm",
    "swiglu", "layerscale", "modality", "channels",
)  # fmt: skip
DEFAULTS = {f.name: f.default for f in fields(BirdJEPAParams)}


class BirdJEPA(Backbone):
    """As many seconds as the encoder has frames of 10 ms, the shorter padded with the spectrogram's own minimum; or an
    image, brought to the encoder's size with its pixels from -1 to 1. Which of the two, the encoder's config.json says.
    """

    Params = BirdJEPAParams
    params: BirdJEPAParams
    modalities = ("audio", "image")
    sample_rate = RATE

    def __init__(self, params: BirdJEPAParams) -> None:
        super().__init__(params)
        if self._of_images:
            self.modalities, self.sample_rate = ("image",), None
        else:
            self.modalities, self.seconds = ("audio",), self.samples / RATE
        self.prefix_tokens = self.config.n_cls_tokens
        self._named: dict[str, np.ndarray] = {}
        self._model: Any = None
        self._jitted: Any = None
        self._device = "cpu"

    @property
    def config(self) -> EncoderConfig:
        return self.params.config

    @property
    def _of_images(self) -> bool:
        return self.config.modality == "image"

    @property
    def dim(self) -> int:
        return self.config.embed_dim

    @property
    def samples(self) -> int:
        """5 s for 512 frames, as Bird-MAE has it: whole seconds where that leaves frames to pad, else all frames."""
        whole = self.config.input_h * HOP // RATE * RATE
        return whole or (self.config.input_h - 1) * HOP + FRAME

    def layout(self, modality: Modality) -> Layout:
        config = self.config
        if self._of_images:
            pixels, crop = (config.input_h, config.input_w), f"all of it, as {config.input_h} x {config.input_w}"
            return Layout(("row", "column"), config.grid, pixels, ("px", "px"), crop)
        size = (config.input_h * HOP / RATE, config.input_w)
        return Layout(
            ("time", "mel"), config.grid, size, ("s", "mel"), f"the first {self.samples / RATE:g} s, padded at the end"
        )

    def preprocess(
        self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]
    ) -> Float32[np.ndarray, " clip"] | UInt8[np.ndarray, "H2 W2 C2"]:
        """The waveform's beginning, zeros behind it where it is shorter; and last, how many samples are its own. Or an
        image at the encoder's size and with its channels."""
        if self._of_images:
            if raw.ndim != 3:
                raise BenchkitError("this birdjepa encoder takes images, not audio")
            return sized(raw, self.config)
        if raw.ndim != 1:
            raise BenchkitError(f"birdjepa takes audio, not an image of {'x'.join(map(str, raw.shape))}")
        clip = np.zeros(self.samples + 1, np.float32)
        clip[-1] = held = min(len(raw), self.samples)
        clip[:held] = raw[:held]
        return clip

    def setup(self, device: str) -> None:
        from benchkit_birdjepa.parameters import draw, read_parameters

        config = self.config
        if self.params.init == "random":
            self._named = draw(config, self.params.seed)
        else:
            assert self.params.checkpoint is not None
            self._named = read_parameters(self.params.checkpoint, config)
        self._device = device
        if self.params.framework == "jax":
            require("jax", "benchkit-birdjepa[jax]")
            self._jitted = self._jax()
        self._model = self._twin(device)

    def _twin(self, device: str) -> Any:
        import torch

        from benchkit_birdjepa.twin import Encoder

        with torch.device("meta"):
            model = Encoder(self.config)
        model.load_state_dict({n: torch.from_numpy(x.copy()) for n, x in self._named.items()}, assign=True)
        if self.params.dtype == "bfloat16":
            model.lower_precision(torch.bfloat16)
        return model.requires_grad_(False).eval().to(device)

    def _jax(self) -> Any:
        import jax
        import jax.numpy as jnp

        from benchkit_birdjepa import encoder

        config, params = self.config, encoder.stacked(self._named, self.config)
        dtype = jnp.bfloat16 if self.params.dtype == "bfloat16" else jnp.float32

        @jax.jit
        def run(levels: Any) -> Any:
            with jax.default_matmul_precision("highest"):
                patches, grid = encoder.patchify(levels, config)
                return encoder.encode(params, config, patches, grid, dtype=dtype, last=self.params.layer)

        return run

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        levels = self._levels(batch)
        if self._jitted is not None:
            out = self._jitted(levels.cpu().numpy())
            cls, patches = np.asarray(out.cls), np.asarray(out.patches)
        else:
            import torch

            from benchkit_birdjepa.twin import patchify

            with torch.inference_mode():
                found = self._model(*patchify(levels, self.config), last=self.params.layer)
            cls, patches = found.cls.cpu().numpy(), found.patches.cpu().numpy()
        real = self.real_tokens(batch, patches.shape[1])
        return Encoded(self._pooled(cls, patches, real), patches if tokens else None)

    def _pooled(self, cls: np.ndarray, patches: np.ndarray, real: np.ndarray) -> Float32[np.ndarray, "B D"]:
        if self.params.pool == "cls":
            return cls.mean(axis=1)
        weight = real.astype(np.float32)[:, :, None]
        return (patches * weight).sum(axis=1) / weight.sum(axis=1)

    def real_tokens(self, batch: np.ndarray, n_tokens: int) -> Bool[np.ndarray, "B T"]:
        """Patches whose first frame begins within the clip; all of an image's."""
        config = self.config
        if self._of_images:
            return np.ones((len(batch), config.n_patches), bool)
        rows = np.clip(-(-batch[:, -1].astype(np.int64) // (HOP * config.patch_h)), 1, config.grid[0])[:, None]
        row_of = np.repeat(np.arange(config.grid[0]), config.grid[1])
        return row_of[None] < rows

    def model_inputs(self, batch: np.ndarray) -> np.ndarray:
        return self._levels(batch).cpu().numpy()

    def _levels(self, batch: np.ndarray) -> Any:
        """On the device: pixels, or spectrograms [B, input_h, input_w], each clip of its own length padded with its own
        minimum."""
        import torch

        from benchkit import Fbank
        from benchkit_bird_mae.spectrogram import Recipe, spectrogram

        if self._model is None:
            raise BenchkitError("BirdJEPA has no weights yet: call setup(device) first")
        config = self.config
        if self._of_images:
            return torch.from_numpy(pixel_levels(batch)).to(self._device)
        recipe = Recipe(Fbank(RATE, n_mels=config.input_w), config.input_h, mean=-7.2, std=4.43, pad=None)
        held = np.maximum(batch[:, -1].astype(np.int64), FRAME)
        batch = batch.astype(np.float32)
        levels = torch.empty(len(batch), config.input_h, config.input_w, device=self._device)
        with torch.inference_mode():
            for length in np.unique(held):
                rows = np.flatnonzero(held == length)
                waves = torch.from_numpy(batch[rows, :length]).to(self._device)
                levels[torch.from_numpy(rows).to(self._device)] = spectrogram(waves, recipe)
        return levels

    def trainable(self) -> Trainable:
        from benchkit_birdjepa.twin import patchify

        if self._model is None:
            raise BenchkitError("BirdJEPA has no weights yet: call setup(device) first")
        other = copy.copy(self)
        other.params = replace(self.params, dtype="float32")
        module = other._twin(self._device).requires_grad_(True)
        blocks = self.config.depth if self.params.layer is None else self.params.layer + 1

        def pooled(batch: Any) -> Any:
            waves = batch.cpu().numpy()
            found = module(*patchify(self._levels(waves).clone(), self.config), last=self.params.layer)
            if self.params.pool == "cls":
                return found.cls.mean(1)
            real = self.real_tokens(waves, found.patches.shape[1])
            weight = found.patches.new_tensor(real.astype(np.float32))[:, :, None]
            return (found.patches * weight).sum(1) / weight.sum(1)

        depths = {name: _depth(name, blocks) for name, _ in module.named_parameters()}
        return Trainable(module, pooled, {n: d for n, d in depths.items() if d is not None}, blocks + 1)

    def fingerprint(self) -> str:
        from benchkit_birdjepa.parameters import digest

        if not self._named:
            raise BenchkitError("BirdJEPA has no weights yet: call setup(device) first")
        return digest(self.config, self._named)

    def points(self) -> tuple[str, ...]:
        """`blocks.N.` and resid_pre, norm1, attn_out, resid_mid, norm2, mlp_out or resid_post; and the final `norm`."""
        return (*(f"blocks.{i}.{place}" for i in range(self.config.depth) for place in PLACES), "norm")

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, Float32[np.ndarray, "B T D"]]:
        """At these places, class tokens first; registers, which stand behind the patches, are left out."""
        import torch

        from benchkit_birdjepa.twin import patchify

        known = self.points()
        for point in points:
            if point not in known:
                raise BenchkitError(f"BirdJEPA has no place '{point}'{did_you_mean(point, known)}")
        kept, found = self.config.n_cls_tokens + self.config.n_patches, {}

        def keep(point: str, x: Any) -> None:
            if point in points:
                found[point] = x[:, :kept].float().cpu().numpy()

        last = None if "norm" in points else max((int(p.split(".")[1]) for p in points), default=0)
        with torch.inference_mode():
            self._model(*patchify(self._levels(batch), self.config), last=last, tap=keep)
        return {point: found[point] for point in points}

    def anatomy(self) -> Iterator[Weights]:
        from benchkit_birdjepa.anatomy import anatomy

        if not self._named:
            raise BenchkitError("BirdJEPA has no weights yet: call setup(device) first")
        return anatomy(self.config, self._named)


def _depth(name: str, blocks: int) -> int | None:
    """How far from the input a parameter is, where so many blocks are used; None: it is not trained."""
    if name.startswith("blocks."):
        block = int(name.split(".")[1])
        return block + 1 if block < blocks else None
    return blocks + 1 if name.startswith("norm.") else 0


def sized(raw: UInt8[np.ndarray, "H W C"], config: EncoderConfig) -> UInt8[np.ndarray, "H2 W2 C2"]:
    """At the encoder's size, each side on its own, by Pillow's bilinear filter; grey and colour by ITU-R 601-2."""
    require("PIL", "benchkit-core[image]")
    from PIL.Image import Resampling, fromarray

    size = (config.input_w, config.input_h)
    if raw.shape[2] == config.channels and raw.shape[:2] == size[::-1]:
        return raw
    image = fromarray(raw[:, :, 0] if raw.shape[2] == 1 else raw).convert("L" if config.channels == 1 else "RGB")
    pixels = np.asarray(image.resize(size, Resampling.BILINEAR))
    return np.array(pixels.reshape(config.input_h, config.input_w, config.channels))


def pixel_levels(pixels: UInt8[np.ndarray, "B H W C"]) -> Float32[np.ndarray, "B H W C"]:
    """From -1 to 1."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)
