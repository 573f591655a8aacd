"""What a task hands to a backbone before preprocessing: an image or a recording that decodes when asked to.

A medium is small and picklable where it names a file, so that decoding happens in a worker process.
"""

import hashlib
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit.errors import MediaError, PluginError
from benchkit.media.channels import Channel
from benchkit.media.notes import NOTE_BITS
from benchkit.media.recording import OpenAudio
from benchkit.media.resample import REACH, resample
from benchkit.media.samples import Samples
from benchkit.media.waves import listen, too_long

MOST_SAMPLES = 1 << 25
"""Of a waveform, before and after resampling, where neither the medium nor the backbone says how much of it is used: 17
minutes at 32 kHz, 134 MB."""


@dataclass(frozen=True)
class Decoded:
    """raw: a waveform or pixels. notes: bits of benchkit.media.notes."""

    raw: np.ndarray
    notes: int = 0


@dataclass(frozen=True)
class Image:
    """An image: an array, or a file (its path, or its bytes) in a format that Pillow reads.

    An array is uint8, [H, W] or [H, W, C] with C = 1 or 3. What becomes of files: docs/media.md.
    """

    source: np.ndarray | Path | bytes

    def load(self) -> UInt8[np.ndarray, "H W C"]:
        """The pixels, 0 to 255, C = 1 (grey) or 3 (sRGB), as a viewer shows them. Raises MediaError."""
        if isinstance(self.source, np.ndarray):
            if self.source.dtype != np.uint8:
                raise PluginError(f"an image is given as an array of {self.source.dtype}, and must be uint8, 0 to 255")
            return self.source if self.source.ndim == 3 else self.source[:, :, None]
        from benchkit.media.pixels import pixels

        return pixels(self.source)

    def decode(self) -> Decoded:
        """The pixels, as `load` gives them."""
        return Decoded(self.load())


@dataclass(frozen=True)
class Audio:
    """A recording or a part of one: a file (its path, or its bytes) in a format that libsndfile reads, or `Samples`.

    start: where the part begins, in seconds.
    duration: how long it is, in seconds; None is to the end. Only this part is read.
    channel: what is heard of several: their mean, the first, the second, or the one with the most energy in the part.

    A subclass that decides by the recording itself which part it is overrides `part`.
    """

    source: Path | bytes | Samples
    start: float = 0.0
    duration: float | None = None
    channel: Channel = "mix"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "load" in cls.__dict__ or "decode" in cls.__dict__:
            raise TypeError(f"{cls.__name__} must override `part`, which says what is read, and leave reading to Audio")

    def part(self, recording: OpenAudio | Samples) -> tuple[float, float | None]:
        """Where the part begins and how long it is, in seconds; None is to the end. Raises MediaError."""
        return self.start, self.duration

    def load(self, sample_rate: int, seconds: float | None = None) -> Float32[np.ndarray, " T"]:
        """The waveform, resampled to `sample_rate` (Hz). Raises MediaError.

        seconds: of the part, no more than this is decoded. -1 to 1 is full scale; a file of floating-point numbers may
        go beyond, and so may resampling, by a little.
        """
        return self.decode(sample_rate, seconds).raw

    def decode(self, sample_rate: int, seconds: float | None = None) -> Decoded:
        """The waveform, as `load` gives it, and what was noticed. Raises MediaError."""
        with self.source if isinstance(self.source, Samples) else OpenAudio(self.source) as recording:
            begin, duration = self.part(recording)
            rate = recording.rate
            start, frames = round(begin * rate), None if duration is None else round(duration * rate)
            wanted = None if seconds is None else max(1, round(seconds * sample_rate))
            if wanted is not None:  # a little more, so that its end is resampled as if all were there
                used = -(-wanted * rate // sample_rate) + (
                    REACH * max(1, rate // sample_rate) if rate != sample_rate else 0
                )
                frames = used if frames is None else min(frames, used)
            elif duration is None:
                self._check_length(recording, start, sample_rate)
            native, notes = listen(recording, start, frames, self.channel, MOST_SAMPLES)
            if not native.size:
                long = f": it is {recording.seconds:g} s long" if begin else ""
                raise MediaError(f"{recording.name} holds no audio from {begin:g} s{long}")
        return Decoded(resample(native, rate, sample_rate)[:wanted], notes)

    def _check_length(self, recording: OpenAudio | Samples, start: int, sample_rate: int) -> None:
        if recording.frames is None:
            return
        samples = max(recording.frames - start, 0) * max(1.0, sample_rate / recording.rate)
        if samples > MOST_SAMPLES:
            raise too_long(recording)


Media = Image | Audio


def content_hash(raw: Float32[np.ndarray, " T"] | UInt8[np.ndarray, "H W C"]) -> int:
    """56 bits of decoded media, never 0: equal for equal samples or pixels, whatever file they came in.

    They are the upper ones of 64: the lower 8 have room for notes.
    """
    h = hashlib.blake2b(f"{raw.dtype.str}{raw.shape}".encode(), digest_size=8)
    h.update(np.ascontiguousarray(raw).data)
    return int.from_bytes(h.digest(), "little") >> NOTE_BITS << NOTE_BITS or 1 << NOTE_BITS


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
