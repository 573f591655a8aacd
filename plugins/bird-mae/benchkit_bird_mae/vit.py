"""A vision transformer over spectrogram patches, under the parameter names that MAE's checkpoints and timm use.

x is [B, 1 + T, D] throughout: the class token first, then T patch tokens, time first and frequency within it.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from benchkit_bird_mae.architecture import Architecture

Tap = Callable[[str, Tensor], Tensor | None]
"""Is shown the name of a place and the activations there; what it gives back, if anything, takes their place."""

PLACES = ("resid_pre", "norm1", "attn_out", "resid_mid", "norm2", "mlp_out", "resid_post")
"""Inside each block, in the order of computation."""


class Linear(nn.Linear):
    """Computes in the precision of its weights, whatever its input's: the residual stream stays float32."""

    def forward(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... m"]:
        return super().forward(x.to(self.weight.dtype))


class PatchEmbed(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.patch = arch.patch
        self.proj = nn.Conv2d(1, arch.width, arch.patch, arch.patch)

    def forward(self, spectrograms: Float32[Tensor, "B frames mels"]) -> Float[Tensor, "B T D"]:
        # Patches do not overlap, so the convolution is a matrix product; unlike a convolution on a GPU, it is not
        # rounded to TF32 by default.
        b, frames, mels = spectrograms.shape
        p = self.patch
        patches = spectrograms.view(b, frames // p, p, mels // p, p).transpose(2, 3).reshape(b, -1, p * p)
        return F.linear(patches.to(self.proj.weight.dtype), self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.heads = arch.heads
        self.qkv = Linear(arch.width, 3 * arch.width)
        self.proj = Linear(arch.width, arch.width)

    def forward(self, x: Float32[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.fc1 = Linear(arch.width, arch.hidden)
        self.fc2 = Linear(arch.hidden, arch.width)

    def forward(self, x: Float32[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(arch.width, arch.eps)
        self.attn = Attention(arch)
        self.norm2 = nn.LayerNorm(arch.width, arch.eps)
        self.mlp = Mlp(arch)

    def forward(self, x: Float32[Tensor, "B N D"], tap: Tap | None = None) -> Float32[Tensor, "B N D"]:
        def show(place: str, here: Tensor) -> Tensor:
            other = None if tap is None else tap(place, here)
            return here if other is None else other

        x = show("resid_pre", x)
        x = show("resid_mid", x + show("attn_out", self.attn(show("norm1", self.norm1(x)))))
        return show("resid_post", x + show("mlp_out", self.mlp(show("norm2", self.norm2(x)))))


class ViT(nn.Module):
    """The encoder. Its state dict has the names of the published checkpoints, no more and no fewer."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, arch.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + arch.patches, arch.width))
        self.patch_embed = PatchEmbed(arch)
        self.blocks = nn.ModuleList(Block(arch) for _ in range(arch.depth))
        self.norm = nn.LayerNorm(arch.width, arch.eps)
        self.fc_norm = nn.LayerNorm(arch.width, arch.eps, elementwise_affine=arch.fc_norm)

    def forward(
        self, spectrograms: Float32[Tensor, "B frames mels"], last: int | None = None, tap: Tap | None = None
    ) -> Float32[Tensor, "B N D"]:
        """The residual stream after block `last` (counted from 0; None: after all of them), before any norm.

        tap: is shown `blocks.N.PLACE` for every place on the way, and `norm` after the last block.
        """
        x = torch.cat(
            [
                (self.cls_token + self.pos_embed[:, :1]).expand(len(spectrograms), -1, -1),
                self.patch_embed(spectrograms) + self.pos_embed[:, 1:],
            ],
            dim=1,
        )
        for i, block in enumerate(self.blocks[: None if last is None else last + 1]):
            # What is shown is never compiled: `forward` goes round the compiled call.
            x = block(x) if tap is None else block.forward(x, _prefixed(tap, f"blocks.{i}."))
        if tap is not None and last is None:
            tap("norm", self.norm(x))
        return x

    def pool_mean(self, x: Float32[Tensor, "B N D"]) -> Float32[Tensor, "B D"]:
        """The mean of the patch tokens, then `fc_norm`."""
        return self.fc_norm(x[:, 1:].mean(1))

    def pool_cls(self, x: Float32[Tensor, "B N D"]) -> Float32[Tensor, "B D"]:
        """The class token after `norm`."""
        return self.norm(x[:, 0])

    def lower_precision(self, dtype: torch.dtype) -> None:
        """Matrix products and attention in `dtype`; norms, positions and the residual stream stay float32."""
        for module in self.modules():
            if isinstance(module, Linear | nn.Conv2d):
                module.to(dtype)


def points(arch: Architecture) -> tuple[str, ...]:
    """Every name that a tap is shown."""
    return (*(f"blocks.{i}.{place}" for i in range(arch.depth) for place in PLACES), "norm")


def _prefixed(tap: Tap, prefix: str) -> Tap:
    return lambda place, x: tap(prefix + place, x)


# ------------------------------------------------------------------------------------------------------- initial values


def random_weights(arch: Architecture, seed: int) -> dict[str, Tensor]:
    """A state dict as at the start of MAE's pretraining (arXiv 2111.06377, A.1), the same on every machine.

    Matrices Xavier-uniform, the patch projection as one too; biases 0; class token normal, 0.02; sin-cos positions.
    """
    generator = torch.Generator().manual_seed(seed)
    return dict(_draw(ViT(arch), arch, generator))


def _draw(model: ViT, arch: Architecture, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for name, like in sorted(model.state_dict().items()):
        if name == "pos_embed":
            value = sincos_positions(arch)
        elif name == "cls_token":
            value = torch.normal(0.0, 0.02, like.shape, generator=generator)
        elif like.dim() > 1:
            value = torch.empty(like.shape)
            nn.init.xavier_uniform_(value.flatten(1), generator=generator)
        else:
            value = torch.ones(like.shape) if name.endswith("weight") else torch.zeros(like.shape)
        yield name, value


def sincos_positions(arch: Architecture) -> Float32[Tensor, "1 N D"]:
    """The fixed positions of Audio-MAE and Bird-MAE, zeros for the class token.

    Both number the grid frequency first (for 512 frames, 8 rows of 32) while their patches come time first, so the two
    coordinates that a token is given are not its own time and frequency. The models were trained so, and it is kept.
    """
    columns, _ = arch.grid
    token = torch.arange(arch.patches, dtype=torch.float64)
    omega = 10_000.0 ** -(torch.arange(arch.width // 4, dtype=torch.float64) / (arch.width // 4))
    parts = [wave(coordinate[:, None] * omega) for coordinate in (token % columns, token // columns)
             for wave in (torch.sin, torch.cos)]  # fmt: skip
    positions = torch.cat(parts, dim=1)
    return torch.cat([positions.new_zeros(1, arch.width), positions])[None].float()
