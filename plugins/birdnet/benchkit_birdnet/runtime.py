"""Running the package's backends in this process: loaded with a proof of their signature, in batches, side by side."""

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit import BenchkitError
from benchkit_birdnet.windows import Encoder, Window

BATCH = 16
"""Windows that enter a model at once."""


def device_name(device: str, gpu: bool) -> str:
    """A device as the package calls it: 'cuda:1' is 'GPU:1'. gpu: whether the model can run on one."""
    kind, _, number = device.partition(":")
    return f"GPU:{number or 0}" if gpu and kind == "cuda" else "CPU"


def loaded(make: Callable[[], Encoder], path: Path, what: str, window: Window) -> Encoder:
    """make(), once it has encoded two windows of silence. Raises BenchkitError for a file that is no such model."""
    wanted = f"it must take float32 [B, {window.samples}] and give embeddings [B, {window.dim}]"
    try:
        encoder = make()
        made = encoder(np.zeros((2, window.samples), np.float32))
    except BenchkitError:
        raise
    except Exception as e:  # each runtime has errors of its own for a file it does not understand
        reason = " ".join(str(e).split())[:300] or type(e).__name__
        raise BenchkitError(f"'{path}' does not load as {what}: {wanted} ({reason})") from e
    if made.shape != (2, window.dim):
        raise BenchkitError(f"'{path}' is no {what}: {wanted}, and gives [B, {', '.join(map(str, made.shape[1:]))}]")
    return encoder


def backend(cls: Any, path: Path, device: str = "CPU", **options: Any) -> Encoder:
    """One of the package's backend classes, loaded, as a function from windows to embeddings."""
    model = cls(model_path=path, device_name=device, half_precision=False, **options)
    model.load()

    def encode(windows: Float32[np.ndarray, "N samples"]) -> Float32[np.ndarray, "N D"]:
        return model.copy_from_device(model.encode(model.copy_to_device(windows)))

    return encode


def in_batches(encoders: list[Encoder]) -> Encoder:
    """Cuts whatever comes into batches; with several encoders, which must let go of the interpreter's lock while they
    compute, as many batches at a time. The order of the windows stays."""
    idle: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
    for encoder in encoders:
        idle.put(encoder)

    def one(windows: Float32[np.ndarray, "N samples"]) -> Float32[np.ndarray, "N D"]:
        encoder = idle.get()
        try:
            return encoder(np.ascontiguousarray(windows))
        finally:
            idle.put(encoder)

    def encode(windows: Float32[np.ndarray, "N samples"]) -> Float32[np.ndarray, "N D"]:
        size = max(1, min(BATCH, -(-len(windows) // len(encoders))))
        batches = [windows[i : i + size] for i in range(0, len(windows), size)]
        if len(encoders) == 1:
            return np.concatenate([one(batch) for batch in batches])
        with ThreadPoolExecutor(len(encoders)) as pool:
            return np.concatenate(list(pool.map(one, batches)))

    return encode
