"""Pixio (arXiv 2512.15715): the encoder sees some patches, a decoder paints the others.

As facebookresearch/pixio: whole blocks are hidden, all class tokens enter the decoder, with positions, the mask token
stands behind the decoder's first layer, targets are normalised with the unbiased variance. samuelstevens/birdjepa:
class_tokens=mean, mask_token=encoder, variance=biased, fill=true, block=2, depth=8, heads=8. MAE: block=1, depth=8.

In the official model class tokens have positions in the encoder too; a token and its position are one sum, and here
one parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchkit import BenchkitError, Objective, param

DECODER = "objective.decoder"
EPS = 1e-6


@dataclass(frozen=True)
class PixioParams:
    ratio: float = param(0.75, low=0, high=1, help="share of the blocks that are hidden")
    block: int = param(4, low=1, help="patches along each side of a block")
    fill: bool = param(False, help="hide exactly int(ratio * patches), single ones where whole blocks do not suffice")
    width: int = param(512, low=1, help="of the decoder")
    depth: int = param(32, low=1, help="blocks of the decoder")
    heads: int = param(16, low=1, help="of the decoder")
    class_tokens: Literal["all", "mean"] = param("all", help="into the decoder; mean: their mean, without a position")
    mask_token: Literal["decoder", "encoder"] = param("decoder", help="whose width it has; encoder: through the linear")
    target: Literal["normalised", "raw"] = param("normalised", help="each patch to mean 0 and variance 1, or as it is")
    variance: Literal["unbiased", "biased"] = param("unbiased", help="that a target is normalised with")

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width={self.width} must be a multiple of heads={self.heads}")


class Pixio(Objective):
    """Mean squared error of the hidden patches."""

    Params = PixioParams
    params: PixioParams

    def init(self, key: Any, context: Any) -> dict[str, Any]:
        import jax
        import jax.numpy as jnp

        from benchkit_birdjepa.objectives.context import first_linear
        from benchkit_birdjepa.objectives.masks import hiding

        config, wanted = context.config, self.params
        hiding(config.grid, wanted.block, wanted.ratio, wanted.fill)
        inner = self.inner(config)
        shapes = {n[9:]: s for n, s in inner.shapes().items() if n.startswith("blocks.0.")}
        keys = iter(jax.random.split(key, len(shapes) + 4))
        n_cls = config.n_cls_tokens if wanted.class_tokens == "all" else 0
        mask_width = wanted.width if wanted.mask_token == "decoder" else config.embed_dim
        found = {
            **first_linear(next(keys), f"{DECODER}.embed", config.embed_dim, wanted.width, context.read_std),
            **first_linear(next(keys), f"{DECODER}.pred", wanted.width, config.patch_dim, 0.02),
            f"{DECODER}.mask_token": 0.02 * jax.random.normal(next(keys), (1, 1, mask_width)),
            f"{DECODER}.pos_embed": 0.02 * jax.random.normal(next(keys), (1, n_cls + config.n_patches, wanted.width)),
            f"{DECODER}.norm.weight": jnp.ones(wanted.width), f"{DECODER}.norm.bias": jnp.zeros(wanted.width),
        }  # fmt: skip
        for name, shape in sorted(shapes.items()):
            full, kept = (wanted.depth, *shape), next(keys)
            if len(shape) > 1:
                found[f"{DECODER}.blocks.{name}"] = 0.02 * jax.random.truncated_normal(kept, -2, 2, full, jnp.float32)
            elif name.startswith("gamma"):
                found[f"{DECODER}.blocks.{name}"] = jnp.full(full, config.layerscale_init)
            else:
                found[f"{DECODER}.blocks.{name}"] = jnp.zeros(full) if name.endswith("bias") else jnp.ones(full)
        return {n: x.astype(jnp.float32) for n, x in found.items()}

    def inner(self, config: Any) -> Any:
        """The decoder's blocks as those of an encoder: with learnt positions, else as the encoder's own."""
        from dataclasses import replace

        p = self.params
        return replace(
            config, embed_dim=p.width, n_heads=p.heads, depth=p.depth, n_cls_tokens=1, n_reg_tokens=0, use_rope=False,
            attention_scale=0.0, residual_scale=1.0,
        )  # fmt: skip

    def loss(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], key: Any, step: Any, context: Any
    ) -> tuple[Any, Any]:
        import jax

        from benchkit_birdjepa.encoder import patchify
        from benchkit_birdjepa.objectives.masks import hiding, order

        x = batch["x"]
        if x.shape[1] != 1:
            raise BenchkitError(f"pixio takes one view of an example, not {x.shape[1]}")
        if context.axis is not None:  # one key gives one set of masks; devices hide different patches
            key = jax.random.fold_in(key, jax.lax.axis_index(context.axis))
        how = hiding(context.config.grid, self.params.block, self.params.ratio, self.params.fill)
        patches, grid = patchify(x[:, 0], context.config)
        places = order(key, len(patches), context.config.grid, how)
        return self.of_order(params, patches, grid, places, how.patches, key, context)

    def of_order(
        self, params: Mapping[str, Any], patches: Any, grid: Any, places: Any, n_hidden: int, key: Any, context: Any
    ) -> tuple[Any, Any]:
        """patches: [B, T, K]. places: [B, T], a permutation of each example's patches, the hidden ones last."""
        import jax.numpy as jnp

        from benchkit_birdjepa.objectives.context import Outcome, detached

        patches = jnp.take_along_axis(patches, places[..., None], 1)
        grid = jnp.take_along_axis(grid, places[..., None], 1)
        seen = patches.shape[1] - n_hidden
        encoded = context.encode(params, patches[:, :seen], grid[:, :seen], key=key)
        painted = self.painted(params, encoded, places, context)[:, -n_hidden:]
        losses = jnp.square(painted - self.target(patches[:, seen:]))
        return context.mean(losses.mean()), Outcome({}, detached(encoded))

    def painted(self, params: Mapping[str, Any], encoded: Any, places: Any, context: Any) -> Any:
        """[B, T, K], in the order of `places`. The decoder takes its tokens in any order: positions go with them."""
        import jax.numpy as jnp

        from benchkit_birdjepa.encoder import layer_norm

        config, own = context.config, self.inner(context.config)
        cls = encoded.cls if self.params.class_tokens == "all" else encoded.cls.mean(1, keepdims=True)
        n_cls, n_pos = cls.shape[1], config.n_cls_tokens if self.params.class_tokens == "all" else 0
        shown, token = jnp.concatenate([cls, encoded.patches], 1), params[f"{DECODER}.mask_token"]
        masks = (len(places), places.shape[1] - encoded.patches.shape[1], token.shape[-1])
        if self.params.mask_token == "encoder":
            x = self._embedded(params, jnp.concatenate([shown, jnp.broadcast_to(token, masks)], 1), context)
        else:
            x = jnp.concatenate([self._embedded(params, shown, context), jnp.broadcast_to(token, masks)], 1)
        table = params[f"{DECODER}.pos_embed"]
        of_cls = jnp.zeros((1, n_cls, x.shape[-1]), x.dtype) if n_pos == 0 else table[:, :n_pos]
        positions = [jnp.broadcast_to(of_cls, (len(x), *of_cls.shape[1:])), table[0, n_pos:][places]]
        x = x + jnp.concatenate(positions, 1)
        start = f"{DECODER}.blocks."
        blocks = {n.removeprefix(start): v for n, v in params.items() if n.startswith(start)}
        x = context.transformer(x, blocks, own)
        x = layer_norm(x, params[f"{DECODER}.norm.weight"], params[f"{DECODER}.norm.bias"], config.norm_eps)
        return jnp.matmul(x[:, n_cls:], params[f"{DECODER}.pred.weight"].T) + params[f"{DECODER}.pred.bias"]

    def _embedded(self, params: Mapping[str, Any], x: Any, context: Any) -> Any:
        """Reads the encoder's width, so it carries muP's multiplier."""
        import jax.numpy as jnp

        return jnp.matmul(x, params[f"{DECODER}.embed.weight"].T) * context.readout + params[f"{DECODER}.embed.bias"]

    def target(self, patches: Any) -> Any:
        """[..., K]"""
        import jax.numpy as jnp

        if self.params.target == "raw":
            return patches
        centred = patches - patches.mean(-1, keepdims=True)
        n = patches.shape[-1] - (self.params.variance == "unbiased")
        return centred / jnp.sqrt(jnp.square(centred).sum(-1, keepdims=True) / n + EPS)
