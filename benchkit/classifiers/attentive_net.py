"""The attentive probe as a net (see nets.py). Shapes: G = S x L heads, B examples, T tokens, D features."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional as F

from benchkit.classifiers.nets import Weights
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

    def logits(self, w: Weights, x: Float[torch.Tensor, "S B T D"]) -> Float[torch.Tensor, "S L C B"]:
        lead = w["query"].shape[:2]
        w = {name: t.flatten(0, 1) for name, t in w.items()}
        n_examples = x.shape[1]
        x_gnd = x.flatten(1, 2)[:, None].expand(-1, lead[1], -1, -1).flatten(0, 1)
        for i in range(1, self.depth):
            qkv = _linear(w, f"block{i}.qkv", _norm(w, f"block{i}.norm1", x_gnd))
            x_gnd = x_gnd + _linear(w, f"block{i}.proj", self._attention(n_examples, *qkv.chunk(3, dim=2)))
            x_gnd = x_gnd + _mlp(w, f"block{i}", x_gnd)
        query_gbd = w["query"].expand(-1, n_examples, -1)
        kv = _linear(w, f"{CROSS}.kv", _norm(w, f"{CROSS}.norm1", x_gnd))
        q = _linear(w, f"{CROSS}.q", query_gbd)
        pooled_gbd = query_gbd + self._attention(n_examples, q, *kv.chunk(2, dim=2))
        pooled_gbd = pooled_gbd + _mlp(w, CROSS, pooled_gbd)
        return _linear(w, "head", pooled_gbd).transpose(1, 2).unflatten(0, lead)

    def _attention(
        self,
        n_examples: int,
        q: Float[torch.Tensor, "G n D"],
        k: Float[torch.Tensor, "G m D"],
        v: Float[torch.Tensor, "G m D"],
    ) -> Float[torch.Tensor, "G n D"]:
        """Of the queries of each example to its own keys. n and m: all examples' queries and keys in a row."""
        q_, k_, v_ = (
            z.unflatten(1, (n_examples, -1)).flatten(0, 1).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for z in (q, k, v)
        )
        return F.scaled_dot_product_attention(q_, k_, v_).transpose(1, 2).reshape(q.shape)

    def penalty(self, w: Weights) -> torch.Tensor | None:
        return None

    def rate(self, name: str, params: TrainParams) -> tuple[float, float]:
        """Weight decay is for matrices, as it is in V-JEPA 2: not for biases, norms and the query."""
        return params.lr, params.weight_decay if name.endswith(".weight") and ".norm" not in name else 0.0

    def floats(self, batch: int) -> int:
        blocks = (self.depth - 1) * (4 * self.dim + 2 * self.hidden) + 3 * self.dim + 2 * self.hidden
        a_token = (self.depth - 1) * (12 * self.dim + 3 * self.hidden) + 6 * self.dim
        return 5 * self.dim * blocks + batch * self.n_tokens * a_token

    def operations(self, batch: int) -> float:
        return 6.0 * batch * self.n_tokens * self.dim * ((self.depth - 1) * (4 * self.dim + 2 * self.hidden) + self.dim)


def _linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.baddbmm(w[f"{name}.bias"][:, None], x, w[f"{name}.weight"].transpose(1, 2))


def _norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:]) * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]


def _mlp(w: Weights, block: str, x: torch.Tensor) -> torch.Tensor:
    return _linear(w, f"{block}.fc2", F.gelu(_linear(w, f"{block}.fc1", _norm(w, f"{block}.norm2", x))))
