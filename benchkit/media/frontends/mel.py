"""Log-mel spectrograms of whole batches, in numpy: the frontend of models that bring none of their own.

    settings = MelSettings(sample_rate=32_000, n_mels=64, window=800, hop=320)
    decibels_bfm = log_mel(waves_bt, settings)

A frame is `window` samples under a periodic Hann window, zero-padded to `n_fft`; frames begin every `hop` samples and
lie wholly inside the waveform (no padding at its ends: `whole_frames` says how long a waveform must be for that to lose
nothing). Shapes: B waveforms, T samples, F frames, K frequency bins (n_fft // 2 + 1), M mel bands.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

MelScale = Literal["htk", "slaney"]
FLOOR = 1e-10
"""The least power that is told apart from none: -100 dB, far below 16-bit audio's own noise."""
_CHUNK = 1 << 21  # samples in the windowed frames of one pass: 8 MiB, so that a pass stays in the processor's cache


@dataclass(frozen=True)
class MelSettings:
    """What fixes a log-mel spectrogram.

    sample_rate, fmin, fmax: in Hz; fmax None is half the sample rate. window, hop, n_fft: in samples; n_fft None is the
    least power of two that holds the window.
    scale: where the bands lie (see `hz_to_mel`). area: bands of equal area instead of equal height, as in Slaney's
    Auditory Toolbox (1998): band m is scaled by 2 / its width in Hz.

    Raises ValueError where they make no spectrogram, or a band so narrow that no frequency bin falls into it.
    """

    sample_rate: int
    n_mels: int
    window: int
    hop: int
    n_fft: int | None = None
    fmin: float = 0.0
    fmax: float | None = None
    scale: MelScale = "slaney"
    area: bool = False

    def __post_init__(self) -> None:
        if min(self.sample_rate, self.n_mels, self.hop) < 1 or self.window < 2:
            raise ValueError("sample rate, mel bands and hop must be at least 1, and the window at least 2 samples")
        if self.n_fft is not None and self.n_fft < self.window:
            raise ValueError(f"a transform of {self.n_fft} samples is shorter than the window of {self.window}")
        if not 0 <= self.fmin < self.top <= self.sample_rate / 2:
            raise ValueError(
                f"the bands from {self.fmin:g} to {self.top:g} Hz do not lie between 0 and half the sample rate, "
                f"{self.sample_rate / 2:g} Hz"
            )
        empty = np.count_nonzero(mel_filterbank(self).max(axis=0) == 0)
        if empty:
            raise ValueError(
                f"{empty} of {self.n_mels} mel bands hold none of the window's frequencies: ask for fewer bands or a "
                "longer window"
            )

    @property
    def top(self) -> float:
        """The upper end of the highest band, in Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax

    @property
    def fft(self) -> int:
        """Samples of one transform."""
        return 1 << (self.window - 1).bit_length() if self.n_fft is None else self.n_fft

    def frames(self, samples: int) -> int:
        """F for a waveform of so many samples."""
        return 0 if samples < self.window else 1 + (samples - self.window) // self.hop

    def whole_frames(self, samples: int) -> int:
        """The least length, from `samples` up, of which every sample falls into a frame."""
        return self.window + self.hop * max(0, -(-(samples - self.window) // self.hop))


def hz_to_mel(hz: Float[np.ndarray, " n"], scale: MelScale) -> Float[np.ndarray, " n"]:
    """Frequencies in Hz on the mel scale.

    htk: 2595 log10(1 + f / 700) (O'Shaughnessy 1987; The HTK Book, section 5.4).
    slaney: linear up to 1 kHz at 200/3 Hz a mel, above it 27 mel for a factor of 6.4 (Slaney, Auditory Toolbox, 1998).
    """
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    return np.where(hz < 1000.0, hz * 3.0 / 200.0, 15.0 + 27.0 * np.log(np.maximum(hz, 1000.0) / 1000.0) / np.log(6.4))


def mel_to_hz(mel: Float[np.ndarray, " n"], scale: MelScale) -> Float[np.ndarray, " n"]:
    """The inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((np.maximum(mel, 15.0) - 15.0) / 27.0))


@lru_cache(maxsize=32)
def mel_filterbank(settings: MelSettings) -> Float32[np.ndarray, "K M"]:
    """Triangles over frequency: each band rises from its lower neighbour's centre to 1 at its own (or to 2 / width,
    with `area`) and falls to its upper neighbour's; the centres are equally far apart in mel. Read-only."""
    s = settings
    ends = hz_to_mel(np.array([s.fmin, s.top]), s.scale)
    edges = mel_to_hz(np.linspace(ends[0], ends[1], s.n_mels + 2), s.scale)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hz_k1 = np.arange(s.fft // 2 + 1)[:, None] * (s.sample_rate / s.fft)
    bank_km = np.maximum(0.0, np.minimum((hz_k1 - low) / (centre - low), (high - hz_k1) / (high - centre)))
    if s.area:
        bank_km *= 2.0 / (high - low)
    return _frozen(bank_km.astype(np.float32))


@lru_cache(maxsize=32)
def hann(window: int) -> Float32[np.ndarray, " window"]:
    """The periodic Hann window: its first sample is 0, and it would be again one past its end. Read-only."""
    return _frozen((0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(window) / window)).astype(np.float32))


def mel_power(waves: Float32[np.ndarray, "B T"], settings: MelSettings) -> Float32[np.ndarray, "B F M"]:
    """Power in each mel band: |DFT|^2, not normalised, times the filterbank. Raises ValueError for waveforms shorter
    than the window."""
    count = settings.frames(waves.shape[1])
    if count == 0:
        raise ValueError(f"a waveform of {waves.shape[1]} samples is shorter than the window of {settings.window}")
    from scipy.fft import rfft

    bank_km, window = mel_filterbank(settings), hann(settings.window)
    frames_bfw = np.lib.stride_tricks.sliding_window_view(waves, settings.window, axis=1)[:, :: settings.hop]
    power_bfm = np.empty((len(waves), count, settings.n_mels), np.float32)
    for some in _chunks(len(waves), count * settings.fft):
        spectrum_bfk = rfft(frames_bfw[some] * window, settings.fft, axis=-1)
        power_bfk = spectrum_bfk.real**2
        power_bfk += spectrum_bfk.imag**2
        np.matmul(power_bfk, bank_km, out=power_bfm[some])
    return power_bfm


def decibels(
    power: Float32[np.ndarray, "B F M"], *, floor: float = FLOOR, top_db: float | None = None
) -> Float32[np.ndarray, "B F M"]:
    """Power in dB (0 dB is a power of 1), never below that of `floor`, nor more than `top_db` below the largest value
    of its own waveform: what lies deeper is mostly the recording chain's noise, and digital silence would otherwise sit
    at an arbitrary constant."""
    level = 10.0 * np.log10(np.maximum(power, np.float32(floor)))
    if top_db is not None:
        np.maximum(level, level.max(axis=(1, 2), keepdims=True) - np.float32(top_db), out=level)
    return level


def log_mel(
    waves: Float32[np.ndarray, "B T"], settings: MelSettings, *, floor: float = FLOOR, top_db: float | None = None
) -> Float32[np.ndarray, "B F M"]:
    """`mel_power` in `decibels`."""
    return decibels(mel_power(waves, settings), floor=floor, top_db=top_db)


def _chunks(n: int, cost: int) -> Iterator[slice]:
    step = max(1, _CHUNK // cost)
    for start in range(0, n, step):
        yield slice(start, start + step)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False  # it is shared by every caller
    return array
