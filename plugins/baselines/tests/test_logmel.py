import numpy as np
import pytest

from benchkit import SpecError, resolve
from benchkit.testing import BackboneSuite
from benchkit_baselines.logmel import LogMel
from benchkit_baselines.waves import MelParams


class TestConformance(BackboneSuite):
    spec = "logmel"


def tone(hz: float, seconds: float, rate: int = 32_000) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def encode(wave: np.ndarray, params: MelParams | None = None, tokens: bool = False) -> np.ndarray:
    model = LogMel(params)
    encoded = model.encode(model.preprocess(wave)[None], tokens=tokens)
    return encoded.tokens[0] if encoded.tokens is not None else encoded.pooled[0]


def test_features_are_four_statistics_of_each_bands_level() -> None:
    wave = np.random.default_rng(0).standard_normal(160_000).astype(np.float32)
    level = encode(wave, tokens=True)
    expected = [level.mean(0), level.std(0), level.max(0), np.abs(np.diff(level, axis=0)).sum(0) / len(level)]
    np.testing.assert_allclose(encode(wave), np.concatenate(expected), rtol=1e-4)


def test_a_tone_is_loudest_in_the_band_that_holds_it() -> None:
    bands = [int(encode(tone(hz, 5.0))[:64].argmax()) for hz in (200, 1000, 4000, 12_000)]
    assert bands == sorted(set(bands))


def test_only_the_first_seconds_of_a_long_recording_count() -> None:
    wave = tone(1000, 8.0)
    changed = wave.copy()
    changed[160_000:] = 0.5  # from 5 s on
    np.testing.assert_array_equal(encode(wave), encode(changed))
    changed[159_999] = -0.5
    assert not np.array_equal(encode(wave), encode(changed))  # every sample of the 5 s counts


def test_a_short_recording_counts_as_followed_by_silence() -> None:
    padded = np.concatenate([tone(1000, 1.0), np.zeros(128_000, np.float32)])
    np.testing.assert_array_equal(encode(tone(1000, 1.0)), encode(padded))
    assert encode(tone(1000, 1.0))[64:128].mean() > 2 * encode(tone(1000, 5.0))[64:128].mean()  # the spread in time


def test_levels_reach_no_further_down_than_top_db() -> None:
    level = encode(tone(1000, 1.0), tokens=True)
    assert level.max() - level.min() == pytest.approx(80.0, abs=1e-3)
    deep = encode(tone(1000, 1.0), MelParams(top_db=None), tokens=True)
    assert deep.min() == pytest.approx(-100.0, abs=1e-3)


def test_half_the_sample_rate_is_the_same_thing_however_it_is_written() -> None:
    assert resolve("model", "logmel,fmax=16000").canonical == "logmel"
    assert resolve("model", "logmel,fmax=8000,sample_rate=16000").canonical == "logmel,sample_rate=16000"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("logmel,fmax=20000", "do not lie between 0 and half the sample rate, 16000 Hz"),
        (
            "logmel,n_mels=512",
            "of 512 mel bands hold none of the window's frequencies: ask for fewer bands or",
        ),
        ("logmel,seconds=0", "parameter 'seconds' is 0, below the least allowed"),
    ],
)
def test_parameters_that_make_no_spectrogram_are_one_clear_line(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve("model", spec)
