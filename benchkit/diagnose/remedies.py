"""What helps, measured: the geometry of the token vectors and the neighbours of the pooled ones, before and after."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Num

from benchkit.diagnose.gather import Stats
from benchkit.diagnose.judge import Judged

EPS = 1e-6
"""Of the mean's size or of the largest variance, below which what varies is float32's rounding alone."""


@dataclass(frozen=True)
class Effect:
    """Of one way to record activations.

    norm_share, variance_share: what the outlier dimensions carry of the mean squared norm and of the variance (None
    where dimensions have another meaning). participation: (sum of variances)^2 / sum of their squares along principal
    axes: how many directions the tokens use. neighbours: share of examples whose nearest neighbour, by cosine of the
    mean token, has a label in common with it; None without labels.
    """

    name: str
    point: str
    dim: int
    norm_share: float | None
    variance_share: float | None
    participation: float
    neighbours: float | None


def measure(
    raw: Judged, dims: Sequence[int], instead: Sequence[tuple[str, Judged]], labels: np.ndarray | None
) -> tuple[list[Effect], float | None]:
    """Effects on the activations at `raw`, and of recording at another place; and chance for `neighbours`.

    dims: the outlier dimensions. instead: ('record after norm2', that place).
    """
    match = None if labels is None else matching(labels)
    ways = [_effect("as it is", raw.stats, raw.stats.sample_nd, raw.stats.pooled_ed, dims, match)]
    for name, other in instead:
        s = other.stats
        ways.append(_effect(name, s, s.sample_nd, s.pooled_ed, dims, match))
    x = raw.stats.sample_nd.astype(np.float64)
    for name, fitted in (("normalise per dimension", standardiser(x)), ("whiten", whitener(x))):
        named = dims if name != "whiten" else ()
        ways.append(_effect(name, raw.stats, fitted(x), fitted(raw.stats.pooled_ed.astype(np.float64)), named, match))
    chance = None
    if match is not None and len(match) > 1:
        n = len(match)
        chance = float(match[~np.eye(n, dtype=bool)].mean())
    return ways, chance


def _effect(
    name: str,
    stats: Stats,
    x_nd: Float[np.ndarray, "n D"],
    pooled_ed: Float[np.ndarray, "E D"],
    dims: Sequence[int],
    match: Bool[np.ndarray, "E E"] | None,
) -> Effect:
    x = x_nd.astype(np.float64)
    squares, variances = (x**2).mean(0), x.var(0)
    inside = [d for d in dims if d < x.shape[1]]
    whole = bool(inside) and squares.sum() > 0 and variances.sum() > 0
    return Effect(
        name, stats.place.point, x.shape[1],
        float(squares[inside].sum() / squares.sum()) if whole else None,
        float(variances[inside].sum() / variances.sum()) if whole else None,
        participation(x),
        None if match is None or len(match) < 3 else neighbours(pooled_ed, match),
    )  # fmt: skip


def participation(x: Float64[np.ndarray, "n D"]) -> float:
    """1 where all variance lies along one axis, D where it is the same along all."""
    centred = x - x.mean(0)
    gram = centred.T @ centred if x.shape[0] >= x.shape[1] else centred @ centred.T
    squared = float((gram**2).sum())
    return float(np.trace(gram) ** 2 / squared) if squared > 0 else 0.0


def neighbours(x: Float[np.ndarray, "E D"], match: Bool[np.ndarray, "E E"]) -> float:
    """Leave-one-out accuracy of the nearest neighbour by cosine."""
    x = x.astype(np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return float(match[np.arange(len(x)), similar.argmax(1)].mean())


def matching(labels: Num[np.ndarray, "..."]) -> Bool[np.ndarray, "E E"]:
    """Which examples have a label in common."""
    if labels.ndim == 1:
        return labels[:, None] == labels[None]
    positive = labels.astype(np.int64)
    return (positive @ positive.T) > 0


def standardiser(x: Float64[np.ndarray, "n D"]) -> Callable[[np.ndarray], np.ndarray]:
    """Each dimension to mean 0 and standard deviation 1; one that varies by rounding alone becomes 0."""
    mean, std = x.mean(0), x.std(0)
    by = np.divide(1.0, std, out=np.zeros_like(std), where=std > EPS * np.abs(mean))
    return lambda y: (y - mean) * by


def whitener(x: Float64[np.ndarray, "n D"]) -> Callable[[np.ndarray], np.ndarray]:
    """Each dimension normalised, then onto principal axes, each to variance 1; axes without variance are left out.

    Normalised first, since beside a dimension of 10^6 times the variance all others would look like rounding.
    """
    plain = standardiser(x)
    normed = plain(x)
    variances, axes = np.linalg.eigh(normed.T @ normed / len(x))
    kept = variances > EPS * max(float(variances.max()), 1e-300)
    by = axes[:, kept] / np.sqrt(variances[kept])
    return lambda y: plain(y) @ by
