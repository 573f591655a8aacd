"""Images brought to one size and one number of channels."""

from typing import Literal

import numpy as np
from jaxtyping import UInt8

Colour = Literal["native", "grey", "rgb"]


def coloured(raw: UInt8[np.ndarray, "H W C"], colour: Colour) -> UInt8[np.ndarray, "H W C2"]:
    """The image with one channel (grey: luma after ITU-R BT.601) or three (rgb: grey is repeated), or as it is."""
    channels = raw.shape[2]
    if colour == "rgb" and channels == 1:
        return np.repeat(raw, 3, axis=2)
    if colour == "grey" and channels == 3:
        luma = raw.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        return np.rint(luma).astype(np.uint8)[:, :, None]
    return raw


def resized(raw: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "{size} {size} C"]:
    """The whole image in a square of `size` pixels: bilinear, low-passed where it shrinks, its aspect ratio not kept.

    Raises MissingDependency without Pillow, where there is something to resize.
    """
    if raw.shape[:2] == (size, size):
        return raw
    from benchkit import require

    require("PIL", "benchkit-core[image]")
    from PIL import Image

    image = Image.fromarray(raw[:, :, 0] if raw.shape[2] == 1 else raw)
    square = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    return square if square.ndim == 3 else square[:, :, None]
