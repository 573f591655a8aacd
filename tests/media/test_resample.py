"""Resamplers are kept by rate pair, and give to the bit what libsoxr gives for a clip alone."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.media.resample import resample

RATES = [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000]


def clip(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples, dtype=np.float32)


@given(st.sampled_from(RATES), st.sampled_from(RATES), st.one_of(st.integers(1, 50), st.integers(1, 60_000)))
@settings(max_examples=60, deadline=None)
def test_a_kept_resampler_gives_what_a_new_one_gives(source: int, target: int, samples: int) -> None:
    wave = clip(samples, samples)
    np.testing.assert_array_equal(resample(wave, source, target), soxr.resample(wave, source, target, quality="HQ"))


def test_a_wave_that_does_not_lie_in_one_piece_is_resampled_too() -> None:
    wave = clip(20_000)[::2]
    np.testing.assert_array_equal(resample(wave, 44_100, 32_000), soxr.resample(wave, 44_100, 32_000, quality="HQ"))


def test_threads_do_not_share_a_resampler() -> None:
    waves = [clip(30_000, seed) for seed in range(24)]
    expected = [resample(wave, 44_100, 32_000) for wave in waves]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda wave: resample(wave, 44_100, 32_000), waves))
    finally:
        sys.setswitchinterval(before)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
