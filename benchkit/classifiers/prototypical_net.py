"""The prototypical probe as a net (see nets.py). Shapes: S streams, L heads, C classes, J prototypes of each, K of all,
B examples, T tokens, D features."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch.nn import functional as F

from benchkit.classifiers.nets import Weights, padding_of
from benchkit.classifiers.params import PrototypicalParams, TrainParams
from benchkit.classifiers.streams import aligned

_SIMILARITIES = 2**18
"""How many of one head's are held at a time: they should stay in the processor's cache until their largest is found."""
PPNET_EPS = 1e-4


@dataclass(frozen=True)
class PrototypicalNet:
    """A class's logit is its bias and the weighted sum of its prototypes' similarities, each the largest to any token;
    weights and similarities below 0 count as 0.

    given: rows and columns of the tokens as they come. grid: those of the tokens that are looked at, interpolated.
    """

    given: tuple[int, int]
    grid: tuple[int, int]
    dim: int
    n_classes: int
    n_prototypes: int
    orthogonality: float
    connection: float
    bias: float
    start: Literal["sphere", "uniform"] = "sphere"
    cosine: Literal["exact", "ppnet"] = "exact"

    @property
    def n_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Prototypes in directions uniform on the sphere, or uniform in a cube."""
        shape = (self.n_classes, self.n_prototypes, self.dim)
        prototypes = np.zeros((*shape[:2], aligned(self.dim)), np.float32)
        prototypes[:, :, : self.dim] = rng.standard_normal(shape) if self.start == "sphere" else rng.random(shape)
        return {
            "prototypes": prototypes,
            "connections": np.full((self.n_classes, self.n_prototypes), self.connection, np.float32),
            "bias": np.full(self.n_classes, self.bias, np.float32),
        }

    def logits(self, w: Weights, x: Float[torch.Tensor, "S B T D"]) -> Float[torch.Tensor, "S L C B"]:
        unit_skd = self._unit(w["prototypes"]).flatten(1, 3)
        step = max(1, _SIMILARITIES // (self.n_classes * self.n_prototypes * self.n_tokens))
        nearest_skb: torch.Tensor = _Nearest.apply(unit_skd, x, step)
        nearest_slcjb = F.relu(nearest_skb).unflatten(1, w["connections"].shape[1:])
        if self.cosine == "ppnet":
            nearest_slcjb = nearest_slcjb / 1.01
        weighted = F.relu(w["connections"])[..., None] * nearest_slcjb
        return weighted.sum(dim=3) + w["bias"][..., None]

    def form(self, x: Float[torch.Tensor, "n T D"]) -> Float[torch.Tensor, "n T2 D2"]:
        """As many tokens as are looked at, of length 1. In the place of padding stands the example's first real token:
        the largest similarity to any token is the same."""
        if (padding := padding_of(x)) is not None:
            first = (~padding).int().argmax(dim=1)
            x = torch.where(padding[..., None], x[torch.arange(len(x), device=x.device), first][:, None], x)
        x = self._interpolated(x)
        x = F.pad(x, (0, aligned(self.dim) - self.dim)) if aligned(self.dim) > self.dim else x
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        length = length.clamp_min_(1e-12) if self.cosine == "exact" else (length.square_() + PPNET_EPS).sqrt_()
        return x.div_(length)

    def _interpolated(self, x: Float[torch.Tensor, "n T D"]) -> Float[torch.Tensor, "n T2 D"]:
        if self.grid == self.given:
            return x
        # Strides say that a token's features lie together, which one example's shape leaves open: torch goes by it.
        (n, t, d), (r, c) = x.shape, self.given
        planes = x.contiguous().as_strided((n, d, r, c), (t * d, 1, c * d, d))
        return F.interpolate(planes, self.grid, mode="bilinear").flatten(2).transpose(1, 2)

    def penalty(self, w: Weights) -> Float[torch.Tensor, "S L"] | None:
        """How far from orthogonal each class's prototypes are: the norm of P P' - I of all classes, by its size."""
        if not self.orthogonality:
            return None
        unit = self._unit(w["prototypes"])
        gram = unit @ unit.transpose(-1, -2) - torch.eye(self.n_prototypes, device=unit.device)
        size = self.n_classes * self.n_prototypes**2
        return self.orthogonality * torch.linalg.vector_norm(gram.double().flatten(2), dim=2).float() / size

    def _unit(self, prototypes: torch.Tensor) -> torch.Tensor:
        within, beside = (0.0, 0.0) if self.cosine == "exact" else (PPNET_EPS, PPNET_EPS)
        made: torch.Tensor = _Unit.apply(prototypes, within, beside)
        return made

    def decayed(self, name: str, params: TrainParams) -> int | None:
        return None

    def shares(self, name: str) -> bool:
        return False

    def rate(self, name: str, params: TrainParams) -> tuple[float, float]:
        assert isinstance(params, PrototypicalParams)
        if name == "prototypes":
            return params.prototype_lr, params.weight_decay
        return params.lr, params.last_weight_decay

    def floats(self, batch: int) -> int:
        k = self.n_classes * self.n_prototypes
        return 6 * k * aligned(self.dim) + 3 * batch * self.n_tokens * self.dim + 2 * _SIMILARITIES + 4 * k * batch

    def operations(self, batch: int) -> float:
        return 2.0 * batch * self.n_classes * self.n_prototypes * self.n_tokens * self.dim

    def smallest_product(self, batch: int) -> int:
        return self.n_classes * self.n_prototypes * self.dim * min(self.n_prototypes, self.n_tokens)


class _Unit(torch.autograd.Function):
    """x / (sqrt(|x|^2 + within) + beside). Autograd's own gradient goes over all numbers twice as often."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, within: float, beside: float) -> torch.Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min_(1e-12)
        root = (length.square() + within).sqrt_() if within else length
        unit = x / (root + beside) if beside else x / root
        ctx.save_for_backward(unit, root)
        ctx.beside = beside
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (g,) = gradients
        unit, root = ctx.saved_tensors
        along = (g * unit).sum(dim=-1, keepdim=True)
        whole = root + ctx.beside if ctx.beside else root
        return torch.addcmul(g, unit, along * (whole / root), value=-1).div_(whole), None, None


class _Nearest(torch.autograd.Function):
    """The largest product of each prototype with any token of each example, [S, K, B].

    Its gradient reaches one token a prototype and example, so that the backward pass is no product with all tokens.
    """

    @staticmethod
    def forward(ctx: Any, p_skd: torch.Tensor, x_sbtd: torch.Tensor, step: int) -> torch.Tensor:
        s, k, b = *p_skd.shape[:2], x_sbtd.shape[1]
        values = torch.empty((s, k, b), device=p_skd.device)
        places = torch.empty((s, k, b), dtype=torch.int64, device=p_skd.device)
        # One stream at a time on a CPU: together they would not fit into its cache.
        together = 1 if p_skd.device.type == "cpu" else s
        for one in (slice(i, i + together) for i in range(0, s, together)):
            for start in range(0, b, step):
                part = x_sbtd[one, start : start + step]
                products = torch.bmm(p_skd[one], part.flatten(1, 2).transpose(1, 2)).unflatten(2, part.shape[1:3])
                place = _place_of_largest(products)
                places[one, :, start : start + step] = place
                values[one, :, start : start + step] = products.gather(3, place[..., None])[..., 0]
        ctx.save_for_backward(x_sbtd, places)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (g_skb,) = gradients
        x_sbtd, place_skb = ctx.saved_tensors
        s, b, t, d = x_sbtd.shape
        start_sb = torch.arange(s * b, device=x_sbtd.device).view(s, 1, b) * t
        # Each prototype's sum of the tokens nearest to it, weighted: what an embedding's bag is.
        found_kd = F.embedding_bag(
            (start_sb + place_skb).flatten(0, 1),
            x_sbtd.reshape(-1, d),
            mode="sum",
            per_sample_weights=g_skb.flatten(0, 1),
        )
        return found_kd.unflatten(0, g_skb.shape[:2]), None, None


def _place_of_largest(x: Float[torch.Tensor, "S K B T"]) -> Int64[torch.Tensor, "S K B"]:
    """By numpy on a CPU: torch compares one number after the other there."""
    return torch.from_numpy(x.numpy().argmax(axis=3)) if x.device.type == "cpu" else x.argmax(dim=3)
