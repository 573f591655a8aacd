"""What describes an encoder: the fields of its config.json, under the names of the published code."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit import BenchkitError, did_you_mean

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PLACES = ("resid_pre", "norm1", "attn_out", "resid_mid", "norm2", "mlp_out", "resid_post")
"""Inside each block, in the order of computation."""


@dataclass(frozen=True)
class EncoderConfig:
    """A vision transformer over patches of a spectrogram, [input_h frames, input_w mel bins], or of an image.

    modality: audio or image. channels: of each point, 1 or an image's 3, the last in a patch.

    use_rope: rotary positions of row and column in place of a learnt table. use_qk_norm: LayerNorm of each head's
    queries and keys, before the rotation. use_swiglu: w2(silu(w1 x) * w3 x), without biases, in place of an MLP of
    ratio 4 with the tanh approximation of GELU. use_layerscale: a learnt factor for each dimension of what a block
    adds. Class tokens stand before the patches, registers behind them; neither has a position. gelu: tanh or exact.
    attention_scale: of queries times keys, 0 for 1 / sqrt(head_dim). residual_scale: of what blocks add. The last two
    are muP's, and 0 and 1 without.
    """

    input_h: int = 512
    input_w: int = 128
    patch_h: int = 16
    patch_w: int = 16
    embed_dim: int = 384
    depth: int = 12
    n_heads: int = 6
    n_cls_tokens: int = 1
    n_reg_tokens: int = 0
    norm_eps: float = 1e-5
    gelu: str = "tanh"
    attention_scale: float = 0.0
    residual_scale: float = 1.0
    use_rope: bool = False
    rope_base: float = 100.0
    use_qk_norm: bool = False
    use_swiglu: bool = False
    use_layerscale: bool = False
    layerscale_init: float = 1e-4
    channels: int = 1
    modality: str = "audio"

    def __post_init__(self) -> None:
        """Raises ValueError where the numbers make no encoder."""
        for name in ("input_h", "input_w", "patch_h", "patch_w", "embed_dim", "depth", "n_heads", "n_cls_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.modality not in ("audio", "image"):
            raise ValueError(f"modality={self.modality} is neither audio nor image")
        if self.channels not in (1, 3) or (self.modality == "audio" and self.channels != 1):
            raise ValueError(f"channels={self.channels} of {self.modality}: a spectrogram has 1, an image 1 or 3")
        if self.gelu not in ("tanh", "exact"):
            raise ValueError(f"gelu={self.gelu} is neither tanh nor exact")
        if not 0 < self.norm_eps < 1:
            raise ValueError(f"norm_eps={self.norm_eps} must be above 0 and below 1")
        if not 0 <= self.attention_scale < math.inf or not 0 < self.residual_scale < math.inf:
            raise ValueError(
                f"attention_scale={self.attention_scale} and residual_scale={self.residual_scale} must be finite, "
                "from 0 and above 0"
            )
        if self.n_reg_tokens < 0:
            raise ValueError(f"n_reg_tokens={self.n_reg_tokens} must be 0 or more")
        for whole, part in (("input_h", "patch_h"), ("input_w", "patch_w"), ("embed_dim", "n_heads")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole}={getattr(self, whole)} must be a multiple of {part}={getattr(self, part)}")
        if self.use_rope and self.head_dim % 4:
            raise ValueError(f"rotary positions need heads as wide as a multiple of 4, and these have {self.head_dim}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.input_h // self.patch_h, self.input_w // self.patch_w

    @property
    def n_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def patch_dim(self) -> int:
        """Numbers in a patch."""
        return self.patch_h * self.patch_w * self.channels

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.n_heads

    @property
    def hidden(self) -> int:
        """Width inside the MLP."""
        return int(2 / 3 * 4 * self.embed_dim) if self.use_swiglu else 4 * self.embed_dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every parameter's shape under its published name; weights are [out, in]."""
        d, h = self.embed_dim, self.hidden
        found: dict[str, tuple[int, ...]] = {
            "patch_embed.proj.weight": (d, self.patch_dim), "patch_embed.proj.bias": (d,),
            "cls_tokens": (1, self.n_cls_tokens, d), "norm.weight": (d,), "norm.bias": (d,),
        }  # fmt: skip
        if self.n_reg_tokens:
            found["reg_tokens"] = (1, self.n_reg_tokens, d)
        if not self.use_rope:
            found["pos_embed_hw"] = (1, *self.grid, d)
        block: dict[str, tuple[int, ...]] = {
            "norm1.weight": (d,), "norm1.bias": (d,), "attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,),
            "attn.proj.weight": (d, d), "attn.proj.bias": (d,), "norm2.weight": (d,), "norm2.bias": (d,),
        }  # fmt: skip
        if self.use_qk_norm:
            block |= {f"attn.{n}_norm.{p}": (self.head_dim,) for n in "qk" for p in ("weight", "bias")}
        if self.use_swiglu:
            block |= {"mlp.w1.weight": (h, d), "mlp.w2.weight": (d, h), "mlp.w3.weight": (h, d)}
        else:
            block |= {"mlp.fc1.weight": (h, d), "mlp.fc1.bias": (h,), "mlp.fc2.weight": (d, h), "mlp.fc2.bias": (d,)}
        if self.use_layerscale:
            block |= {"gamma1": (d,), "gamma2": (d,)}
        return found | {f"blocks.{i}.{name}": shape for i in range(self.depth) for name, shape in block.items()}


def read_config(folder: Path) -> EncoderConfig:
    """Raises BenchkitError, in one line, where the folder's config.json describes no encoder."""
    path = folder / CONFIG
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchkitError(f"'{folder}' holds no {CONFIG}") from None
    except (OSError, ValueError) as e:
        raise BenchkitError(f"'{path}' does not read as JSON: {e}") from e
    if not isinstance(found, dict):
        raise BenchkitError(f"'{path}' holds no record of an encoder")
    kinds = {f.name: type(f.default) for f in dataclasses.fields(EncoderConfig)}
    for name, value in found.items():
        if name not in kinds:
            raise BenchkitError(f"'{path}' has a field '{name}' that no encoder has{did_you_mean(name, kinds)}")
        given = float(value) if kinds[name] is float and type(value) is int else value
        if type(given) is not kinds[name]:
            raise BenchkitError(f"'{path}': {name} is {value!r:.60}, not of type {kinds[name].__name__}")
    try:
        return EncoderConfig(**found)
    except ValueError as e:
        raise BenchkitError(f"'{path}': {e}") from None


LATER = ("channels", "modality", "norm_eps", "gelu", "attention_scale", "residual_scale")
"""Fields that the published config.json does not have."""


def described(config: EncoderConfig) -> dict[str, Any]:
    """The published fields, and of those that came later what differs from their default: a description, and the
    fingerprint that is made of it, stay what they were."""
    found = dataclasses.asdict(config)
    return {n: v for n, v in found.items() if n not in LATER or v != getattr(EncoderConfig, n)}


def write_config(config: EncoderConfig) -> str:
    """As config.json holds it."""
    return json.dumps(described(config), indent=1) + "\n"
