"""random-vit: an untrained vision transformer, the control that every learnt model must beat."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import BenchkitError, Encoded, Layout, Modality, Trainable, Weights, did_you_mean, fingerprint
from benchkit_baselines.images import coloured, resized
from benchkit_baselines.vit_params import PLACES, RandomViTParams
from benchkit_baselines.waves import WaveBackbone

if TYPE_CHECKING:
    from torch import Tensor

    from benchkit_baselines.vit import ViT


class RandomViT(WaveBackbone):
    """A ViT (Dosovitskiy et al. 2021; pre-norm, class token, fixed 2-D sine-cosine positions) with random weights.

    Images: resized to `size` x `size`, grey repeated to three channels, scaled to -1 to 1. Recordings: cut or padded as
    in WaveBackbone, log-mel levels relative to the recording's loudest, `top_db` below it to 0 scaled to -1 to 1,
    padded with -1 in time to whole patches; rows of the grid are mel bands.

    pooled: after the final LayerNorm. tokens: the patch tokens there, [B, T, width], row by row of the grid. At the
    places inside (`points`), the class token comes first: [B, 1 + T, width], and in each block
    resid_post = resid_pre + attn_out + mlp_out, norm1 is what attention sees, norm2 what the MLP sees.
    """

    Params = RandomViTParams
    params: RandomViTParams
    modalities = ("image", "audio")
    prefix_tokens = 1

    def __init__(self, params: RandomViTParams | None = None) -> None:
        super().__init__(params)
        self._model: ViT | None = None

    @property
    def dim(self) -> int:
        return self.params.width

    def preprocess(
        self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]
    ) -> Float32[np.ndarray, " fixed"] | UInt8[np.ndarray, "size size 3"]:
        """A recording as a waveform of one length, an image as a square of bytes: small to send to the device.

        Raises BenchkitError where patches do not tile it.
        """
        p = self.params
        side, name = (p.n_mels, "n_mels") if raw.ndim == 1 else (p.size, "size")
        if side % p.patch:
            raise BenchkitError(f"random-vit: patches of {p.patch} do not tile {name}={side}: give a multiple")
        if raw.ndim == 1:
            return super().preprocess(raw)
        return coloured(resized(raw, p.size), "rgb")

    def layout(self, modality: Modality) -> Layout:
        p, side = self.params, self.params.patch
        if modality == "image":
            return Layout(
                ("row", "column"), (p.size // side, p.size // side), (p.size, p.size), ("px", "px"),
                f"resized to {p.size} x {p.size}",
            )  # fmt: skip
        columns = -(-p.settings.frames(p.samples) // side)
        return Layout(
            ("mel", "time"), (p.n_mels // side, columns), (p.n_mels, columns * side * p.settings.hop / p.sample_rate),
            ("mel", "s"), f"the first {p.seconds:g} s, padded at the end",
        )  # fmt: skip

    def setup(self, device: str) -> None:
        from benchkit_baselines.vit import build

        self._model = build(self.params, device)

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        x_btd, _ = self._vit().run(batch)
        return Encoded(self._pooled(x_btd).cpu().numpy(), x_btd[:, 1:].cpu().numpy() if tokens else None)

    def trainable(self) -> Trainable:
        model, top = copy.deepcopy(self._vit()), self.params.depth + 1
        depth_of = {name: _depth(name, top) for name, _ in model.named_parameters()}
        return Trainable(model, lambda batch: self._pooled(model(batch)[0]), depth_of, top)

    def _pooled(self, x_btd: "Tensor") -> "Tensor":
        return x_btd[:, 0] if self.params.pool == "cls" else x_btd[:, 1:].mean(dim=1)

    def points(self) -> tuple[str, ...]:
        return tuple(f"blocks.{i}.{place}" for i in range(self.params.depth) for place in PLACES)

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, Float32[np.ndarray, "B T D"]]:
        known = self.points()
        for point in points:
            if point not in known:
                raise BenchkitError(f"random-vit has no point '{point}'{did_you_mean(point, known)}")
        _, seen = self._vit().run(batch, frozenset(points))
        return {point: seen[point].cpu().numpy() for point in points}

    def anatomy(self) -> Iterator[Weights]:
        """With the patch projections of both modalities; positions are computed, so none are stored."""
        return self._vit().anatomy()

    def fingerprint(self) -> str:
        return fingerprint(self._vit().digests())

    def _vit(self) -> "ViT":
        if self._model is None:
            raise BenchkitError("random-vit has no weights before setup(device)")
        return self._model


def _depth(name: str, top: int) -> int:
    """How far from the input a parameter of the ViT is."""
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return top if name.startswith("norm.") else 0
