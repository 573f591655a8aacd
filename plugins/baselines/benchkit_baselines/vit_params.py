"""What describes random-vit: its parameters, and the places inside a block."""

from dataclasses import dataclass
from typing import Literal

from benchkit import param
from benchkit_baselines.waves import MelParams

PLACES = ("resid_pre", "norm1", "attn_out", "norm2", "mlp_out", "resid_post")
"""Within each block, in the order of the computation."""


@dataclass(frozen=True)
class RandomViTParams(MelParams):
    """The fields of MelParams count for recordings only, `size` for images only."""

    n_mels: int = param(128, low=1, high=1024, help="mel bands of the spectrogram")
    size: int = param(64, low=1, high=1024, help="images are resized to this many pixels a side")
    patch: int = param(16, low=1, high=256, help="side of a patch: pixels, or mel bands and frames")
    width: int = param(192, low=4, high=4096, help="dimension of a token")
    depth: int = param(12, low=1, high=64, help="blocks")
    heads: int = param(3, low=1, high=64, help="attention heads")
    pool: Literal["mean", "cls"] = param("mean", help="mean of the patch tokens, or the class token")
    seed: int = param(0, low=0, high=2**31 - 1, help="of the weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 4 or self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of 4 and of heads={self.heads}")
        if self.top_db is None:
            raise ValueError("top_db=none leaves the spectrogram without a scale: give a number")
