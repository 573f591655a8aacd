"""The encoder's layers as benchkit.Weights; what writes to the residual stream does so behind its layer scale."""

from collections.abc import Iterator, Mapping

import numpy as np

from benchkit import WeightRole, Weights
from benchkit_birdjepa.config import EncoderConfig


def anatomy(config: EncoderConfig, named: Mapping[str, np.ndarray]) -> Iterator[Weights]:
    """In the order of computation."""
    yield _layer(named, "patch_embed.proj", "patches", None)
    if not config.use_rope:
        yield Weights("pos_embed_hw", "positions", None, named["pos_embed_hw"].reshape(-1, config.embed_dim))
    for token in ("cls_tokens", "reg_tokens"):
        if token in named:
            yield Weights(token, "token", None, named[token][0])
    reads = ("mlp.w1", "mlp.w3") if config.use_swiglu else ("mlp.fc1",)
    block: list[tuple[str, WeightRole, str | None]] = [
        ("norm1", "norm1", None), ("attn.qkv", "attn_in", None), ("attn.proj", "attn_out", "gamma1"),
        ("norm2", "norm2", None), *((name, "mlp_in", None) for name in reads),
        ("mlp.w2" if config.use_swiglu else "mlp.fc2", "mlp_out", "gamma2"),
    ]  # fmt: skip
    for i in range(config.depth):
        for name, role, scale in block:
            factor = named[f"blocks.{i}.{scale}"] if scale and config.use_layerscale else None
            yield _layer(named, f"blocks.{i}.{name}", role, i, factor)
    yield _layer(named, "norm", "norm", None)


def _layer(
    named: Mapping[str, np.ndarray], name: str, role: WeightRole, block: int | None, factor: np.ndarray | None = None
) -> Weights:
    weight, bias = named[f"{name}.weight"], named.get(f"{name}.bias")
    if factor is not None:
        weight, bias = weight * factor[:, None], None if bias is None else bias * factor
    return Weights(name, role, block, weight, bias)
