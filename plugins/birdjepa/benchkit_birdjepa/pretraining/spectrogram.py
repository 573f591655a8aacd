"""Kaldi's filterbank in JAX, for whole batches: what the backbone's own preprocessing gives, within rounding.

Source: as benchkit.fbank (Kaldi's feat/feature-window.cc and feat/mel-computations.cc), settings of Bird-MAE.
"""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

RATE, HOP, FRAME, N_FFT = 32_000, 320, 800, 1024
LOW_HZ, PREEMPHASIS = 20.0, 0.97
MEAN, SPREAD = -7.2, 2 * 4.43
FLOOR = float(np.finfo(np.float32).eps)


def levels(waves: Array, held: Array, frames: int, mels: int) -> Array:
    """Waveforms [B, samples] at 32 kHz as spectrograms [B, frames, mels]: (log mel + 7.2) / 8.86, frames that reach
    beyond the `held` samples of a clip at the clip's minimum. Held samples: [B], at least one frame's."""
    samples = waves.shape[1]
    inside = jnp.arange(samples)[None] < held[:, None]
    mean = jnp.where(inside, waves, 0.0).sum(1) / held
    centred = jnp.where(inside, waves - mean[:, None], 0.0)
    found = min(frames, 1 + (samples - FRAME) // HOP)
    at = np.arange(found)[:, None] * HOP + np.arange(FRAME)[None]
    framed = centred[:, at]  # [B, found, FRAME]
    framed = framed - framed.mean(-1, keepdims=True)
    before = jnp.concatenate([framed[..., :1], framed[..., :-1]], axis=-1)
    framed = (framed - PREEMPHASIS * before) * jnp.asarray(_window())
    spectrum = jnp.fft.rfft(framed, n=N_FFT)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    energy = jnp.matmul(power, jnp.asarray(_mel(mels)), precision=jax.lax.Precision.HIGHEST)
    log = jnp.log(jnp.maximum(energy, FLOOR))
    whole = 1 + (held - FRAME) // HOP
    real = (jnp.arange(found)[None] < whole[:, None])[..., None]
    least = jnp.where(real, log, jnp.inf).min((1, 2), keepdims=True)
    log = jnp.where(real, log, least)
    if found < frames:
        rest = jnp.broadcast_to(least, (len(log), frames - found, mels))
        log = jnp.concatenate([log, rest], axis=1)
    return (log - MEAN) / SPREAD


@lru_cache(maxsize=1)
def _window() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / (FRAME - 1))).astype(np.float32)


@lru_cache(maxsize=8)
def _mel(mels: int) -> np.ndarray:
    """Triangles, [N_FFT / 2 + 1, mels], straight on the mel scale."""
    low, high = (1127.0 * np.log1p(hz / 700.0) for hz in (LOW_HZ, RATE / 2))
    edges = low + np.arange(mels + 2) * (high - low) / (mels + 1)
    left, centre, right = (e[None].astype(np.float32) for e in (edges[:-2], edges[1:-1], edges[2:]))
    hz = np.arange(N_FFT // 2, dtype=np.float32) * np.float32(RATE / N_FFT)
    mel = (1127.0 * np.log1p(hz / np.float32(700.0)))[:, None].astype(np.float32)
    triangles = np.minimum((mel - left) / (centre - left), (right - mel) / (right - centre)).clip(min=0.0)
    return np.pad(triangles, ((0, 1), (0, 0))).astype(np.float32)


def masked(x: Array, time: Array, freq: Array) -> Array:
    """Bands at the minimum. x: [B, rows, columns, ...]; time, freq: bands of rows and of columns, first and last + 1,
    [B, n, 2]."""
    least = x.min(tuple(range(1, x.ndim)), keepdims=True)
    for axis, bands in ((1, time), (2, freq)):
        if bands.shape[1]:
            at = jnp.arange(x.shape[axis])[None, None]
            hit = ((at >= bands[..., :1]) & (at < bands[..., 1:])).any(1)
            shape = [len(x), *([1] * (x.ndim - 1))]
            shape[axis] = x.shape[axis]
            x = jnp.where(hit.reshape(shape), least, x)
    return x
