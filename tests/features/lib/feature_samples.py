"""A task over a folder of recordings, one over images in memory, and small numpy backbones.

In a folder of its own that the tests put on the import path, because decoding workers must be able to import it.
"""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.interfaces import Backbone, Encoded, Example, Task
from benchkit.media.decode import Audio, Image
from benchkit.progress import Silent


@dataclass(frozen=True)
class FolderParams:
    root: str = "."


class Recordings(Task):
    """Every file of a folder, in the order of their names."""

    Params = FolderParams
    kind = "multiclass"
    modality = "audio"
    metrics = ("top1",)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    def ids(self, split: str) -> Sequence[str]:
        return sorted(p.name for p in Path(self.params.root).iterdir())

    def labels(self, split: str) -> Any:
        return np.zeros(len(self.ids(split)), np.int64)

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        ids = self.ids(split)
        for i in indices:
            yield Example(i, ids[i], Audio(Path(self.params.root) / ids[i]))

    def fingerprint(self) -> str:
        return "recordings"


@dataclass(frozen=True)
class CountParams:
    n: int = 100


class Gradients(Task):
    """Images in memory, no two alike."""

    Params = CountParams
    kind = "multiclass"
    modality = "image"
    metrics = ("top1",)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b")

    def ids(self, split: str) -> Sequence[str]:
        return [f"{split}-{i}" for i in range(self.params.n)]

    def labels(self, split: str) -> Any:
        return np.arange(self.params.n, dtype=np.int64) % 2

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for i in indices:
            yield Example(
                i, f"{split}-{i}", Image(((np.arange(64) * 3 + i * 7 + i // 37) % 256).astype(np.uint8).reshape(8, 8))
            )

    def fingerprint(self) -> str:
        return "gradients"


@dataclass(frozen=True)
class BandsParams:
    log: str = ""
    """A file to which the number of each encoded batch's examples is appended."""
    sleep: float = 0.0
    weights: str = "w1"
    fits: int = 10**9
    """The largest batch that fits into memory."""
    oom: str = "MemoryError"
    dies_at: int = -1
    """preprocess kills its process at the first waveform of this many samples."""
    raises: str = ""


class Bands(Backbone):
    """Log energies in 16 bands of the spectrum, over 8 windows of 1,000 samples; no example touches another."""

    Params = BandsParams
    modalities = ("audio",)
    sample_rate = 8000
    ready = 0

    @property
    def dim(self) -> int:
        return 16

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        assert not self.ready, "preprocess runs on an instance that was never set up"
        if len(raw) == self.params.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.params.raises == "ValueError":
            raise ValueError("this preprocess has a bug")
        if self.params.raises == "Unpicklable":
            raise Unpicklable("one", "two")
        return np.pad(raw[:8000], (0, max(0, 8000 - len(raw))))

    def setup(self, device: str) -> None:
        self.ready += 1

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        assert self.ready
        if len(batch) > self.params.fits:
            raise out_of_memory(self.params.oom)
        time.sleep(self.params.sleep)
        if self.params.log:
            with open(self.params.log, "a") as f:
                f.write(f"{len(batch)}\n")
        spectra = np.abs(np.fft.rfft(batch.reshape(len(batch), 8, 1000)))[:, :, 1:497].reshape(len(batch), 8, 16, 31)
        bands = np.log1p(spectra.mean(axis=3)).astype(np.float32)
        return Encoded(bands.mean(axis=1), bands if tokens else None)

    def fingerprint(self) -> str:
        return self.params.weights


class Pixels(Backbone):
    modalities = ("image",)

    @property
    def dim(self) -> int:
        return 64

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return raw.astype(np.float32).reshape(-1) / 255

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(batch, batch[:, None, :] if tokens else None)

    def fingerprint(self) -> str:
        return "none"


class Threads(Pixels):
    """How many threads the process that prepares an image has: at most in a library's pool, in torch's, and by what
    benchkit's own code asks; and the process's number."""

    @property
    def dim(self) -> int:
        return 4

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        import torch
        from threadpoolctl import threadpool_info

        from benchkit.machine import cpus

        np.ones((200, 200)) @ np.ones((200, 200))
        pools = [pool["num_threads"] for pool in threadpool_info()]
        assert len(pools) > 1, "neither BLAS nor OpenMP is there to be limited"
        return np.array([max(pools), torch.get_num_threads(), cpus.available(), os.getpid()], np.float32)


class Unpicklable(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def out_of_memory(name: str) -> Exception:
    if name == "torch":
        import torch

        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if name == "onnxruntime":
        from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

        return RuntimeException("Non-zero status code: Failed to allocate memory for requested buffer of size 1024")
    return {
        "MemoryError": MemoryError(), "jax": RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"),
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    }[name]  # fmt: skip


class Notes(Silent):
    """Keeps the notes and the titles of the steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[tuple[str, int | None, str]] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def step(self, what: str, total: int | None, unit: str = "") -> Any:
        self.steps.append((what, total, unit))
        return super().step(what, total, unit)


def encoded(log: Path) -> int:
    """How many examples were encoded, by all processes that log there."""
    return sum(int(line) for line in log.read_text().split()) if log.exists() else 0
