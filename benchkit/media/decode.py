"""What a task hands to a backbone before preprocessing: an image or a recording that decodes when asked to.

A medium is small and picklable where it names a file, so that decoding happens in a worker process.
"""

import hashlib
import io
import threading
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit.errors import MediaError, require


@dataclass(frozen=True)
class Image:
    """An image: an array, or a file (its path, or its bytes) in a format that Pillow reads."""

    source: np.ndarray | Path | bytes

    def load(self) -> UInt8[np.ndarray, "H W C"]:
        """The pixels, 0 to 255, C = 1 (grey) or 3 (RGB). Raises MediaError."""
        if isinstance(self.source, np.ndarray):
            return self.source if self.source.ndim == 3 else self.source[:, :, None]
        require("PIL", "benchkit-core[image]")
        from PIL import Image as PillowImage

        try:
            with PillowImage.open(_open(self.source)) as image:
                if image.mode.startswith("I"):  # 16 bits: Pillow's own conversion clips at 255 instead of scaling
                    pixels = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                else:
                    pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "F") else "RGB"))
        except Exception as e:  # Pillow's decoders raise nearly anything on a damaged file
            raise MediaError(f"{_name(self.source)} does not decode as an image: {e}") from e
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


@dataclass(frozen=True)
class Audio:
    """A recording or a part of one: a file (its path, or its bytes) in a format that libsndfile reads.

    start: where the part begins, in seconds.
    duration: how long it is, in seconds; None is to the end. Only this part is read.
    """

    source: Path | bytes
    start: float = 0.0
    duration: float | None = None

    def load(self, sample_rate: int) -> Float32[np.ndarray, " T"]:
        """The waveform, channels averaged, resampled to `sample_rate` (Hz). Raises MediaError.

        -1 to 1 is full scale; a file of floating-point numbers may go beyond, and so may resampling, by a little.
        """
        require("soundfile", "benchkit-core[audio]")
        import soundfile

        try:
            with soundfile.SoundFile(_open(self.source)) as f:
                native = f.samplerate
                if self.start:
                    f.seek(min(round(self.start * native), f.frames))
                frames = -1 if self.duration is None else round(self.duration * native)
                channels = f.read(frames, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError, RuntimeError) as e:
            raise MediaError(f"{_name(self.source)} does not decode as audio: {_why(self.source, e)}") from e
        if not channels.size:
            raise MediaError(f"{_name(self.source)} holds no audio from {self.start:g} s")
        if not np.isfinite(channels).all():
            raise MediaError(f"{_name(self.source)} holds samples that are NaN or infinite")
        wave = channels[:, 0] if channels.shape[1] == 1 else channels.mean(axis=1)
        return resample(wave, native, sample_rate)


Media = Image | Audio


def resample(wave: Float32[np.ndarray, " T"], source: int, target: int) -> Float32[np.ndarray, " T2"]:
    """Band-limited resampling from `source` to `target` Hz with libsoxr at its high quality."""
    if source == target:
        return wave
    stream = _RESAMPLERS.of(source, target)
    try:
        return stream.resample_chunk(np.ascontiguousarray(wave, np.float32), last=True)
    finally:
        stream.clear()


class _Resamplers(threading.local):
    """Of this thread, by rates: a filter designed anew for each clip of 5 s takes a few hundredths of its time.

    Clip by clip: libsoxr takes several as channels of one array, which is no faster (bench/resample.py).
    """

    def __init__(self) -> None:
        self.of = lru_cache(maxsize=16)(self._make)

    def _make(self, source: int, target: int) -> Any:
        require("soxr", "benchkit-core[audio]")
        import soxr

        return soxr.ResampleStream(source, target, 1, dtype="float32", quality="HQ")


_RESAMPLERS = _Resamplers()


def content_hash(raw: Float32[np.ndarray, " T"] | UInt8[np.ndarray, "H W C"]) -> int:
    """64 bits of decoded media, never 0: equal for equal samples or pixels, whatever file they came in."""
    h = hashlib.blake2b(f"{raw.dtype.str}{raw.shape}".encode(), digest_size=8)
    h.update(np.ascontiguousarray(raw).data)
    return int.from_bytes(h.digest(), "little") or 1


def decoder_versions(modality: str) -> dict[str, str]:
    """Of the libraries that decode and resample "audio" or "image": another version may give other samples."""
    if modality == "image":
        return {"pillow": _version("PIL", "__version__")}
    return {
        "libsndfile": _version("soundfile", "__libsndfile_version__"),
        "soundfile": _version("soundfile", "__version__"),
        "soxr": _version("soxr", "__version__"),
        "libsoxr": _version("soxr", "__libsoxr_version__"),
    }


def _version(module: str, attribute: str) -> str:
    try:
        return str(getattr(import_module(module), attribute))
    except (ImportError, AttributeError, OSError):  # OSError: the C library under it does not load
        return "absent"  # then nothing of it can be decoded, or it is of a version from before the attribute


def _open(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _why(source: Path | bytes, error: Exception) -> str:
    """libsndfile says "System error" of a file that is not there, and "Format not recognised" of an empty one."""
    if isinstance(source, Path):
        if not source.exists():
            return "there is no such file"
        if not source.is_file():
            return "it is no file"
    if not (len(source) if isinstance(source, bytes) else source.stat().st_size):
        return "it is empty"
    return str(getattr(error, "error_string", error))


def _name(source: object) -> str:
    return f"'{source}'" if isinstance(source, Path) else "a medium held in memory"
