"""Every format that libsndfile writes: whole, cut at 13 places, with a wrong length in its header, with garbage inside.

What decodes is what the file says that it holds; everything else is refused by name, or, where a format states no
length, noted.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchkit.errors import MediaError
from benchkit.media.containers.mpeg import header
from benchkit.media.decode import Audio
from benchkit.media.notes import UNVERIFIED

CUTS = (0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.999)
NO_LENGTH = ("PAF", "PVF", "IRCAM", "XI")
"""Their headers do not say how much follows: what may be missing cannot be known, and the check `media` says so."""
LOSSY = ("ADPCM", "GSM", "G72", "DWVW", "LAW", "VORBIS", "OPUS", "MPEG", "DPCM", "PCM_S8", "PCM_U8")
CHECKED = ("FLAC", "OGG", "MP3")
"""Formats that notice damage: checksums, or frames that follow each other."""


def kinds() -> list[tuple[str, str]]:
    found = []
    for major in soundfile.available_formats():
        for sub in soundfile.available_subtypes(major):
            if major not in ("RAW", "SD2") and whole(major, sub):  # neither says of itself what it is
                found.append((major, sub))
    return found


@cache
def whole(major: str, sub: str) -> bytes:
    """A second and a half of a rising tone with noise; nothing where libsndfile reads this format and does not write
    it."""
    import tempfile

    rate = rate_of(major, sub)
    t = np.arange(rate * 3 // 2) / rate
    wave = 0.4 * np.sin(2 * np.pi * 300 * t * (1 + t)) + 0.02 * np.random.default_rng(0).standard_normal(len(t))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{major.lower()}"
        try:
            soundfile.write(path, wave, rate, format=major, subtype=sub)
        except soundfile.LibsndfileError:
            return b""
        return path.read_bytes()


def rate_of(major: str, sub: str) -> int:
    if major == "XI":
        return 44_100  # of every instrument
    return 8_000 if major in ("WVE", "VOC") or sub.startswith(("GSM", "G72", "NMS")) else 16_000


KINDS = kinds()


def load(data: bytes, folder: Path, major: str, sub: str) -> tuple[np.ndarray, int]:
    path = folder / f"recording.{major.lower()}"
    path.write_bytes(data)
    decoded = Audio(path).decode(rate_of(major, sub))
    return decoded.raw, decoded.notes


def refused(data: bytes, folder: Path, major: str, sub: str) -> str:
    with pytest.raises(MediaError) as raised:
        load(data, folder, major, sub)
    assert f"recording.{major.lower()}'" in str(raised.value)
    return str(raised.value)


def test_the_formats_are_those_that_libsndfile_knows() -> None:
    assert len(KINDS) > 80
    assert {major for major, _ in KINDS} >= {"WAV", "W64", "RF64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"}


@pytest.mark.parametrize(("major", "sub"), KINDS)
def test_a_whole_recording_is_decoded_whole(major: str, sub: str, tmp_path: Path) -> None:
    rate = rate_of(major, sub)
    wave, notes = load(whole(major, sub), tmp_path, major, sub)
    assert notes == (UNVERIFIED if major in NO_LENGTH else 0)
    assert len(wave) == pytest.approx(rate * 1.5, abs=1_020)  # the last block of some is filled up
    t = np.arange(rate * 3 // 2) / rate
    expected = 0.4 * np.sin(2 * np.pi * 300 * t * (1 + t)) + 0.02 * np.random.default_rng(0).standard_normal(len(t))
    error = np.sqrt(np.mean(np.square(wave[: len(t)] - expected[: len(wave)])))
    assert error < (0.06 if any(s in sub for s in LOSSY) else 1e-3)


@pytest.mark.parametrize(("major", "sub"), KINDS)
def test_one_that_was_cut_is_refused_or_gives_what_the_whole_one_gives(major: str, sub: str, tmp_path: Path) -> None:
    data = whole(major, sub)
    wave, _ = load(data, tmp_path, major, sub)
    for share in CUTS:
        try:
            part, notes = load(data[: int(len(data) * share)], tmp_path, major, sub)
        except MediaError:
            continue
        assert np.array_equal(part, wave) or (major in NO_LENGTH and notes & UNVERIFIED), share


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def scaled(at: int, layout: str, factor: float) -> Callable[[bytes], bytes]:
    """The number in the header, larger or smaller."""

    def change(data: bytes) -> bytes:
        (stated,) = struct.unpack_from(layout, data, at)
        return replaced(data, at, struct.pack(layout, int(stated * factor) // 4 * 4))

    return change


def flac_total(factor: float) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        word = int.from_bytes(data[18:26], "big")
        total = int((word & (1 << 36) - 1) * factor)
        return replaced(data, 18, (word >> 36 << 36 | total).to_bytes(8, "big"))

    return change


def after(marker: bytes, skip: int, layout: str, factor: float) -> Callable[[bytes], bytes]:
    return lambda data: scaled(data.index(marker) + skip, layout, factor)(data)


WRONG = [
    ("WAV", "PCM_16", after(b"data", 4, "<I", 2)), ("WAV", "PCM_16", after(b"data", 4, "<I", 0.5)),
    ("WAV", "FLOAT", after(b"data", 4, "<I", 2)), ("WAV", "IMA_ADPCM", after(b"data", 4, "<I", 2)),
    ("WAVEX", "PCM_24", after(b"data", 4, "<I", 2)), ("RF64", "PCM_16", scaled(28, "<Q", 2)),
    ("W64", "PCM_16", after(b"data\xf3\xac", 16, "<Q", 2)), ("AIFF", "PCM_16", after(b"SSND", 4, ">I", 2)),
    ("AIFF", "PCM_16", after(b"SSND", 4, ">I", 0.5)), ("AIFF", "PCM_16", after(b"COMM", 10, ">I", 2)),
    ("AIFF", "PCM_16", after(b"COMM", 10, ">I", 0.5)), ("AU", "PCM_16", scaled(8, ">I", 2)),
    ("AU", "PCM_16", scaled(8, ">I", 0.5)), ("CAF", "PCM_16", after(b"data", 4, ">q", 2)),
    ("SVX", "PCM_16", after(b"BODY", 4, ">I", 2)), ("AVR", "PCM_16", scaled(26, ">I", 2)),
    ("WVE", "ALAW", scaled(18, ">I", 2)), ("MPC2K", "PCM_16", scaled(30, "<I", 2)),
    ("NIST", "PCM_16", lambda data: data.replace(b"sample_count -i 24000", b"sample_count -i 48000")),
    ("VOC", "PCM_16", lambda data: replaced(data, 29, bytes([data[29] * 2 + 1]))),
    ("FLAC", "PCM_16", flac_total(2)), ("FLAC", "PCM_16", flac_total(0.5)),
    ("MP3", "MPEG_LAYER_III", lambda data: scaled(max(data.find(b"Xing"), data.find(b"Info")) + 12, ">I", 2)(data)),
]  # fmt: skip


@pytest.mark.parametrize(("major", "sub", "change"), WRONG)
def test_a_wrong_length_in_the_header_is_said(
    major: str, sub: str, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    data = whole(major, sub)
    assert change(data) != data
    said = refused(change(data), tmp_path, major, sub)
    assert "cut off: it " in said or "is not what it says: it states " in said


@pytest.mark.parametrize(("major", "sub"), KINDS)
def test_garbage_inside_is_refused_where_the_format_can_notice_it(major: str, sub: str, tmp_path: Path) -> None:
    data = whole(major, sub)
    size = min(2_000, len(data) // 3)
    garbage = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8).tobytes()
    damaged = replaced(data, len(data) // 2, garbage)
    if major in CHECKED:
        refused(damaged, tmp_path, major, sub)
        refused(data[: len(data) // 2] + garbage + data[len(data) // 2 :], tmp_path, major, sub)
    else:  # plain samples: any bytes are sound
        try:
            wave, _ = load(damaged, tmp_path, major, sub)
        except MediaError:
            return
        assert abs(len(wave) - len(load(data, tmp_path, major, sub)[0])) <= 1


OPEN_ENDED = [
    ("WAV", "PCM_16", after(b"data", 4, "<I", 0)), ("WAV", "PCM_24", after(b"data", 4, "<I", 0)),
    ("WAV", "PCM_16", lambda data: replaced(data, data.index(b"data") + 4, b"\xff" * 4)),
    ("WAV", "FLOAT", lambda data: replaced(data, data.index(b"data") + 4, b"\xff" * 4)),
    ("WAV", "PCM_16", lambda data: replaced(replaced(data, data.index(b"data") + 4, bytes(4)), 4, bytes(4))),
    ("RF64", "PCM_16", lambda data: replaced(data, 28, bytes(8))),
    ("RF64", "PCM_16", lambda data: replaced(data, 28, b"\xff" * 8)),
    ("W64", "PCM_16", lambda data: replaced(data, data.index(b"data\xf3") + 16, b"\x18" + bytes(7))),
    ("AU", "PCM_16", lambda data: replaced(data, 8, b"\xff" * 4)), ("AU", "PCM_16", scaled(8, ">I", 0)),
    ("CAF", "PCM_16", lambda data: replaced(data, data.index(b"data") + 4, b"\xff" * 8)),
    ("AIFF", "PCM_16", after(b"SSND", 4, ">I", 0)),
    ("AIFF", "PCM_16", lambda data: replaced(data, data.index(b"SSND") + 4, bytes(3) + b"\x08")),
    ("FLAC", "PCM_16", flac_total(0)), ("FLAC", "PCM_24", flac_total(0)),
]  # fmt: skip


@pytest.mark.parametrize(("major", "sub", "change"), OPEN_ENDED)
@pytest.mark.parametrize("held", ["file", "memory"])
def test_a_recorder_that_could_not_come_back_to_its_header_is_believed_to_the_end(
    major: str, sub: str, change: Callable[[bytes], bytes], held: str, tmp_path: Path
) -> None:
    data = whole(major, sub)
    wave, _ = load(data, tmp_path, major, sub)
    path = tmp_path / "open"
    path.write_bytes(change(data))
    source = path if held == "file" else change(data)
    decoded = Audio(source).decode(16_000)
    np.testing.assert_array_equal(decoded.raw[: len(wave)], wave)
    assert len(decoded.raw) - len(wave) <= (2_048 if major == "CAF" else 0)  # where a chunk that is filling follows
    assert decoded.notes == UNVERIFIED
    np.testing.assert_array_equal(Audio(source, 0.5, 0.7).load(16_000), wave[8_000:19_200])


def test_an_empty_recording_stays_empty_whatever_chunk_follows(tmp_path: Path) -> None:
    data = whole("WAV", "PCM_16")
    header = replaced(data[: data.index(b"data") + 8], data.index(b"data") + 4, bytes(4))
    said = refused(header + b"LIST" + struct.pack("<I", 12) + b"INFOabcdefgh", tmp_path, "WAV", "PCM_16")
    assert said.endswith("holds no audio from 0 s")


def test_what_follows_the_sound_is_none_of_it(tmp_path: Path) -> None:
    data = whole("WAV", "PCM_16")
    wave, _ = load(data, tmp_path, "WAV", "PCM_16")
    for behind in (
        b"LIST" + struct.pack("<I", 20_000) + bytes(range(250)) * 80,
        bytes(20_000),
        b"ID3\x04" + b"abc" * 9_000,
    ):
        more, notes = load(data + behind, tmp_path, "WAV", "PCM_16")
        np.testing.assert_array_equal(more, wave)
        assert notes == 0


def test_the_message_says_what_is_stated_and_what_is_there(tmp_path: Path) -> None:
    data = whole("WAV", "PCM_16")
    said = refused(data[: 44 + 8_000 * 2], tmp_path, "WAV", "PCM_16")
    assert said.endswith("recording.wav' is cut off: it states 1.5 s, and holds 0.5 s")
    assert refused(data[:-2], tmp_path, "WAV", "PCM_16").endswith("it states 1.5000 s, and holds 1.4999 s")
    ogg = whole("OGG", "VORBIS")
    assert "is cut off: its last page is not whole; it holds " in refused(ogg[:-100], tmp_path, "OGG", "VORBIS")
    last = ogg.rindex(b"OggS")
    assert "is cut off: no page ends its stream; it holds " in refused(ogg[:last], tmp_path, "OGG", "VORBIS")
    assert refused(data[:44], tmp_path, "WAV", "PCM_16").endswith("it states 48,000 bytes of sound, and holds none")


def test_one_flipped_bit_of_an_ogg_page_is_seen_also_where_a_part_is_read(tmp_path: Path) -> None:
    data = bytearray(whole("OGG", "VORBIS"))
    middle = data.index(b"OggS", len(data) // 2) - 50
    data[middle] ^= 4
    path = tmp_path / "flipped.ogg"
    path.write_bytes(data)
    with pytest.raises(
        MediaError, match=r"flipped.ogg' is damaged: page \d+ of its stream is not what its checksum says"
    ):
        Audio(path, 0.4, 0.6).load(16_000)


def test_an_ogg_checksum_is_that_of_the_standard() -> None:
    """Bit by bit, as RFC 3533 has it, beside the way by zlib."""
    from benchkit.media.containers import ogg
    from benchkit.media.containers.view import View

    view = View(whole("OGG", "OPUS"))
    for page in ogg.pages(view, 0):
        data, crc = bytearray(view.read(page.at, page.size)), 0
        data[22:26] = bytes(4)
        for byte in data[:3_000]:
            crc ^= byte << 24
            for _ in range(8):
                crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
        if len(data) <= 3_000:
            assert ogg.checksum(view, page) == crc == view.number(page.at + 22, 4)
    assert zlib.crc32(b"") == 0


def test_a_stream_that_was_cut_out_of_a_longer_one_is_whole(tmp_path: Path) -> None:
    """Its first position is not 0, as of a part of a broadcast."""
    from benchkit.media.containers import ogg
    from benchkit.media.containers.view import View

    data = bytearray(whole("OGG", "VORBIS"))
    view = View(bytes(data))
    for page in ogg.pages(view, 0):
        if page.position > 0:
            struct.pack_into("<q", data, page.at + 6, page.position + 160_000)
            moved = View(bytes(data))
            struct.pack_into("<I", data, page.at + 22, ogg.checksum(moved, page))
    wave, notes = load(bytes(data), tmp_path, "OGG", "VORBIS")
    assert (len(wave), notes) == (24_000, 0)


def test_what_follows_an_mp3_that_states_no_length_takes_nothing_from_it(tmp_path: Path) -> None:
    """Filling, or a tag that nobody knows, behind the last frame: the decoder takes it for damage, or it changes
    nothing; what is used of the beginning is the same."""
    noise, path = 0.1 * np.random.default_rng(0).standard_normal(24_000), tmp_path / "constant.mp3"
    soundfile.write(path, noise, 16_000, bitrate_mode="CONSTANT", compression_level=0.5)
    first = header(path.read_bytes())
    assert first is not None
    untagged = path.read_bytes()[first.size :]  # without the frame that says how many there are
    wave, notes = load(untagged, tmp_path, "MP3", "MPEG_LAYER_III")
    assert notes == UNVERIFIED
    assert len(wave) > 24_000
    for behind in (bytes(5_000), b"LYRICSBEGIN" + b"la " * 1_500):
        path.write_bytes(untagged + behind)
        np.testing.assert_array_equal(Audio(path).decode(16_000, 1.0).raw, wave[:16_000])
        with pytest.raises(MediaError, match=r"constant.mp3' does not decode as audio"):
            Audio(path).load(16_000)
