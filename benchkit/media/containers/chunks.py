"""How much sound a file says that it holds, and how much it does: the formats that libsndfile reads, by their headers.

libsndfile itself takes what there is: of a WAV file whose copy broke off it gives the first part, without a word. So
the container is read here as well, and only where it speaks of its length: nothing is decoded.
"""

from benchkit.media.containers.extent import UNKNOWN, Extent
from benchkit.media.containers.flac import flac
from benchkit.media.containers.mpeg import mpeg
from benchkit.media.containers.ogg import ogg
from benchkit.media.containers.view import View

OPEN_ENDED = (0, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
"""Sizes that a recorder or a pipe leaves in a header that it could not come back to: to the end of the file."""
SPILL = 4096
"""Bytes behind a chunk of sound, and no chunk, from which on it is sound that the header does not count."""
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def extent(view: View) -> Extent:
    """Of any file; what is not known here states nothing."""
    head = view.read(0, 16)
    for magic, reader in _READERS:
        if head.startswith(magic):
            return reader(view)
    if head[:3] == b"ID3":
        inner = view.read(tag_size(view), 4)
        return flac(view, tag_size(view)) if inner == b"fLaC" else mpeg(view, tag_size(view))
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return mpeg(view, 0)
    if view.read(126, 2) in (b"IM", b"MI") and head.startswith(b"MATLAB"):
        return _mat5(view)
    if head[:4] in (b"\0\0\0\0", b"\0\0\x03\xe8") or head[:4] in (b"\x0a\0\0\0", b"\x14\0\0\0", b"\x1e\0\0\0"):
        return _mat4(view)
    return UNKNOWN


def tag_size(view: View) -> int:
    """Bytes of the ID3v2 tag at the beginning (ID3v2.4, section 3.1: four bytes of seven bits); 0: there is none."""
    head = view.read(0, 10)
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    footer = 10 if head[5] & 0x10 else 0
    return 10 + footer + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _sound(
    view: View, at: int, stated: int | None, *, alone: bool = True, mend: tuple[int, bytes] | None = None
) -> Extent:
    """A run of bytes from `at` to the end, of which the header states so many. mend: where that is to the end.

    Something is wrong where much follows that is no chunk (whose name would be four letters), no tag and no filling:
    then the header counts too little. alone: whether that can be told.
    """
    there = max(0, view.size - at)
    if stated is None or (stated in OPEN_ENDED and there and not (stated == 0 and _is_chunk(view, at))):
        return Extent(None, there, mend=mend)
    end = at + stated + stated % 2
    left, rest = view.size - end, view.read(end, SPILL)
    if not alone or left < max(SPILL, stated // 100) or len(set(rest)) == 1 or rest[:3] in (b"ID3", b"TAG"):
        return Extent(stated, min(there, stated))
    if _named(rest):
        return Extent(stated, stated)
    return Extent(stated, stated, why=f"{left:,} bytes behind that are no chunk")


def _named(data: bytes) -> bool:
    """Whether it begins with four letters, as a chunk does."""
    return len(data) >= 4 and data[:4].isascii() and data[:4].decode().isprintable()


def _is_chunk(view: View, at: int) -> bool:
    """Whether a chunk lies there that ends within the file: behind an empty one there may be others."""
    sizes = (view.number(at + 4, 4), view.number(at + 4, 4, big=True))
    return _named(view.read(at, 4)) and any(at + 8 + size <= view.size for size in sizes)


def _riff(view: View) -> Extent:
    """WAV, WAVEX, RF64 and BW64 (EBU Tech 3306: sizes of 64 bits in the chunk ds64), and RIFX, all big-endian."""
    big, at, long, mend = view.read(0, 4) == b"RIFX", 12, None, None
    while len(head := view.read(at, 8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "big" if big else "little")
        if name == b"ds64":
            long, mend = view.number(at + 16, 8), at + 16
        if name == b"data":
            if size == 0xFFFFFFFF and long is not None and mend is not None:
                return _sound(view, at + 8, long, mend=(mend, (view.size - at - 8).to_bytes(8, "little")))
            return _sound(view, at + 8, size, mend=(at + 4, b"\xff\xff\xff\xff"))
        at += 8 + size + size % 2
    return UNKNOWN


def _form(view: View) -> Extent:
    """AIFF and AIFF-C (SSND, which begins with 8 bytes of its own; COMM of AIFF counts frames too) and 8SVX (BODY),
    big-endian."""
    at, counted = 12, 0
    while len(head := view.read(at, 8)) == 8:
        name, size = head[:4], int.from_bytes(head[4:], "big")
        if name == b"COMM" and view.read(8, 4) == b"AIFF":
            channels, frames, bits = (view.number(at + a, n, big=True) for a, n in ((8, 2), (10, 4), (14, 2)))
            counted = channels * frames * -(-bits // 8)
        if name == b"SSND":
            stated = size if size in OPEN_ENDED else max(0, size - 8)
            found = _sound(view, at + 16, stated, mend=(at + 4, bytes(4)))
            if found.stated and counted and counted > found.stated:
                return Extent(counted, found.held)
            if found.stated and counted and found.stated - counted > 1:
                return Extent(counted, counted, why=f"{found.stated - counted:,} bytes more in its sound")
            return found
        if name == b"BODY":
            return _sound(view, at + 8, size)
        at += 8 + size + size % 2
    return UNKNOWN


def _au(view: View) -> Extent:
    big = view.read(0, 4) == b".snd"
    return _sound(view, view.number(4, 4, big=big), view.number(8, 4, big=big), mend=(8, b"\xff\xff\xff\xff"))


def _caf(view: View) -> Extent:
    """Apple's Core Audio Format; a data chunk of size -1 goes on to the end, and begins with a count of 4 bytes."""
    at = 8
    while len(head := view.read(at, 12)) == 12:
        size = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":
            mend = (at + 4, (view.size - at - 12).to_bytes(8, "big"))
            return _sound(view, at + 16, None if size < 0 else max(0, size - 4), mend=mend)
        if size < 0:
            break
        at += 12 + size
    return UNKNOWN


def _w64(view: View) -> Extent:
    """Sony Wave64: sizes of 64 bits that count the chunk's own 24 bytes, chunks begin at multiples of 8."""
    at = 40
    while len(head := view.read(at, 24)) == 24:
        size = int.from_bytes(head[16:], "little")
        if head[:16] == _W64_DATA:
            return _sound(view, at + 24, size if size in OPEN_ENDED else max(0, size - 24))
        at += max(24, -(-size // 8) * 8)
    return UNKNOWN


def _nist(view: View) -> Extent:
    """NIST SPHERE: a header of text, `sample_count -i 32000`."""
    fields = {}
    for line in view.read(0, 1024).decode("latin-1").splitlines()[2:]:
        words = line.split()
        if len(words) == 3 and words[1] == "-i" and words[2].isdigit():
            fields[words[0]] = int(words[2])
    count = fields.get("sample_count")
    size = None if count is None else count * fields.get("channel_count", 1) * fields.get("sample_n_bytes", 1)
    return _sound(view, 1024, size)


def _avr(view: View) -> Extent:
    """Audio Visual Research: frames at 26; an odd-looking 0xFFFF is stereo."""
    channels = 2 if view.number(12, 2, big=True) else 1
    return _sound(view, 128, view.number(26, 4, big=True) * channels * view.number(14, 2, big=True) // 8)


def _mpc2k(view: View) -> Extent:
    return _sound(view, 42, view.number(30, 4) * 2 * (2 if view.number(21, 1) else 1))


def _voc(view: View) -> Extent:
    """Creative Voice: blocks of a type, a size of 24 bits, and for sound 2 or 12 bytes of description."""
    at = view.number(20, 2)
    while len(head := view.read(at, 4)) == 4 and head[0]:
        size = int.from_bytes(head[1:], "little")
        if head[0] in (1, 9):
            own = 2 if head[0] == 1 else 12
            return _sound(view, at + 4 + own, max(0, size - own), alone=False)
        at += 4 + size
    return UNKNOWN


def _wve(view: View) -> Extent:
    return _sound(view, 32, view.number(18, 4, big=True))


def _sds(view: View) -> Extent:
    """MIDI sample dumps: 21 bytes, then packets of 127, of 40, 60 or 30 words each as a word has bits."""
    seven = view.read(10, 3)
    words = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(seven))
    bits = view.number(6, 1)
    each = 60 if bits <= 14 else 40 if bits <= 21 else 30
    return _sound(view, 21, -(-words // each) * 127)


def _mat4(view: View) -> Extent:
    """MATLAB 4: matrices of a type, rows, columns, a name and numbers; the last one is the sound."""
    big, at, found = view.read(2, 2) == b"\x03\xe8", 0, UNKNOWN
    while len(view.read(at, 20)) == 20:
        kind, rows, columns, _, name = (view.number(at + 4 * i, 4, big=big) for i in range(5))
        width = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}.get(kind // 10 % 10)
        if width is None:
            break
        found = _sound(view, at + 20 + name, rows * columns * width)
        at += 20 + name + rows * columns * width
    return found


def _mat5(view: View) -> Extent:
    """MATLAB 5: behind a header of 128 bytes matrices of four elements each (flags, dimensions, name, numbers), with a
    type and a size or, where they are small, both in one word; the last matrix is the sound."""
    big, at, found = view.read(126, 2) == b"MI", 128, UNKNOWN
    while len(view.read(at, 8)) == 8:
        place = at + 8
        for _ in range(3):
            small = view.number(place + (0 if big else 2), 2, big=big)
            place += 8 if small else 8 + -(-view.number(place + 4, 4, big=big) // 8) * 8
        found = _sound(view, place + 8, view.number(place + 4, 4, big=big))
        at += 8 + -(-view.number(at + 4, 4, big=big) // 8) * 8
    return found


_READERS = (
    (b"RIFF", _riff), (b"RIFX", _riff), (b"RF64", _riff), (b"BW64", _riff), (b"riff", _w64), (b"FORM", _form),
    (b".snd", _au), (b"dns.", _au), (b"caff", _caf), (b"fLaC", flac), (b"OggS", ogg), (b"NIST_1A", _nist),
    (b"2BIT", _avr), (b"\x01\x04", _mpc2k), (b"Creative Voice", _voc), (b"ALawSoundFile**", _wve),
    (b"\xf0\x7e", _sds),
)  # fmt: skip
