"""What is heard of several channels, and what is noticed about it."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchkit.media.decode import Audio
from benchkit.media.notes import CANCELS, CLIPPED, SILENT

RATE = 8_000
T = np.arange(2 * RATE) / RATE
TONE = 0.25 * np.sin(2 * np.pi * 440 * T)
NOISE = 0.1 * np.random.default_rng(0).standard_normal(len(T))


def heard(tmp_path: Path, *channels: np.ndarray, channel: str = "mix", sub: str = "FLOAT") -> tuple[np.ndarray, int]:
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack(channels, 1), RATE, subtype=sub)
    decoded = Audio(path, channel=channel).decode(RATE)
    return decoded.raw, decoded.notes


def test_the_parameter_chooses_what_is_heard(tmp_path: Path) -> None:
    left, right, third = TONE.astype(np.float32), NOISE.astype(np.float32), (0.5 * TONE).astype(np.float32)

    def of(channel: str) -> np.ndarray:
        return heard(tmp_path, left, right, third, channel=channel)[0]

    np.testing.assert_array_equal(of("left"), left)
    np.testing.assert_array_equal(of("right"), right)
    np.testing.assert_array_equal(of("loudest"), left)
    np.testing.assert_allclose(of("mix"), (left + right + third) / 3, atol=1e-7)
    for channel in ("mix", "left", "right", "loudest"):
        np.testing.assert_array_equal(heard(tmp_path, left, channel=channel)[0], left)


def test_the_loudest_channel_is_that_of_the_part(tmp_path: Path) -> None:
    early, late = np.where(T < 1, TONE, 0), np.where(T < 1, 0, TONE)
    soundfile.write(tmp_path / "call.wav", np.stack([early, late], 1), RATE, subtype="DOUBLE")
    first = Audio(tmp_path / "call.wav", 0.0, 0.5, "loudest").load(RATE)
    second = Audio(tmp_path / "call.wav", 1.5, 0.5, "loudest").load(RATE)
    np.testing.assert_allclose(first, TONE[: RATE // 2], atol=1e-7)
    np.testing.assert_allclose(second, TONE[3 * RATE // 2 :], atol=1e-7)


@pytest.mark.parametrize(
    ("left", "right", "cancels"),
    [
        (TONE, -TONE, True), (NOISE, -NOISE, True),
        (TONE, -0.95 * TONE, True),  # 32 dB below
        (TONE, -0.9 * TONE, False),  # 26 dB
        (TONE, TONE, False), (TONE, NOISE, False), (TONE, 0 * TONE, False), (0 * TONE, 0 * TONE, False),
        (1e-6 * TONE, -1e-6 * TONE, False),  # nothing was there to be heard
        (np.where(T > 1.99, TONE, 0), np.where(T > 1.99, -TONE, 0), True),
    ],
)  # fmt: skip
def test_channels_in_antiphase_are_noticed_where_their_mix_is_30_db_below(
    left: np.ndarray, right: np.ndarray, cancels: bool, tmp_path: Path
) -> None:
    _, notes = heard(tmp_path, left, right)
    assert bool(notes & CANCELS) == cancels
    assert not notes & SILENT or not cancels
    for channel in ("left", "right", "loudest"):
        assert not heard(tmp_path, left, right, channel=channel)[1] & CANCELS


def test_a_click_in_antiphase_is_seen_however_short(tmp_path: Path) -> None:
    click = np.zeros(len(T))
    click[1_001] = 0.5
    assert heard(tmp_path, click, -click)[1] == CANCELS


def test_silence_and_clipping_are_noticed(tmp_path: Path) -> None:
    assert heard(tmp_path, 0 * TONE)[1] == SILENT
    assert heard(tmp_path, 0 * TONE + 0.3)[1] == SILENT  # an offset is not heard either
    assert heard(tmp_path, 1e-5 * NOISE)[1] == SILENT
    assert heard(tmp_path, 1e-3 * NOISE)[1] == 0
    assert heard(tmp_path, np.clip(8 * TONE, -1, 1), sub="PCM_16")[1] == CLIPPED
    assert heard(tmp_path, np.clip(20 * NOISE, -1, 1), sub="PCM_24")[1] == CLIPPED
    assert heard(tmp_path, 3.9 * TONE, sub="PCM_16")[1] == 0
    assert heard(tmp_path, np.where(np.arange(len(T)) == 5, 1, TONE), sub="PCM_16")[1] == 0
