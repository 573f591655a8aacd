"""A part of a recording is, sample by sample, that part of the whole; and what is not used is not decoded."""

import io
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.errors import MediaError
from benchkit.media.decode import Audio
from benchkit.media.recording import OpenAudio

SECONDS = 12


def encoded(major: str, sub: str, rate: int, channels: int = 1, **options: object) -> bytes:
    rng = np.random.default_rng(rate)
    t = np.arange(SECONDS * rate) / rate
    tone = 0.3 * np.sin(2 * np.pi * 200 * t * (1 + t / 4)) + 0.05 * rng.standard_normal(len(t)) * (np.sin(3 * t) > 0)
    f = io.BytesIO()
    wave = tone if channels == 1 else np.stack([np.roll(tone, 100 * i) for i in range(channels)], 1)
    soundfile.write(f, wave, rate, format=major, subtype=sub, **options)
    return f.getvalue()


STREAMS = {
    "vorbis": encoded("OGG", "VORBIS", 44_100), "vorbis slow": encoded("OGG", "VORBIS", 16_000),
    "vorbis stereo": encoded("OGG", "VORBIS", 32_000, 2), "opus": encoded("OGG", "OPUS", 48_000, 2),
    "opus slow": encoded("OGG", "OPUS", 16_000), "mp3": encoded("MP3", "MPEG_LAYER_III", 44_100),
    "mp3 variable": encoded("MP3", "MPEG_LAYER_III", 44_100, 2, bitrate_mode="VARIABLE", compression_level=0.9),
    "mp3 slow": encoded("MP3", "MPEG_LAYER_III", 16_000, bitrate_mode="CONSTANT", compression_level=0.9),
    "flac": encoded("FLAC", "PCM_16", 44_100), "wav": encoded("WAV", "PCM_24", 96_000),
    "adpcm": encoded("WAV", "IMA_ADPCM", 22_050), "alac": encoded("CAF", "ALAC_16", 44_100),
    "gsm": encoded("WAV", "GSM610", 8_000), "dwvw": encoded("AIFF", "DWVW_16", 8_000),
}  # fmt: skip
WHOLE = {}


def whole(name: str) -> tuple[int, np.ndarray]:
    """Decoded from the beginning in one go, by soundfile alone."""
    if name not in WHOLE:
        with soundfile.SoundFile(io.BytesIO(STREAMS[name])) as f:
            f.seekable = lambda: False
            WHOLE[name] = f.samplerate, f.read(f.frames, dtype="float32", always_2d=True).mean(axis=1)
    return WHOLE[name]


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=12, deadline=None)
@given(start=st.floats(0, SECONDS - 0.01), seconds=st.floats(0.01, 4))
def test_any_part_is_to_the_bit_that_part_of_the_whole(name: str, start: float, seconds: float) -> None:
    rate, expected = whole(name)
    part = Audio(STREAMS[name], start, seconds).load(rate)
    first = round(start * rate)
    np.testing.assert_array_equal(part, expected[first : first + round(seconds * rate)])


@pytest.mark.parametrize("name", ["vorbis", "opus", "mp3", "mp3 variable"])
def test_parts_near_the_end_too(name: str) -> None:
    rate, expected = whole(name)
    for start in np.linspace(SECONDS - 1.5, SECONDS - 0.02, 12):
        first = round(start * rate)
        np.testing.assert_array_equal(Audio(STREAMS[name], start).load(rate), expected[first:])


@pytest.mark.parametrize(("source", "target"), [(44_100, 32_000), (16_000, 48_000), (96_000, 8_000), (250_000, 22_050)])
def test_what_a_backbone_uses_is_what_it_would_have_used_of_all(source: int, target: int) -> None:
    data = encoded("FLAC", "PCM_16", source)
    every = Audio(data).load(target)
    for seconds in (0.5, 3.0, SECONDS - 0.01, SECONDS + 4.0):
        used = Audio(data).load(target, seconds)
        assert len(used) == min(len(every), round(seconds * target))
        np.testing.assert_allclose(used, every[: len(used)], atol=2e-7)  # to rounding: transforms have other lengths
    np.testing.assert_array_equal(Audio(data, 2.0, 1.5).load(target, 5.0), Audio(data, 2.0, 1.5).load(target))


def pipe(data: bytes) -> bytes:
    """As an encoder leaves it that could not come back to the header: a total of 0."""
    return data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]


def test_a_flac_stream_from_a_pipe_works_whole_and_in_part() -> None:
    data = pipe(STREAMS["flac"])
    rate, expected = whole("flac")
    np.testing.assert_array_equal(Audio(data).load(rate), expected)
    np.testing.assert_array_equal(Audio(data, 7.0, 3.0).load(rate), expected[7 * rate : 10 * rate])
    np.testing.assert_array_equal(Audio(data).load(rate, 5.0), expected[: 5 * rate])
    with OpenAudio(data) as recording:
        assert (recording.seconds, recording.verified) == (SECONDS, False)
    with pytest.raises(MediaError, match="cut off: its last frame is not whole"):
        Audio(data[: len(data) * 2 // 3]).load(rate)


@pytest.mark.parametrize("rate", [1, 99, 2_000_000_000])
def test_a_sample_rate_that_nobody_records_at_is_refused(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(1_000), rate)
    with pytest.raises(MediaError, match=rf"call.wav' states a sample rate of {rate:,} Hz, and 100 to 10,000,000 Hz"):
        Audio(tmp_path / "call.wav").load(32_000)


@pytest.mark.parametrize("rate", [100, 192, 8_000, 44_056, 256_000, 500_000])
def test_rates_from_whales_to_bats_are_read(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(2 * rate), rate)
    assert len(Audio(tmp_path / "call.wav").load(32_000)) == 64_000


def silence(path: Path, hours: float) -> Path:
    with soundfile.SoundFile(path, "w", 48_000, 2, "PCM_16") as f:
        for _ in range(round(hours * 60)):
            f.write(np.zeros((60 * 48_000, 2), np.int16))
    return path


def test_a_recording_of_hours_of_which_nobody_says_how_much_is_used_is_refused(tmp_path: Path) -> None:
    path = silence(tmp_path / "night.flac", 0.25)
    with pytest.raises(MediaError, match=r"night.flac' is 900 s long, and neither the task nor the backbone says how"):
        Audio(path).load(48_000)
    assert len(Audio(path).load(48_000, 5.0)) == 240_000
    assert len(Audio(silence(tmp_path / "minutes.flac", 0.1)).load(48_000)) == 360 * 48_000
    path.write_bytes(pipe(path.read_bytes()))
    with pytest.raises(MediaError, match=r"night.flac' is very long, and neither the task nor the backbone"):
        Audio(path).load(48_000)


_PEAK = """
import sys, resource
from pathlib import Path
from benchkit.media.decode import Audio
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in (0.0, 1000.0):
    for path in sys.argv[1:]:
        assert len(Audio(Path(path), start, None if start == 0 else 60.0).load(32_000, 5.0)) == 160_000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_memory_does_not_grow_with_the_length_of_a_file(tmp_path: Path) -> None:
    silence(tmp_path / "half an hour.flac", 0.5)
    (tmp_path / "pipe.flac").write_bytes(pipe((tmp_path / "half an hour.flac").read_bytes()))
    with open(tmp_path / "two hours.wav", "wb") as f:  # sparse: 1.4 GB that take no room
        f.write(b"RIFF" + (36 + 7200 * 192_000).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little"))
        f.write(np.array([1, 2], "<u2").tobytes() + np.array([48_000, 192_000], "<u4").tobytes())
        f.write(np.array([4, 16], "<u2").tobytes() + b"data" + (7200 * 192_000).to_bytes(4, "little"))
        f.truncate(44 + 7200 * 192_000)
    files = [str(p) for p in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", _PEAK, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150  # MB more than before: libraries, and no recording


def test_whatever_a_decoder_raises_is_a_media_error_with_the_files_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(1_000), 8_000)

    def broken(*args: object, **options: object) -> None:
        raise ValueError("array is too big")

    monkeypatch.setattr(soundfile.SoundFile, "read", broken)
    with pytest.raises(MediaError, match=r"call.wav' does not decode as audio: array is too big"):
        Audio(tmp_path / "call.wav").load(8_000)


def test_too_many_open_files_is_not_the_recordings_fault(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "call.wav", np.zeros(1_000), 8_000)
    assert len(Audio(tmp_path / "call.wav").load(8_000)) == 1_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        while True:
            try:
                taken.append(os.open(tmp_path / "call.wav", os.O_RDONLY))
            except OSError:
                break
        for free in (0, 1):  # the second is enough to look at the file, not to decode it
            for descriptor in taken[len(taken) - free :]:
                os.close(descriptor)
            del taken[len(taken) - free :]
            with pytest.raises(OSError, match=r"[Tt]oo many open files"):
                Audio(tmp_path / "call.wav").load(8_000)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
