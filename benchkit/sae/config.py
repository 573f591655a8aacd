"""What is trained: one autoencoder's settings, and those that all of a training share."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchkit.catalog.params import format_value
from benchkit.errors import BenchkitError

Activation = Literal["relu", "topk", "batchtopk"]
Normalisation = Literal["none", "dimension", "layernorm", "whiten"]
Decay = Literal["constant", "cosine", "linear"]


@dataclass(frozen=True)
class SAEConfig:
    """One autoencoder.

    width: units. k: active units a vector (topk; batchtopk: on average over a batch). l1: weight of the L1 penalty
    (relu). lr: the highest learning rate.
    """

    activation: Activation
    width: int
    normalise: Normalisation
    k: int | None = None
    l1: float | None = None
    lr: float = 3e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1:
            raise BenchkitError(f"--width {self.width} is no number of units")
        if self.k is not None and not 1 <= self.k <= self.width:
            raise BenchkitError(f"--k {self.k} is no number of active units, of {self.width}")
        if self.l1 is not None and not 0 <= self.l1 < math.inf:
            raise BenchkitError(f"--l1 {self.l1} is no weight: give 0 or more")
        if not 0 < self.lr <= 1e30:
            raise BenchkitError(f"--lr {self.lr} is no learning rate")

    @property
    def name(self) -> str:
        """As in topk-w1024-k32-layernorm-lr0.0003-s0: its file's name."""
        sparsity = f"k{self.k}" if self.k is not None else f"l1_{format_value(self.l1)}"
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

    def __post_init__(self) -> None:
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
) -> tuple[SAEConfig, ...]:
    """Every combination, each once; k is for topk and batchtopk alone, l1 for relu alone.

    Raises BenchkitError where an activation lacks its sparsity, or a sparsity its activation.
    """
    relu, top = "relu" in activation, any(a != "relu" for a in activation)
    if relu and not l1:
        raise BenchkitError("--activation relu needs --l1, the weight of its penalty, as in --l1 0.5")
    if top and not k:
        raise BenchkitError("--activation topk and batchtopk need --k, the number of active units, as in --k 32")
    if l1 and not relu:
        raise BenchkitError("--l1 is of --activation relu, which is not asked for")
    if k and not top:
        raise BenchkitError("--k is of --activation topk and batchtopk, which are not asked for")
    made: dict[SAEConfig, None] = {}
    for a, w, n, rate, s in itertools.product(activation, width, normalise, lr, seed):
        if a == "relu":
            made |= dict.fromkeys(SAEConfig(a, w, n, None, weight, rate, s) for weight in l1)
        else:
            made |= dict.fromkeys(SAEConfig(a, w, n, number, None, rate, s) for number in k)
    return tuple(made)


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
