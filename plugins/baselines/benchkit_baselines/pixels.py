"""pixels: the image itself, the floor of every image backbone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import Backbone, BenchkitError, Encoded, fingerprint, param
from benchkit_baselines.images import coloured, resized


@dataclass(frozen=True)
class PixelsParams:
    size: int | None = param(None, low=1, high=4096, help="pixels a side after resizing; none: images share a size")
    colour: Literal["native", "grey", "rgb"] = param("native", help="where grey and coloured images are mixed")


class Pixels(Backbone):
    """Pixels in 0 to 1, row by row, channels last: D = H * W * C. Nothing is subtracted or scaled per image.

    Without `size`, all images must have the same shape, and `dim` is known once a batch was encoded.
    """

    Params = PixelsParams
    modalities = ("image",)

    def __init__(self, params: PixelsParams | None = None) -> None:
        super().__init__(params)
        self._shape: tuple[int, ...] | None = None
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        """Raises BenchkitError before it is known."""
        if self._dim is None and self.params.size is not None and self.params.colour != "native":
            return self.params.size**2 * (3 if self.params.colour == "rgb" else 1)
        if self._dim is None:
            raise BenchkitError("the dimension of 'pixels' is that of the images, and none was seen so far")
        return self._dim

    def preprocess(self, raw: UInt8[np.ndarray, "H W C"]) -> Float32[np.ndarray, " D"]:
        """The flat image. Raises BenchkitError for one whose shape is not that of the images before it."""
        image = coloured(raw, self.params.colour)
        if self.params.size is not None:
            image = resized(image, self.params.size)
        self._shape = self._shape or image.shape
        if image.shape != self._shape:
            raise BenchkitError(
                f"'pixels' needs images of one shape, and here are {_shown(self._shape)} and {_shown(image.shape)}: "
                "give size=32 (pixels a side), and colour=rgb where only some are grey"
            )
        return image.reshape(-1).astype(np.float32) / np.float32(255.0)

    def encode(self, batch: Float32[np.ndarray, "B D"], *, tokens: bool = False) -> Encoded:
        """The batch as it is. There are no tokens."""
        self._dim = batch.shape[1]
        return Encoded(batch)

    def fingerprint(self) -> str:
        return fingerprint("pixels")  # no weights


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
