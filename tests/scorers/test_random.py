"""Random prototypes: each activation of the stream as likely as any other, however it is cut into batches."""

from collections.abc import Iterator

import numpy as np
import pytest

from benchkit.errors import FitError
from benchkit.scorers.random import Random, RandomParams


def stream(n: int, batch: int) -> Iterator[np.ndarray]:
    everything = np.stack([np.arange(n), np.ones(n)], axis=1).astype(np.float32)
    yield from np.array_split(everything, range(batch, n, batch))


def drawn(seed: int, n: int = 30, k: int = 5, batch: int = 7) -> np.ndarray:
    scorer = Random(RandomParams(k=k))
    scorer.fit(stream(n, batch), seed=seed)
    return scorer.tensors()["prototypes"][:, 0].astype(int)


def test_every_activation_is_drawn_equally_often() -> None:
    counts = np.bincount(np.concatenate([drawn(seed) for seed in range(1200)]), minlength=30)
    assert counts.sum() == 6000
    assert abs(counts - 200).max() < 60  # the standard deviation is 13


def test_no_activation_is_drawn_twice_and_batches_do_not_matter() -> None:
    assert len(set(drawn(0))) == 5
    np.testing.assert_array_equal(drawn(3, batch=7), drawn(3, batch=30))


def test_scores_are_cosines_or_products() -> None:
    x = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    for similarity in ("cosine", "dot"):
        scorer = Random(RandomParams(k=4, similarity=similarity))
        scorer.fit(stream(9, 3), seed=0)
        prototypes = scorer.tensors()["prototypes"]
        expected = x @ prototypes.T
        if similarity == "cosine":
            expected /= np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(prototypes, axis=1)
        np.testing.assert_allclose(scorer(x), expected, rtol=1e-5)


def test_random_directions_have_unit_length() -> None:
    scorer = Random(RandomParams(k=50, variant="directions"))
    scorer.fit(stream(3, 3), seed=0)
    np.testing.assert_allclose(np.linalg.norm(scorer.tensors()["prototypes"], axis=1), 1, rtol=1e-6)


def test_too_few_activations_are_named() -> None:
    with pytest.raises(FitError, match="k=5 prototypes need as many activations, and there are 3: give k=3"):
        Random(RandomParams(k=5)).fit(stream(3, 2))
    with pytest.raises(FitError, match="no activations"):
        Random(RandomParams(k=5)).fit(iter([]))


def test_activations_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FitError, match="NaN or infinity"):
        Random(RandomParams(k=1)).fit(iter([np.full((2, 3), np.nan, np.float32)]))


@pytest.mark.parametrize("variant", ["activations", "directions"])
def test_two_seeds_draw_others_and_one_seed_the_same(variant: str) -> None:
    def made(seed: int) -> list[float]:
        scorer = Random(RandomParams(k=5, variant=variant))
        scorer.fit(stream(30, 7), seed=seed)
        return scorer.tensors()["prototypes"].ravel().tolist()

    assert made(0) == made(0)
    assert len({tuple(made(seed)) for seed in range(5)}) == 5


def test_random_directions_lie_evenly_around_0() -> None:
    scorer = Random(RandomParams(k=4000, variant="directions"))
    scorer.fit(stream(3, 3), seed=0)
    assert abs(scorer.tensors()["prototypes"].mean(axis=0)).max() < 0.05
