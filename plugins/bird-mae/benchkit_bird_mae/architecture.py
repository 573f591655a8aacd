"""The shape of a spectrogram ViT, and how it is read from a checkpoint's config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from benchkit import BenchkitError


@dataclass(frozen=True)
class Architecture:
    """A pre-norm vision transformer over the square patches of a log-mel spectrogram.

    frames, mels: size of the spectrogram. patch: side of a patch, in frames and in mel bins.
    width: D, of the residual stream. eps: of every LayerNorm.
    fc_norm: the checkpoint has a LayerNorm of its own for pooled patches; without it they are normalised plainly.
    """

    depth: int
    width: int
    heads: int
    frames: int = 512
    mels: int = 128
    patch: int = 16
    mlp_ratio: float = 4.0
    eps: float = 1e-6
    fc_norm: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"a width of {self.width} does not divide into {self.heads} heads and four sin-cos parts")
        if self.frames % self.patch or self.mels % self.patch:
            raise ValueError(f"{self.frames} x {self.mels} does not divide into patches of {self.patch}")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along time and along frequency; tokens are numbered time first, then frequency within it."""
        return self.frames // self.patch, self.mels // self.patch

    @property
    def patches(self) -> int:
        """T: patch tokens, without the class token."""
        return self.grid[0] * self.grid[1]

    @property
    def hidden(self) -> int:
        """Width of the MLP's hidden layer."""
        return int(self.width * self.mlp_ratio)

    def __str__(self) -> str:
        return f"depth {self.depth}, width {self.width}, {self.heads} heads"


_FIXED: Mapping[str, Any] = {"in_chans": 1, "qkv_bias": True, "qk_norm": False, "init_values": None}
"""Keys of the published configuration that have only ever had one value; another is refused, not ignored."""


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder. Raises BenchkitError."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchkitError(
            f"'{folder}' is no checkpoint folder: it must hold config.json and model.safetensors"
        ) from None
    except (OSError, ValueError) as e:
        raise BenchkitError(f"cannot read '{path}': {e}") from e
    if not isinstance(config, dict):
        raise BenchkitError(f"'{path}' holds no JSON object")
    return config


def from_config(config: Mapping[str, Any], source: Path) -> Architecture:
    """The architecture from a configuration in Bird-MAE's own keys (configuration_bird_mae.py on the hub).

    Raises BenchkitError for a missing key, and for a value that this implementation does not know.
    """
    for key, only in _FIXED.items():
        if config.get(key, only) != only:
            raise BenchkitError(f"'{source}' has {key}={config[key]!r}, and only {key}={only!r} is implemented")
    heads = "n_heads" if "n_heads" in config else "num_heads"
    try:
        return Architecture(
            depth=index(config["depth"]),
            width=index(config["embed_dim"]),
            heads=index(config[heads]),
            frames=index(config.get("img_size_x", 512)),
            mels=index(config.get("img_size_y", 128)),
            patch=index(config.get("patch_size", 16)),
            mlp_ratio=float(config.get("mlp_ratio", 4)),
            eps=float(config.get("norm_layer_eps", 1e-6)),
        )
    except KeyError as e:
        raise BenchkitError(f"'{source}' has no {e}, so the checkpoint's architecture is not known") from e
    except (TypeError, ValueError, ZeroDivisionError) as e:
        raise BenchkitError(f"'{source}' describes no architecture: {e}") from e
