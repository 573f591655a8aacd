"""Probes as functions of stacked weights: every tensor begins [S, L, ...], for S minibatch streams and L heads each.

All heads of a stream see the same minibatch, so that one matrix product serves them. Pooled features come with a one as
their last feature, whose weights are the bias, and are padded with zeros to whole cache lines (`aligned`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch.nn import functional as F

from benchkit.classifiers.params import LinearParams, TrainParams
from benchkit.classifiers.streams import aligned

Weights = Mapping[str, torch.Tensor]


@runtime_checkable
class Net(Protocol):
    """What the trainer has to know of a probe."""

    @property
    def n_classes(self) -> int: ...

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """First weights of one head."""

    def logits(self, w: Weights, x: torch.Tensor) -> torch.Tensor:
        """[S, L, C, B] from minibatches [S, B, ...] (of tokens: in their `form`)."""

    def penalty(self, w: Weights) -> torch.Tensor | None:
        """What is added to each head's loss, [S, L], if anything."""

    def rate(self, name: str, params: TrainParams) -> tuple[float, float]:
        """Peak learning rate and weight decay of the tensor of this name."""

    def decayed(self, name: str, params: TrainParams) -> int | None:
        """How many columns of that tensor decay, the others being biases; None: all."""

    def shares(self, name: str) -> bool:
        """Whether AdamW divides all weights of a row of that tensor by one number, the gradient's mean square."""

    def floats(self, batch: int) -> int:
        """About how many numbers one head's training step keeps in memory, for so many examples."""

    def operations(self, batch: int) -> float:
        """About how many multiplications and additions one head's training step takes."""

    def smallest_product(self, batch: int) -> int:
        """How many multiplications the smallest matrix product of one head takes, for so many examples."""


@runtime_checkable
class TokenNet(Net, Protocol):
    """Of a probe on tokens."""

    def form(self, x: torch.Tensor) -> torch.Tensor:
        """What no weight changes: normalised tokens [n, T, D] as `logits` takes them, [n, T2, D2]. May change `x`.

        A token that is padding is a row of NaN, and must have no part in the logits."""


def padding_of(x: Float[torch.Tensor, "*n T D"]) -> Bool[torch.Tensor, "*n T"] | None:
    """Which tokens are padding, rows of NaN; None where none is."""
    padding = x[..., 0].isnan()
    return padding if padding.any() else None


class _Pooled:
    """What both probes on pooled features share."""

    def penalty(self, w: Weights) -> torch.Tensor | None:
        return None

    def rate(self, name: str, params: TrainParams) -> tuple[float, float]:
        return params.lr, params.weight_decay

    def decayed(self, name: str, params: TrainParams) -> int | None:
        return None

    def shares(self, name: str) -> bool:
        return False


WIDE = 4096
"""Features from which on a class's weights share their second moment. Adam moves each weight by the same length, and so
leaves a direction that has all signs right and no sizes: where features are many more than examples, noise then counts
as much as what tells classes apart. First weights are smaller there too, for their noise in the logits grows."""


def torch_linear(rng: np.random.Generator, fan_in: int, fan_out: int, columns: int) -> np.ndarray:
    """First weights as torch's nn.Linear has them, uniform within 1 / sqrt(fan_in), the bias behind the weights."""
    bound = 1.0 / math.sqrt(fan_in)
    made = np.zeros((fan_out, columns), np.float32)
    made[:, : fan_in + 1] = rng.uniform(-bound, bound, (fan_out, fan_in + 1))
    return made


@dataclass(frozen=True)
class LinearNet(_Pooled):
    """One linear layer. Weights start from a normal distribution and biases from 0, or both as torch's nn.Linear."""

    dim: int
    n_classes: int
    init_std: float
    as_torch: bool = False

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        columns = aligned(self.dim + 1)
        if self.as_torch:
            return {"weight": torch_linear(rng, self.dim, self.n_classes, columns)}
        weight = np.zeros((self.n_classes, columns), np.float32)
        std = self.init_std * min(1.0, WIDE / self.dim)
        weight[:, : self.dim] = std * rng.standard_normal((self.n_classes, self.dim))
        return {"weight": weight}

    def shares(self, name: str) -> bool:
        return self.dim > WIDE

    def decayed(self, name: str, params: TrainParams) -> int | None:
        return self.dim if isinstance(params, LinearParams) and params.decay == "matrices" else None

    def logits(self, w: Weights, x: Float[torch.Tensor, "S B D1"]) -> Float[torch.Tensor, "S L C B"]:
        return torch.bmm(w["weight"].flatten(1, 2), x.transpose(1, 2)).unflatten(1, (-1, self.n_classes))

    def floats(self, batch: int) -> int:
        return 4 * self.n_classes * (self.dim + 1) + batch * (self.dim + 4 * self.n_classes)

    def operations(self, batch: int) -> float:
        return 4.0 * batch * self.n_classes * self.dim

    def smallest_product(self, batch: int) -> int:
        return batch * self.n_classes * self.dim


@dataclass(frozen=True)
class MLPNet(_Pooled):
    """Linear layers with an activation between them, initialised as torch's nn.Linear is."""

    sizes: tuple[int, ...]
    """Of the features, the hidden layers and the classes."""
    activation: Literal["gelu", "relu"]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"layer{i}" for i in range(len(self.sizes) - 1))

    @property
    def n_classes(self) -> int:
        return self.sizes[-1]

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        made = {}
        for name, fan_in, fan_out in zip(self.names, self.sizes[:-1], self.sizes[1:], strict=True):
            made[name] = torch_linear(rng, fan_in, fan_out, aligned(fan_in + 1))
        return made

    def logits(self, w: Weights, x: Float[torch.Tensor, "S B D1"]) -> Float[torch.Tensor, "S L C B"]:
        first = w[self.names[0]]
        hidden = torch.bmm(first.flatten(1, 2), x.transpose(1, 2)).unflatten(1, first.shape[1:3]).flatten(0, 1)
        for name, size in zip(self.names[1:], self.sizes[1:-1], strict=True):
            weight = w[name].flatten(0, 1)
            hidden = F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden)
            hidden = torch.baddbmm(weight[:, :, size : size + 1], weight[:, :, :size], hidden)
        return hidden.unflatten(0, first.shape[:2])

    def floats(self, batch: int) -> int:
        weights = sum((a + 1) * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True))
        return 4 * weights + batch * 4 * sum(self.sizes)

    def operations(self, batch: int) -> float:
        return 6.0 * batch * sum(a * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    def smallest_product(self, batch: int) -> int:
        return batch * min(a * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True))
