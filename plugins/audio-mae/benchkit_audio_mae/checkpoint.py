"""Checkpoints as timm saves them: config.json with the name of an architecture and its arguments, and the weights."""

from collections.abc import Mapping
from operator import index
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, did_you_mean
from benchkit_bird_mae.architecture import Architecture

FILES = ("model.safetensors", "pytorch_model.bin")
"""Weights by either name, the first before the second."""

SIZES: Mapping[str, Mapping[str, int]] = {
    "vit_tiny_patch16_224": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small_patch16_224": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base_patch16_224": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large_patch16_224": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
_ARGUMENTS = {"embed_dim", "depth", "num_heads", "mlp_ratio", "img_size", "in_chans", "num_classes", "global_pool"}


def from_timm(config: Mapping[str, Any], source: Path) -> Architecture:
    """Audio-MAE's architecture from timm's config.json. Raises BenchkitError for what is no encoder of 1024 x 128."""
    name = config.get("architecture")
    if name not in SIZES:
        near = did_you_mean(name, SIZES) if isinstance(name, str) else ""
        raise BenchkitError(f"'{source}' has architecture={name!r}, which is none of {', '.join(SIZES)}{near}")
    given = config.get("model_args", {})
    if unknown := sorted(set(given) - _ARGUMENTS):
        raise BenchkitError(f"'{source}' has model_args that are not implemented: {', '.join(unknown)}")
    channels, *size = config.get("pretrained_cfg", {}).get("input_size", [1, 1024, 128])
    size = given.get("img_size", size)
    if given.get("in_chans", channels) != 1 or list(size) != [1024, 128]:
        raise BenchkitError(f"'{source}' is of a model for {list(size)}, not for spectrograms of [1024, 128]")
    arguments = SIZES[name] | given
    try:
        return Architecture(
            depth=index(arguments["depth"]),
            width=index(arguments["embed_dim"]),
            heads=index(arguments["num_heads"]),
            frames=1024,
            mlp_ratio=float(arguments.get("mlp_ratio", 4)),
            fc_norm=False,
        )
    except (TypeError, ValueError, ZeroDivisionError) as e:
        raise BenchkitError(f"'{source}' describes no architecture: {e}") from e


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors by name: from safetensors, or from torch's format without executing anything in it.

    Raises BenchkitError where the file is damaged, or would have to be trusted.
    """
    from benchkit_bird_mae.weights import read_safetensors

    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return _read_pickle(path)


def _read_pickle(path: Path) -> dict[str, Any]:
    from pickle import UnpicklingError

    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, ValueError, KeyError) as e:
        first = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise BenchkitError(f"'{path}' does not read as weights alone: {first}") from e
    tensors = isinstance(weights, Mapping) and all(isinstance(t, torch.Tensor) for t in weights.values())
    if not tensors:
        raise BenchkitError(f"'{path}' holds no table of tensors by name")
    return dict(weights)
