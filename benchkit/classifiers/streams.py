"""Which examples each step of a fit sees, and its learning rate: a function of the fit's own rows and seed alone, so
that a head trained among others sees what it would see by itself."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64

from benchkit.classifiers.data import Split
from benchkit.classifiers.params import TrainParams
from benchkit.machine.seeds import Purpose, generator


@dataclass(frozen=True)
class Stream:
    """The minibatches of one subset and seed, for all heads that see the same ones.

    split: rows of the prepared features. heads: settings of each head; only learning rates and decays may differ.
    balance: what positives and negatives of each class count, where not all count alike.
    """

    split: Split
    seed: int
    heads: tuple[TrainParams, ...]
    balance: Float32[np.ndarray, "2 C"] | None = None
    prior: Float32[np.ndarray, " C"] | None = None
    """Added to the first biases of a net that has them by name."""

    @property
    def params(self) -> TrainParams:
        return self.heads[0]

    @cached_property
    def batch(self) -> int:
        return min(self.params.batch, len(self.split.train))

    @cached_property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(len(self.split.train), self.batch)
        return whole if self.params.drop_last or not rest else whole + 1

    @cached_property
    def steps(self) -> int:
        epochs = max(self.params.epochs, math.ceil(self.params.min_steps / self.steps_per_epoch))
        return epochs * self.steps_per_epoch

    @cached_property
    def _length(self) -> tuple[float, float]:
        """Steps of the schedule, and of its warm-up."""
        if self.params.schedule_of == "steps":
            return float(self.steps), self.params.warmup * self.steps
        epochs = self.steps // self.steps_per_epoch
        length = float(math.ceil(epochs * len(self.split.train) / self.batch))
        return length, float(math.ceil(self.params.warmup * length))

    def rate(self, step: int) -> float:
        """The learning rate at this step (from 0), as a part of its peak (from min_lr on, once it falls)."""
        length, warm = self._length
        at = step + (self.params.schedule_at == "end")
        if at < warm:
            return (step + 1) / (warm + 1) if self.params.schedule_at == "middle" else at / max(1.0, warm)
        if self.params.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (at - warm) / max(1.0, length - warm)))

    def floor(self, step: int) -> float:
        """What is added to it: min_lr, in as far as the rate has fallen from its peak."""
        warming = step + (self.params.schedule_at == "end") < self._length[1]
        return 0.0 if warming else self.params.min_lr * (1.0 - self.rate(step))

    def minibatches(self) -> Iterator[Int64[np.ndarray, " b"]]:
        """Rows, `batch` at a time (the last of an epoch may be fewer), in a new order each epoch; without end."""
        rng = generator(self.seed, Purpose.SHUFFLE)
        while True:
            order = self.split.train[rng.permutation(len(self.split.train))]
            for start in range(0, self.steps_per_epoch * self.batch, self.batch):
                yield order[start : start + self.batch]


def aligned(n: int) -> int:
    """`n` rounded up to whole cache lines of float32. Matrices in a batch then all start at one: a product's last bits
    depend on where its factors start, and those of a head must not depend on its place among others."""
    return -(-n // 16) * 16


def next_block(
    streams: Sequence[Iterator[Int64[np.ndarray, " b"]]], batch: int, steps: int
) -> tuple[Int64[np.ndarray, "k S B"], Float32[np.ndarray, "k S B"]]:
    """The next minibatches of all streams, and each example's weight in its minibatch's mean (0: it is padding)."""
    rows = np.zeros((steps, len(streams), aligned(batch)), np.int64)
    weights = np.zeros(rows.shape, np.float32)
    for s, stream in enumerate(streams):
        for k in range(steps):
            found = next(stream)
            rows[k, s, : len(found)] = found
            weights[k, s, : len(found)] = 1.0 / len(found)
    return rows, weights
