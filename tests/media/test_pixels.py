"""Pixels are as a viewer shows them; what does not say which number is white is refused."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import ImageOps

from benchkit.errors import MediaError, PluginError
from benchkit.media.decode import Image

from .icc import ink, linear_grey, linear_rgb

Y, X = np.mgrid[0:24, 0:32]
GREY = (Y * 4 + X * 5).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, (X * 7).astype(np.uint8)], -1)


def saved(image: PillowImage.Image, format: str, **options: object) -> bytes:
    f = io.BytesIO()
    image.save(f, format, **options)
    return f.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return Image(data).load()


def refused(data: bytes) -> str:
    with pytest.raises(MediaError) as raised:
        pixels(data)
    return str(raised.value)


def test_plain_pictures_come_as_they_are() -> None:
    for format in ("PNG", "TIFF", "BMP", "PPM", "GIF"):
        np.testing.assert_array_equal(pixels(saved(PillowImage.fromarray(GREY), format))[:, :, 0], GREY)
        if format != "GIF":
            np.testing.assert_array_equal(pixels(saved(PillowImage.fromarray(RGB), format)), RGB)
    bits = pixels(saved(PillowImage.fromarray(GREY > 90), "PNG"))
    np.testing.assert_array_equal(bits[:, :, 0], np.where(GREY > 90, 255, 0))


# ------------------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_picture_is_turned_as_its_exif_says(format: str, turn: int) -> None:
    """What is stored is the picture turned away, so that what is shown is the picture."""
    undo = {1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.transpose(1, 0, 2),
            6: np.rot90(RGB), 7: np.rot90(RGB[::-1, ::-1]).transpose(1, 0, 2)[::-1][:, ::-1],
            8: np.rot90(RGB, -1)}  # fmt: skip
    undo[7] = RGB[::-1, ::-1].transpose(1, 0, 2)
    stored = PillowImage.fromarray(np.ascontiguousarray(undo[turn]))
    exif = stored.getexif()
    exif[0x0112] = turn
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    data = saved(stored, format, exif=exif, **options)
    shown = pixels(data)
    np.testing.assert_allclose(shown.astype(int), RGB, atol=4 if format == "JPEG" else 0)
    with PillowImage.open(io.BytesIO(data)) as image:
        np.testing.assert_array_equal(shown, np.asarray(ImageOps.exif_transpose(image)))


def test_deep_pictures_are_turned_too_and_senseless_exif_says_nothing() -> None:
    deep = PillowImage.fromarray(np.rot90(GREY).astype(np.uint16) * 257)
    exif = deep.getexif()
    exif[0x0112] = 6
    np.testing.assert_array_equal(pixels(saved(deep, "TIFF", exif=exif))[:, :, 0], GREY)
    np.testing.assert_array_equal(pixels(saved(deep, "PNG", exif=exif))[:, :, 0], GREY)
    exif[0x0112] = 77
    np.testing.assert_array_equal(pixels(saved(PillowImage.fromarray(RGB), "PNG", exif=exif)), RGB)
    np.testing.assert_array_equal(pixels(saved(PillowImage.fromarray(RGB), "PNG", exif=b"Exif\0\0MM no")), RGB)


# ------------------------------------------------------------------------------------------------ more than 8 bits


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(format: str) -> None:
    image = PillowImage.fromarray(GREY.astype(np.uint16) * 257)
    np.testing.assert_array_equal(pixels(saved(image, format))[:, :, 0], GREY)


def test_a_pgm_says_itself_which_is_white() -> None:
    data = b"P5 32 24 4095\n" + np.rint(GREY / 255 * 4095).astype(">u2").tobytes()
    np.testing.assert_allclose(pixels(data)[:, :, 0].astype(int), GREY, atol=1)


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_fewer_bits_in_16_are_refused_unless_the_file_says_so(format: str, bits: int) -> None:
    image = PillowImage.fromarray(np.rint(GREY / 255 * (2**bits - 1)).astype(np.uint16))
    said = refused(saved(image, format))
    assert f"no pixel above {np.asarray(image).max():,} of 65,535, and does not state which is white" in said
    assert said.endswith("scale them to all the bits, store 8 bits, or set the TIFF tag SMaxSampleValue")
    if format == "TIFF":
        stated = pixels(saved(image, format, tiffinfo={341: 2**bits - 1}))
        np.testing.assert_array_equal(stated[:, :, 0], GREY)


def test_a_black_picture_is_black_however_deep() -> None:
    assert not pixels(saved(PillowImage.fromarray(np.zeros((4, 4), np.uint16)), "PNG")).any()
    assert not pixels(saved(PillowImage.fromarray(np.zeros((4, 4), np.float32)), "TIFF")).any()


@pytest.mark.parametrize("factor", [1, 257, 2.5])
def test_floating_point_pixels_are_from_0_to_1_or_refused(factor: float) -> None:
    image = PillowImage.fromarray(GREY.astype(np.float32) * factor)
    said = refused(saved(image, "TIFF"))
    assert (
        f"holds floating-point pixels from 0 to {int(GREY.max()) * factor:g}, and does not state which is white" in said
    )
    stated = pixels(saved(image, "TIFF", tiffinfo={341: 255 * factor}))
    np.testing.assert_allclose(stated[:, :, 0].astype(int), GREY, atol=1)
    unit = PillowImage.fromarray((GREY / 255).astype(np.float32))
    np.testing.assert_array_equal(pixels(saved(unit, "TIFF"))[:, :, 0], GREY)


def test_floating_point_pixels_that_are_no_numbers_are_refused() -> None:
    image = PillowImage.fromarray(np.where(GREY == 20, np.nan, GREY / 255).astype(np.float32))
    assert refused(saved(image, "TIFF")).endswith("holds pixels that are NaN or infinite")


def test_numbers_with_a_sign_are_refused_unless_the_file_says_which_is_white() -> None:
    image = PillowImage.fromarray(GREY.astype(np.int32))
    assert "holds numbers with a sign, of 32 bits, and does not state which is white" in refused(saved(image, "TIFF"))
    np.testing.assert_array_equal(pixels(saved(image, "TIFF", tiffinfo={341: 255}))[:, :, 0], GREY)


def test_32_bits_without_a_sign_are_scaled_where_they_are_used() -> None:
    def tiff(values: np.ndarray) -> bytes:
        """Pillow writes none: little-endian, one strip, grey, SampleFormat 1."""
        h, w = values.shape
        entries = [(256, 3, w), (257, 3, h), (258, 3, 32), (259, 3, 1), (262, 3, 1), (273, 4, 8 + 2 + 12 * 10 + 4),
                   (277, 3, 1), (278, 3, h), (279, 4, 4 * h * w), (339, 3, 1)]  # fmt: skip
        head = b"II*\0" + struct.pack("<IH", 8, len(entries))
        return head + b"".join(struct.pack("<HHII", t, k, 1, v) for t, k, v in entries) + bytes(4) + values.tobytes()

    np.testing.assert_array_equal(pixels(tiff(GREY.astype("<u4") * 0x01010101))[:, :, 0], GREY)
    assert "no pixel above 247 of 4,294,967,295" in refused(tiff(GREY.astype("<u4")))
    assert "of 4,294,967,295, and does not state which is white" in refused(tiff(GREY.astype("<u4") * 257))


def png(header: bytes, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Of any depth and colour type (PNG, third edition, 11.2): Pillow writes no deep colour."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">II", 32, 24) + header + bytes(3))
        + b"".join(chunk(*c) for c in chunks)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def deep(values: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


def test_deep_colour_keeps_its_upper_8_bits_and_12_in_16_is_refused() -> None:
    np.testing.assert_array_equal(pixels(png(b"\x10\x02", deep(RGB.astype(np.uint16) * 257))), RGB)
    np.testing.assert_array_equal(pixels(png(b"\x10\x02", deep(RGB.astype(np.uint16) * 256 + 255))), RGB)
    for bits in (8, 12, 14):
        said = refused(png(b"\x10\x02", deep(np.rint(RGB / 255 * (2**bits - 1)).astype(np.uint16))))
        assert "has 16 bits a pixel and no pixel above" in said
    alpha = np.dstack([RGB, np.full_like(GREY, 255)]).astype(np.uint16) * 257
    np.testing.assert_array_equal(pixels(png(b"\x10\x06", deep(alpha))), RGB)


def test_a_deep_picture_where_white_is_zero_is_shown_as_it_is_meant() -> None:
    image = PillowImage.fromarray((255 - GREY).astype(np.uint16) * 257)
    np.testing.assert_array_equal(pixels(saved(image, "TIFF", tiffinfo={262: 0}))[:, :, 0], GREY)


# --------------------------------------------------------------------------------------------------- alpha, palettes


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_what_is_transparent_lies_on_white(format: str) -> None:
    opacity = (X * 8).astype(np.uint8)
    image = PillowImage.fromarray(np.dstack([RGB, opacity]))
    data = saved(image, format, **({"lossless": True, "exact": True} if format == "WEBP" else {}))
    expected = RGB * (opacity[:, :, None] / 255) + 255 * (1 - opacity[:, :, None] / 255)
    assert np.abs(pixels(data) - expected).max() <= 0.51
    white = PillowImage.new("RGBA", image.size, "white")
    shown = np.asarray(PillowImage.alpha_composite(white, image).convert("RGB")).astype(int)
    assert np.abs(pixels(data) - shown).max() <= 1


def test_grey_with_alpha_stays_grey_and_hidden_colours_stay_hidden() -> None:
    image = PillowImage.fromarray(np.dstack([GREY, np.where(X < 10, 0, 255).astype(np.uint8)]), "LA")
    np.testing.assert_array_equal(pixels(saved(image, "PNG"))[:, :, 0], np.where(X < 10, 255, GREY))


def test_one_colour_that_is_transparent_is_white() -> None:
    key = tuple(int(v) for v in RGB[3, 3])
    expected = np.where((RGB[3, 3] == RGB).all(-1, keepdims=True), 255, RGB)
    np.testing.assert_array_equal(pixels(saved(PillowImage.fromarray(RGB), "PNG", transparency=key)), expected)
    grey = saved(PillowImage.fromarray(GREY), "PNG", transparency=int(GREY[3, 3]))
    np.testing.assert_array_equal(pixels(grey)[:, :, 0], np.where(GREY[3, 3] == GREY, 255, GREY))


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_gives_its_colours(format: str) -> None:
    image = PillowImage.fromarray(RGB).quantize(50)
    colours = np.array(image.getpalette(), np.uint8).reshape(-1, 3)[np.asarray(image)]
    np.testing.assert_array_equal(pixels(saved(image, format)), colours)
    clear = saved(image, format, transparency=3)
    np.testing.assert_array_equal(pixels(clear), np.where((np.asarray(image) == 3)[:, :, None], 255, colours))


# ------------------------------------------------------------------------------------------------------------ colour


def srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1."""
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_colours_are_those_of_the_profile_in_srgb(format: str) -> None:
    shown = pixels(saved(PillowImage.fromarray(RGB), format, icc_profile=linear_rgb()))
    assert np.abs(shown - srgb(RGB / 255)).max() < 2
    grey = pixels(saved(PillowImage.fromarray(GREY), format, icc_profile=linear_grey()))
    assert grey.shape == (24, 32, 1)
    assert np.abs(grey[:, :, 0] - srgb(GREY / 255)).max() < 2


def test_deep_grey_and_what_is_transparent_have_profiles_too() -> None:
    deep_grey = saved(PillowImage.fromarray(GREY.astype(np.uint16) * 257), "PNG", icc_profile=linear_grey())
    assert np.abs(pixels(deep_grey)[:, :, 0] - srgb(GREY / 255)).max() < 2
    half = PillowImage.fromarray(np.dstack([RGB, np.full_like(GREY, 128)]))
    expected = srgb(RGB / 255) * 128 / 255 + 255 * 127 / 255
    assert np.abs(pixels(saved(half, "PNG", icc_profile=linear_rgb())) - expected).max() < 2


def test_the_profile_of_srgb_changes_nothing_and_one_that_is_of_no_use_neither() -> None:
    from PIL import ImageCms

    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (own, linear_grey(), b"no profile", linear_rgb()[:200]):
        np.testing.assert_array_equal(pixels(saved(PillowImage.fromarray(RGB), "PNG", icc_profile=profile)), RGB)


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_ink_becomes_light(format: str) -> None:
    inks = np.stack([GREY, 255 - GREY, (X * 7).astype(np.uint8), (Y * 3).astype(np.uint8)], -1)
    image = PillowImage.fromarray(inks, "CMYK")
    options = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    expected = (255 - inks[:, :, :3].astype(int)) * (255 - inks[:, :, 3:].astype(int)) / 255
    assert np.abs(pixels(saved(image, format, **options)) - expected).max() <= (6 if format == "JPEG" else 1)


def test_ink_has_profiles_too() -> None:
    """Of a press whose black takes all lightness: L* = 100 (1 - k), as grey light."""
    k = np.linspace(0, 255, 32 * 24).astype(np.uint8).reshape(24, 32)
    inks = np.stack([np.zeros_like(k)] * 3 + [k], -1)
    shown = pixels(saved(PillowImage.fromarray(inks, "CMYK"), "TIFF", icc_profile=ink()))
    light = 100 * (1 - k / 255)
    luminance = np.where(light > 8, ((light + 16) / 116) ** 3, light / 903.3)  # CIE 1976
    assert np.abs(shown - srgb(luminance)[:, :, None]).max() <= 4


# ------------------------------------------------------------------------------------------------------------- refused


def test_arrays_must_be_of_bytes() -> None:
    np.testing.assert_array_equal(Image(GREY).load()[:, :, 0], GREY)
    with pytest.raises(PluginError, match="an image is given as an array of float64, and must be uint8, 0 to 255"):
        Image(GREY / 255).load()


def test_what_does_not_decode_names_the_file(tmp_path: Path) -> None:
    whole = saved(PillowImage.fromarray(RGB), "PNG")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match=r"cut.png' does not decode as an image"):
        Image(tmp_path / "cut.png").load()
    with pytest.raises(MediaError, match="LAB pixels"):
        pixels(saved(PillowImage.fromarray(RGB).convert("LAB"), "TIFF"))
