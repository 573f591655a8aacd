"""Is the number better than no model at all, and is no model at all already suspiciously good?"""

import math

from benchkit.checks._conclude import Finding, conclude
from benchkit.records.report import Check, Metric, Status

# A class in the mean, or a pair of class and example, is rarely positive; a share of right answers may be large where
# one class dominates. Two balanced classes give 0.5 on each. Inverted labels gave 0.83 on mean average precision.
_SMALL = {"cmap": (0.6, 0.75), "micro_map": (0.6, 0.75)}
_OTHERS = (0.75, 0.9)


def gain_of_random_order(metric: str, n_test: int) -> float:
    """By how much random scores may beat a constant one on `n_test` examples: at most, for one positive a class.

    A constant scorer's average precision is the prevalence, 1 / n; a random order's is H(n) / n on average, where H is
    the harmonic number. The other metrics do not tell the two apart, or have more pairs than it matters for.
    """
    return max(0.0, math.log(n_test) - 0.42) / n_test if metric == "cmap" else 0.0


def check_chance(primary: Metric, chance: float, *, n_test: int | None = None) -> Check:
    """Compares the primary metric's interval with what a constant scorer gets on the same labels.

    n_test: the number of examples in a fold's test set; given, what random scores gain over constant ones counts too.

    warn: the interval's low end is not above chance; or chance itself is above 0.6 for cmap and micro_map, which are
    means over what is rare, and above 0.75 for the others. fail: chance is above 0.75, or 0.9: labels inverted or
    wrongly read, or one class that is nearly everything, so that the metric says next to nothing.
    """
    low = primary.value if primary.low is None else primary.low
    random = chance + (gain_of_random_order(primary.name, n_test) if n_test else 0.0)
    interval = "" if primary.low is None else f" ({primary.low:.4f} to {primary.high:.4f})"
    shown = f"{primary.name} {primary.value:.4f}{interval}"
    warn, fail = _SMALL.get(primary.name, _OTHERS)
    findings = []
    if chance > warn:
        status: Status = "fail" if chance > fail else "warn"
        why = "labels inverted or wrongly read, or one class nearly everywhere"
        findings.append(Finding(status, f"a constant scorer already gets {primary.name} {chance:.4f}: {why}"))
    if low <= random:
        findings.append(Finding("warn", f"{shown} is not above the {random:.4f} of a scorer that knows nothing"))
    details = {
        "metric": primary.name, "value": primary.value, "low": primary.low, "high": primary.high, "chance": chance,
        "warn_above": warn, "fail_above": fail,
    }  # fmt: skip
    return conclude("chance", findings, f"{shown}, a constant scorer {chance:.4f}", details)
