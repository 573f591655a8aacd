"""k-means centres, against scikit-learn."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus

from benchkit.errors import FitError
from benchkit.scorers import kmeans
from benchkit.scorers.kmeans import KMeans, KMeansParams, assign, plus_plus, step
from benchkit.scorers.prototypes import similarities


def blobs(n: int = 12_000, k: int = 20, dim: int = 6, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((k, dim))
    return (centres[rng.integers(0, k, n)] + rng.standard_normal((n, dim)) + offset).astype(np.float32)


def stream(x: np.ndarray, size: int = 500) -> Iterator[np.ndarray]:
    yield from (x[i : i + size] for i in range(0, len(x), size))


def inertia(x: np.ndarray, centres: np.ndarray) -> float:
    wide = x.astype(np.float64)
    return float(((wide[:, None] - centres[None]) ** 2).sum(-1).min(1).mean())


def fitted(x: np.ndarray, **given) -> KMeans:
    scorer = KMeans(KMeansParams(**given))
    scorer.fit(stream(x), seed=0)
    return scorer


@pytest.mark.parametrize("offset", [0.0, 500.0])
def test_centres_are_as_good_as_those_of_scikit_learn(offset: float) -> None:
    x = blobs(offset=offset)
    ours = inertia(x, fitted(x, k=40).tensors()["prototypes"])
    theirs = MiniBatchKMeans(40, batch_size=500, n_init=1, max_iter=1, random_state=0).fit(x.astype(np.float64))
    assert ours < 1.03 * inertia(x, theirs.cluster_centers_)
    best = Reference(40, n_init=3, random_state=0).fit(x.astype(np.float64))
    assert ours < 1.10 * inertia(x, best.cluster_centers_)


def test_a_centre_is_the_running_mean_of_what_was_assigned_to_it() -> None:
    rng = np.random.default_rng(1)
    centres, counts = torch.tensor([[0.0, 0.0], [10.0, 10.0]]), torch.zeros(2)
    near = rng.normal(0, 0.1, (3, 30, 2)).astype(np.float32)
    for part in near:
        step(torch.from_numpy(part), centres, counts, None)
    np.testing.assert_allclose(centres[0].numpy(), near.reshape(-1, 2).mean(axis=0), atol=1e-6)
    assert centres[1].tolist() == [10, 10]
    assert counts.tolist() == [90, 0]


def test_a_centre_that_nothing_is_assigned_to_gets_a_new_place() -> None:
    x = torch.from_numpy(blobs(400, k=4))
    centres, counts = torch.cat([x[:3], torch.full((1, 6), 1e3)]), torch.zeros(4)
    step(x, centres, counts, torch.Generator().manual_seed(0))
    assert abs(centres).max() < 100
    assert counts.min() > 0


def test_seeds_are_vectors_spread_over_the_groups() -> None:
    x = np.concatenate([np.full((n, 2), c, np.float32) for n, c in ((5000, 0), (5, 10), (5, 20))])
    seeds = plus_plus(torch.from_numpy(x), 3, torch.Generator().manual_seed(0))
    assert sorted(seeds[:, 0].tolist()) == [0, 10, 20]


def test_seeds_are_drawn_with_the_chances_of_drawing_one_after_another() -> None:
    """Of six vectors, each ordered choice of three as often as k-means++ makes it; candidates come 16 at a time."""
    x = np.array([[0, 0], [1, 0], [0, 2], [5, 5], [6, 5], [-4, 3]], np.float32)
    squares = ((x[:, None].astype(float) - x[None]) ** 2).sum(-1)
    chance = np.zeros((6, 6, 6))
    for a, b in itertools.permutations(range(6), 2):
        second = squares[a] / squares[a].sum()
        third = np.minimum(squares[a], squares[b])
        chance[a, b] = second[b] / 6 * third / third.sum()
    assert chance.sum() == pytest.approx(1)
    n, found, generator = 1500, np.zeros((6, 6, 6)), torch.Generator().manual_seed(0)
    rows = {tuple(row): i for i, row in enumerate(x.tolist())}
    for _ in range(n):
        found[tuple(rows[tuple(s)] for s in plus_plus(torch.from_numpy(x), 3, generator).tolist())] += 1
    assert (found[chance == 0] == 0).all()
    likely = chance > 5 / n
    spread = np.sqrt(n * chance * (1 - chance))[likely]
    assert (abs(found - n * chance)[likely] < 4.5 * spread).all()
    assert ((found - n * chance)[likely] ** 2 / (n * chance[likely])).sum() < 1.5 * likely.sum()


def test_many_seeds_are_found_in_few_passes_and_are_as_good_as_those_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = blobs(3000, k=300)
    passes: list[int] = []

    def counted(x: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        passes.append(len(centres))
        return assign(x, centres)

    monkeypatch.setattr("benchkit.scorers.kmeans.assign", counted)
    k = 600
    made = [plus_plus(torch.from_numpy(x), k, torch.Generator().manual_seed(seed)).numpy() for seed in (0, 0, 1)]
    assert len(passes) < 3 * 40
    assert sum(passes) == 3 * k
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()
    assert len(np.unique(made[0], axis=0)) == k
    theirs = [kmeans_plusplus(x, k, random_state=seed, n_local_trials=1)[0] for seed in range(3)]
    ours = [made[0], made[2]]
    assert np.mean([inertia(x, c) for c in ours]) < 1.03 * np.mean([inertia(x, c) for c in theirs])


def test_vectors_that_coincide_are_seeds_where_there_are_no_others() -> None:
    x = np.repeat(np.array([[0.0], [3.0]], np.float32), 20, axis=0)
    seeds = plus_plus(torch.from_numpy(x), 10, torch.Generator().manual_seed(0))
    assert len(seeds) == 10
    assert set(seeds[:, 0].tolist()) == {0, 3}


def test_assignment_is_that_of_plain_distances() -> None:
    x, c = blobs(300), blobs(17)[:17]
    labels, squares = assign(torch.from_numpy(x), torch.from_numpy(c))
    expected = ((x[:, None].astype(np.float64) - c[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(labels, expected.argmin(1))
    np.testing.assert_allclose(squares, expected.min(1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("similarity", ["distance", "cosine", "dot"])
def test_scores_are_the_similarity_that_was_asked_for(similarity: str) -> None:
    x = blobs(2000, offset=100.0)
    scorer = fitted(x, k=5, similarity=similarity)
    wide, c = x[:50].astype(np.float64), scorer.tensors()["prototypes"].astype(np.float64)
    expected = {
        "distance": -((wide[:, None] - c[None]) ** 2).sum(-1),
        "dot": wide @ c.T,
        "cosine": (wide / np.linalg.norm(wide, axis=1, keepdims=True))
        @ (c / np.linalg.norm(c, axis=1, keepdims=True)).T,
    }[similarity]
    np.testing.assert_allclose(scorer(x[:50]), expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("similarity", ["distance", "cosine", "dot"])
def test_distances_far_from_zero_lose_no_digits(similarity: Any) -> None:
    """At 2,500 squares of float32 are 6 million, whose last digit is 0.5: as much as these vectors are apart."""
    rng = np.random.default_rng(0)
    x, p = ((2500 + 0.5 * rng.standard_normal((n, 16))).astype(np.float32) for n in (40, 7))
    wide, centres = x.astype(np.float64), p.astype(np.float64)
    found = similarities(x, p, similarity)
    if similarity == "distance":
        np.testing.assert_allclose(found, -((wide[:, None] - centres) ** 2).sum(-1), rtol=1e-4)
        assert (found.argmax(axis=1) == (-((wide[:, None] - centres) ** 2).sum(-1)).argmax(axis=1)).all()
    elif similarity == "dot":
        np.testing.assert_allclose(found, wide @ centres.T, rtol=1e-5)
    else:
        np.testing.assert_allclose(found, 1, atol=1e-5)
    assert found.dtype == np.float32


def test_a_distance_is_never_above_0_and_0_of_a_prototype_from_itself() -> None:
    x = (2500 + np.random.default_rng(0).standard_normal((9, 5))).astype(np.float32)
    found = similarities(x, x, "distance")
    assert found.max() <= 0
    np.testing.assert_allclose(np.diag(found), 0, atol=1e-4)


def test_centres_of_vectors_at_2500_are_those_of_the_same_vectors_around_0() -> None:
    """Squared distances of 0.01 among squares of 6 million."""
    x = 0.1 * blobs(4000, k=10)
    near, far = (fitted(a, k=10).tensors()["prototypes"] for a in (x, (x + 2500).astype(np.float32)))
    gaps = ((near[:, None].astype(float) - (far - 2500.0)[None]) ** 2).sum(-1)
    assert inertia(x, far - 2500.0) < 1.05 * inertia(x, near)
    assert np.median(gaps.min(axis=1)) < 0.05


def test_centres_are_seeded_on_a_long_beginning_and_moved_by_every_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    moved: list[int] = []
    real = kmeans.plus_plus, kmeans.step
    monkeypatch.setattr(kmeans, "plus_plus", lambda x, *more: seeded.append(len(x)) or real[0](x, *more))
    monkeypatch.setattr(kmeans, "step", lambda x, *more: moved.append(len(x)) or real[1](x, *more))
    fitted(blobs(12_300), k=40)
    assert (seeded, sum(moved)) == ([10_000], 12_300)
    monkeypatch.setattr(kmeans, "LEAST_SEEDING", 100)
    fitted(blobs(12_300), k=1200)
    assert (seeded[1:], sum(moved)) == ([4000], 2 * 12_300), "three times k, in whole batches"


def test_another_seed_gives_other_centres_and_one_seed_the_same() -> None:
    x = blobs(3000, k=30)
    made = []
    for seed in (0, 1, 2, 0):
        scorer = KMeans(KMeansParams(k=30))
        scorer.fit(stream(x), seed=seed)
        made.append(scorer.tensors()["prototypes"])
    np.testing.assert_array_equal(made[0], made[3])
    for a, b in itertools.combinations(made[:3], 2):
        assert np.abs(a - b).max() > 0.1


def test_too_few_vectors_and_vectors_of_another_size_are_named() -> None:
    with pytest.raises(FitError, match="k=30 centres need as many activations, and there are 12"):
        fitted(blobs(12), k=30)
    with pytest.raises(FitError, match="the activations have 5 dimensions, and the prototypes 6"):
        fitted(blobs(100), k=3)(np.zeros((2, 5), np.float32))
