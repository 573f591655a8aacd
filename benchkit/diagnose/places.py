"""What the places inside a backbone are, read from their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

PlaceKind = Literal["residual", "module", "norm", "pooled", "other"]
"""residual: the stream itself. module: what attention or an MLP adds to it. norm: what a module is given."""

_KINDS: dict[str, PlaceKind] = {
    "resid_pre": "residual", "resid_mid": "residual", "resid_post": "residual", "embeddings": "residual",
    "attn_out": "module", "mlp_out": "module", "norm1": "norm", "norm2": "norm", "norm": "norm", "pooled": "pooled",
    "norm_ffn1": "norm", "ffn1_out": "module", "resid_ffn1": "residual", "conv_out": "module", "resid_conv": "residual",
    "resid_out": "residual",
}  # fmt: skip
_ORDER = (
    "resid_pre", "norm_ffn1", "ffn1_out", "resid_ffn1", "norm1", "attn_out", "resid_mid", "conv_out", "resid_conv",
    "norm2", "mlp_out", "resid_out", "resid_post",
)  # fmt: skip
MODULES = {
    "attn_out": "attention", "mlp_out": "MLP", "ffn1_out": "first feed-forward part", "conv_out": "convolution",
}  # fmt: skip
"""What writes to the residual stream, in words."""
_NAME = re.compile(r"(?:blocks\.(\d+)\.)?(\w+)")
POOLED = "pooled"
"""In the place of a point's name: the features that `encode` gives."""


@dataclass(frozen=True)
class Place:
    """block: counted from 0; None outside of the blocks. name: the last part of the point's name."""

    point: str
    kind: PlaceKind
    block: int | None
    name: str

    @staticmethod
    def of(point: str) -> "Place":
        found = _NAME.fullmatch(point)
        if found is None or found[2] not in _KINDS:
            return Place(point, "other", None, point)
        return Place(point, _KINDS[found[2]], None if found[1] is None else int(found[1]), found[2])

    @property
    def module(self) -> str:
        """In words."""
        return f"block {self.block}'s {MODULES[self.name]}" if self.name in MODULES else self.point


def places(points: Sequence[str]) -> list[Place]:
    """Each place once, in the order of computation: the stream before a block is that after the block before it."""
    known = {p.point: p for p in map(Place.of, points)}
    if "blocks.0.resid_pre" in known:
        known.pop("embeddings", None)
    for point, place in list(known.items()):
        if place.name == "resid_pre" and place.block and f"blocks.{place.block - 1}.resid_post" in known:
            del known[point]
    last = 1 + max((p.block for p in known.values() if p.block is not None), default=0)

    def when(place: Place) -> tuple[int, int]:
        if place.block is not None:
            return place.block, _ORDER.index(place.name)
        return (-1, 0) if place.name == "embeddings" else (last, 0)

    return sorted(known.values(), key=when)
