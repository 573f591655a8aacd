"""Kaldi's log-mel filterbank for whole batches, on any device.

    fbank(waves, Fbank(sample_rate=32_000))        [B, samples] -> [B, frames, n_mels]

Equal to `torchaudio.compliance.kaldi.fbank` with dither 0, no energy column and snipped edges, up to the rounding of
float32. Frames begin each `shift_ms`; the first and last sample of a clip are inside its first and last whole frame.
Source: Kaldi, feat/feature-window.cc and feat/mel-computations.cc.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Window = Literal["hanning", "hamming", "povey", "blackman", "rectangular"]

FLOOR = torch.finfo(torch.float32).eps
"""The least energy a mel bin can have before the logarithm, whatever the precision: Kaldi's."""

MEL_BLOCK = 16  # a block of neighbouring triangles touches few FFT bins: an eighth of the dense product's work
CHUNK_FRAMES = {"cpu": 1024}  # frames worked on at once: on a CPU, what stays near the cache
CHUNK_FRAMES_DEVICE = 16_384  # 170 MB of scratch


@dataclass(frozen=True)
class Fbank:
    """Settings of the filterbank.

    sample_rate: of the waveforms, in Hz.
    frame_ms, shift_ms: length of a frame, and from one frame's start to the next, in milliseconds.
    low_hz, high_hz: the lowest and highest frequency of the triangles; a `high_hz` of 0 or less counts from Nyquist.
    preemphasis: how much of the sample before is subtracted from each.
    """

    sample_rate: int
    n_mels: int = 128
    frame_ms: float = 25.0
    shift_ms: float = 10.0
    low_hz: float = 20.0
    high_hz: float = 0.0
    preemphasis: float = 0.97
    window: Window = "hanning"

    @property
    def frame(self) -> int:
        """Samples in a frame."""
        return int(self.sample_rate * self.frame_ms * 0.001)

    @property
    def shift(self) -> int:
        """Samples from one frame's start to the next."""
        return int(self.sample_rate * self.shift_ms * 0.001)

    @property
    def n_fft(self) -> int:
        """The next power of two: frames are padded to it with zeros."""
        return 1 << (self.frame - 1).bit_length()

    def n_frames(self, samples: int) -> int:
        """Whole frames in a waveform; 0 where it is shorter than one."""
        return max(0, 1 + (samples - self.frame) // self.shift)


@torch.no_grad()
def fbank(waves: Float[Tensor, "B samples"], settings: Fbank) -> Float[Tensor, "B frames mels"]:
    """Natural logarithm of the mel energies, on the device and in the precision (float32 or float64) of `waves`.

    A clip's result does not depend on its neighbours, and memory beyond the result is bounded however long the clips
    are. Raises ValueError for a waveform shorter than one frame.
    """
    s = settings
    n_clips, samples = waves.shape
    n_frames = s.n_frames(samples)
    if not n_frames:
        raise ValueError(f"a waveform of {samples} samples is shorter than one frame of {s.frame} ({s.frame_ms:g} ms)")
    constants = _constants(s, waves.device, waves.dtype)
    at_once = CHUNK_FRAMES.get(waves.device.type, CHUNK_FRAMES_DEVICE)
    clips, frames = max(1, at_once // n_frames), min(n_frames, at_once)
    scratch = _Scratch.empty(clips * frames, s.n_fft, waves)
    out = waves.new_empty(n_clips, n_frames, s.n_mels)
    for i in range(0, n_clips, clips):
        for j in range(0, n_frames, frames):
            part = out[i : i + clips, j : j + frames]
            last = (j + part.shape[1] - 1) * s.shift + s.frame
            _fbank_chunk(waves[i : i + clips, j * s.shift : last], s, constants, scratch, part)
    return out


class _Constants(NamedTuple):
    window: Tensor  # [frame]
    mel_blocks: list[tuple[slice, slice, Tensor]]  # FFT bins, mel bins, weights [FFT bins, mel bins]


class _Scratch(NamedTuple):
    """Reused from chunk to chunk: fresh memory for each costs as much as the arithmetic."""

    padded: Tensor  # [frames, n_fft], zero behind each frame
    spectrum: Tensor  # [frames, n_fft / 2 + 1], complex
    power: Tensor  # [frames, n_fft / 2 + 1]

    @staticmethod
    def empty(frames: int, n_fft: int, like: Tensor) -> "_Scratch":
        bins = n_fft // 2 + 1
        return _Scratch(
            like.new_zeros(frames, n_fft),
            like.new_empty(frames, bins, dtype=like.dtype.to_complex()),
            like.new_empty(frames, bins),
        )


def _fbank_chunk(waves: Tensor, s: Fbank, constants: _Constants, scratch: _Scratch, out: Tensor) -> None:
    clips, frames, _ = out.shape
    padded, spectrum, power = (t[: clips * frames] for t in scratch)
    waves = waves - waves.mean(1, keepdim=True)  # changes only the rounding: each frame's own mean goes below
    raw = waves.unfold(1, s.frame, s.shift)
    mean = raw.mean(-1, keepdim=True)

    # Pre-emphasis of a frame whose mean was removed is pre-emphasis of the waveform, once for all frames that share a
    # sample, less the rest of the mean. Only a frame's first sample, which stands for its own predecessor, differs.
    rest = 1.0 - s.preemphasis
    emphasised = torch.empty_like(waves)
    torch.sub(waves[:, 1:], waves[:, :-1], alpha=s.preemphasis, out=emphasised[:, 1:])
    emphasised[:, 0] = 0.0
    framed = padded.view(clips, frames, s.n_fft)[..., : s.frame]
    torch.sub(emphasised.unfold(1, s.frame, s.shift), mean, alpha=rest, out=framed)
    framed[..., 0] = (raw[..., 0] - mean[..., 0]) * rest
    framed.mul_(constants.window)

    torch.fft.rfft(padded, out=spectrum)
    torch.mul(spectrum.real, spectrum.real, out=power)
    power.addcmul_(spectrum.imag, spectrum.imag)
    for bins, mels, weights in constants.mel_blocks:
        out[..., mels] = (power[:, bins] @ weights).view(clips, frames, -1)
    out.clamp_(min=FLOOR).log_()


@lru_cache(maxsize=32)
def _constants(s: Fbank, device: torch.device, dtype: torch.dtype) -> _Constants:
    weights = _mel_weights(s).to(device, dtype)
    blocks = []
    for first in range(0, s.n_mels, MEL_BLOCK):
        mels = slice(first, min(first + MEL_BLOCK, s.n_mels))
        touched = weights[:, mels].any(1).nonzero().flatten().tolist() or [0]
        bins = slice(touched[0], touched[-1] + 1)
        blocks.append((bins, mels, weights[bins, mels].contiguous()))
    return _Constants(_window(s).to(device, dtype), blocks)


def _window(s: Fbank) -> Float[Tensor, " frame"]:
    if s.window == "rectangular":
        return torch.ones(s.frame, dtype=torch.float64)
    if s.window == "hamming":
        return torch.hamming_window(s.frame, periodic=False, alpha=0.54, beta=0.46, dtype=torch.float64)
    if s.window == "blackman":
        return torch.blackman_window(s.frame, periodic=False, dtype=torch.float64)
    hann = torch.hann_window(s.frame, periodic=False, dtype=torch.float64)
    return hann**0.85 if s.window == "povey" else hann


def _mel_weights(s: Fbank) -> Float[Tensor, "bins mels"]:
    """Triangles, evenly spaced and straight on the mel scale. In float32 as in Kaldi, whose rounding of a triangle
    that touches one bin only just would show after the logarithm."""
    nyquist = 0.5 * s.sample_rate
    high_hz = s.high_hz if s.high_hz > 0 else nyquist + s.high_hz
    if not 0 <= s.low_hz < high_hz <= nyquist:
        raise ValueError(f"mel bins from {s.low_hz:g} to {high_hz:g} Hz do not fit below Nyquist, {nyquist:g} Hz")
    low, high = (1127.0 * math.log(1.0 + hz / 700.0) for hz in (s.low_hz, high_hz))
    step = (high - low) / (s.n_mels + 1)
    left = low + torch.arange(s.n_mels) * step
    centre = low + (torch.arange(s.n_mels) + 1.0) * step
    right = low + (torch.arange(s.n_mels) + 2.0) * step
    hz = (s.sample_rate / s.n_fft) * torch.arange(s.n_fft // 2)
    mel = (1127.0 * (1.0 + hz / 700.0).log()).unsqueeze(1)
    triangles = torch.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clamp(min=0.0)
    return torch.nn.functional.pad(triangles, (0, 0, 0, 1))  # Kaldi leaves out the bin at Nyquist
