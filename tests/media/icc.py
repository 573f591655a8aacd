"""The smallest colour profiles that make sense (ICC.1:2001-04): linear light in sRGB's primaries, linear grey, ink."""

import struct

import numpy as np

_PRIMARIES = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""Of sRGB, adapted to the profile's white, D50."""
_WHITE = (0.9642, 1.0, 0.8249)


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _profile(space: bytes, connection: bytes, kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": _xyz(_WHITE),
    } | tags
    table, data, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, body in tags.items():
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", at + len(data), len(body))
        data += body
    head = bytearray(128)
    struct.pack_into(">I", head, 0, 128 + len(table) + len(data))
    head[8:12], head[12:16], head[16:20], head[20:24] = b"\x02\x10\0\0", kind, space, connection
    head[36:40] = b"acsp"
    head[68:80] = _fixed(*_WHITE)
    return bytes(head) + table + data


def linear_rgb() -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)
    colours = {name: _xyz(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), _PRIMARIES, strict=True)}
    return _profile(b"RGB ", b"XYZ ", b"mntr", colours | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def linear_grey() -> bytes:
    return _profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": b"curv" + bytes(4) + struct.pack(">I", 0)})


def ink() -> bytes:
    """Lightness 100 less what the inks take, cyan, magenta and yellow a third each and black all of it; no colour."""
    grid = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), -1).reshape(-1, 4)
    light = np.clip(1 - grid @ [1 / 3, 1 / 3, 1 / 3, 1.0], 0, 1)
    lab = np.stack([np.round(light * 255), np.full(16, 128), np.full(16, 128)], 1).astype(np.uint8)
    ramp = bytes(range(256))
    head = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return _profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": head + ramp * 4 + lab.tobytes() + ramp * 3})
