"""Recordings as they lie on a disk: what cannot be read says why, and nothing that is no number gets into a model."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchkit.errors import MediaError
from benchkit.media.decode import Audio

TONE = np.sin(np.linspace(0, 600, 16_000)).astype(np.float32) / 2


@pytest.mark.parametrize(
    ("name", "rate", "options"),
    [
        ("stereo.wav", 44_100, {}), ("8 bit.wav", 8_000, {"subtype": "PCM_U8"}), ("ünï.flac", 32_000, {}),
        ("float.wav", 96_000, {"subtype": "FLOAT"}), ("24.wav", 384_000, {"subtype": "PCM_24"}),
        ("lossy.mp3", 22_050, {}), ("lossy.ogg", 48_000, {}), ("big-endian.aiff", 16_000, {}),
    ],
)  # fmt: skip
def test_formats_rates_and_channels_come_out_alike(
    tmp_path: Path, name: str, rate: int, options: dict[str, str]
) -> None:
    seconds = 0.5
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    soundfile.write(tmp_path / name, np.stack([tone, tone], 1) if "stereo" in name else tone, rate, **options)
    wave = Audio(tmp_path / name).load(16_000)
    assert wave.dtype == np.float32
    assert len(wave) == pytest.approx(seconds * 16_000, abs=2_500 if "lossy" in name else 1)
    assert np.abs(np.fft.rfft(wave, 16_000)).argmax() == pytest.approx(440, abs=1)
    assert np.abs(wave[2_000:6_000]).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_a_damaged_recording(tmp_path: Path, value: float) -> None:
    file = tmp_path / "call.wav"
    soundfile.write(file, np.where(np.arange(len(TONE)) == 800, value, TONE), 16_000, subtype="FLOAT")
    with pytest.raises(MediaError, match="holds samples that are NaN or infinite"):
        Audio(file).load(16_000)
    assert np.isfinite(Audio(file, start=0.1).load(16_000)).all()


def test_why_a_recording_cannot_be_read_is_said(tmp_path: Path) -> None:
    def why(file: Path | bytes) -> str:
        with pytest.raises(MediaError) as raised:
            Audio(file).load(16_000)
        return str(raised.value)

    (tmp_path / "empty.wav").touch()
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to("nowhere.wav")
    (tmp_path / "text.wav").write_text("this is no recording")
    soundfile.write(tmp_path / "nothing.wav", TONE[:0], 16_000)
    assert why(tmp_path / "empty.wav").endswith("empty.wav' does not decode as audio: it is empty")
    assert why(tmp_path / "folder.wav").endswith("folder.wav' does not decode as audio: it is no file")
    assert why(tmp_path / "link.wav").endswith("link.wav' does not decode as audio: there is no such file")
    assert why(tmp_path / "text.wav").endswith("text.wav' does not decode as audio: Format not recognised.")
    assert why(tmp_path / "nothing.wav").endswith("nothing.wav' holds no audio from 0 s")
    assert why(b"").endswith("a medium held in memory does not decode as audio: it is empty")
