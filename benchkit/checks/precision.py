"""How far an interval can be believed: too few recordings to resample or errors, rare classes, a biased metric."""

from collections.abc import Sequence
from typing import Any

from benchkit.checks._conclude import Finding, conclude
from benchkit.records.report import Check


def check_precision(notes: Sequence[str], interval: dict[str, Any]) -> Check:
    """notes: of `benchkit.metrics.judge`. warn: fewer than ten effective recordings; all else is said, and no mark."""
    findings = [Finding("warn", note) for note in notes if note.startswith("rough")]
    unit = f"{interval['effective']:,.1f} effective {interval['unit']}s, {interval['df']:,.1f} degrees of freedom"
    return conclude("precision", findings, "; ".join([unit, *notes]), interval)
