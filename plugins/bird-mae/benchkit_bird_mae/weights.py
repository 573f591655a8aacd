"""Checkpoints: read with safetensors, compared name by name with the model, and fingerprinted."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from benchkit import BenchkitError, fingerprint
from benchkit_bird_mae.architecture import Architecture
from benchkit_bird_mae.vit import ViT


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file, on the CPU. Raises BenchkitError where there is no such file or it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise BenchkitError(f"'{path.parent}' holds no {path.name}") from None
    except (SafetensorError, OSError) as e:
        raise BenchkitError(f"'{path}' does not read as safetensors: {e}") from e


def build(arch: Architecture, weights: Mapping[str, Tensor], source: str) -> ViT:
    """The model with these weights, in float32 on the CPU, in evaluation mode and without gradients.

    Raises BenchkitError that names every kind of misfit: a tensor that is missing, one too many, one of another shape.
    """
    with torch.device("meta"):
        model = ViT(arch)
    _compare(model.state_dict(), weights, source, arch)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return model.requires_grad_(False).eval()


def _compare(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str, arch: Architecture) -> None:
    problems = []
    if missing := sorted(set(expected) - set(found)):
        problems.append(f"{_some(missing)} missing")
    if extra := sorted(set(found) - set(expected)):
        problems.append(f"{_some(extra)} not expected")
    wrong = [
        f"{name} is {list(found[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in sorted(expected.items())
        if name in found and found[name].shape != tensor.shape
    ]
    if wrong:
        problems.append(_some(wrong))
    if strange := sorted(name for name, tensor in found.items() if not tensor.is_floating_point()):
        problems.append(f"{_some(strange)} not of floating point")
    if problems:
        raise BenchkitError(f"{source} does not fit an encoder of {arch}: {'; '.join(problems)}")


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def digest(arch: Architecture, weights: Mapping[str, Tensor]) -> str:
    """A fingerprint of the architecture and every tensor's name, shape and values, whatever file they came in."""

    def one(name: str) -> list[object]:
        tensor = weights[name].detach().float().contiguous()
        data = memoryview(tensor.numpy()).cast("B")
        return [name, list(tensor.shape), hashlib.blake2b(data, digest_size=16).hexdigest()]

    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        tensors = list(pool.map(one, sorted(weights)))
    return fingerprint([asdict(arch), tensors])
