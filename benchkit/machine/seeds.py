"""Where randomness comes from: one generator for each seed and purpose.

`np.random.default_rng(seed)` is what everybody plants data with, and numpy drops trailing zeros of a seed, so that
`default_rng([seed, 0])` is that very generator again: a probe that drew its first weights from either began, at the
same seed, at the class means that the data had been drawn with, and seemed to have learnt them. A stream here hangs on
a spawn key (numpy's SeedSequence) with a tag of benchkit's own and a purpose from 1: no seed, list of seeds or spawned
child that others use gives the same numbers, nor do two purposes, and changing one leaves the others as they are.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Generator

TAG = 0x62656E63
"""'benc': first word of every spawn key."""


class Purpose(IntEnum):
    """What a stream is for. Numbers are never given out again: each is part of every result that drew from it."""

    INIT = 1
    """A probe's first weights."""
    SHUFFLE = 2
    """The order of a probe's minibatches."""
    HOLDOUT = 3
    """Rows that a probe holds out to choose by."""
    PERMUTE = 4
    """Labels permuted for the check `shuffled`."""
    RANDOM_PROTOTYPES = 5
    KMEANS = 6
    SAE_INIT = 7
    SAE_HOLDOUT = 8
    ACTIVATIONS = 9
    """The order in which recorded activations are read; further keys: the use and the epoch."""
    RECORDED = 10
    """Which examples are recorded, where not all are."""
    REFERENCE = 11
    """Rows of the plain regression that a probe is compared with."""
    GRID = 12
    """Rows that a probe holds out to choose its learning rate and decay by."""
    WORTH = 13
    """Examples of a task that an autoencoder is measured on."""
    QUESTION = 14
    """What a question without a probe draws: its examples, and a clustering's first centres."""


def sequence(seed: int, purpose: Purpose, *further: int) -> np.random.SeedSequence:
    """Of the stream for `purpose` in what is seeded by `seed` (of a negative one: its value modulo 2^64).

    further: whole numbers from 0, for streams of one purpose that must differ, as of each epoch.
    """
    return np.random.SeedSequence(seed % 2**64, spawn_key=(TAG, int(purpose), *further))


def generator(seed: int, purpose: Purpose, *further: int) -> np.random.Generator:
    """numpy's generator of that stream."""
    return np.random.Generator(np.random.PCG64(sequence(seed, purpose, *further)))


def torch_generator(seed: int, purpose: Purpose, *further: int) -> "Generator":
    """torch's generator of that stream, on the CPU."""
    import torch

    state = int(sequence(seed, purpose, *further).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state % 2**63)
