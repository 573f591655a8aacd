"""Attentive pooling as a net (see nets.py). Shapes: S streams, L heads trained, H attention heads of E features, B
examples, T tokens, D features."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from benchkit.classifiers.nets import Weights, padding_of, torch_linear
from benchkit.classifiers.params import TrainParams


@dataclass(frozen=True)
class AttentivePoolNet:
    """The mean of the tokens' values, weighted by how well their keys answer a query, head by head. First weights are
    those of torch's nn.Linear, the query's normal."""

    n_tokens: int
    dim: int
    n_classes: int
    heads: int
    init_std: float

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        d = self.dim
        key, value = (torch_linear(rng, d, d, d + 1)[:, :d] for _ in range(2))
        return {
            "key": np.ascontiguousarray(key),
            "value": np.ascontiguousarray(value),
            "query": (self.init_std * rng.standard_normal((1, d))).astype(np.float32),
            "head": torch_linear(rng, d, self.n_classes, d + 1),
        }

    def form(self, x: Float[torch.Tensor, "n T D"]) -> Float[torch.Tensor, "n T D"]:
        return x

    def logits(self, w: Weights, x: Float[torch.Tensor, "S B T D"]) -> Float[torch.Tensor, "S L C B"]:
        """One query asks all tokens, so that it is carried back through the keys' layer once, and the tokens' mean by
        attention forward through the values': no token's own key and value are computed."""
        padding = padding_of(x)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0.0)
        part = (self.heads, self.dim // self.heads)
        query_slhe = w["query"][:, :, 0].unflatten(2, part)
        key_slhed, value_slhed = (w[name].unflatten(2, part) for name in ("key", "value"))
        asked_slhd = (query_slhe[:, :, :, None] @ key_slhed)[:, :, :, 0] / math.sqrt(part[1])
        asked_skn = torch.bmm(asked_slhd.flatten(1, 2), x.flatten(1, 2).transpose(1, 2))
        asked_skbt = asked_skn.unflatten(2, x.shape[1:3])
        if padding is not None:
            asked_skbt = asked_skbt.masked_fill(padding[:, None], -torch.inf)
        mean_skbd = (asked_skbt.softmax(dim=3).transpose(1, 2) @ x).transpose(1, 2)
        mean_slhbd = mean_skbd.unflatten(1, asked_slhd.shape[1:3])
        pooled_sldb = (value_slhed @ mean_slhbd.transpose(3, 4)).flatten(2, 3)
        return w["head"][..., : self.dim] @ pooled_sldb + w["head"][..., self.dim :]

    def penalty(self, w: Weights) -> torch.Tensor | None:
        return None

    def decayed(self, name: str, params: TrainParams) -> int | None:
        return None

    def shares(self, name: str) -> bool:
        return False

    def rate(self, name: str, params: TrainParams) -> tuple[float, float]:
        return params.lr, params.weight_decay

    def floats(self, batch: int) -> int:
        return 10 * self.dim**2 + batch * (self.n_tokens * (self.dim + 4 * self.heads) + 3 * self.heads * self.dim)

    def operations(self, batch: int) -> float:
        return float(self.dim) * (batch * (8 * self.n_tokens * self.heads + 6 * self.dim) + 6 * self.dim)

    def smallest_product(self, batch: int) -> int:
        return self.dim * min(self.dim, batch * self.n_classes)
