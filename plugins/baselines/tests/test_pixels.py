import numpy as np
import pytest
from PIL import Image

from benchkit import BenchkitError, Modality
from benchkit.testing import BackboneSuite
from benchkit_baselines.pixels import Pixels, PixelsParams


class TestConformance(BackboneSuite):
    """Images that share a size, as `pixels` asks for."""

    spec = "pixels"

    def inputs(self, modality: Modality) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        return {f"image {i}": rng.integers(0, 256, (5, 7, 3), dtype=np.uint8) for i in range(4)}


class TestConformanceWithASize(BackboneSuite):
    spec = "pixels,size=12,colour=rgb"


def test_features_are_the_pixels_in_0_to_1_row_by_row() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(4, 6, 1) * 11
    np.testing.assert_allclose(Pixels().preprocess(image), image.reshape(-1) / 255, rtol=1e-6)


def test_images_of_two_sizes_are_one_clear_line() -> None:
    pixels = Pixels()
    pixels.preprocess(np.zeros((8, 8, 1), np.uint8))
    with pytest.raises(BenchkitError, match=r"here are 8 x 8 x 1 and 8 x 9 x 3: give size=32 .* and colour=rgb"):
        pixels.preprocess(np.zeros((8, 9, 3), np.uint8))


def test_with_a_size_images_are_resized_as_pillow_does_it() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(photo).resize((8, 8), Image.Resampling.BILINEAR)) / 255
    ours = Pixels(PixelsParams(size=8)).preprocess(photo)
    np.testing.assert_allclose(ours, expected.reshape(-1), rtol=1e-6)


def test_grey_is_pillows_luma() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(photo).convert("L"), np.float32)
    ours = Pixels(PixelsParams(colour="grey")).preprocess(photo).reshape(20, 30) * 255
    np.testing.assert_allclose(ours, expected, atol=1.001)  # Pillow rounds in integers


def test_the_dimension_is_known_once_it_can_be() -> None:
    with pytest.raises(BenchkitError, match="the dimension of 'pixels' is that of the images"):
        _ = Pixels().dim
    assert Pixels(PixelsParams(size=8, colour="rgb")).dim == 192
    pixels = Pixels()
    pixels.encode(np.zeros((2, 64), np.float32))
    assert pixels.dim == 64
