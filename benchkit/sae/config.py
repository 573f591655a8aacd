"""What is trained: one autoencoder's settings, and those that all of a training share."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchkit.catalog.params import format_value
from benchkit.errors import BenchkitError

Activation = Literal["relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"]
Precision = Literal["float32", "tf32", "bfloat16"]
SPARSITY: dict[str, str] = {
    "relu": "l1", "gated": "l1", "jumprelu": "l0", "topk": "k", "batchtopk": "k", "matryoshka": "k",
}  # fmt: skip
"""What sets how few units are active: the option of each activation."""
NESTED = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the width at which matryoshka's inner autoencoders end, where the user says nothing."""
Normalisation = Literal["none", "dimension", "layernorm", "whiten", "standardise", "rescale"]
"""The last two are of autoencoders that others published."""
Decay = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class SAEConfig:
    """One autoencoder.

    width: units. k: active units a vector (topk; batchtopk and matryoshka: on average over a batch). l1: weight of the
    L1 penalty (relu, gated). l0: weight of the number of active units (jumprelu). lr: the highest learning rate.
    """

    activation: Activation
    width: int
    normalise: Normalisation
    k: int | None = None
    l1: float | None = None
    lr: float = 3e-4
    seed: int = 0
    l0: float | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise BenchkitError(f"--width {self.width} is no number of units")
        if self.k is not None and not 1 <= self.k <= self.width:
            raise BenchkitError(f"--k {self.k} is no number of active units, of {self.width}")
        if self.l1 is not None and not 0 <= self.l1 < math.inf:
            raise BenchkitError(f"--l1 {self.l1} is no weight: give 0 or more")
        if self.l0 is not None and not 0 <= self.l0 < math.inf:
            raise BenchkitError(f"--l0 {self.l0} is no weight: give 0 or more")
        if not 0 < self.lr <= 1e30:
            raise BenchkitError(f"--lr {self.lr} is no learning rate")

    @property
    def name(self) -> str:
        """As in topk-w1024-k32-layernorm-lr0.0003-s0: its file's name."""
        by = SPARSITY[self.activation]
        weight = getattr(self, by)
        sparsity = f"k{self.k}" if by == "k" else f"{by}_{'unknown' if weight is None else format_value(weight)}"
        return f"{self.activation}-w{self.width}-{sparsity}-{self.normalise}-lr{format_value(self.lr)}-s{self.seed}"


@dataclass(frozen=True)
class TrainConfig:
    """What the autoencoders that are trained side by side share.

    epochs: passes over the recording; steps, where given, ends training there. warmup: share of all steps in which the
    learning rate rises from 0. decay: of the learning rate, after that, down to 0. l1_warmup: share of all steps in
    which the L1 weight rises from 0. aux: weight of the auxiliary loss. aux_k: units it uses; None is half the
    dimension. dead_after: vectors without firing after which a unit is dead for it; None is a fifth of all that will be
    seen, but 10 million (Gao et al. 2024) at most. clip: of the gradient's norm. patches: leave class tokens and
    registers out. held_out: share of the examples that the result is measured on and that are not trained on; None is
    5 % where there are 20 examples, else none of them. seed: of the order of the vectors, and of what is held out.
    bandwidth: of jumprelu's pseudo-derivative. nested: shares of the width at which matryoshka's inner autoencoders
    end. precision: of matrix products; weights, sums and all that is measured are float32.
    """

    batch_size: int = 4096
    epochs: int = 1
    steps: int | None = None
    warmup: float = 0.05
    decay: Decay = "linear"
    l1_warmup: float = 0.05
    aux: float = 1 / 32
    aux_k: int | None = None
    dead_after: int | None = None
    clip: float | None = None
    patches: bool = True
    seed: int = 0
    held_out: float | None = None
    bandwidth: float = 0.05
    nested: tuple[float, ...] = NESTED
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if not self.bandwidth > 0:
            raise BenchkitError(f"--bandwidth {self.bandwidth} is no width: give more than 0")
        if list(self.nested) != sorted(set(self.nested)) or not all(0 < share < 1 for share in self.nested):
            shares = ", ".join(format_value(share) for share in self.nested)
            raise BenchkitError(f"--nested {shares}: give rising shares of the width between 0 and 1")
        for name in ("batch_size", "epochs", "steps", "aux_k", "dead_after"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise BenchkitError(f"--{name.replace('_', '-')} {value} is too few: give 1 or more")
        if not 0 <= self.aux < math.inf:
            raise BenchkitError(f"--aux {self.aux} is no weight: give 0 or more")
        if self.clip is not None and not self.clip > 0:
            raise BenchkitError(f"--clip {self.clip} is no norm of a gradient: give more than 0")
        if self.held_out is not None and not 0 <= self.held_out < 1:
            raise BenchkitError(f"--held-out {self.held_out} is no share of the examples: give 0 to less than 1")
        for name in ("warmup", "l1_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise BenchkitError(
                    f"--{name.replace('_', '-')} {getattr(self, name)} is no share of the steps: 0 to 1"
                )

    def to_record(self) -> dict[str, Any]:
        return asdict(self)


def product(
    activation: Sequence[Activation],
    width: Sequence[int],
    k: Sequence[int],
    l1: Sequence[float],
    normalise: Sequence[Normalisation],
    lr: Sequence[float],
    seed: Sequence[int],
    l0: Sequence[float] = (),
) -> tuple[SAEConfig, ...]:
    """Every combination, each once; k, l1 and l0 are for the activations that SPARSITY says.

    Raises BenchkitError where an activation lacks its sparsity, or a sparsity its activation.
    """
    given: dict[str, Sequence[Any]] = {"k": k, "l1": l1, "l0": l0}
    example = {"k": "the number of active units, as in --k 32", "l1": "the weight of its penalty, as in --l1 0.5",
               "l0": "the weight of the number of active units, as in --l0 0.01"}  # fmt: skip
    for by, values in given.items():
        wanting = [a for a in activation if SPARSITY[a] == by]
        if wanting and not values:
            raise BenchkitError(f"--activation {wanting[0]} needs --{by}, {example[by]}")
        if values and not wanting:
            whose = [a for a, its in SPARSITY.items() if its == by]
            of = whose[0] if len(whose) == 1 else f"{', '.join(whose[:-1])} and {whose[-1]}"
            asked = "is not asked for" if len(whose) == 1 else "are not asked for"
            raise BenchkitError(f"--{by} is of --activation {of}, which {asked}")
    made: dict[SAEConfig, None] = {}
    for a, w, n, rate, s in itertools.product(activation, width, normalise, lr, seed):
        by = SPARSITY[a]
        made |= dict.fromkeys(SAEConfig(a, w, n, lr=rate, seed=s, **{by: value}) for value in given[by])
    return tuple(made)


def nested_widths(width: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Where matryoshka's autoencoders end, the whole one last; each has a unit more than the one before, at least."""
    ends: list[int] = []
    for share in shares:
        end = max(1, round(share * width))
        if (not ends or end > ends[-1]) and end < width:
            ends.append(end)
    return (*ends, width)


def scale_at(step: int, steps: int, warmup: float, decay: Decay) -> float:
    """The learning rate of a step (from 0) as a share of the highest.

    It rises linearly over the first `warmup` share of the steps, and then falls to 0, along a line or half a cosine, or
    stays.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if decay == "constant":
        return 1.0
    passed = (step - rising) / max(1, steps - rising)
    return 1 - passed if decay == "linear" else 0.5 * (1 + math.cos(math.pi * passed))


def l1_scale_at(step: int, steps: int, warmup: float) -> float:
    """The L1 weight of a step (from 0) as a share of the full one."""
    rising = round(warmup * steps)
    return min(1.0, (step + 1) / rising) if rising else 1.0
