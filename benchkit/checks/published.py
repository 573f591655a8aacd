"""Where a paper reports this very cell: the gap to it."""

from collections.abc import Sequence

from benchkit.checks._conclude import Finding, conclude
from benchkit.interfaces import Published
from benchkit.records.report import Check, Metric

TOLERANCE = 0.02


def check_published(
    metrics: Sequence[Metric], published: Sequence[Published], *, tolerance: float = TOLERANCE
) -> Check:
    """published: the entries for this very cell. warn: one of them lies more than `tolerance` (in the metric's units)
    outside our interval, or from our value where there is none: in either direction, for too good is no better."""
    ours = {m.name: m for m in metrics}
    findings, shown, gaps = [], [], []
    for entry in published:
        if entry.metric not in ours:
            continue
        m = ours[entry.metric]
        gap = m.value - entry.value
        low, high = (m.value if end is None else end for end in (m.low, m.high))
        text = f"{m.name} {m.value:.4f}, published {entry.value:.4f} ({entry.source}): gap {gap:+.4f}"
        if not low - tolerance <= entry.value <= high + tolerance:
            findings.append(Finding("warn", text))
        shown.append(text)
        gaps.append({"metric": m.name, "value": m.value, "published": entry.value, "gap": gap, "source": entry.source})
    otherwise = "; ".join(shown) or "no paper is known to report this cell"
    return conclude("published", findings, otherwise, {"tolerance": tolerance, "gaps": gaps})
