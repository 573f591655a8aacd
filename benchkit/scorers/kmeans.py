"""k-means centres, from a stream: k-means++ on its beginning, then mini-batch updates.

Sources: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; Sculley, "Web-scale
k-means clustering", WWW 2010, algorithm 1 (a learning rate of its own for each centre: 1 / its count).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32, Int

from benchkit.catalog.spec import param
from benchkit.errors import FitError
from benchkit.machine.seeds import Purpose, torch_generator
from benchkit.scorers.prototypes import PointParams, Prototypes, Similarity, finite_batches, first_batch

if TYPE_CHECKING:
    from torch import Generator, Tensor

SEEDING = 3
"""Times k: how many vectors of the beginning the centres are seeded on."""
LEAST_SEEDING = 10_000
RARE = 0.01
"""A centre with less than this share of the mean count is given a new place..."""
LOOK = 10
"""...each time that so many vectors a centre have gone past."""
LEAST_AT_ONCE, MOST_AT_ONCE = 16, 1024
"""Candidates for centres that are drawn at a time: as many as there are centres, within these bounds, for then few of
them are rejected."""
DISTANCES = 1 << 25
"""Held at a time: 128 MB."""


@dataclass(frozen=True)
class KMeansParams(PointParams):
    k: int = param(512, help="centres", low=1)
    similarity: Similarity = param("distance", help="score of an activation vector and a centre")


class KMeans(Prototypes):
    """The centres of mini-batch k-means.

    The first 3k vectors (10,000 at least, where there are as many) are held to seed the centres on by k-means++. Each
    batch, those first, then moves every centre towards the mean of its vectors, by 1 / (vectors it ever had). Centres
    that (nearly) nothing is assigned to move to vectors of the batch, drawn with a chance in proportion to the squared
    distance from the nearest centre.
    """

    Params = KMeansParams
    params: KMeansParams
    version = 3

    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        import torch

        k = self.params.k
        batches = finite_batches(activations, self)
        held = [first_batch(batches, self)]
        while sum(map(len, held)) < max(SEEDING * k, LEAST_SEEDING) and (batch := next(batches, None)) is not None:
            held.append(batch)
        beginning = torch.from_numpy(np.concatenate(held)).to(device)
        if len(beginning) < k:
            raise FitError(f"k={k} centres need as many activations, and there are {len(beginning)}: give fewer")
        generator = torch_generator(seed, Purpose.KMEANS)
        # Relative to their mean, where squares of float32 lose least.
        origin = beginning.mean(dim=0)
        centres = plus_plus(beginning - origin, k, generator)
        counts = torch.zeros(k, device=beginning.device)
        since = 0
        for batch in _again(held, batches):
            x = torch.from_numpy(np.array(batch)).to(device) - origin
            since += len(x)
            look = since >= LOOK * k
            step(x, centres, counts, generator if look else None)
            since = 0 if look else since
        self.prototypes = (centres + origin).cpu().numpy()


def plus_plus(x: "Float[Tensor, 'N D']", k: int, generator: "Generator") -> "Float[Tensor, 'k D']":
    """k of the vectors: the first at random, each further one with a chance in proportion to its squared distance from
    the nearest that is chosen. Where all vectors left coincide with one that is, further ones are drawn evenly.

    One matrix product measures the distances from many centres, not from each as it is chosen: they are drawn by what
    the distances were before, and one that has come nearer to a centre since is rejected as often as it has become less
    likely (von Neumann's rejection), which leaves the distribution what it is.
    """
    import torch

    chosen = fresh = torch.randint(len(x), (1,), generator=generator)
    nearest = torch.full_like(x[:, 0], torch.inf)
    while True:
        nearest = torch.minimum(nearest, assign(x, x[fresh])[1])
        nearest[fresh] = 0
        if len(chosen) == k:
            return x[chosen].clone()
        fresh = _further(x, nearest.double().cpu(), len(chosen), k - len(chosen), generator)
        chosen = torch.cat([chosen, fresh])


def _further(
    x: "Float[Tensor, 'N D']", weights: "Float[Tensor, ' N']", n_chosen: int, most: int, generator: "Generator"
) -> "Int[Tensor, ' n']":
    """The next of k-means++'s vectors, one at least and up to `most`. weights: squared distances, on the CPU."""
    import torch

    total = weights.cumsum(0)
    if not float(total[-1]) > 0:
        return torch.randperm(len(x), generator=generator)[:most]
    n = min(max(LEAST_AT_ONCE, n_chosen), MOST_AT_ONCE)
    drawn, kept = torch.rand(2, n, generator=generator, dtype=torch.float64)
    candidates = torch.searchsorted(total, drawn * total[-1], right=True).clamp_max(len(x) - 1)
    before = weights[candidates]
    now, some = before.clone(), x[candidates]
    norms = (some * some).sum(dim=1)
    between = torch.addmm(norms, some, some.T, alpha=-2).add_(norms[:, None]).clamp_min_(0).double().cpu()
    between[candidates[:, None] == candidates] = 0
    taken: list[int] = []
    for i in range(n):
        if kept[i] * before[i] < now[i]:  # always so for the first
            taken.append(i)
            now = torch.minimum(now, between[i])
            if len(taken) == most:
                break
    return candidates[taken]


def step(
    x: "Float[Tensor, 'B D']",
    centres: "Float[Tensor, 'k D']",
    counts: "Float[Tensor, ' k']",
    generator: "Generator | None",
) -> None:
    """One update of centres and counts, in place. generator: given where rare centres are to be moved, too."""
    import torch

    labels, squares = assign(x, centres)
    new = torch.bincount(labels, minlength=len(centres)).to(counts.dtype)
    sums = torch.zeros_like(centres).index_add_(0, labels, x)
    counts += new
    moved = new > 0
    centres[moved] += (sums[moved] - new[moved, None] * centres[moved]) / counts[moved, None]
    if generator is None:
        return
    rare = (counts < RARE * counts.mean()).nonzero()[:, 0][: len(x) // 2]
    if len(rare):
        places = _draw(squares, len(rare), generator)
        rare = rare[: len(places)]
        centres[rare] = x[places]
        kept = counts[counts >= RARE * counts.mean()]
        counts[rare] = kept.min()  # so that the next vector does not carry it off


def assign(x: "Float[Tensor, 'B D']", centres: "Float[Tensor, 'k D']") -> "tuple[Tensor, Tensor]":
    """Number of the nearest centre, and the squared distance from it."""
    import torch

    lengths = (centres * centres).sum(dim=1)
    labels, squares = [], []
    for part in x.split(max(1, DISTANCES // len(centres))):
        found = torch.addmm(lengths, part, centres.T, alpha=-2).min(dim=1)
        labels.append(found.indices)
        squares.append((found.values + (part * part).sum(dim=1)).clamp_min(0))
    return torch.cat(labels), torch.cat(squares)


def _draw(weights: "Float[Tensor, ' N']", n: int, generator: "Generator") -> list[int]:
    """Up to n different numbers with a chance in proportion to their weights (exponential race), evenly where all are
    0. On the CPU, so that a seed gives the same on every device."""
    import torch

    w = weights.double().cpu()
    if not float(w.sum()) > 0:
        return torch.randperm(len(w), generator=generator)[:n].tolist()
    race = torch.rand(len(w), generator=generator, dtype=torch.float64).clamp_min(1e-300).log().neg() / w
    n = min(n, int((w > 0).sum()))
    return race.topk(n, largest=False).indices.tolist()


def _again(
    held: list[Float32[np.ndarray, "_ D"]], rest: Iterator[Float32[np.ndarray, "B D"]]
) -> Iterator[Float32[np.ndarray, "B D"]]:
    while held:
        yield held.pop(0)  # let go, once used
    yield from rest
