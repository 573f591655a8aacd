"""FLAC frames (RFC 9639): how long a stream says that it is, and where its last frame ends."""

from benchkit.media.containers.extent import UNKNOWN, Extent
from benchkit.media.containers.view import View

TAIL = 1 << 17
"""Bytes at the end in which the last frame is looked for, where the stream does not say how large frames are."""
_SIZES = {1: 192, **{i: 144 << i for i in range(2, 6)}, **{i: 1 << i for i in range(8, 16)}}
"""RFC 9639, table 14; 6 and 7 have the size behind the coded number."""


def flac(view: View, at: int = 0) -> Extent:
    """In frames (samples of all channels). at: where the stream begins.

    The number of samples is in STREAMINFO, 0 where the encoder could not come back to write it: then the stream goes on
    to the end, and all that is known is whether its last frame is whole.
    """
    info = view.read(at + 8, 34)
    if view.read(at, 4) != b"fLaC" or len(info) < 34 or view.number(at + 4, 1) & 0x7F != 0:
        return UNKNOWN
    block, largest = int.from_bytes(info[2:4], "big"), int.from_bytes(info[7:10], "big")
    total = int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    tail = min(view.size, 2 * largest + 4096 if largest else TAIL)
    data = view.read(view.size - tail, tail)
    place = len(data)
    while (place := data.rfind(b"\xff", 0, place)) >= 0:
        if (frame := _frame(data, place, block)) is None:
            continue
        end = sum(frame)
        if total and frame[0] >= total:
            return Extent(total, total, "frames", "its frames go on behind that")
        if total:
            return Extent(total, end if end == total else min(total, frame[0]), "frames")
        whole = _crc16(data[place:-2]) == int.from_bytes(data[-2:], "big")
        return Extent(None, end, "frames", "" if whole or _tagged(data) else "its last frame is not whole")
    return Extent(total or None, 0, "frames", "" if total else "no frame lies near its end")


def _frame(data: bytes, at: int, block: int) -> tuple[int, int] | None:
    """The first sample and the length of the frame whose header is at `at`; None where that is none."""
    head = data[at : at + 16]
    if len(head) < 6 or head[1] not in (0xF8, 0xF9) or not head[2] >> 4 or head[2] & 15 == 15 or head[3] & 1:
        return None
    coded, n = _utf8(head[4:])
    if not n:
        return None
    code, rest, size = head[2] >> 4, 4 + n, 0
    if code in (6, 7):
        size = int.from_bytes(head[rest : rest + code - 5], "big") + 1
        rest += code - 5
    rest += {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    if len(head) <= rest or _crc8(head[:rest]) != head[rest]:
        return None
    length = size or _SIZES[code]
    return (coded if head[1] & 1 else coded * block), length


def _utf8(data: bytes) -> tuple[int, int]:
    """The coded number, up to 36 bits, and how many bytes it takes; 0 bytes where it is none."""
    first = data[0]
    if first < 0x80:
        return first, 1
    n = next((n for n in range(2, 8) if (first << n) & 0x80 == 0), 8)
    rest = data[1:n]
    if n == 8 or first < 0xC0 or len(rest) < n - 1 or any(byte & 0xC0 != 0x80 for byte in rest):
        return 0, 0
    value = first & (0x7F >> n)
    for byte in rest:
        value = value << 6 | byte & 0x3F
    return value, n


def _tagged(data: bytes) -> bool:
    """Whether an ID3v1 tag follows the stream, which some programs put there."""
    return data[-128:-125] == b"TAG"


def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1) ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return table


_CRC8, _CRC16 = _table(0x07, 8), _table(0x8005, 16)
"""RFC 9639, sections 9.1.8 and 9.3."""


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc
