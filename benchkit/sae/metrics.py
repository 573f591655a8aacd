"""What is said of an autoencoder: each metric a function of its inputs alone, with its formula.

z [N, D]: normalised vectors; z_hat: their reconstruction. f [N, K]: unit activations. decoder [K, D]: one direction a
unit, the columns of the decoder matrix. All are torch tensors, on any device; sums are made in float64, products of
pairs of units in float32. These are of a batch; benchkit.sae.measure has those of a result, batch by batch.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float, Int64

if TYPE_CHECKING:
    from torch import Tensor

ACTIVE = 1e-8
"""A unit is active where |f| is above this."""
BLOCK = 4096
"""Units whose products with all others are held at a time, at most..."""
PRODUCTS = 1 << 25
"""...and at most so many products: 128 MB."""
VALUES = 1 << 24
"""Activations that are looked at at a time."""


def _rows(f: "Float[Tensor, 'N K']") -> "Sequence[Tensor]":
    """Some vectors at a time, so that a copy in float64 is small beside f."""
    return f.split(max(1, VALUES // max(1, f.shape[1])))


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    """Where each block of units begins, and how many it has."""
    step = max(1, min(BLOCK, PRODUCTS // max(1, n)))
    return ((start, min(step, n - start)) for start in range(0, n, step))


def mse(z: "Float[Tensor, 'N D']", z_hat: "Float[Tensor, 'N D']") -> float:
    """Reconstruction error: 1/(N D) sum (z - z_hat)^2."""
    return float((z - z_hat).double().square().mean())


def explained_variance(z: "Float[Tensor, 'N D']", z_hat: "Float[Tensor, 'N D']") -> float:
    """1 - Var(z - z_hat) / Var(z), where Var(a) = 1/N sum_n |a_n - mean(a)|^2, summed over dimensions. 1 is perfect; 0
    is the mean vector. NaN where all vectors are alike."""
    rest, whole = (z - z_hat).double(), z.double()
    left = float((rest - rest.mean(dim=0)).square().sum())
    total = float((whole - whole.mean(dim=0)).square().sum())
    return 1 - left / total if total > 0 else float("nan")


def l0(f: "Float[Tensor, 'N K']") -> float:
    """Share of active units: 1/(N K) #{|f| > 1e-8}."""
    return sum(int((part.abs() > ACTIVE).sum()) for part in _rows(f)) / max(1, f.numel())


def l1(f: "Float[Tensor, 'N K']") -> float:
    """Mean over vectors of the sum of the magnitudes: 1/N sum |f|."""
    return sum(float(part.double().abs().sum()) for part in _rows(f)) / max(1, len(f))


def dead(f: "Float[Tensor, 'N K']") -> float:
    """Share of units that are active on none of the vectors: 1/K #{k: max_n |f_nk| <= 1e-8}."""
    import torch

    return float((torch.maximum(f.amax(dim=0), -f.amin(dim=0)) <= ACTIVE).double().mean())


def correlation(f: "Float[Tensor, 'N K']", units: int | None = None) -> tuple[float, float]:
    """Mean absolute off-diagonal correlation: mean over i != j of |corr(f_i, f_j)|, Pearson's over the vectors; and its
    standard error. Units whose activation does not vary have none and are left out; 0 where fewer than two are left.

    units: of which f has a random sample; None: f has all of them, and the error is 0. The estimate is a U-statistic of
    the m sampled units (Hoeffding 1948): its variance is 4 A / m + 2 B / m (m - 1), A that of a unit's own mean
    correlation and B that of a pair beside it, times 1 - m / units.
    """
    import torch

    of = f.shape[1] if units is None else units
    x = f[:, f.amax(dim=0) > f.amin(dim=0)].float()
    x -= x.mean(dim=0)  # in place: it is the largest thing that there is
    x /= x.norm(dim=0).clamp_min(1e-30)
    n = x.shape[1]
    if n < 2:
        return 0.0, 0.0
    sums, squares = torch.zeros(2, n, dtype=torch.float64, device=x.device)
    for start, size in _blocks(n):  # with itself and what comes after it, which counts for both
        products = (x[:, start : start + size].T @ x[:, start:]).abs_()
        products[:, :size].fill_diagonal_(0)
        sums[start : start + size] += products.sum(dim=1, dtype=torch.float64)
        sums[start + size :] += products[:, size:].sum(dim=0, dtype=torch.float64)
        products.square_()
        squares[start : start + size] += products.sum(dim=1, dtype=torch.float64)
        squares[start + size :] += products[:, size:].sum(dim=0, dtype=torch.float64)
    means = sums / (n - 1)
    within = float((squares / (n - 1) - means.square()).mean())
    own = max(0.0, float(means.var()) - within / (n - 1))
    variance = (4 * own / n + 2 * max(0.0, within - own) / (n * (n - 1))) * max(0.0, 1 - f.shape[1] / of)
    return min(1.0, float(means.mean())), variance**0.5


def coherence(decoder: "Float[Tensor, 'K D']", units: "Int64[Tensor, ' m'] | None" = None) -> float:
    """Of the dictionary: max over i != j of |cos(d_i, d_j)|. Directions of length 0 are left out; 0 where fewer than
    two are left. units: only pairs of one of these with any other."""
    import torch

    d = decoder.double()
    norms = d.norm(dim=1)
    d = (d / norms.clamp_min(1e-300)[:, None]).float()
    numbers = torch.arange(len(d), device=d.device) if units is None else units
    largest = 0.0
    for start, size in _blocks(len(d)):
        part = numbers[start : start + size]
        if not len(part):
            break
        products = (d[part] @ d.T).abs_()
        products[torch.arange(len(part), device=d.device), part] = 0
        largest = max(largest, float(products.max()))
    return min(1.0, largest)


def decoder_norm(decoder: "Float[Tensor, 'K D']") -> float:
    """Mean length of the decoder's columns: 1/K sum |d_k|."""
    return float(decoder.double().norm(dim=1).mean())


def gradient_norm(gradients: "Iterable[Tensor]") -> float:
    """Of all parameters together: sqrt(sum g^2)."""
    return float(sum(float(g.double().square().sum()) for g in gradients) ** 0.5)
