"""The encoder in torch, under the published parameter names: what a checkpoint is used with where there is no JAX, and
what fine-tuning trains. Shapes as in encoder.py."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from benchkit_birdjepa.config import EncoderConfig

Tap = Callable[[str, Tensor], None]


class Encoded(NamedTuple):
    cls: Tensor
    patches: Tensor
    reg: Tensor


class Linear(nn.Linear):
    """Computes in the precision of its weights; what it adds to, the residual stream, stays float32."""

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        return super().forward(x.to(self.weight.dtype)).float()


class Attention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads, self.scale = config.n_heads, config.attention_scale or None
        self.qkv = Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = Linear(config.embed_dim, config.embed_dim)
        normed = config.use_qk_norm
        self.q_norm: nn.Module = nn.LayerNorm(config.head_dim, config.norm_eps) if normed else nn.Identity()
        self.k_norm: nn.Module = nn.LayerNorm(config.head_dim, config.norm_eps) if normed else nn.Identity()

    def forward(self, x: Float[Tensor, "B N D"], angles: tuple[Tensor, Tensor] | None) -> Float[Tensor, "B N D"]:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if angles is not None:
            q, k = _rotated(q, angles), _rotated(k, angles)
        low = self.qkv.weight.dtype
        mixed = F.scaled_dot_product_attention(q.to(low), k.to(low), v.to(low), scale=self.scale)
        return self.proj(mixed.transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.gelu = "tanh" if config.gelu == "tanh" else "none"
        self.fc1 = Linear(config.embed_dim, config.hidden)
        self.fc2 = Linear(config.hidden, config.embed_dim)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.gelu))


class SwiGLU(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.w1 = Linear(config.embed_dim, config.hidden, bias=False)
        self.w2 = Linear(config.hidden, config.embed_dim, bias=False)
        self.w3 = Linear(config.embed_dim, config.hidden, bias=False)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class Block(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.mlp: nn.Module = SwiGLU(config) if config.use_swiglu else Mlp(config)
        self.scaled, self.residual_scale = config.use_layerscale, config.residual_scale
        if self.scaled:
            self.gamma1 = nn.Parameter(torch.empty(config.embed_dim))
            self.gamma2 = nn.Parameter(torch.empty(config.embed_dim))

    def forward(
        self, x: Float[Tensor, "B N D"], angles: tuple[Tensor, Tensor] | None, tap: Tap | None = None
    ) -> Float[Tensor, "B N D"]:
        show = tap or _nobody
        show("resid_pre", x)
        normed = self.norm1(x)
        show("norm1", normed)
        added = self.attn(normed, angles)
        added = added * self.gamma1 if self.scaled else added
        added = added * self.residual_scale if self.residual_scale != 1 else added
        show("attn_out", added)
        x = x + added
        show("resid_mid", x)
        normed = self.norm2(x)
        show("norm2", normed)
        added = self.mlp(normed)
        added = added * self.gamma2 if self.scaled else added
        added = added * self.residual_scale if self.residual_scale != 1 else added
        show("mlp_out", added)
        x = x + added
        show("resid_post", x)
        return x


class PatchEmbed(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.proj = Linear(config.patch_dim, config.embed_dim)


class Encoder(nn.Module):
    """Its state dict has the names of `EncoderConfig.shapes`, no more and no fewer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_tokens = nn.Parameter(torch.empty(1, config.n_cls_tokens, config.embed_dim))
        if config.n_reg_tokens:
            self.reg_tokens = nn.Parameter(torch.empty(1, config.n_reg_tokens, config.embed_dim))
        if not config.use_rope:
            self.pos_embed_hw = nn.Parameter(torch.empty(1, *config.grid, config.embed_dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, config.norm_eps)

    def forward(
        self,
        patches: Float[Tensor, "B T K"],
        grid: Int[Tensor, "B T 2"],
        last: int | None = None,
        tap: Tap | None = None,
    ) -> Encoded:
        """As encoder.encode: any subset of an example's patches with their rows and columns."""
        config = self.config
        x = self.patch_embed.proj(patches)
        if not config.use_rope:
            x = x + self.pos_embed_hw[0, grid[..., 0], grid[..., 1]]
        around = [self.cls_tokens.expand(len(x), -1, -1), x]
        if config.n_reg_tokens:
            around.append(self.reg_tokens.expand(len(x), -1, -1))
        x, angles = torch.cat(around, dim=1), _angles(config, grid) if config.use_rope else None
        for i, block in enumerate(self.blocks[: None if last is None else last + 1]):
            x = block(x, angles, None if tap is None else _prefixed(tap, f"blocks.{i}."))
        x = self.norm(x)
        if tap is not None and last is None:
            tap("norm", x)
        n_cls, n_patches = config.n_cls_tokens, patches.shape[1]
        return Encoded(x[:, :n_cls], x[:, n_cls : n_cls + n_patches], x[:, n_cls + n_patches :])

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Matrix products and attention in `dtype`; norms, positions and the residual stream stay float32."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.to(dtype)


def patchify(
    x: Float[Tensor, "B frames mels"] | Float[Tensor, "B H W C"], config: EncoderConfig
) -> tuple[Float[Tensor, "B T K"], Int[Tensor, "B T 2"]]:
    """As encoder.patchify."""
    (rows, columns), (ph, pw) = config.grid, (config.patch_h, config.patch_w)
    cut = x.reshape(len(x), rows, ph, columns, pw, config.channels).transpose(2, 3)
    patches = cut.reshape(len(x), rows * columns, config.patch_dim)
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(-1, 2).to(x.device)
    return patches, grid.expand(len(x), -1, -1)


def _angles(config: EncoderConfig, grid: Int[Tensor, "B T 2"]) -> tuple[Tensor, Tensor]:
    d = config.head_dim
    frequencies = 1 / config.rope_base ** (2 * torch.arange(d // 4, device=grid.device) / (d // 2))
    turned = (grid[..., None].float() * frequencies).reshape(*grid.shape[:2], d // 2)
    turned = F.pad(turned, (0, 0, config.n_cls_tokens, config.n_reg_tokens))
    turned = turned.repeat(1, 1, 2)[:, None]
    return turned.cos(), turned.sin()


def _rotated(x: Float[Tensor, "B h N d"], angles: tuple[Tensor, Tensor]) -> Float[Tensor, "B h N d"]:
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _prefixed(tap: Tap, prefix: str) -> Tap:
    return lambda place, x: tap(prefix + place, x)


def _nobody(place: str, x: Tensor) -> None:
    pass
