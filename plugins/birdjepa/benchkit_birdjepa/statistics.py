"""Statistics of weights, gradients and activations through depth, to be logged as training goes.

Names are `KIND/PLACE/STATISTIC`, of a block's `KIND/blocks.N.PLACE/STATISTIC`. Weights and gradients: `kurtosis`
(3 of a normal distribution), `outliers` (share beyond 6 standard deviations), `norm` (Frobenius). The matrices that
read the residual stream and those that write to it have their norms together, `reading` and `writing`. Activations, of
the residual stream behind each block: `kurtosis` over dimensions of their root mean squares, `largest` over the median
of those, `dimension` of the largest, and `outliers`, how many dimensions are above 6 times the median.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.encoder import Params, encode
from benchkit_birdjepa.parameterisation import is_hidden

READING = ("attn.qkv", "mlp.fc1", "mlp.w1", "mlp.w3")
WRITING = ("attn.proj", "mlp.fc2", "mlp.w2")
FAR = 6.0
"""Standard deviations, or times the median: from here a value is an outlier."""


def of_arrays(arrays: Params, kind: str) -> dict[str, Array]:
    """kind: weight or gradient. Of every matrix of the blocks, stacked as encoder.stacked makes them. Under jit, or
    not; a few passes over the arrays."""
    found: dict[str, Array] = {}
    squares: dict[str, list[Array]] = {"reading": [], "writing": []}
    for name, stack in arrays.items():
        if not is_hidden(name):
            continue
        place = name.removeprefix("blocks.").removesuffix(".weight")
        flat = stack.reshape(len(stack), -1).astype(jnp.float32)
        total = jnp.square(flat).sum(1)
        for of, group in (("reading", READING), ("writing", WRITING)):
            if place in group:
                squares[of].append(total)
        values = {"kurtosis": _kurtosis(flat), "outliers": _outliers(flat), "norm": jnp.sqrt(total)}
        for i in range(len(stack)):
            found |= {f"{kind}/blocks.{i}.{place}/{statistic}": v[i] for statistic, v in values.items()}
    for of, parts in squares.items():
        norms = jnp.sqrt(sum(parts, jnp.zeros(())))
        found |= {f"{kind}/blocks.{i}.{of}/norm": norms[i] for i in range(norms.size)}
    return found


def of_activations(params: Params, config: EncoderConfig, patches: Array, grid: Array) -> dict[str, Array]:
    """Of the residual stream, all tokens of the batch [B, T, K] that it is given together."""
    found: dict[str, Array] = {}

    def keep(name: str, x: Array) -> None:
        if name.endswith("resid_post"):
            size = jnp.sqrt(jnp.square(x).mean(axis=(0, 1)))
            share = size / (jnp.median(size) + 1e-12)
            place = f"activation/{name}"
            found[f"{place}/kurtosis"] = _kurtosis(size[None])[0]
            found[f"{place}/largest"] = share.max()
            found[f"{place}/dimension"] = share.argmax()
            found[f"{place}/outliers"] = (share > FAR).sum()

    encode(params, config, patches, grid, tap=keep)
    return found


def emerged(history: Mapping[int, Mapping[str, Any]]) -> dict[str, int]:
    """Of each block the first step at which a dimension is an outlier, and is so in all later ones: steps and what
    `of_activations` gave there. Blocks without one are left out."""
    steps = sorted(history)
    found: dict[str, int] = {}
    for name in {n for step in steps for n in history[step] if n.startswith("activation/") and n.endswith("/outliers")}:
        since = None
        for step in steps:
            if float(history[step].get(name, 0)) < 1:
                since = None
            elif since is None:
                since = step
        if since is not None:
            found[name.split("/")[1]] = since
    return dict(sorted(found.items()))


def _kurtosis(x: Array) -> Array:
    """Of each row; 0 where all values are equal."""
    square = jnp.square(x - x.mean(1, keepdims=True))
    spread = square.mean(1)
    return jnp.where(spread > 0, jnp.square(square).mean(1) / jnp.maximum(jnp.square(spread), 1e-37), 0)


def _outliers(x: Array) -> Array:
    centred = jnp.abs(x - x.mean(1, keepdims=True))
    return (centred > FAR * x.std(1, keepdims=True)).mean(1)


computed = jax.jit(of_activations, static_argnums=1)
