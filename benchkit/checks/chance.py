"""Is the number better than no model at all, and is no model at all already suspiciously good?"""

from benchkit.checks._conclude import Finding, conclude
from benchkit.report import Check, Metric, Status

# A class in the mean, or a pair of class and example, is rarely positive; a share of right answers may be large where
# one class dominates. Two balanced classes give 0.5 on each. Inverted labels gave 0.83 on mean average precision.
_SMALL = {"cmap": (0.6, 0.75), "micro_map": (0.6, 0.75)}
_OTHERS = (0.75, 0.9)


def check_chance(primary: Metric, chance: float) -> Check:
    """Compares the primary metric's interval with what a constant scorer gets on the same labels.

    warn: the interval's low end is not above chance; or chance itself is above 0.6 for cmap and micro_map, which are
    means over what is rare, and above 0.75 for the others. fail: chance is above 0.75, or 0.9: labels inverted or
    wrongly read, or one class that is nearly everything, so that the metric says next to nothing.
    """
    low = primary.value if primary.low is None else primary.low
    interval = "" if primary.low is None else f" ({primary.low:.4f} to {primary.high:.4f})"
    shown = f"{primary.name} {primary.value:.4f}{interval}"
    warn, fail = _SMALL.get(primary.name, _OTHERS)
    findings = []
    if chance > warn:
        status: Status = "fail" if chance > fail else "warn"
        why = "labels inverted or wrongly read, or one class nearly everywhere"
        findings.append(Finding(status, f"a constant scorer already gets {primary.name} {chance:.4f}: {why}"))
    if low <= chance:
        findings.append(Finding("warn", f"{shown} is not above the {chance:.4f} of a constant scorer"))
    details = {
        "metric": primary.name, "value": primary.value, "low": primary.low, "high": primary.high, "chance": chance,
        "warn_above": warn, "fail_above": fail,
    }  # fmt: skip
    return conclude("chance", findings, f"{shown}, a constant scorer {chance:.4f}", details)
