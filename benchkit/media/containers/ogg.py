"""Ogg pages (RFC 3533): where a stream ends, and whether the pages of a part of it are whole."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from benchkit.media.containers.extent import UNKNOWN, Extent
from benchkit.media.containers.view import View

LONGEST = 27 + 255 + 255 * 255
"""Bytes of a page."""
NOWHERE = -1
"""The position of a page on which no packet ends."""


@dataclass(frozen=True)
class Page:
    """at, size: its place in the file. position: the stream's, in samples, at its end. number: from 0."""

    at: int
    size: int
    begins: bool
    ends: bool
    position: int
    stream: int
    number: int


def ogg(view: View) -> Extent:
    """In frames of the stream's own clock, from its very beginning (Opus: 48 kHz, what is skipped at first included).

    A stream ends with a page that says so: where there is none, the rest is missing.
    """
    first = page(view, 0)
    if first is None:
        return UNKNOWN
    last = last_page(view, view.size, first.stream)
    if last is None:
        return Extent(None, 0, "frames", "no page of its stream lies near its end")
    held = max(0, last.position)
    if last.at + last.size > view.size:
        before = last_page(view, last.at, first.stream)
        held = max(0, before.position) if before else 0
        return Extent(None, held, "frames", "its last page is not whole")
    if not last.ends:
        return Extent(None, held, "frames", "no page ends its stream")
    return Extent(held, held, "frames")


def page(view: View, at: int) -> Page | None:
    """The page that begins at `at`, or None where none does."""
    head = view.read(at, 282)
    if len(head) < 27 or head[:5] != b"OggS\0":
        return None
    flags, position, stream, number, _, segments = struct.unpack_from("<BqIIIB", head, 5)
    lengths = head[27 : 27 + segments]
    if len(lengths) < segments:
        return None
    return Page(at, 27 + segments + sum(lengths), bool(flags & 2), bool(flags & 4), position, stream, number)


def last_page(view: View, before: int, stream: int) -> Page | None:
    """The last page of the stream that begins before `before` and whose position is known."""
    end = before
    while end > 0:
        begin = max(0, end - LONGEST)
        block = view.read(begin, end - begin)
        at = len(block)
        while (at := block.rfind(b"OggS", 0, at)) >= 0:
            found = page(view, begin + at)
            if found and found.stream == stream and found.position != NOWHERE:
                return found
        if begin == 0 or before - begin > 4 * LONGEST:
            return None
        end = begin + 3
    return None


def pages(view: View, at: int) -> Iterator[Page]:
    """One after the other, as long as there are any."""
    while (found := page(view, at)) is not None:
        yield found
        at += found.size


def damaged(view: View, start: int, stop: int, total: int) -> str:
    """What is wrong with the pages that hold the samples from `start` to `stop` of the stream's own clock, or "".

    A decoder leaves a damaged page out without a word, and all that follows comes too early.
    """
    first = page(view, 0)
    if first is None:
        return "it does not begin with a page"
    at = _before(view, start, total, first.stream) if start > 0 else 0
    number: int | None = None
    for one in pages(view, at):
        if one.stream == first.stream:
            if number is not None and one.number != number + 1:
                return f"page {number + 1} of its stream is missing"
            number = one.number
            if checksum(view, one) != view.number(one.at + 22, 4):
                return f"page {number} of its stream is not what its checksum says"
            if one.ends or one.position >= stop:
                return ""
        at = one.at + one.size
    return f"the bytes from {at:,} on are no page of its stream"


def _before(view: View, start: int, total: int, stream: int) -> int:
    """Where a page begins that ends before the sample `start`: by halving the guess."""
    guess = int(view.size * min(1.0, start / max(1, total)))
    while guess > LONGEST:
        found = last_page(view, guess, stream)
        if found and 0 <= found.position < start:
            return found.at
        guess //= 2
    return 0


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def checksum(view: View, one: Page) -> int:
    """CRC-32 with the polynomial 0x04C11DB7, bits from the left, from 0 (RFC 3533, section 6): zlib's runs from the
    right, so that of bytes with their bits reversed is this one's reverse."""
    data = bytearray(view.read(one.at, one.size))
    data[22:26] = bytes(4)
    crc = zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")
