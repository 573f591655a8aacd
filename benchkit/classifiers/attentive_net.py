"""The attentive probe as a net (see nets.py). Shapes: G = S x L heads, B examples, T tokens, D features."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional as F

from benchkit.classifiers.nets import Weights, padding_of
from benchkit.classifiers.params import TrainParams

CROSS = "cross"


@dataclass(frozen=True)
class AttentiveNet:
    """Pre-norm blocks as in a ViT; the query attends to the tokens through one of its own, without output projection.

    Initialised as V-JEPA 2's: normal weights, and in the layers that write into the residual stream smaller by
    sqrt(2 i) in block i.
    """

    n_tokens: int
    dim: int
    n_classes: int
    depth: int
    heads: int
    hidden: int
    init_std: float
    decays_all: bool = False

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        d, made = self.dim, {}

        def linear(name: str, fan_in: int, fan_out: int, smaller: float = 1.0) -> None:
            made[f"{name}.weight"] = rng.standard_normal((fan_out, fan_in), np.float32) * (self.init_std / smaller)
            made[f"{name}.bias"] = np.zeros(fan_out, np.float32)

        def norm(name: str) -> None:
            made[f"{name}.weight"], made[f"{name}.bias"] = np.ones(d, np.float32), np.zeros(d, np.float32)

        for i in range(1, self.depth):
            norm(f"block{i}.norm1")
            linear(f"block{i}.qkv", d, 3 * d)
            linear(f"block{i}.proj", d, d, (2 * i) ** 0.5)
            norm(f"block{i}.norm2")
            linear(f"block{i}.fc1", d, self.hidden)
            linear(f"block{i}.fc2", self.hidden, d, (2 * i) ** 0.5)
        made["query"] = rng.standard_normal((1, d), np.float32) * self.init_std
        norm(f"{CROSS}.norm1")
        linear(f"{CROSS}.q", d, d)
        linear(f"{CROSS}.kv", d, 2 * d)
        norm(f"{CROSS}.norm2")
        linear(f"{CROSS}.fc1", d, self.hidden)
        linear(f"{CROSS}.fc2", self.hidden, d, (2 * max(1, self.depth - 1)) ** 0.5)
        linear("head", d, self.n_classes)
        return {name: w.astype(np.float32, copy=False) for name, w in made.items()}

    def form(self, x: Float[torch.Tensor, "n T D"]) -> Float[torch.Tensor, "n T D"]:
        """Normalised as the first layer asks for, where no block comes before the query's."""
        return x if self.depth > 1 else F.layer_norm(x, x.shape[-1:])

    def logits(self, w: Weights, x: Float[torch.Tensor, "S B T D"]) -> Float[torch.Tensor, "S L C B"]:
        lead, n_examples = w["query"].shape[:2], x.shape[1]
        each = {name: t.flatten(0, 1) for name, t in w.items()}
        padding = padding_of(x)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)
        if self.depth > 1:  # from here on tokens are each head's own: as many streams, of one head
            x_gnd = x.flatten(1, 2)[:, None].expand(-1, lead[1], -1, -1).flatten(0, 1)
            if padding is not None:
                padding = padding[:, None].expand(-1, lead[1], -1, -1).flatten(0, 1)
            x = self._blocks(each, x_gnd, n_examples, padding).unflatten(1, (n_examples, -1))
            x = F.layer_norm(x, x.shape[-1:])
            w = {name: t[:, None] for name, t in each.items()}
        q_slad = _linear(each, f"{CROSS}.q", each["query"]).unflatten(0, w["query"].shape[:2])
        pooled_gbd = each["query"] + self._read(w, q_slad, x, padding).flatten(0, 1)
        pooled_gbd = pooled_gbd + _mlp(each, CROSS, pooled_gbd)
        return _linear(each, "head", pooled_gbd).transpose(1, 2).unflatten(0, lead)

    def _blocks(
        self, w: Weights, x_gnd: torch.Tensor, n_examples: int, padding: Bool[torch.Tensor, "G B T"] | None
    ) -> torch.Tensor:
        """The tokens behind all blocks but the last."""
        real = None if padding is None else ~padding.flatten(0, 1)[:, None, None]
        for i in range(1, self.depth):
            qkv = _linear(w, f"block{i}.qkv", _norm(w, f"block{i}.norm1", x_gnd))
            x_gnd = x_gnd + _linear(w, f"block{i}.proj", self._attention(n_examples, real, *qkv.chunk(3, dim=2)))
            x_gnd = x_gnd + _mlp(w, f"block{i}", x_gnd)
        return x_gnd

    def _read(
        self,
        w: Weights,
        q_slad: Float[torch.Tensor, "S L 1 D"],
        unit_sbtd: Float[torch.Tensor, "S B T D"],
        padding: Bool[torch.Tensor, "S B T"] | None,
    ) -> Float[torch.Tensor, "S L B D"]:
        """What the query's attention reads from the tokens, H parts of E features.

        There is one query, so that no token's key and value have to be computed. Query and key meet in a product: the
        query is carried back through the keys' layer instead, once for all tokens. Of the values only their mean by
        attention is used, which is the value of the tokens' mean. What is the same for all tokens (the keys' bias) has
        no part in a softmax. Of each token that leaves 2 H D multiplications instead of 2 D D, and the tokens
        themselves, normalised, are all heads' in common.
        """
        part = (self.heads, self.dim // self.heads)
        gain_sld, shift_sld = w[f"{CROSS}.norm1.weight"], w[f"{CROSS}.norm1.bias"]
        key_slhed, value_slhed = (z.unflatten(2, part) for z in w[f"{CROSS}.kv.weight"].chunk(2, dim=2))
        asked_slhd = (q_slad.unflatten(3, part).transpose(2, 3) @ key_slhed)[:, :, :, 0] * part[1] ** -0.5
        asked_skd = (asked_slhd * gain_sld[:, :, None]).flatten(1, 2)
        # Not `@`, which copies the tokens so that they lie as its result does.
        asked_skn = torch.bmm(asked_skd, unit_sbtd.flatten(1, 2).transpose(1, 2))
        asked_skbt = asked_skn.unflatten(2, unit_sbtd.shape[1:3])
        if padding is not None:
            asked_skbt = asked_skbt.masked_fill(padding[:, None], -torch.inf)
        weight_skbt = asked_skbt.softmax(dim=3)
        mean_slhbd = (weight_skbt.transpose(1, 2) @ unit_sbtd).transpose(1, 2).unflatten(1, asked_slhd.shape[1:3])
        mean_slhbd = mean_slhbd * gain_sld[:, :, None, None] + shift_sld[:, :, None, None]
        read_sldb = (value_slhed @ mean_slhbd.transpose(3, 4)).flatten(2, 3)
        return (read_sldb + w[f"{CROSS}.kv.bias"][:, :, self.dim :, None]).transpose(2, 3)

    def _attention(
        self,
        n_examples: int,
        real: Bool[torch.Tensor, "N 1 1 T"] | None,
        q: Float[torch.Tensor, "G n D"],
        k: Float[torch.Tensor, "G m D"],
        v: Float[torch.Tensor, "G m D"],
    ) -> Float[torch.Tensor, "G n D"]:
        """Of the queries of each example to its own keys. n and m: all examples' queries and keys in a row. real: which
        keys of each example there are, padding left out; None: all."""
        q_, k_, v_ = (
            z.unflatten(1, (n_examples, -1)).flatten(0, 1).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for z in (q, k, v)
        )
        return F.scaled_dot_product_attention(q_, k_, v_, real).transpose(1, 2).reshape(q.shape)

    def penalty(self, w: Weights) -> torch.Tensor | None:
        return None

    def rate(self, name: str, params: TrainParams) -> tuple[float, float]:
        """Weight decay is for matrices, not for biases, norms and the query, unless it is for all, as in V-JEPA 2."""
        matrix = name.endswith(".weight") and ".norm" not in name
        return params.lr, params.weight_decay if matrix or self.decays_all else 0.0

    def decayed(self, name: str, params: TrainParams) -> int | None:
        return None

    def shares(self, name: str) -> bool:
        return False

    def floats(self, batch: int) -> int:
        blocks = (self.depth - 1) * (4 * self.dim + 2 * self.hidden) + 4 * self.dim + 2 * self.hidden
        a_token = (self.depth - 1) * (12 * self.dim + 3 * self.hidden) + self.dim + 4 * self.heads
        return 5 * self.dim * blocks + batch * (self.n_tokens * a_token + (6 + 3 * self.heads) * self.dim)

    def operations(self, batch: int) -> float:
        a_token = 6 * (self.depth - 1) * (4 * self.dim + 2 * self.hidden) + 8 * self.heads
        an_example = 6 * (self.dim + 2 * self.hidden)
        return float(self.dim) * (batch * (self.n_tokens * a_token + an_example) + 6 * 2 * self.dim)

    def smallest_product(self, batch: int) -> int:
        return self.dim * min(self.dim, batch * self.n_classes)


def _linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = _Linear.apply(w[f"{name}.weight"], w[f"{name}.bias"], x)
    return made


class _Linear(torch.autograd.Function):
    """x W' + b for each head. Autograd's own gradient of W comes transposed, and turning it round takes as long as
    everything else where the examples are few and the layer is wide."""

    @staticmethod
    def forward(ctx: Any, w_ged: torch.Tensor, b_ge: torch.Tensor, x_gnd: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(w_ged, x_gnd)
        return torch.baddbmm(b_ge[:, None], x_gnd, w_ged.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (g_gne,) = gradients
        w_ged, x_gnd = ctx.saved_tensors
        g_gnd = torch.bmm(g_gne, w_ged) if ctx.needs_input_grad[2] else None
        return torch.bmm(g_gne.transpose(1, 2), x_gnd), g_gne.sum(dim=1), g_gnd


def _norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:]) * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]


def _mlp(w: Weights, block: str, x: torch.Tensor) -> torch.Tensor:
    return _linear(w, f"{block}.fc2", F.gelu(_linear(w, f"{block}.fc1", _norm(w, f"{block}.norm2", x))))
