"""Streams of random numbers: one for each seed and purpose, and none that data is commonly planted with."""

import itertools

import numpy as np
import pytest

from benchkit.machine.seeds import Purpose, generator, torch_generator

PURPOSES = tuple(Purpose)


def head(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(rng.integers(0, 2**63, 4).tolist())


def test_numpy_drops_trailing_zeros_of_a_seed_which_is_why_purposes_begin_at_1() -> None:
    assert head(np.random.default_rng([7, 0])) == head(np.random.default_rng(7))
    assert min(Purpose) == 1


@pytest.mark.parametrize("seed", [0, 1, 7, 2**40, -3])
def test_no_stream_is_one_that_data_is_commonly_planted_with(seed: int) -> None:
    ours = {head(generator(seed, purpose)) for purpose in PURPOSES}
    assert len(ours) == len(PURPOSES)
    sources: list[np.random.SeedSequence | int | list[int]] = [
        *np.random.SeedSequence(seed % 2**64).spawn(20), seed % 2**64, [seed % 2**64],
    ]  # fmt: skip
    sources += [[seed % 2**64, *more] for more in itertools.product(range(20), range(2))]
    assert ours.isdisjoint(head(np.random.default_rng(source)) for source in sources)


def test_another_seed_purpose_or_further_key_is_another_stream_and_the_same_ones_are_the_same() -> None:
    keys = [(s, p, *f) for s in (0, 1) for p in (Purpose.INIT, Purpose.SHUFFLE) for f in ((), (0,), (1,), (0, 0))]
    assert len({head(generator(*key)) for key in keys}) == len(keys)
    assert head(generator(5, Purpose.INIT)) == head(generator(5, Purpose.INIT))


def test_torchs_generator_is_seeded_from_the_same_key() -> None:
    import torch

    def first(rng: torch.Generator) -> float:
        return float(torch.rand(1, generator=rng))

    assert first(torch_generator(3, Purpose.KMEANS)) == first(torch_generator(3, Purpose.KMEANS))
    assert first(torch_generator(3, Purpose.KMEANS)) != first(torch.Generator().manual_seed(3))
    assert first(torch_generator(3, Purpose.KMEANS)) != first(torch_generator(4, Purpose.KMEANS))
