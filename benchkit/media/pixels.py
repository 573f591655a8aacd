"""Pixels as a viewer shows them: turned as the file says, on white, in sRGB, 8 bits, scaled by what the file states.

Every rule is in docs/media.md. Where a file does not say which number is white, it is refused: a picture that came out
black would be a number that nobody questions.
"""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchkit.errors import MediaError, require
from benchkit.machine.names import on_disk

SPARE_BITS = 2
"""A file that uses so many fewer bits than it has for a pixel is taken for one of 12 (or 10, or 14) bits in 16."""
_TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270",
          7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
"""Exif 2.32, tag 0x0112, to Pillow's operations, which turn the other way."""
_WHITE_IS_ZERO, _PHOTOMETRIC, _BITS, _FORMAT, _LOWEST, _HIGHEST = 0, 262, 258, 339, 340, 341
"""TIFF 6.0: PhotometricInterpretation, BitsPerSample, SampleFormat, SMinSampleValue, SMaxSampleValue."""

_EXACT = 0x0100
"""Little CMS computes every pixel (cmsFLAGS_NOOPTIMIZE), not from a table that is 20 levels off in CMYK."""


def pixels(source: Path | bytes) -> UInt8[np.ndarray, "H W C"]:
    """The pixels, 0 to 255, C = 1 (grey) or 3 (sRGB). Raises MediaError."""
    require("PIL", "benchkit-core[image]")
    from PIL import Image

    name = f"'{source}'" if isinstance(source, Path) else "a medium held in memory"
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else on_disk(source)) as image:
            deep = ";16" in _raw_mode(image)
            image.load()
            found = _grey(image, name) if image.mode[0] in "IF" else _colour(image, name, deep=deep)
    except (MediaError, MemoryError):
        raise
    except Exception as e:  # Pillow's decoders raise nearly anything on a damaged file
        why = "there is no such file" if isinstance(e, FileNotFoundError) else str(e)
        raise MediaError(f"{name} does not decode as an image: {why}") from e
    return np.ascontiguousarray(found if found.ndim == 3 else found[:, :, None])


def _raw_mode(image: Any) -> str:
    """How pixels lie in the file, "RGB;16B": of deep colour Pillow keeps 8 bits."""
    tile = getattr(image, "tile", None)
    args = tile[0][3] if tile else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _turned(image: Any) -> Any:
    """As its Exif orientation says. Exif that makes no sense says nothing."""
    from PIL import Image

    try:
        turn = image.getexif().get(0x0112)
    except Exception:  # noqa: BLE001 - a damaged tag beside a sound picture may raise anything
        return image
    return image.transpose(Image.Transpose[_TURNS[turn]]) if turn in _TURNS else image


# ---------------------------------------------------------------------------------------------------- more than 8 bits


def _grey(image: Any, name: str) -> UInt8[np.ndarray, "H W"]:
    """Of more than 8 bits: 16, 32 or a floating-point number a pixel."""
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(_turned(image))
    low, high = (None if tag not in tags else float(_first(tags[tag])) for tag in (_LOWEST, _HIGHEST))
    if image.mode == "F":
        if not np.isfinite(values).all():
            raise MediaError(f"{name} holds pixels that are NaN or infinite")
        if high is None and not (values.min() >= 0 and values.max() <= 1):
            raise MediaError(
                f"{name} holds floating-point pixels from {values.min():g} to {values.max():g}, and does not state "
                "which is white: scale them to 0 to 1, store 8 or 16 bits, or set the tag SMaxSampleValue"
            )
        shown = _scaled(values, low or 0.0, 1.0 if high is None else high)
    else:
        values, full = _whole_numbers(image, tags, values, name)
        if high is None and 0 < int(values.max()) <= full >> SPARE_BITS:
            raise _unstated(name, full, f"no pixel above {int(values.max()):,}")
        stated = (low or 0.0, float(full) if high is None else high)
        bits = full.bit_length()
        shown = (values >> (bits - 8)).astype(np.uint8) if stated == (0, full) else _scaled(values, *stated)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        shown = 255 - shown
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        shown = np.where(values == clear, np.uint8(255), shown)
    profile = image.info.get("icc_profile")
    return _ramp(profile)[shown] if profile else shown


def _whole_numbers(image: Any, tags: Any, values: np.ndarray, name: str) -> tuple[np.ndarray, int]:
    """The values as numbers without a sign, and the largest that there can be. Raises MediaError."""
    bits, kind = _first(tags.get(_BITS, 16)), _first(tags.get(_FORMAT, 1))  # 16: PNG, PGM and JPEG 2000 have no tags
    if kind != 1 and _HIGHEST not in tags:
        raise MediaError(
            f"{name} holds numbers with a sign, of {bits} bits, and does not state which is white: store 8 bits, or 16 "
            "without a sign"
        )
    if kind == 1 and bits == 32:
        values = values.astype(np.int32).view(np.uint32)
    if kind != 1 and values.size and values.min() < 0:
        raise MediaError(f"{name} holds pixels below 0, {int(values.min()):,}: store them as numbers from 0 on")
    return values.astype(np.int64), (1 << int(bits)) - 1 if kind == 1 else (1 << (int(bits) - 1)) - 1


def _unstated(name: str, full: int, what: str) -> MediaError:
    return MediaError(
        f"{name} has {full.bit_length()} bits a pixel and {what} of {full:,}, and does not state which is white (12 "
        "bits in 16?): scale them to all the bits, store 8 bits, or set the TIFF tag SMaxSampleValue"
    )


def _scaled(values: np.ndarray, low: float, high: float) -> UInt8[np.ndarray, "H W"]:
    """From black at `low` and white at `high`, rounded."""
    share = (values.astype(np.float64) - low) / (high - low or 1.0)
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _first(value: Any) -> Any:
    """TIFF tags have one value for each channel, or just one."""
    return value[0] if isinstance(value, tuple) and value else value


# -------------------------------------------------------------------------------------------------------------- colour


def _colour(image: Any, name: str, *, deep: bool) -> np.ndarray:
    """Of 8 bits a channel, or of more in the file, of which Pillow keeps the upper 8."""
    if deep:
        bands = image.getextrema()
        most = max(high for _, high in (bands[:3] if isinstance(bands[0], tuple) else (bands,)))
        if most <= 255 >> SPARE_BITS:
            raise _unstated(name, 65_535, f"no pixel above {most * 256 + 255:,}")
    if image.mode in ("LAB", "HSV"):
        raise MediaError(f"{name} holds {image.mode} pixels, which viewers show differently: convert them to sRGB")
    profile = image.info.get("icc_profile")
    image = _turned(image)
    clear = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    opacity = None
    if clear:
        image = image.convert("RGBA")
        opacity = np.asarray(image.getchannel("A"))[:, :, None]
        image = image.convert("RGB").getchannel("R") if grey else image.convert("RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if grey else "RGB")
    if grey:
        shown = np.asarray(image)[:, :, None]
        shown = _ramp(profile)[shown] if profile else shown
    else:
        shown = np.asarray(_srgb(image, profile))
    if opacity is not None and (opacity < 255).any():  # over white, rounded
        over = shown.astype(np.uint16) * opacity + np.uint16(255) * (255 - opacity)
        shown = ((over.astype(np.uint32) + 127) // 255).astype(np.uint8)
    return shown


def _srgb(image: Any, profile: bytes | None) -> Any:
    """An image of mode RGB or CMYK in sRGB."""
    transform = _transform(profile, image.mode) if profile else None
    if transform is not None:
        from PIL import ImageCms

        return ImageCms.applyTransform(image, transform)
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=16)
def _ramp(profile: bytes) -> UInt8[np.ndarray, " 256"]:
    """What each level of grey is in sRGB; itself where the profile is none of grey, or of no use."""
    from PIL import Image

    levels = np.arange(256, dtype=np.uint8)
    transform = _transform(profile, "L")
    if transform is None:
        return levels
    from PIL import ImageCms

    shown = ImageCms.applyTransform(Image.fromarray(levels[None]), transform)
    return np.ascontiguousarray(np.asarray(shown)[0, :, 0])


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> Any:
    """Little CMS's transform from the profile to sRGB, perceptual; None where the profile is of another kind of colour,
    damaged, or moves no colour by more than one level, as that of sRGB itself."""
    from PIL import Image, ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        flags = ImageCms.Flags(0 if mode == "RGB" else _EXACT)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    if mode == "RGB":
        steps = np.linspace(0, 255, 17).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(17, -1, 3)
        shown = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
        if np.abs(shown.astype(int) - grid).max() <= 1:
            return None
    return transform
