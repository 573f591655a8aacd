"""Log-mel spectrograms against librosa's (mel_librosa.npz, see make_mel_librosa.py) and their definition."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchkit.media.frontends.mel import (
    MelScale,
    MelSettings,
    decibels,
    hann,
    hz_to_mel,
    log_mel,
    mel_filterbank,
    mel_power,
    mel_to_hz,
)

SCALES = get_args(MelScale)


@pytest.fixture(scope="module")
def librosa() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "mel_librosa.npz") as made:
        return dict(made)


def settings(**given: Any) -> MelSettings:
    """Those of make_mel_librosa.py."""
    fields: dict[str, Any] = {"sample_rate": 16_000, "n_mels": 20, "window": 256, "hop": 100, "n_fft": 256}
    return MelSettings(**(fields | {"fmin": 40.0, "fmax": 7000.0} | given))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("area", [False, True])
def test_the_filterbanks_are_those_of_librosa(librosa: dict[str, np.ndarray], scale: MelScale, area: bool) -> None:
    expected = librosa[f"bank_{scale}_{'area' if area else 'height'}"]
    np.testing.assert_allclose(mel_filterbank(settings(scale=scale, area=area)), expected, atol=1e-6 * expected.max())


@pytest.mark.parametrize("window", [256, 200])
def test_the_spectrogram_is_that_of_librosa(librosa: dict[str, np.ndarray], window: int) -> None:
    skipped = (256 - window) // 2  # librosa puts a short window in the middle of the transform's samples
    wave = librosa["wave"][None, skipped:]
    expected = librosa[f"power_{window}"]
    power = mel_power(wave, settings(window=window))[0, : len(expected)]
    np.testing.assert_allclose(power, expected, rtol=2e-5, atol=1e-6 * expected.max())
    level = decibels(power[None], top_db=60.0)[0]
    np.testing.assert_allclose(level, librosa[f"db_{window}"], atol=1e-3)


def test_a_spectrogram_is_what_its_definition_says() -> None:
    rng = np.random.default_rng(0)
    waves, s = rng.standard_normal((2, 131)).astype(np.float32), settings(window=40, hop=30, n_fft=64, n_mels=4)
    k, n = np.arange(33)[:, None], np.arange(40)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 40)
    expected = np.zeros((2, 4, 4))
    for b in range(2):
        for f in range(4):
            frame = waves[b, 30 * f : 30 * f + 40] * window
            spectrum = (frame * np.exp(-2j * np.pi * k * n / 64)).sum(axis=1)
            expected[b, f] = np.abs(spectrum) ** 2 @ mel_filterbank(s)
    np.testing.assert_allclose(mel_power(waves, s), expected, rtol=1e-4)


def test_a_batch_gives_what_each_waveform_gives_alone() -> None:
    s = settings()
    waves = np.random.default_rng(0).standard_normal((300, 4096)).astype(np.float32)  # more than one pass
    together = log_mel(waves, s, top_db=80.0)
    for i in (0, 150, 299):
        np.testing.assert_allclose(together[i : i + 1], log_mel(waves[i : i + 1], s, top_db=80.0), atol=1e-3)


def test_levels_are_decibels_with_a_floor_below_which_nothing_lies() -> None:
    power = np.array([[[1.0, 100.0, 1e-3, 0.0]]], np.float32)
    np.testing.assert_allclose(decibels(power)[0, 0], [0, 20, -30, -100], atol=1e-4)
    np.testing.assert_allclose(decibels(power, top_db=40.0)[0, 0], [0, 20, -20, -20], atol=1e-4)
    silence = np.zeros((1, 3, 2), np.float32)
    np.testing.assert_allclose(decibels(silence, top_db=80.0), -100, atol=1e-4)


def test_the_range_below_the_loudest_is_that_of_each_waveform_alone() -> None:
    power = np.array([[[1.0, 1e-9]], [[1e-4, 1e-9]]], np.float32)
    np.testing.assert_allclose(decibels(power, top_db=30.0)[:, 0, 1], [-30, -70], atol=1e-4)


@given(st.sampled_from(SCALES), st.floats(0, 48_000))
def test_mel_and_hertz_are_inverse(scale: MelScale, hz: float) -> None:
    there = hz_to_mel(np.array([hz]), scale)
    assert mel_to_hz(there, scale)[0] == pytest.approx(hz, rel=1e-9, abs=1e-9)


@given(st.integers(8, 500), st.integers(1, 300), st.integers(1, 5000))
def test_whole_frames_lose_no_sample_and_add_less_than_one_hop(window: int, hop: int, samples: int) -> None:
    s = MelSettings(sample_rate=16_000, n_mels=1, window=window, hop=hop)
    length = s.whole_frames(samples)
    assert max(samples, window) <= length < max(samples, window) + hop
    assert window + hop * (s.frames(length) - 1) == length


def test_the_window_is_periodic() -> None:
    np.testing.assert_allclose(hann(8), np.hanning(9)[:-1], atol=1e-7)


def test_what_is_shared_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        mel_filterbank(settings())[0, 0] = 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_mels": 200}, "of 200 mel bands hold none of the window's frequencies"),
        ({"fmax": 9000.0}, "from 40 to 9000 Hz do not lie between 0 and half the sample rate, 8000 Hz"),
        ({"fmin": 7000.0}, "from 7000 to 7000 Hz"),
        ({"n_fft": 128}, "a transform of 128 samples is shorter than the window of 256"),
        ({"hop": 0}, "hop must be at least 1"),
    ],
)
def test_settings_that_make_no_spectrogram_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**given)


def test_a_waveform_shorter_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="a waveform of 255 samples is shorter than the window of 256"):
        mel_power(np.zeros((1, 255), np.float32), settings())
