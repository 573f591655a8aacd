"""mfcc against librosa's coefficients, slopes and zero crossings (see fixtures/make_mfcc_librosa.py)."""

from pathlib import Path

import numpy as np
import pytest

from benchkit import MelSettings, SpecError, resolve
from benchkit.testing import BackboneSuite
from benchkit_baselines.mfcc import MFCC, MFCCParams, cepstrum, crossings, slopes

SMALL = MFCCParams(sample_rate=16_000, seconds=0.1, n_mels=20, window_ms=16.0, n_mfcc=13, fmin=40.0, fmax=7000.0)


class TestConformance(BackboneSuite):
    spec = "mfcc"


@pytest.fixture(scope="module")
def librosa() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "fixtures" / "mfcc_librosa.npz") as made:
        return dict(made)


def test_coefficients_are_those_of_librosa_with_the_mean_level_for_the_first(librosa: dict[str, np.ndarray]) -> None:
    ours = cepstrum(librosa["level"][None], 13)[0]
    np.testing.assert_allclose(ours[:, 1:], librosa["mfcc"][:, 1:], atol=1e-3)
    np.testing.assert_allclose(ours[:, 0], librosa["level"].mean(axis=1), atol=1e-3)


def test_slopes_are_those_of_librosa(librosa: dict[str, np.ndarray]) -> None:
    ours = slopes(librosa["mfcc"][None], 2)[0]
    np.testing.assert_allclose(ours[2:-2], librosa["slopes"][2:-2], atol=1e-3)


def test_the_slope_of_a_straight_line_is_its_slope_whatever_the_reach() -> None:
    line = np.arange(9, dtype=np.float32)[None, :, None] * np.float32([2.0, -0.5])
    for reach in (1, 2, 4):
        np.testing.assert_allclose(slopes(line, reach)[0, 4], [2.0, -0.5], rtol=1e-6)


def test_zero_crossings_are_those_of_librosa(librosa: dict[str, np.ndarray]) -> None:
    settings = MelSettings(sample_rate=16_000, n_mels=20, window=256, hop=100)
    ours = crossings(librosa["wave"][None], settings)[0]  # in a millisecond; a frame has 16 of them
    np.testing.assert_allclose(ours * 16, librosa["crossings"], atol=1e-5)


def test_features_are_the_statistics_over_time_that_the_documentation_names() -> None:
    wave = np.random.default_rng(0).standard_normal(1600).astype(np.float32)
    mfcc = MFCC(SMALL)
    encoded = mfcc.encode(mfcc.preprocess(wave)[None], tokens=True)
    assert encoded.tokens is not None
    frames = encoded.tokens[0]
    slope = slopes(frames[None], 2)[0]
    blocks = [frames.mean(0), frames.std(0), slope.std(0), slopes(slope[None], 2)[0].std(0)]
    np.testing.assert_allclose(encoded.pooled[0, :-2], np.concatenate(blocks), rtol=1e-4, atol=1e-4)
    assert encoded.pooled.shape == (1, mfcc.dim)


def test_more_coefficients_than_bands_are_refused_in_one_line() -> None:
    with pytest.raises(SpecError, match="n_mfcc=30 coefficients cannot be made of n_mels=20 bands"):
        resolve("model", "mfcc,n_mfcc=30,n_mels=20")
