"""Whether an example's features are its own: encoded again, alone and among others, they must be the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32

from benchkit.checks._conclude import Finding, conclude
from benchkit.records.report import Check

ROUNDING = 1e-2
"""Largest difference that float32 may make, in deviations of a feature: it makes 1e-6 to 1e-4."""
HALF_ROUNDING = 1e-1
"""The same of a model that computes in 16 bits."""

Cause = Literal["neighbours", "chance", "history"]
"""neighbours: of the other examples in a batch. chance: two calls, or two instances, give two results. history: of what
the backbone encoded before."""

_SAYS: dict[Cause, str] = {
    "neighbours": "features depend on the other examples of their batch, so the number changes with --batch-size and "
    "with where a job was cut: the backbone must treat each example by itself (running statistics, no batch's)",
    "chance": "features depend on chance, so another run gives another number: the backbone must draw its weights from "
    "a fixed seed, and encode without dropout, noise or random crops",
    "history": "features are not those that the backbone gives now: they depend on what it encoded before, or on the "
    "machine that filled the cache",
}


@dataclass(frozen=True)
class Again:
    """An example encoded again. how: alone, or in another order by a second instance. difference: of its features from
    those that were used (`difference`). problem: why it could not be encoded again, if it could not."""

    id: str
    how: str
    difference: float = 0.0
    problem: str = ""


def difference(
    before_nd: Float32[np.ndarray, "n D"], after_nd: Float32[np.ndarray, "n D"], scale_d: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " n"]:
    """Root mean square over the features of what changed, each in units of its `scale`; infinite where one of the two
    is NaN or infinite and the other is not."""
    same = (before_nd == after_nd) | (np.isnan(before_nd) & np.isnan(after_nd))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, after_nd.astype(np.float64) - before_nd) / scale_d
    gap[~np.isfinite(gap)] = np.inf
    return np.sqrt(np.mean(np.square(gap), axis=1))


def scale_of(features_nd: Float32[np.ndarray, "N D"]) -> Float[np.ndarray, " D"]:
    """What a difference in each feature is held against: its deviation among examples, and what rounding leaves of one
    that hardly varies (a hundredth of its size, a thousandth of all features')."""
    x = np.where(np.isfinite(features_nd), features_nd, 0.0).astype(np.float64)
    size = np.sqrt(np.mean(np.square(x), axis=0))
    return np.maximum(x.std(axis=0) + 1e-2 * size + 1e-3 * np.sqrt(np.mean(np.square(x))), np.finfo(np.float32).tiny)


def check_repeatable(again: Sequence[Again], cause: Cause | None, allowed: float) -> Check:
    """cause: what was found out of the differences, where one is larger than `allowed`.

    fail: some example's features differ by more than rounding, or it cannot be encoded by itself.
    """
    worst = max(again, key=lambda a: (bool(a.problem), a.difference), default=None)
    details = {
        "examples": len(again), "largest": worst.difference if worst else 0.0, "allowed": allowed, "cause": cause,
        "differing": [{"id": a.id, "how": a.how, "difference": a.difference} for a in again if a.difference > allowed],
    }  # fmt: skip
    findings = []
    if worst and (cause or worst.problem or worst.difference > allowed):
        how = worst.problem or f"differs by {worst.difference:.2g} of a feature's deviation"
        findings.append(Finding("fail", f"{_SAYS[cause or 'history']} ('{worst.id}' {worst.how} {how})"))
    largest = f"{worst.difference:.0e} of a feature's deviation" if worst else "0"
    otherwise = (
        f"{len(again)} examples encoded again, alone, in another order and by a second instance, are the same but for "
        f"rounding (at most {largest})"
    )
    return conclude("repeatable", findings, otherwise, details)
