"""Are the features alive: finite, varying, spread over more than one dimension?"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

from benchkit.checks._conclude import Finding, conclude
from benchkit.records.report import Check

_ROWS = 2048  # looked at closely; NaN, infinities, constant dimensions and zero rows are looked for in all
_CHUNK = 8192
_OVER_NEXT, _OVER_MEDIAN = 10.0, 200.0
_FEW = 8  # dimensions or rows: with fewer, one of them naturally carries much
_DEAD = 1e-10  # of the mean square: what rounding in float32 leaves is below it


@dataclass(frozen=True)
class Anatomy:
    """What one part's features look like. Shares are from 0 to 1.

    n_constant: dimensions with one value in all rows. zero: share of rows that are all zero. distinct: share of
    different rows among those looked at. variation: variance over the mean square, summed over dimensions.
    outliers: dimensions far above the rest, and outlier_share what they carry of the mean squared norm; top_rms,
    next_rms, median_rms: the root mean square of the largest dimension, the next one, and the median one.
    effective_rank: exp of the entropy of the normalised singular values of the centred features (Roy and Vetterli
    2007), None where nothing varies.
    """

    n: int
    dim: int
    n_nan: int
    n_infinite: int
    n_constant: int
    zero: float
    distinct: float
    variation: float
    outliers: tuple[int, ...]
    outlier_share: float
    top_rms: float
    next_rms: float
    median_rms: float
    effective_rank: float | None


def check_features(train: Float[np.ndarray, "n D"], test: Float[np.ndarray, "m D"] | None = None) -> Check:
    """test: None where it is the same split as train. Reads all rows once and looks closely at 2,048 of each part.

    fail: NaN or infinite values; features that hardly differ from row to row (a dead extractor).
    warn: more than half of the dimensions constant; more than 1 % of the rows all zero; less than half of the rows
    distinct; an effective rank below 2; or outliers that carry more than half of the mean squared norm. An outlier is a
    dimension whose root mean square is at least 200 times the median dimension's, or the largest one if it is at least
    10 times the next: one at 2,500 beside others within 10 is, the spectral tilt of log-mel means or MFCC is not.
    `benchkit diagnose` looks for where such a dimension comes from.
    """
    parts = {"train": examine(train)} | ({} if test is None else {"test": examine(test)})
    by_kind: dict[str, dict[str, Finding]] = {}
    for part, anatomy in parts.items():
        for kind, finding in _judge(anatomy).items():
            by_kind.setdefault(kind, {})[part] = finding
    findings = []
    for by_part in by_kind.values():
        first = next(iter(by_part.values()))
        findings.append(Finding(first.status, f"{' and '.join(by_part)}: {first.text}"))
    a = parts["train"]
    rank = "none" if a.effective_rank is None else f"{a.effective_rank:.1f}"
    otherwise = f"{a.dim:,} dimensions, {a.n_constant:,} constant, effective rank {rank}"
    details = {part: asdict(anatomy) for part, anatomy in parts.items()}
    return conclude("features", findings, otherwise, details)


def examine(features: Float[np.ndarray, "n D"]) -> Anatomy:
    """Looks at one part. Never gives NaN: what is not finite is counted and then left out."""
    n, dim = features.shape
    n_nan, n_infinite, n_constant, n_zero = _read_all(features)
    # At random, for a regular step would meet only one of what comes in turns.
    rows = np.sort(np.random.default_rng(0).permutation(n)[:_ROWS])
    x = np.asarray(features[rows], np.float64)
    x = x[np.isfinite(x).all(axis=1)]
    squares = np.square(x).mean(axis=0) if len(x) else np.zeros(dim)
    rms = np.sqrt(squares)
    descending = np.sort(rms)[::-1]
    outliers = _outliers(rms)
    return Anatomy(
        n=n,
        dim=dim,
        n_nan=n_nan,
        n_infinite=n_infinite,
        n_constant=n_constant,
        zero=_share(n_zero, n),
        distinct=_share(len({row.tobytes() for row in x}), len(x)),
        variation=_share(x.var(axis=0).sum(), squares.sum()) if len(x) else 0.0,
        outliers=tuple(int(d) for d in outliers),
        outlier_share=_share(squares[outliers].sum(), squares.sum()),
        top_rms=float(descending[0]),
        next_rms=float(descending[min(1, dim - 1)]),
        median_rms=float(np.median(rms)),
        effective_rank=_effective_rank(x),
    )


def _judge(a: Anatomy) -> dict[str, Finding]:
    """What is wrong with one part, by kind."""
    found = {}
    if a.n_nan or a.n_infinite:
        share = (a.n_nan + a.n_infinite) / (a.n * a.dim)
        text = f"{a.n_nan:,} NaN and {a.n_infinite:,} infinite values ({share:.2%})"
        found["finite"] = Finding("fail", text)
    if not a.distinct:
        return found  # no row is finite: there is nothing else to say
    if a.n > 1 and a.variation < _DEAD:
        found["dead"] = Finding("fail", f"the features are the same for every example (RMS {a.top_rms:.3g}): dead")
        return found
    if a.n_constant > a.dim / 2:
        found["constant"] = Finding("warn", f"{a.n_constant:,} of {a.dim:,} dimensions are constant")
    if a.zero > 0.01:
        found["zero"] = Finding("warn", f"{a.zero:.1%} of the rows are all zero")
    if a.distinct < 0.5:
        found["distinct"] = Finding("warn", f"only {a.distinct:.1%} of the rows are distinct")
    if a.outlier_share > 0.5:
        text = (
            f"{_dims(a.outliers)} {a.outlier_share:.1%} of the mean squared norm "
            f"(RMS {a.top_rms:,.4g}, the next {a.next_rms:,.4g}, the median {a.median_rms:,.4g}); "
            "`benchkit diagnose` tells where in the model it comes from"
        )
        found["outliers"] = Finding("warn", text)
    if a.effective_rank is not None and a.effective_rank < 2 and min(a.dim, a.n) >= _FEW:
        found["rank"] = Finding("warn", f"effective rank {a.effective_rank:.2f} of {a.dim:,} dimensions: collapsed")
    return found


def _read_all(features: Float[np.ndarray, "n D"]) -> tuple[int, int, int, int]:
    """The number of NaN, of infinite values, of dimensions with one value (or none) in all rows, of all-zero rows."""
    n_nan = n_infinite = n_zero = 0
    low, high = np.full(features.shape[1], np.inf), np.full(features.shape[1], -np.inf)
    for start in range(0, len(features), _CHUNK):
        chunk = np.array(features[start : start + _CHUNK], np.float64)
        infinite = np.isinf(chunk)
        n_nan, n_infinite = n_nan + int(np.isnan(chunk).sum()), n_infinite + int(infinite.sum())
        n_zero += int(np.count_nonzero(~chunk.any(axis=1)))
        chunk[infinite] = np.nan  # fmin and fmax pass over NaN
        low, high = np.fmin(low, np.fmin.reduce(chunk)), np.fmax(high, np.fmax.reduce(chunk))
    return n_nan, n_infinite, int(np.count_nonzero(~(high > low))), n_zero


def _outliers(rms: Float64[np.ndarray, " D"]) -> Int[np.ndarray, " k"]:
    """The dimensions far above the rest, the largest first."""
    order = np.argsort(-rms)
    if len(rms) < _FEW:
        return order[:0]
    over_next = int(rms[order[0]] >= _OVER_NEXT * rms[order[1]])
    over_median = int(np.count_nonzero(rms >= _OVER_MEDIAN * np.median(rms))) if np.median(rms) else 0
    return order[: max(over_next, over_median)]


def _effective_rank(x: Float64[np.ndarray, "n D"]) -> float | None:
    if len(x) < 2:
        return None
    centred = x - x.mean(axis=0)
    gram = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(gram), 0))
    if not singular.sum():
        return None
    p = singular[singular > 0] / singular.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def _dims(outliers: tuple[int, ...]) -> str:
    if len(outliers) == 1:
        return f"dimension {outliers[0]} carries"
    return f"{len(outliers)} dimensions ({', '.join(map(str, outliers[:5]))}{', ...' * (len(outliers) > 5)}) carry"


def _share(part: float | int, whole: float | int) -> float:
    return float(part / whole) if whole else 0.0
