"""From one sample rate to another."""

import threading
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit.errors import require

REACH = 512
"""Samples, at the lower of the two rates, beyond which nothing reaches a resampled sample: the filter is shorter."""


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
