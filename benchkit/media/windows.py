"""Windows over a recording: where they begin, and which events label them.

Windows are half-open, [start, start + width), and their starts are multiples of the shift, counted without rounding
errors. Events are (start, end, class); a rule says how much of one a window must hold to have its label.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
from jaxtyping import Float64, UInt8

from benchkit.errors import DataError

Seconds = float | int
RULES = ("beans", "any", "seconds", "share")


@dataclass(frozen=True)
class Rule:
    """When an event labels a window.

    beans: where it lies in more than 0.2 of the shorter of the two, and begins or ends in the window, or where it lies
    around the window (BEANS, arXiv 2210.12300, as its code has it; an event without length labels nothing).
    any: where they share some time, or an event without length lies in the window. seconds: where they share `amount`
    seconds or more. share: where `amount` of the event's length or more is in the window.
    """

    name: str = "beans"
    amount: float = 0.0

    @staticmethod
    def parse(text: str) -> "Rule":
        """`beans`, `any`, `seconds:0.25` or `share:0.5`. Raises DataError."""
        name, colon, amount = text.partition(":")
        if name not in RULES or bool(colon) != (name in ("seconds", "share")):
            raise DataError(f"'{text}' is no rule: there are beans, any, seconds:0.25 and share:0.5")
        try:
            value = float(amount or 0)
        except ValueError:
            value = -1.0
        if colon and not (value > 0 and (name == "seconds" or value <= 1)):
            what = "share above 0, up to 1" if name == "share" else "number of seconds"
            raise DataError(f"'{text}' is no rule: '{amount}' is no {what}")
        return Rule(name, value)

    def labels(
        self, start: float, end: float, begins: Float64[np.ndarray, " E"], ends: Float64[np.ndarray, " E"]
    ) -> np.ndarray:
        """Which of the events label the window from `start` to `end`, in seconds."""
        shared = np.minimum(end, ends) - np.maximum(start, begins)
        length = ends - begins
        if self.name == "beans":
            inside = ((start <= begins) & (begins <= end)) | ((start <= ends) & (ends <= end))
            shorter = np.minimum(end - start, length)
            enough = np.divide(shared, shorter, out=np.zeros_like(shared), where=shorter > 0) > 0.2
            return (inside & enough & (length != 0)) | ((begins <= start) & (end <= ends))
        point = (length == 0) & (start <= begins) & (begins < end)
        if self.name == "any":
            return (shared > 0) | point
        if self.name == "seconds":
            return (length > 0) & (shared >= self.amount - 1e-9)
        return (length > 0) & (shared >= self.amount * length - 1e-9)


BEANS = Rule()


def window_starts(length: Seconds, width: Seconds, shift: Seconds, final: str = "drop") -> Float64[np.ndarray, " W"]:
    """Where the windows of a recording begin, in seconds.

    length, width, shift: in seconds. final: what becomes of a rest at the end that is no whole window: "drop"; "pad"
    gives it a window, which is padded with silence; "beans" counts as BEANS does, int((length - width) / shift) + 1,
    so that a recording a little shorter than a window has one.
    """
    if final == "beans":
        n = int((length - width) / shift) + 1
        return np.arange(max(n, 0)) * float(shift)
    exact = [Fraction(Decimal(repr(float(x)))) for x in (length, width, shift)]
    whole, w, s = exact
    n = max(0, (whole - w) // s + 1)
    if final == "pad" and whole > 0 and (n == 0 or (n - 1) * s + w < whole):
        n += 1
    return np.array([float(k * s) for k in range(int(n))])


def window_labels(
    starts: Iterable[Seconds],
    width: Seconds,
    events: Iterable[tuple[Seconds, Seconds, int]],
    n_classes: int,
    rule: Rule = BEANS,
) -> UInt8[np.ndarray, "W C"]:
    """Which classes each window has. events: begin and end in seconds, and the number of the class."""
    starts = np.asarray(list(starts), np.float64)
    labels = np.zeros((len(starts), n_classes), np.uint8)
    events = sorted(events)
    if not events or not len(starts):
        return labels
    begins, ends = (np.array([e[i] for e in events], np.float64) for i in (0, 1))
    classes = np.array([e[2] for e in events], np.int64)
    first = np.searchsorted(np.maximum.accumulate(ends), starts, "left")
    last = np.searchsorted(begins, starts + width, "right")
    for i, start in enumerate(starts):
        near = slice(first[i], last[i])
        hit = rule.labels(float(start), float(start) + width, begins[near], ends[near])
        labels[i, classes[near][hit]] = 1
    return labels
