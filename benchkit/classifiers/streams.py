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
    """

    split: Split
    seed: int
    heads: tuple[TrainParams, ...]

    @property
    def params(self) -> TrainParams:
        return self.heads[0]

    @cached_property
    def batch(self) -> int:
        return min(self.params.batch, len(self.split.train))

    @cached_property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.split.train) / self.batch)

    @cached_property
    def steps(self) -> int:
        epochs = max(self.params.epochs, math.ceil(self.params.min_steps / self.steps_per_epoch))
        return epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """The learning rate at this step (from 0), as a part of its peak."""
        warm = self.params.warmup * self.steps
        if step < warm:
            return (step + 1) / (warm + 1)
        if self.params.schedule == "constant":
            return 1.0
        return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / (self.steps - warm)))

    def minibatches(self) -> Iterator[Int64[np.ndarray, " b"]]:
        """Rows, `batch` at a time (the last of an epoch may be fewer), in a new order each epoch; without end."""
        rng = generator(self.seed, Purpose.SHUFFLE)
        while True:
            order = self.split.train[rng.permutation(len(self.split.train))]
            for start in range(0, len(order), self.batch):
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
