"""What an objective is given of the training, what it gives back, and the few layers that objectives share."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from benchkit_birdjepa import encoder
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.encoder import Encoded, Params, Remat

PREFIX = "objective."


@dataclass(frozen=True)
class Context:
    """n_classes: of the data's labels, 0 where it has none. scan, remat, dtype, drop_path: as encoder.encode has them;
    the last with a key alone. readout: what a product with the encoder's output is multiplied by, 1 but for muP, where
    it is the base width over the width. read_std: standard deviation of the first weights of such a product. axis: the
    name of the mapped axis inside shard_map, over which means are taken; None under jit, where an array over several
    devices is one array.
    """

    config: EncoderConfig
    n_classes: int = 0
    scan: bool = True
    remat: Remat = "none"
    dtype: DTypeLike = jnp.float32
    drop_path: float = 0.0
    readout: float = 1.0
    read_std: float = 0.02
    axis: str | None = None

    def encode(self, params: Params, patches: Array, grid: Array, *, key: Array | None = None) -> Encoded:
        """Patches [B, T, K] with their places [B, T, 2]. key: of what is dropped; None drops nothing."""
        drop = None if key is None or not self.drop_path else (jax.random.fold_in(key, 0xD809), self.drop_path)
        return encoder.encode(
            params, self.config, patches, grid, scan=self.scan, remat=self.remat, dtype=self.dtype, drop=drop
        )

    def transformer(self, x: Array, blocks: Params, config: EncoderConfig) -> Array:
        """[B, N, D] through stacked blocks, `norm1.weight` [depth, D], without positions of their own."""
        return encoder.transformer(x, blocks, config, config.depth, scan=self.scan, remat=self.remat, dtype=self.dtype)

    def mean(self, x: Array) -> Array:
        """Over the devices, with its gradient; x itself where there is no mapped axis."""
        return x if self.axis is None else jax.lax.pmean(x, self.axis)

    @property
    def devices(self) -> Array | int:
        return 1 if self.axis is None else jax.lax.psum(1, self.axis)


class Outcome(NamedTuple):
    """parts: scalars of the loss by name. encoded: what the encoder made of B * V examples, the views of one example
    one after another, for an online probe; its gradient is 0, whatever is made of it."""

    parts: dict[str, Array]
    encoded: Encoded


def detached(encoded: Encoded) -> Encoded:
    return Encoded(*map(jax.lax.stop_gradient, encoded))


def first_linear(key: Array, name: str, inner: int, outer: int, std: float) -> dict[str, Array]:
    """Normal, cut off at two standard deviations, as the encoder's; no bias."""
    weight = std * jax.random.truncated_normal(key, -2, 2, (outer, inner), jnp.float32)
    return {f"{name}.weight": weight, f"{name}.bias": jnp.zeros(outer, jnp.float32)}
