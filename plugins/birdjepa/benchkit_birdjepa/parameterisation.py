"""How first weights, outputs and rates change with the width: as the standard parameterisation has it, or muP.

muP (arXiv 2203.03466; microsoft/mup): at the base width both are the same to the bit; with m = width / base width

| parameter | first spread | Adam's rate | decay | forward |
|---|---|---|---|---|
| patch embedding, positions, tokens | of the base | 1 | 1 | |
| matrices of the encoder's blocks | / sqrt(m) | / m | * m, so that rate times decay stays | |
| biases, norms, layer scales | of the base | 1 | 0 | |
| what first reads the encoder's output in an objective | of the base | 1 | 1 | * 1 / m |

Adam's eps falls as 1 / m everywhere. Attention's logits are divided by head_dim * base_head_dim^-0.5 where heads grow.
Muon: with Keller Jordan's scale, sqrt(max(1, rows / columns)), an update already has muP's spectral norm and the rate
stays; with Moonlight's, 0.2 * sqrt(max(rows, columns)), it falls as 1 / sqrt(m). Depth, where base_depth is given
(CompleteP, arXiv 2505.01618): what blocks add is multiplied by base_depth / depth, and so is the eps of their matrices.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from benchkit import param
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.parameters import Named, draw

OptimiserName = Literal["adamw", "muon"]
MuonScale = Literal["keller", "moonlight"]


@dataclass(frozen=True)
class Factors:
    """What the rate, the decay and Adam's eps of one parameter are multiplied by."""

    rate: float = 1.0
    decay: float = 1.0
    eps: float = 1.0


@dataclass(frozen=True)
class Parameterisation:
    kind: Literal["standard", "mup"] = param("standard", help="how rates and first weights change with the width")
    base_width: int = param(64, low=1, help="of muP: where it is the standard parameterisation, and rates are found")
    base_head_dim: int = param(0, low=0, help="of muP: head width at the base; 0: heads keep their width")
    base_depth: int = param(0, low=0, help="of muP: depth at the base; 0: depth changes nothing")
    init: Literal["constant", "fan_in"] = param("constant", help="spread of matrices: init_std, or 1 / sqrt(inputs)")
    init_std: float = param(0.02, low=0, help="standard deviation of first weights, and of tokens and positions")

    def width_ratio(self, config: EncoderConfig) -> float:
        """m; 1 for the standard parameterisation."""
        return config.embed_dim / self.base_width if self.kind == "mup" else 1.0

    def _depth_ratio(self, config: EncoderConfig) -> float:
        return self.base_depth / config.depth if self.kind == "mup" and self.base_depth else 1.0

    def scaled(self, config: EncoderConfig) -> EncoderConfig:
        """The encoder with muP's factors in its forward pass, which its config.json keeps."""
        if self.kind == "standard":
            return config
        grown = self.base_head_dim not in (0, config.head_dim)
        scale = math.sqrt(self.base_head_dim) / config.head_dim if grown else config.attention_scale
        return replace(config, attention_scale=scale, residual_scale=config.residual_scale * self._depth_ratio(config))

    def readout(self, config: EncoderConfig) -> float:
        """What a product with the encoder's output is multiplied by."""
        return 1 / self.width_ratio(config)

    def read_std(self, config: EncoderConfig) -> float:
        """Of the first weights of such a product: that of the base width."""
        if self.init == "constant":
            return self.init_std
        return (config.embed_dim / self.width_ratio(config)) ** -0.5

    def std(self, name: str, shape: tuple[int, ...], config: EncoderConfig) -> float:
        """Of the first values of one of the encoder's matrices, [out, in], tokens or positions."""
        matrix = name.endswith(".weight")
        if not matrix:
            return self.init_std
        ratio = self.width_ratio(config) if is_hidden(name) else 1.0
        base = self.init_std if self.init == "constant" else (shape[-1] / ratio) ** -0.5
        return base / math.sqrt(ratio)

    def draw(self, config: EncoderConfig, seed: int) -> Named:
        """The encoder's first weights."""
        return draw(config, seed, lambda name, shape: self.std(name, shape, config))

    def factors(self, name: str, config: EncoderConfig, optimiser: OptimiserName, scale: MuonScale) -> Factors:
        """optimiser: the one that this parameter has. scale: Muon's."""
        m = self.width_ratio(config)
        if not is_hidden(name):
            return Factors(eps=1 / m)
        if optimiser == "muon":
            slower = math.sqrt(m) if scale == "moonlight" else 1.0
            return Factors(1 / slower, slower)
        return Factors(1 / m, m, self._depth_ratio(config) / m)


def is_hidden(name: str) -> bool:
    """Whether it is a matrix of one of the encoder's blocks, by its name alone: `blocks.attn.qkv.weight`, stacked or
    not. Both sides of it are as wide as the encoder."""
    return name.startswith("blocks.") and is_matrix(name)


def is_matrix(name: str) -> bool:
    """Whether it is the weight of a linear layer, of the patches' too: no norm, bias, layer scale, token, position."""
    layer, _, last = name.rpartition(".")
    return last == "weight" and "norm" not in layer.rpartition(".")[2]
