"""What a backbone's weights look like: each matrix's distribution, its rows and columns, its spectrum."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.diagnose.words import amount
from benchkit.interfaces import WeightRole, Weights
from benchkit.progress import Progress

WRITES: tuple[WeightRole, ...] = ("attn_out", "mlp_out")
READS: tuple[WeightRole, ...] = ("attn_in", "mlp_in")
NORMS: tuple[WeightRole, ...] = ("norm1", "norm2", "norm", "pool_norm")
SPECTRA = 8
"""Blocks whose singular values are looked at."""
STANDS_OUT = 5.0
"""Times the median one, from which on a row or a column is named."""


@dataclass(frozen=True)
class Layer:
    """One layer. kurtosis: of the weights, 0 for a Gaussian, -1.2 where uniform. peak: the largest weight over the
    standard deviation. row_norms, column_norms: of a matrix [out, in]. weight_d: a norm's scale. spectrum: None where
    there is none (norms, vectors, not finite, most blocks of a deep model)."""

    name: str
    role: WeightRole
    block: int | None
    n: int
    n_nan: int
    std: float
    kurtosis: float
    peak: float
    bias: Float32[np.ndarray, " out"] | None
    row_norms: Float64[np.ndarray, " out"]
    column_norms: Float64[np.ndarray, " in"]
    top_column: np.ndarray
    """For each row, the column of its largest weight, and that weight's share of the row's squared norm: [out, 2]."""
    weight_d: Float32[np.ndarray, " D"] | None = None
    vectors: Float32[np.ndarray, "T D"] | None = None
    """Positions and tokens themselves."""
    spectrum: "Spectrum | None" = None

    @property
    def norm(self) -> float:
        """Frobenius."""
        return float(np.sqrt((self.row_norms**2).sum()))


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a matrix, against those of a random one with the same shape and noise level.

    values: descending. edge: the largest that a random matrix has (Marchenko and Pastur). outside: share of the values
    above the edge; energy: their share of the squared norm.
    """

    values: Float64[np.ndarray, " r"]
    edge: float
    outside: float
    energy: float
    sigma: float
    aspect: float


def examine(layers: Iterable[Weights], depth: int, progress: Progress) -> list[Layer]:
    """Every layer, one at a time. depth: how many blocks there are; spectra are taken of 8 of them, evenly spaced, as
    they cost more than all else."""
    sampled = set(np.linspace(0, max(depth - 1, 0), min(depth, SPECTRA)).round().astype(int).tolist())
    found = []
    with progress.step("look at weights", None, "layers") as step:
        for layer in layers:
            found.append(_examine(layer, layer.block in sampled))
            step.advance()
    return found


def _examine(layer: Weights, with_spectrum: bool) -> Layer:
    w = np.asarray(layer.weight, np.float64)
    finite = np.isfinite(w)
    bias_nan = 0 if layer.bias is None else int((~np.isfinite(layer.bias)).sum())
    n_nan = int((~finite).sum()) + bias_nan
    w = w if finite.all() else np.where(finite, w, 0.0)
    matrix = w if w.ndim == 2 else w[:, None]
    centred = w - w.mean()
    second = centred * centred
    variance = float(second.mean())
    squares = matrix**2
    rows = squares.sum(1)
    top = squares.argmax(1)
    share = np.divide(squares[np.arange(len(top)), top], rows, out=np.zeros(len(rows)), where=rows > 0)
    vectors = layer.role in ("positions", "token")
    return Layer(
        layer.name, layer.role, layer.block, w.size, n_nan,
        std=float(np.sqrt(variance)),
        kurtosis=float((second * second).mean() / variance**2 - 3) if variance else 0.0,
        peak=float(np.sqrt(second.max() / variance)) if variance else 0.0,
        bias=layer.bias,
        row_norms=np.sqrt(rows),
        column_norms=np.sqrt(squares.sum(0)),
        top_column=np.stack([top, share], 1),
        weight_d=w.astype(np.float32) if layer.role in NORMS else None,
        vectors=w.astype(np.float32) if vectors else None,
        spectrum=spectrum(w) if with_spectrum and layer.role in (*READS, *WRITES) and not n_nan else None,
    )  # fmt: skip


def spectrum(w: Float64[np.ndarray, "m n"]) -> Spectrum:
    """The noise level is taken from the median singular value, which a few large ones do not move (Gavish and Donoho
    2014, arXiv 1305.5870, section III-E); the edge is sigma (sqrt(m) + sqrt(n)) (Marchenko and Pastur 1967)."""
    small, large = sorted(w.shape)
    gram = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))[::-1]
    aspect = small / large
    sigma = float(np.median(values)) / np.sqrt(large * _median_of_marchenko_pastur(round(aspect, 6)))
    edge = sigma * (np.sqrt(small) + np.sqrt(large))
    above = values > edge * (1 + small ** (-2 / 3))  # as far as a finite matrix's largest value lies around the edge
    energy = float((values[above] ** 2).sum() / max((values**2).sum(), 1e-300))
    return Spectrum(values, float(edge), float(above.mean()), energy, sigma, aspect)


def density(x: Float64[np.ndarray, " k"], aspect: float) -> Float64[np.ndarray, " k"]:
    """Marchenko and Pastur's, of the eigenvalues of X X^T / n for X [m, n] of unit variance, m / n = aspect <= 1."""
    low, high = (1 - np.sqrt(aspect)) ** 2, (1 + np.sqrt(aspect)) ** 2
    inside = np.maximum((high - x) * (x - low), 0)
    return np.sqrt(inside) / (2 * np.pi * aspect * np.maximum(x, 1e-12))


@cache
def _median_of_marchenko_pastur(aspect: float) -> float:
    low, high = (1 - np.sqrt(aspect)) ** 2, (1 + np.sqrt(aspect)) ** 2
    # In the angle the density's square-root ends, and its pole at 0 for a square matrix, are smooth.
    angle = (np.arange(20_000) + 0.5) / 20_000 * np.pi
    x = low + (high - low) * (1 - np.cos(angle)) / 2
    mass = np.cumsum(density(x, aspect) * np.sin(angle))
    return float(np.interp(0.5, mass / mass[-1], x))


def standouts(layers: Iterable[Layer], ratio: float = STANDS_OUT) -> list[str]:
    """In words: rows and columns with many times the median one's norm, and what is not finite."""
    found = []
    for layer in layers:
        if layer.n_nan:
            found.append(f"{layer.name}: {layer.n_nan:,} values are not finite")
        if layer.role in NORMS or layer.role == "token":
            continue
        for what, norms in (("output", layer.row_norms), ("input", layer.column_norms)):
            usual = float(np.median(norms))
            large = np.flatnonzero(norms >= ratio * usual) if usual else np.array([], int)
            if 0 < len(large) <= len(norms) // 10:
                top = int(norms.argmax())
                more = f" (and {len(large) - 1} more)" if len(large) > 1 else ""
                in_stream = layer.role in ("positions", "patches") or (what == "output") == (layer.role in WRITES)
                unit = "dimension" if in_stream else "unit"
                times = amount(norms[top] / usual)
                name = f"{layer.name}: the weights of {what} {unit} {top}{more}"
                found.append(f"{name} have {times} times the median {unit}'s norm")
    return found


def of(layers: Iterable[Layer], role: WeightRole, block: int | None = None) -> Layer | None:
    """The layer with this role in this block."""
    return next((layer for layer in layers if layer.role == role and layer.block == block), None)
