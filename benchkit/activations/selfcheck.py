"""Whether the places of a block are what they are called, by their activations alone.

The residual stream at a place must be the stream before it and what was added between; what is called a norm of it must
be an affine function, by dimension, of the stream centred and scaled at each token (LayerNorm), or scaled (RMSNorm). A
backbone whose places are hooked by names may show other things under these names: then nothing is recorded.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.errors import PluginError
from benchkit.interfaces import Backbone

ROUNDING = 1e-2
"""Of what is compared, by which it may differ: in bfloat16, too."""
EXAMPLES = 4
LEAST = 8
"""Tokens without which a norm is not told from something else."""

_BLOCK = re.compile(r"(blocks\.\d+\.)(\w+)")


def check_places(backbone: Backbone, batch: np.ndarray, points: Sequence[str]) -> None:
    """Asks a few examples of the batch at every place of the blocks that the points are in. Raises PluginError for one
    of the points that is not what it is called."""
    known = set(backbone.points())
    for prefix in sorted({found[1] for p in points if (found := _BLOCK.fullmatch(p))}):
        names = [p for p in known if p.startswith(prefix)]
        shown = backbone.activations(batch[:EXAMPLES], names)
        at = {name.removeprefix(prefix): x for name, x in shown.items()}
        for place, why in untrue(at).items():
            if f"{prefix}{place}" in points:
                raise PluginError(
                    f"{type(backbone).__name__} shows something else at '{prefix}{place}' than its name says: {why}; "
                    "record another place"
                )


def untrue(at: Mapping[str, Float32[np.ndarray, "B T _"]]) -> dict[str, str]:
    """Of the places of one block, by the last part of their names, those that are not what they are called, and why."""
    wrong: dict[str, str] = {}
    before = "resid_ffn1" if "resid_ffn1" in at else "resid_pre"
    within = next((p for p in ("resid_conv", "resid_mid") if p in at), "")
    after = "resid_out" if "resid_out" in at else "resid_post"
    if not within and {before, "attn_out"} <= at.keys():  # a backbone may show what is added, and not the sum
        at = {**at, "resid_mid": at[before] + at["attn_out"]}
        within = "resid_mid"
    sums = (("resid_pre", "ffn1_out", "resid_ffn1"), (before, "attn_out", "resid_mid"),
            ("resid_mid", "conv_out", "resid_conv"), (within, "mlp_out", after))  # fmt: skip
    for start, added, end in sums:
        if start in at and added in at and end in at and not _same(at[start] + at[added], at[end], at[end]):
            why = f"{start} and {added} do not add up to {end}"
            wrong |= dict.fromkeys((added, end), why)
    for normed, of in (("norm_ffn1", "resid_pre"), ("norm1", before), ("norm2", within)):
        if normed in at and of in at and not _is_norm(at[normed], at[of]):
            wrong[normed] = f"it is no norm of {of}"
    return wrong


def _same(a: np.ndarray, b: np.ndarray, stream: np.ndarray) -> bool:
    """Up to rounding."""
    if a.shape != b.shape:
        return False
    gap = float(np.linalg.norm((a.astype(np.float64) - b).ravel()))
    return gap <= ROUNDING * max(float(np.linalg.norm(stream.astype(np.float64).ravel())), 1e-30)


def _is_norm(normed: Float32[np.ndarray, "B T D"], of: Float32[np.ndarray, "B T D"]) -> bool:
    if normed.shape != of.shape:
        return False
    x, y = (v.reshape(-1, v.shape[-1]).astype(np.float64) for v in (of, normed))
    if len(x) < LEAST or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return True
    centred = x - x.mean(axis=1, keepdims=True)
    return any(_affine(_scaled(v), y) for v in (centred, x))


def _scaled(x: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "N D"]:
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + 1e-12)


def _affine(z: Float64[np.ndarray, "N D"], y: Float64[np.ndarray, "N D"]) -> bool:
    """Whether y is a factor and a shift of z in each dimension, most of what varies in it."""
    zc, yc = z - z.mean(axis=0), y - y.mean(axis=0)
    power = (zc**2).sum(axis=0)
    slope = np.divide((zc * yc).sum(axis=0), power, out=np.zeros_like(power), where=power > 0)
    rest = yc - slope * zc
    return float((rest**2).sum()) <= ROUNDING**2 * max(float((yc**2).sum()), 1e-30)
