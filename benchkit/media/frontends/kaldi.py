"""Kaldi's log-mel filterbank for whole batches, on any device.

    fbank(waves, Fbank(sample_rate=32_000))        [B, samples] -> [B, frames, n_mels]

Equal to `torchaudio.compliance.kaldi.fbank` with dither 0, no energy column and snipped edges, up to the rounding of
float32. Frames begin each `shift_ms`; the first and last sample of a clip are inside its first and last whole frame.
Source: Kaldi, feat/feature-window.cc and feat/mel-computations.cc.
"""

import math
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Window = Literal["hanning", "hamming", "povey", "blackman", "rectangular"]

FLOOR = torch.finfo(torch.float32).eps
"""The least energy a mel bin can have before the logarithm, whatever the precision: Kaldi's."""

MEL_BLOCK = 16
"""A block of neighbouring triangles touches few FFT bins: an eighth of the work of one dense product."""
CHUNK_FRAMES = 512
"""Frames that one thread works on at once on a CPU: what it writes stays in the processor's cache."""
CHUNK_FRAMES_DEVICE = 16_384
"""On a GPU: 130 MB of scratch."""


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


def fbank(waves: Float[Tensor, "B samples"], settings: Fbank) -> Float[Tensor, "B frames mels"]:
    """Natural logarithm of the mel energies, on the device and in the precision (float32 or float64) of `waves`.

    A clip's result does not depend on its neighbours, and memory beyond the result is bounded however long the clips
    are. On a CPU torch.get_num_threads() threads share the work. No gradients. A constant offset far above the signal
    costs digits, as it does in Kaldi. Raises ValueError for a waveform shorter than one frame.
    """
    s = settings
    n_clips, samples = waves.shape
    n_frames = s.n_frames(samples)
    if not n_frames:
        raise ValueError(f"a waveform of {samples} samples is shorter than one frame of {s.frame} ({s.frame_ms:g} ms)")
    constants = _constants(s, waves.device, waves.dtype)
    on_cpu = waves.device.type == "cpu"
    at_once = CHUNK_FRAMES if on_cpu else CHUNK_FRAMES_DEVICE
    clips, frames = max(1, at_once // n_frames), min(n_frames, at_once)
    out = waves.new_empty(n_clips, n_frames, s.n_mels)
    chunks = [(i, j) for i in range(0, n_clips, clips) for j in range(0, n_frames, frames)]

    def work(scratch: _Scratch, chunk: tuple[int, int]) -> None:
        i, j = chunk
        part = out[i : i + clips, j : j + frames]
        last = (j + part.shape[1] - 1) * s.shift + s.frame
        _fbank_chunk(waves[i : i + clips, j * s.shift : last], s, constants, scratch, part)

    with torch.no_grad():
        _share(work, chunks, lambda: _Scratch.empty(clips * frames, s.n_fft, waves), torch.get_num_threads() * on_cpu)
    return out


def _share(
    work: Callable[["_Scratch", tuple[int, int]], None],
    chunks: Sequence[tuple[int, int]],
    scratch: Callable[[], "_Scratch"],
    threads: int,
) -> None:
    """Each thread works on chunks of its own, in single-threaded operations. torch's way, all threads in every
    operation, meets at a barrier some twenty times a chunk, and crawls on a machine that has anything else to do."""
    threads = min(threads, len(chunks))
    if threads < 2:
        own = scratch()
        for chunk in chunks:
            work(own, chunk)
        return
    free: queue.SimpleQueue[_Scratch] = queue.SimpleQueue()
    for _ in range(threads):
        free.put(scratch())
    inference = torch.is_inference_mode_enabled()  # a mode is of one thread, and has to be handed on

    def take(chunk: tuple[int, int]) -> None:
        own = free.get()
        with torch.inference_mode(inference), torch.no_grad():
            work(own, chunk)
        free.put(own)

    before = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(take, chunks))
    torch.set_num_threads(before)  # what a thread sets for itself is also the default of threads that begin later


class _Constants(NamedTuple):
    window: Tensor  # [frame]
    starts_above_zero: bool  # else a frame's first sample does not count
    mel_blocks: list[tuple[slice, slice, Tensor]]  # spectrum columns, mel bins, weights [spectrum columns, mel bins]


class _Scratch(NamedTuple):
    """Reused from chunk to chunk: fresh memory for each costs as much as the arithmetic."""

    padded: Tensor  # [frames, n_fft], zero behind each frame
    spectrum: Tensor  # [frames, n_fft / 2 + 1], complex

    @staticmethod
    def empty(frames: int, n_fft: int, like: Tensor) -> "_Scratch":
        spectrum = like.new_empty(frames, n_fft // 2 + 1, dtype=like.dtype.to_complex())
        return _Scratch(like.new_zeros(frames, n_fft), spectrum)


def _fbank_chunk(waves: Tensor, s: Fbank, constants: _Constants, scratch: _Scratch, out: Tensor) -> None:
    clips, frames, mels = out.shape
    padded, spectrum = (t[: clips * frames] for t in scratch)
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
    if constants.starts_above_zero:
        framed[..., 0] = (raw[..., 0] - mean[..., 0]) * rest
    framed.mul_(constants.window)

    torch.fft.rfft(padded, out=spectrum)
    squares = torch.view_as_real(spectrum).view(clips * frames, -1).square_()  # real and imaginary parts in turn
    flat = out.view(clips * frames, mels)
    for columns, bins, weights in constants.mel_blocks:
        torch.mm(squares[:, columns], weights, out=flat[:, bins])
    out.clamp_(min=FLOOR).log_()


@lru_cache(maxsize=32)
def _constants(s: Fbank, device: torch.device, dtype: torch.dtype) -> _Constants:
    with torch.inference_mode(False):  # they outlive the call that happens to need them first
        weights = _mel_weights(s).repeat_interleave(2, dim=0).to(device, dtype)  # |z|^2 is summed by the product
        blocks = []
        for first in range(0, s.n_mels, MEL_BLOCK):
            bins = slice(first, min(first + MEL_BLOCK, s.n_mels))
            touched = weights[:, bins].any(1).nonzero().flatten().tolist() or [0]
            columns = slice(touched[0], touched[-1] + 1)
            blocks.append((columns, bins, weights[columns, bins].contiguous()))
        window = _window(s)
        return _Constants(window.to(device, dtype), bool(window[0] > 1e-9), blocks)


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
