"""Is a model given what its processor says that it was trained on? Pixels that were scaled twice, or not at all, give
features that look alive and are worth less."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from benchkit.checks._conclude import Finding, conclude
from benchkit.interfaces import StatedInputs
from benchkit.records.report import Check

VALUES = 1 << 16
"""Looked at of each example, evenly spaced."""
_FAR, _LARGE = 5.0, 5.0
"""Mean and deviation, from which on inputs that should be near 0 and 1 are not."""
_FLAT = 0.05
"""Deviation, below which they hardly differ: an image in units of its pixels' deviation has about 1."""
_BEYOND = 0.02
"""Of the stated range, by which rounding and resampling may leave it."""


@dataclass(frozen=True)
class Measured:
    """Numbers that a model was given. n: how many examples were looked at. count: finite values. wrong: those that are
    not. mean, m2: of the finite ones, m2 the sum of squared deviations. low, high: the extremes."""

    n: int = 0
    count: int = 0
    wrong: int = 0
    mean: float = 0.0
    m2: float = 0.0
    low: float = math.inf
    high: float = -math.inf

    @property
    def std(self) -> float:
        return math.sqrt(self.m2 / self.count) if self.count else math.nan

    def __add__(self, other: "Measured") -> "Measured":
        count = self.count + other.count
        gap = other.mean - self.mean if self.count and other.count else 0.0
        base = self.mean if self.count else other.mean
        return Measured(
            self.n + other.n,
            count,
            self.wrong + other.wrong,
            base + gap * other.count / max(1, count),
            self.m2 + other.m2 + gap * gap * self.count * other.count / max(1, count),
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @staticmethod
    def of(values: np.ndarray) -> "Measured":
        """Of one example."""
        flat = np.ravel(values)[:: max(1, values.size // VALUES)].astype(np.float64)
        finite = flat[np.isfinite(flat)]
        if not len(finite):
            return Measured(1, 0, len(flat))
        mean = float(finite.mean())
        m2 = float(np.square(finite - mean).sum())
        return Measured(1, len(finite), len(flat) - len(finite), mean, m2, float(finite.min()), float(finite.max()))


NOTHING = Measured()
"""Of no example."""


def check_inputs(parts: Mapping[str, Measured], stated: StatedInputs) -> Check:
    """parts: what the model was given, by split, of some examples each.

    warn: what the processor's file says is doubtful in itself; values that are not finite, or outside of the stated
    range; and, for inputs that are normalised, a mean beyond 5 from 0, a deviation above 5 or below 0.05.
    """
    seen = {name: m for name, m in parts.items() if m.n}
    total = sum(seen.values(), NOTHING)
    findings = [Finding("warn", doubt) for doubt in stated.doubts]
    if total.wrong:
        findings.append(Finding("warn", f"{total.wrong:,} of the numbers that the model is given are not finite"))
    if total.count:
        findings += [Finding("warn", text) for text in _apart(total, stated)]
    shown = f"{_shown(total)} (of {total.n} examples)" if total.count else "the model's inputs were not looked at"
    said = "" if stated.normalised or stated.low is not None else "; nothing is stated to hold it against"
    details = {name: asdict(m) | {"std": m.std} for name, m in seen.items()}
    return conclude("inputs", findings, shown + (said if total.count else ""), details)


def _apart(m: Measured, stated: StatedInputs) -> list[str]:
    found = []
    if stated.low is not None and stated.high is not None:
        slack = _BEYOND * (stated.high - stated.low)
        if m.low < stated.low - slack or m.high > stated.high + slack:
            found.append(
                f"inputs run from {m.low:.4g} to {m.high:.4g}, and by the model's processor they should lie between "
                f"{stated.low:.4g} and {stated.high:.4g}"
            )
    if stated.normalised and (abs(m.mean) > _FAR or m.std > _LARGE):
        found.append(
            f"inputs are {_shown(m)}, where mean 0 and deviation 1 are meant: mean, deviation or scale in the "
            "processor's file are of other units (0 to 255 and 0 to 1 mixed up?)"
        )
    elif stated.normalised and m.std < _FLAT:
        found.append(f"inputs hardly differ ({_shown(m)}): scaled twice, or no example holds anything")
    return found


def _shown(m: Measured) -> str:
    return f"{m.mean:.4g} ± {m.std:.4g}, from {m.low:.4g} to {m.high:.4g}"
