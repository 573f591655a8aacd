"""Parameters as named arrays: read, compared with what the configuration asks for, drawn anew, fingerprinted."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from benchkit import BenchkitError, fingerprint
from benchkit_birdjepa.config import WEIGHTS, EncoderConfig, described

Named = dict[str, np.ndarray]
"""Float32 arrays under their published names, `blocks.0.attn.qkv.weight`."""


def read_parameters(folder: Path, config: EncoderConfig) -> Named:
    """Raises BenchkitError that names every kind of misfit between the file and the configuration."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / WEIGHTS
    try:
        found = load_file(path)
    except FileNotFoundError:
        raise BenchkitError(f"'{folder}' holds no {WEIGHTS}") from None
    except (SafetensorError, OSError, TypeError, KeyError) as e:
        raise BenchkitError(f"'{path}' does not read as safetensors: {e}") from e
    _compare(found, config, path)
    return {name: found[name].astype(np.float32) for name in config.shapes()}


def _compare(found: Mapping[str, np.ndarray], config: EncoderConfig, path: Path) -> None:
    expected = config.shapes()
    problems = []
    if missing := sorted(set(expected) - set(found)):
        problems.append(f"{_some(missing)} missing")
    if extra := sorted(set(found) - set(expected)):
        problems.append(f"{_some(extra)} not expected")
    wrong = [
        f"{name} is {list(found[name].shape)}, not {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in found and found[name].shape != shape
    ]
    if wrong:
        problems.append(_some(wrong))
    if strange := sorted(n for n, x in found.items() if not np.issubdtype(x.dtype, np.floating)):
        problems.append(f"{_some(strange)} not of floating point")
    elif bad := sorted(n for n, x in found.items() if not np.isfinite(x).all()):
        problems.append(f"{_some(bad)} not finite")
    if problems:
        raise BenchkitError(f"'{path}' does not fit the encoder of its config.json: {'; '.join(problems)}")


def _some(names: list[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def draw(config: EncoderConfig, seed: int, std: Callable[[str, tuple[int, ...]], float] | None = None) -> Named:
    """First weights, the same on every machine: matrices and tokens from a normal distribution cut off at two standard
    deviations, 0.02 (timm's) or as told by name and shape, biases 0, norms 1, layer scales as configured."""
    streams = np.random.SeedSequence([0xB17D, seed]).spawn(len(config.shapes()))
    return {
        name: _drawn(name, shape, config, np.random.default_rng(stream), 0.02 if std is None else std(name, shape))
        for (name, shape), stream in zip(sorted(config.shapes().items()), streams, strict=True)
    }


def _drawn(
    name: str, shape: tuple[int, ...], config: EncoderConfig, rng: np.random.Generator, std: float
) -> np.ndarray:
    if name.rpartition(".")[2].startswith("gamma"):
        return np.full(shape, config.layerscale_init, np.float32)
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return (std * values).astype(np.float32)


def digest(config: EncoderConfig, named: Mapping[str, Float32[np.ndarray, "..."]]) -> str:
    """A fingerprint of the configuration and every parameter's name, shape and values, whatever file they came in."""
    tensors = [
        [
            name,
            list(x.shape),
            hashlib.blake2b(memoryview(np.ascontiguousarray(x)).cast("B"), digest_size=16).hexdigest(),
        ]
        for name, x in sorted(named.items())
    ]
    return fingerprint([described(config), tensors])
