"""The transformer of random-vit in torch. Shapes: B examples, T tokens (the class token first), D width, H heads."""

import hashlib
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from benchkit import FLOOR, MelSettings, WeightRole, Weights, hann, mel_filterbank
from benchkit_baselines.vit_params import PLACES, RandomViTParams

Seen = dict[str, Tensor]
ROLES: dict[str, WeightRole] = {
    "norm1": "norm1", "qkv": "attn_in", "proj": "attn_out", "norm2": "norm2", "fc1": "mlp_in", "fc2": "mlp_out",
}  # fmt: skip


class Block(nn.Module):
    """Attention and an MLP (ratio 4, GELU), each after a LayerNorm and beside the residual stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, "B T D"], Seen]:
        """The residual stream after the block, and what was to be seen on the way, by place."""
        normed1 = self.norm1(x)
        attended = self.attend(normed1)
        between = x + attended
        normed2 = self.norm2(between)
        mlp = self.fc2(nn.functional.gelu(self.fc1(normed2)))
        after = between + mlp
        return after, dict(zip(PLACES, (x, normed1, attended, normed2, mlp, after), strict=True))

    def attend(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(b, t, d))


class ViT(nn.Module):
    """Batches as RandomViT.preprocess makes them in, token activations out."""

    def __init__(self, params: RandomViTParams) -> None:
        super().__init__()
        self.p = p = params
        self.embed_image = nn.Linear(3 * p.patch**2, p.width)
        self.embed_audio = nn.Linear(p.patch**2, p.width)
        self.cls = nn.Parameter(torch.zeros(p.width))
        self.blocks = nn.ModuleList(Block(p.width, p.heads) for _ in range(p.depth))
        self.norm = nn.LayerNorm(p.width, eps=1e-6)

    @torch.inference_mode()
    def run(
        self, batch: np.ndarray, points: frozenset[str] = frozenset()
    ) -> tuple[Float32[Tensor, "B T D"], dict[str, Float32[Tensor, "B T D"]]]:
        """`forward`, of an array and without gradients."""
        return self(torch.from_numpy(np.ascontiguousarray(batch)).to(self.cls.device), points)

    def forward(self, batch: Tensor, points: frozenset[str] = frozenset()) -> tuple[Float[Tensor, "B T D"], Seen]:
        """All tokens after the final norm, and the activations at `points` ('blocks.3.norm2')."""
        x = self.embed(batch)
        kept: Seen = {}
        for i, block in enumerate(self.blocks):
            x, seen = block(x)
            kept |= {name: a for place, a in seen.items() if (name := f"blocks.{i}.{place}") in points}
        return self.norm(x), kept

    def embed(self, batch: Tensor) -> Float[Tensor, "B T D"]:
        """Patches, their positions, and the class token before them (its position is zero)."""
        if batch.ndim == 2:
            with torch.autocast(batch.device.type, enabled=False):  # levels need float32
                grid, embed = self.spectrogram(batch)[:, None], self.embed_audio
        else:
            grid, embed = batch.permute(0, 3, 1, 2).float() / 127.5 - 1.0, self.embed_image
        b, _, rows, columns = grid.shape
        side = self.p.patch
        patches = nn.functional.unfold(grid, side, stride=side).transpose(1, 2)
        places = torch.from_numpy(positions(rows // side, columns // side, self.p.width)).to(grid.device)
        return torch.cat([self.cls.expand(b, 1, -1), embed(patches) + places], dim=1)

    def spectrogram(self, waves: Float32[Tensor, "B samples"]) -> Float32[Tensor, "B M F"]:
        """Log-mel levels, -1 (`top_db` below the recording's loudest, and padding) to 1 (the loudest)."""
        top_db = self.p.top_db
        assert top_db is not None
        level = log_mel(waves, self.p.settings)
        level = (level - level.amax(dim=(1, 2), keepdim=True)).clamp(min=-top_db) * (2.0 / top_db) + 1.0
        return nn.functional.pad(level.transpose(1, 2), (0, -level.shape[1] % self.p.patch), value=-1.0)

    def anatomy(self) -> Iterator[Weights]:
        """Every layer, in the order of computation."""
        yield _layer("embed_image", "patches", None, self.embed_image)
        yield _layer("embed_audio", "patches", None, self.embed_audio)
        yield Weights("cls", "token", None, self.cls.detach().cpu().numpy()[None])
        for i, block in enumerate(self.blocks):
            for name, role in ROLES.items():
                yield _layer(f"blocks.{i}.{name}", role, i, block.get_submodule(name))
        yield _layer("norm", "norm", None, self.norm)

    def digests(self) -> dict[str, str]:
        """SHA-256 of each tensor, by name."""
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.state_dict().items()}
        return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


def _layer(name: str, role: WeightRole, block: int | None, module: nn.Module) -> Weights:
    weight, bias = (p.detach().cpu().numpy() for p in (module.weight, module.bias))
    return Weights(name, role, block, weight, bias)


def build(params: RandomViTParams, device: str) -> ViT:
    """A ViT in float32 with weights that depend on `params` alone, bit for bit: torch's and numpy's random states are
    neither read nor changed.

    Matrices: uniform after Glorot and Bengio 2010, as ViTs are started in big_vision and MAE. Biases 0, norms 1. The
    class token: uniform with a standard deviation of 0.02.
    """
    with torch.device("meta"):  # torch's own initialisation would draw from its global generator
        model = ViT(params)
    model = model.to_empty(device=device)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim == 2:
                tensor.copy_(uniform(params.seed, name, tuple(tensor.shape), math.sqrt(6.0 / sum(tensor.shape))))
            elif name == "cls":
                tensor.copy_(uniform(params.seed, name, tuple(tensor.shape), 0.02 * math.sqrt(3.0)))
            else:
                tensor.fill_(0.0 if name.endswith("bias") else 1.0)
    return model.eval().requires_grad_(False)


def uniform(seed: int, name: str, shape: tuple[int, ...], bound: float) -> Tensor:
    """Uniform in -bound to bound, from raw bits: numpy promises these, not what its distributions make of them."""
    bits = np.random.PCG64(np.random.SeedSequence([seed, *name.encode()])).random_raw(math.prod(shape))
    unit = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy(((2.0 * unit - 1.0) * bound).astype(np.float32).reshape(shape))


@lru_cache(maxsize=8)
def positions(rows: int, columns: int, width: int) -> Float32[np.ndarray, "T D"]:
    """Sine-cosine positions of a grid, row by row: a quarter of the width each for sine and cosine of the column, then
    of the row, with wavelengths from 2 pi to 20,000 pi (Vaswani et al. 2017, section 3.5; in two dimensions as in MoCo
    v3, Chen et al. 2021)."""
    speed = 10_000.0 ** -(np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [axis[:, None] * speed for axis in (column, row)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def log_mel(waves: Float32[Tensor, "B samples"], settings: MelSettings) -> Float32[Tensor, "B F M"]:
    """benchkit.media.frontends.mel.log_mel without `top_db`, on the device of the waveforms."""
    window = torch.from_numpy(hann(settings.window).copy()).to(waves.device)
    bank = torch.from_numpy(mel_filterbank(settings).copy()).to(waves.device)
    frames = waves.unfold(-1, settings.window, settings.hop) * window
    power = torch.view_as_real(torch.fft.rfft(frames, n=settings.fft)).square().sum(dim=-1)
    return 10.0 * torch.log10((power @ bank).clamp(min=FLOOR))
