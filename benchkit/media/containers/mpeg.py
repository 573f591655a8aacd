"""MPEG audio frames (ISO 11172-3 and 13818-3): what the first one says of all, and whether the last one is whole."""

from dataclasses import dataclass

from benchkit.media.containers.extent import UNKNOWN, Extent
from benchkit.media.containers.view import View

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
"""By version: MPEG 1, 2 and 2.5."""
_BITRATES = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by (version, layer bits), layer I being 3; MPEG 2 has one table for layers II and III."""
TAIL = 8192
"""Bytes at the end in which the last frames are looked for: there are at least four."""
SPARE = 2
"""Frames by which a stream of one bitrate may hold fewer than its bytes would: encoders fill up at the ends."""


@dataclass(frozen=True)
class Header:
    """Of one frame. size: its bytes, 0 where the bitrate is free. samples: for each channel."""

    version: int
    layer: int
    rate: int
    bitrate: int
    size: int
    samples: int
    mono: bool


def header(data: bytes, at: int = 0) -> Header | None:
    """Of the frame that begins at `at`; None where none does."""
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
    bits, rate = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or layer == 0 or bits == 15 or rate == 3:
        return None
    hz, one = _RATES[version][rate], version == 3
    kind = (3, layer) if one else (2, 3 if layer == 3 else 2)
    bitrate = _BITRATES[kind][bits - 1] * 1000 if bits else 0
    samples = 384 if layer == 3 else 1152 if one or layer == 2 else 576
    padding, slot = data[at + 2] >> 1 & 1, 4 if layer == 3 else 1
    size = (samples // 8 // slot * bitrate // hz + padding) * slot if bitrate else 0
    return Header(version, layer, hz, bitrate, size, samples, data[at + 3] >> 6 == 3)


def mpeg(view: View, at: int = 0) -> Extent:
    """In bytes from the first frame, which says how many there are, or where it does not, whether the last is whole.

    at: where the ID3v2 tag ends.
    """
    at, first = _first(view, at)
    if first is None:
        return UNKNOWN
    end = _end(view)
    held = end - at
    tag = _tag(view, at, first)
    stated = tag[1] if tag else None
    if stated is not None:
        return Extent(stated, min(held, stated))
    if _frames_end(view, first, end) > end:
        return Extent(None, held, why="its last frame is not whole")
    return Extent(None, held)


def stated_frames(view: View, at: int = 0) -> bool:
    """Whether the stream says how many frames it has, which a decoder then gives as its length."""
    at, first = _first(view, at)
    return first is not None and _tag(view, at, first) is not None


def least_samples(view: View, at: int = 0) -> int:
    """How many samples a stream that does not say so must hold at least: as many as its bytes, where its frames have
    one bitrate; else 0."""
    at, first = _first(view, at)
    if first is None or not first.bitrate:
        return 0
    end, count = _frames_end(view, first, _end(view)), 0
    for place in (at, at + (end - at) // 3, at + 2 * (end - at) // 3):
        data = view.read(place, TAIL)
        for start in range(len(data) - 4):
            one = header(data, start)
            if one and _alike(one, first) and one.size and (two := header(data, start + one.size)):
                if one.bitrate != first.bitrate or two.bitrate != first.bitrate:
                    return 0
                count += 1
                break
    frames = (end - at) * 8 * first.rate // (first.bitrate * first.samples)
    return max(0, frames - SPARE) * first.samples if count == 3 else 0


def _first(view: View, at: int) -> tuple[int, Header | None]:
    """The first frame that another follows, within some zeros or bytes of no meaning."""
    data = view.read(at, 65_536)
    for start in range(min(len(data), 60_000)):
        if data[start] != 0xFF or (one := header(data, start)) is None:
            continue
        two = header(data, start + one.size) if one.size else None
        if (two and _alike(one, two)) or len(data) <= start + one.size + 4:
            return at + start, one
    return at, None


def _tag(view: View, at: int, first: Header) -> tuple[int, int] | None:
    """The number of frames and of bytes that a Xing, Info or VBRI frame states."""
    data = view.read(at, 256)
    side = (17 if first.mono else 32) if first.version == 3 else (9 if first.mono else 17)
    for place in (4 + side, 6 + side):  # two more where frames have checksums
        if data[place : place + 4] in (b"Xing", b"Info"):
            flags, place = int.from_bytes(data[place + 4 : place + 8], "big"), place + 8
            if flags & 3 != 3:
                return None
            return _pair(data, place)
    if data[36:40] == b"VBRI":
        size, frames = _pair(data, 46)
        return frames, size
    return None


def _pair(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 4], "big"), int.from_bytes(data[at + 4 : at + 8], "big")


def _end(view: View) -> int:
    """Where the frames end: before an ID3v1 tag, and an APE tag before that."""
    end = view.size
    if view.read(end - 128, 3) == b"TAG":
        end -= 128
    if view.read(end - 32, 8) == b"APETAGEX":
        flags = view.number(end - 12, 4)
        end -= view.number(end - 20, 4) + (32 if flags >> 31 else 0)
    return max(0, end)


def _frames_end(view: View, first: Header, end: int) -> int:
    """Where the last frames end that follow each other near the end, beyond it where the last one is not whole; 0 where
    there are none."""
    begin = max(0, end - TAIL)
    data = view.read(begin, end - begin)
    start = -1
    while (start := data.find(b"\xff", start + 1)) >= 0:
        place, chain = start, 0
        while (one := header(data, place)) and one.size and _alike(one, first):
            place, chain = place + one.size, chain + 1
        if chain >= 3 or (chain and begin == 0):
            return begin + place
    return 0


def _alike(a: Header, b: Header) -> bool:
    return (a.version, a.layer, a.rate) == (b.version, b.layer, b.rate)
