"""The encoder in JAX. Shapes: B examples, T patches, N tokens (class tokens, patches, registers), D width, h heads.

Parameters are a flat dictionary under the published names, but for the blocks', which are stacked:
`blocks.norm1.weight` is [depth, D]. One block is compiled, whatever the depth.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from benchkit_birdjepa.config import EncoderConfig

Params = Mapping[str, Array]
Tap = Callable[[str, Array], None]
Remat = Literal["none", "dots", "full"]


class Encoded(NamedTuple):
    """After the final norm: class tokens [B, n_cls, D], patches [B, T, D], registers [B, n_reg, D]."""

    cls: Array
    patches: Array
    reg: Array


def stacked(named: Mapping[str, Any], config: EncoderConfig) -> dict[str, Array]:
    """Parameters under their published names, as this module takes them."""
    inner = sorted({n.split(".", 2)[2] for n in named if n.startswith("blocks.")})
    blocks = {f"blocks.{n}": jnp.stack([named[f"blocks.{i}.{n}"] for i in range(config.depth)]) for n in inner}
    return {n: jnp.asarray(x) for n, x in named.items() if not n.startswith("blocks.")} | blocks


def unstacked(params: Params, config: EncoderConfig) -> dict[str, np.ndarray]:
    """The inverse of `stacked`, on the host."""
    found = {n: np.asarray(x) for n, x in params.items() if not n.startswith("blocks.")}
    for name, x in params.items():
        if name.startswith("blocks."):
            found |= {f"blocks.{i}.{name[7:]}": np.asarray(x[i]) for i in range(config.depth)}
    return found


def patchify(x: Array, config: EncoderConfig) -> tuple[Array, Array]:
    """Spectrograms [B, input_h, input_w] or images [B, input_h, input_w, channels], row by row of the grid: patches
    [B, T, patch_h * patch_w * channels], and row and column of each, [B, T, 2]."""
    (rows, columns), (ph, pw) = config.grid, (config.patch_h, config.patch_w)
    cut = x.reshape(len(x), rows, ph, columns, pw, config.channels).transpose(0, 1, 3, 2, 4, 5)
    patches = cut.reshape(len(x), rows * columns, config.patch_dim)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij"), axis=-1).reshape(-1, 2)
    return patches, jnp.broadcast_to(grid, (len(x), *grid.shape))


def encode(
    params: Params,
    config: EncoderConfig,
    patches: Array,
    grid: Array,
    *,
    scan: bool = True,
    remat: Remat = "none",
    dtype: DTypeLike = jnp.float32,
    tap: Tap | None = None,
    last: int | None = None,
    drop: tuple[Array, float] | None = None,
) -> Encoded:
    """Any subset of an example's patches, [B, T, patch_dim], with their rows and columns, [B, T, 2].

    scan: compile one block and repeat it. remat: what of a block is computed again on the way back: nothing, all but
    the matrix products, or everything. dtype: of matrix products and attention; norms, softmax's input and the residual
    stream stay float32, or are float64 with it. tap: is shown `blocks.N.PLACE`; not with `scan`. last: the block whose
    output is normed. drop: a key, and the share of examples for which the last block adds nothing; it rises from 0 in
    the first, and what is added is scaled up by it (arXiv 1603.09382).
    """
    x, angles = _embedded(params, config, patches, grid, dtype)
    blocks = {n[7:]: v for n, v in params.items() if n.startswith("blocks.")}
    depth = config.depth if last is None else last + 1
    x = transformer(x, blocks, config, depth, angles, scan=scan, remat=remat, dtype=dtype, tap=tap, drop=drop)
    x = layer_norm(x, params["norm.weight"], params["norm.bias"], config.norm_eps)
    if tap is not None and last is None:
        tap("norm", x)
    n_cls, n_patches = config.n_cls_tokens, patches.shape[1]
    return Encoded(x[:, :n_cls], x[:, n_cls : n_cls + n_patches], x[:, n_cls + n_patches :])


def transformer(
    x: Array,
    blocks: Params,
    config: EncoderConfig,
    depth: int,
    angles: tuple[Array, Array] | None = None,
    *,
    scan: bool = True,
    remat: Remat = "none",
    dtype: DTypeLike = jnp.float32,
    tap: Tap | None = None,
    drop: tuple[Array, float] | None = None,
) -> Array:
    """[B, N, D] through the first `depth` of stacked blocks, `norm1.weight` [depth, D]."""
    step = partial(_block, config=config, angles=angles, dtype=dtype)
    if remat != "none":
        policy = None if remat == "full" else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        step = jax.checkpoint(step, policy=policy)
    blocks = {n: v[:depth] for n, v in blocks.items()}
    if drop is not None:
        blocks["kept"] = _kept(*drop, len(x), config.depth)[:depth].astype(x.dtype)
    if scan and tap is None:
        return jax.lax.scan(lambda carry, block: (step(carry, block), None), x, blocks)[0]
    for i in range(depth):
        block = {n: v[i] for n, v in blocks.items()}
        if tap is None:
            x = step(x, block)
        else:
            x = _block(x, block, config=config, angles=angles, dtype=dtype, tap=_prefixed(tap, f"blocks.{i}."))
    return x


def _kept(key: Array, rate: float, n: int, depth: int) -> Array:
    """What attention and MLP of each block and example are multiplied by, [depth, 2, n, 1, 1]."""
    share = 1 - jnp.linspace(0, rate, depth)[:, None, None, None, None]
    return jax.random.bernoulli(key, share, (depth, 2, n, 1, 1)) / share


def _embedded(
    params: Params, config: EncoderConfig, patches: Array, grid: Array, dtype: DTypeLike
) -> tuple[Array, tuple[Array, Array] | None]:
    """[B, N, D], and of rotary positions cosines and sines, [B, N, 1, head]."""
    x = _linear(patches, params["patch_embed.proj.weight"], params["patch_embed.proj.bias"], dtype)
    if not config.use_rope:
        x = x + params["pos_embed_hw"][0, grid[..., 0], grid[..., 1]]
    around = [jnp.broadcast_to(params["cls_tokens"], (len(x), config.n_cls_tokens, config.embed_dim)), x]
    if config.n_reg_tokens:
        around.append(jnp.broadcast_to(params["reg_tokens"], (len(x), config.n_reg_tokens, config.embed_dim)))
    return jnp.concatenate(around, axis=1), _angles(config, grid) if config.use_rope else None


def _angles(config: EncoderConfig, grid: Array) -> tuple[Array, Array]:
    """A head's first half turns by the row, the second by the column; class tokens and registers do not turn."""
    d = config.head_dim
    frequencies = 1 / config.rope_base ** (2 * jnp.arange(d // 4) / (d // 2))
    turned = (grid[..., None].astype(jnp.float32) * frequencies).reshape(*grid.shape[:2], d // 2)
    turned = jnp.pad(turned, ((0, 0), (config.n_cls_tokens, config.n_reg_tokens), (0, 0)))
    turned = jnp.tile(turned, 2)[:, :, None]
    return jnp.cos(turned), jnp.sin(turned)


def _rotated(x: Array, angles: tuple[Array, Array]) -> Array:
    cos, sin = angles
    first, second = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-second, first], axis=-1) * sin


def _block(
    x: Array,
    block: Params,
    *,
    config: EncoderConfig,
    angles: tuple[Array, Array] | None,
    dtype: DTypeLike,
    tap: Tap | None = None,
) -> Array:
    show = tap or (lambda place, x: None)
    eps, kept = config.norm_eps, block.get("kept")
    show("resid_pre", x)
    normed = layer_norm(x, block["norm1.weight"], block["norm1.bias"], eps)
    show("norm1", normed)
    added = _attention(normed, block, config, angles, dtype)
    if config.use_layerscale:
        added = added * block["gamma1"]
    if config.residual_scale != 1:
        added = added * config.residual_scale
    if kept is not None:
        added = added * kept[0]
    show("attn_out", added)
    x = x + added
    show("resid_mid", x)
    normed = layer_norm(x, block["norm2.weight"], block["norm2.bias"], eps)
    show("norm2", normed)
    added = _mlp(normed, block, config, dtype)
    if config.use_layerscale:
        added = added * block["gamma2"]
    if config.residual_scale != 1:
        added = added * config.residual_scale
    if kept is not None:
        added = added * kept[1]
    show("mlp_out", added)
    x = x + added
    show("resid_post", x)
    return x


def _attention(
    x: Array, block: Params, config: EncoderConfig, angles: tuple[Array, Array] | None, dtype: DTypeLike
) -> Array:
    qkv = _linear(x, block["attn.qkv.weight"], block["attn.qkv.bias"], dtype)
    q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, config.n_heads, config.head_dim), 2, 0)  # [B, N, h, d] each
    if config.use_qk_norm:
        q = layer_norm(q, block["attn.q_norm.weight"], block["attn.q_norm.bias"], config.norm_eps)
        k = layer_norm(k, block["attn.k_norm.weight"], block["attn.k_norm.bias"], config.norm_eps)
    if angles is not None:
        q, k = _rotated(q, angles), _rotated(k, angles)
    scale = config.attention_scale or None
    mixed = jax.nn.dot_product_attention(q.astype(dtype), k.astype(dtype), v.astype(dtype), scale=scale)
    return _linear(mixed.reshape(x.shape), block["attn.proj.weight"], block["attn.proj.bias"], dtype)


def _mlp(x: Array, block: Params, config: EncoderConfig, dtype: DTypeLike) -> Array:
    if config.use_swiglu:
        gate = jax.nn.silu(_linear(x, block["mlp.w1.weight"], None, dtype))
        return _linear(gate * _linear(x, block["mlp.w3.weight"], None, dtype), block["mlp.w2.weight"], None, dtype)
    hidden = jax.nn.gelu(
        _linear(x, block["mlp.fc1.weight"], block["mlp.fc1.bias"], dtype), approximate=config.gelu == "tanh"
    )
    return _linear(hidden, block["mlp.fc2.weight"], block["mlp.fc2.bias"], dtype)


def _linear(x: Array, weight: Array, bias: Array | None, dtype: DTypeLike) -> Array:
    """weight: [out, in], as torch has it. The product in `dtype`, the result in float32 or better."""
    wide = jnp.promote_types(dtype, jnp.float32)
    y = jnp.matmul(x.astype(dtype), weight.astype(dtype).T, preferred_element_type=wide)
    return y if bias is None else y + bias


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + eps) * weight + bias


def _prefixed(tap: Tap, prefix: str) -> Tap:
    return lambda place, x: tap(prefix + place, x)
