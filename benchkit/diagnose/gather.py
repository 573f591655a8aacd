"""Statistics of every place inside a backbone, gathered from batches as they go past: no activations are stored."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from benchkit.catalog.contract import checked_real_tokens
from benchkit.diagnose.inputs import MOST_KEPT, Inputs
from benchkit.diagnose.places import POOLED, Place
from benchkit.interfaces import Backbone
from benchkit.progress import Progress

BATCH_BYTES = 1 << 28
"""Of the activations of one batch at all places together."""
SAMPLE_BYTES = 1 << 29
"""Of the token vectors kept of all places together."""
LARGEST = float(np.finfo(np.float32).max) / 2
MOST_SAMPLED = 2048
"""Token vectors kept of a place."""


@dataclass(frozen=True)
class Stats:
    """What one place looks like; examples of T tokens, D dimensions, E of them kept. What is not finite is counted and
    left out, padding is left out.

    low_d, high_d: smallest and largest value. position_rms_td: root mean square over examples. peak_ed: largest
    magnitude over the tokens of a kept example, relative to its token (`_peaks`); peak_d: of all examples. std,
    kurtosis: of all values together, kurtosis 0 for a Gaussian. sample_nd: token vectors, the first token of every kept
    example always among them. pooled_ed: of those, the mean over tokens.
    """

    place: Place
    n_examples: int
    n: int
    n_nan: int
    n_infinite: int
    mean: float
    std: float
    kurtosis: float
    mean_d: Float64[np.ndarray, " D"]
    rms_d: Float64[np.ndarray, " D"]
    low_d: Float64[np.ndarray, " D"]
    high_d: Float64[np.ndarray, " D"]
    position_rms_td: Float32[np.ndarray, "T D"]
    peak_d: Float32[np.ndarray, " D"]
    peak_ed: Float32[np.ndarray, "E D"]
    sample_nd: Float32[np.ndarray, "n D"]
    pooled_ed: Float32[np.ndarray, "E D"]

    @property
    def dim(self) -> int:
        return len(self.rms_d)

    @property
    def tokens(self) -> int:
        return len(self.position_rms_td)

    @property
    def scale(self) -> float:
        """What is usual: the median over dimensions of the root mean square, all-zero ones left out."""
        alive = self.rms_d[self.rms_d > 0]
        return float(np.median(alive)) if len(alive) else 0.0

    @property
    def ratio_td(self) -> Float32[np.ndarray, "T D"]:
        """Size at each position over the usual one, or over the median dimension's at that position where that is
        more."""
        usual = np.maximum(self.scale, np.median(self.position_rms_td, axis=1, keepdims=True))
        return (self.position_rms_td / np.maximum(usual, 1e-30)).astype(np.float32)

    @property
    def top_dim(self) -> int:
        """The dimension that is largest at any token position."""
        return int(self.ratio_td.max(axis=0).argmax())

    @property
    def top_ratio(self) -> float:
        """Of its size there to the usual one."""
        return float(self.ratio_td.max()) if self.scale else 0.0

    @property
    def finite(self) -> bool:
        return not (self.n_nan or self.n_infinite)

    def gaussian_distance(self) -> float:
        """Kolmogorov and Smirnov's: the largest gap between the distribution of all values (of the sample),
        standardised, and the standard normal one. 0 is a Gaussian, 1 is the most."""
        from math import erf, sqrt

        values = self.sample_nd.ravel().astype(np.float64)
        values = values[np.isfinite(values)]
        spread = values.std() if len(values) else 0.0
        if not spread:
            return 1.0
        z = np.sort((values - values.mean()) / spread)
        grid = np.linspace(-5, 5, 401)
        ours = np.searchsorted(z, grid, side="right") / len(z)
        normal = np.array([0.5 * (1 + erf(x / sqrt(2))) for x in grid])
        return float(np.abs(ours - normal).max())


class _Sums:
    """Of one place, while batches go past. n_kept: examples that will be, about."""

    def __init__(self, place: Place, n_kept: int, tokens: int, dim: int, sampled: int) -> None:
        self.place = place
        self.n_examples = self.n = self.n_nan = self.n_infinite = 0
        self.powers = np.zeros(4)
        self.sum_d, self.squares_d = np.zeros(dim), np.zeros(dim)
        self.low_d, self.high_d = np.full(dim, np.inf), np.full(dim, -np.inf)
        self.squares_td = np.zeros((tokens, dim), np.float32)
        self.real_t = np.zeros(tokens, np.int64)
        self.peak_d = np.zeros(dim, np.float32)
        self.peaks: list[np.ndarray] = []
        self.pooled: list[np.ndarray] = []
        self.samples: list[np.ndarray] = []
        self.per_example = max(1, min(tokens, sampled // n_kept))
        self.rng = np.random.default_rng(0)

    def add(
        self, x_btd: Float[np.ndarray, "B T D"], kept: Bool[np.ndarray, " B"], real: Bool[np.ndarray, "B T"] | None
    ) -> None:
        """real: the tokens that are no padding; None: all."""
        b, t, d = x_btd.shape
        self.n_examples += b
        x = x_btd.astype(np.float64)
        real_bt = np.ones((b, t), bool) if real is None else real
        if real is not None:
            x = np.where(real[..., None], x, 0.0)
        finite = np.isfinite(x)
        if not finite.all():
            self.n_nan += int(np.isnan(x[real_bt]).sum())
            self.n_infinite += int(np.isinf(x).sum())
            x = np.where(finite, x, 0.0)
        squares = x * x
        self.n += int(real_bt.sum()) * d
        self.real_t += real_bt.sum(0)
        self.powers += (x.sum(), squares.sum(), (squares * x).sum(), (squares * squares).sum())
        self.sum_d += x.sum((0, 1))
        self.squares_d += squares.sum((0, 1))
        whole = real_bt.all()
        self.low_d = np.minimum(self.low_d, (x if whole else np.where(real_bt[..., None], x, np.inf)).min((0, 1)))
        self.high_d = np.maximum(self.high_d, (x if whole else np.where(real_bt[..., None], x, -np.inf)).max((0, 1)))
        self.squares_td = np.minimum(self.squares_td + squares.sum(0), LARGEST).astype(np.float32)
        peaks = _peaks(x, squares).astype(np.float32)
        self.peak_d = np.maximum(self.peak_d, peaks.max(0))
        if not kept.any():
            return
        x, real_bt = x[kept], real_bt[kept]
        self.peaks.append(peaks[kept])
        self.pooled.append((x.sum(1) / np.maximum(real_bt.sum(1), 1)[:, None]).astype(np.float32))
        for one, real in zip(x, real_bt, strict=True):
            order = np.concatenate([[0], 1 + self.rng.permutation(t - 1)])
            self.samples.append(one[order[real[order]][: self.per_example]].astype(np.float32))

    def stats(self) -> Stats:
        n = max(1, self.n)
        m1, m2, m3, m4 = self.powers / n
        variance = max(0.0, m2 - m1**2)
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        rows = max(1, n // len(self.sum_d))
        rms_d = np.sqrt(self.squares_d / rows)
        position_rms_td = np.sqrt(self.squares_td / np.maximum(self.real_t, 1)[:, None])
        real_t = self.real_t > 0
        position_rms_td[~real_t] = np.median(position_rms_td[real_t], axis=0)  # padding everywhere: as large as others
        return Stats(
            self.place, self.n_examples, self.n, self.n_nan, self.n_infinite, float(m1), float(np.sqrt(variance)),
            float(fourth / variance**2 - 3) if variance > 1e-12 * m2 else 0.0,
            self.sum_d / rows, rms_d, self.low_d, self.high_d, position_rms_td.astype(np.float32), self.peak_d,
            *map(np.concatenate, (self.peaks, self.samples, self.pooled)),
        )  # fmt: skip


def _real(backbone: Backbone, batch: np.ndarray, tokens: int, prefix: int) -> Bool[np.ndarray, "B T"] | None:
    """Which tokens are no padding, those before the patches among them; None: all."""
    real = checked_real_tokens(backbone, batch, tokens - prefix) if tokens > prefix else None
    return None if real is None else np.concatenate([np.ones((len(batch), prefix), bool), real], axis=1)


def _peaks(
    x_btd: Float64[np.ndarray, "B T D"], squares_btd: Float64[np.ndarray, "B T D"]
) -> Float64[np.ndarray, "B D"]:
    """Largest magnitude over the tokens; a token in which the median dimension is larger than usual counts for as much
    less, since nothing stands out in it only because all of it is large."""
    magnitude = np.abs(x_btd)
    usual = float(np.median(np.sqrt(squares_btd.mean((0, 1)))))
    large = magnitude.max(2) >= 5 * usual
    if large.any() and usual:
        median = np.median(magnitude[large], axis=1) / 0.6745  # of a Gaussian's magnitudes, in standard deviations
        magnitude[large] *= (usual / np.maximum(usual, median))[:, None]
    return magnitude.max(1)


def gather(backbone: Backbone, wanted: Sequence[Place], inputs: Inputs, progress: Progress) -> list[Stats]:
    """Statistics of each place on these inputs, pooled features among them where they are wanted.

    backbone: set up. Batches are as large as 256 MB of activations allow. Raises DataError where no example decodes.
    """
    points = [p.point for p in wanted if p.kind != POOLED]
    n_kept, size = min(inputs.n, MOST_KEPT), 1
    sums: dict[str, _Sums] = {}
    with (
        progress.step(f"look at {inputs.name}", inputs.n, "examples") as step,
        closing(inputs.batches()) as batches,
    ):
        for values, kept in batches:
            at = 0
            while at < len(values):
                part = slice(at, at + size)
                shown = backbone.activations(values[part], points) if points else {}
                prefix = backbone.prefix_tokens
                seen = dict(shown)
                if len(points) < len(wanted):
                    seen[POOLED] = backbone.encode(values[part]).pooled[:, None]
                if not sums:
                    sampled = SAMPLE_BYTES // max(1, sum(4 * x.shape[2] for x in seen.values()))
                    for place in wanted:
                        _, t, d = seen[place.point].shape
                        sums[place.point] = _Sums(place, n_kept, t, d, min(MOST_SAMPLED, max(n_kept, sampled)))
                    size = int(np.clip(BATCH_BYTES // max(1, sum(x.nbytes for x in seen.values())), 1, 32))
                for point, x in seen.items():
                    real = None if point == POOLED else _real(backbone, values[part], x.shape[1], prefix)
                    sums[point].add(x, kept[part], real)
                at = min(part.stop, len(values))
            step.advance(len(values))
    return [sums[place.point].stats() for place in wanted]
