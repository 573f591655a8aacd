"""Did the solver of a probe get to its end? What it stopped short of is not the probe's number."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchkit.checks._conclude import Finding, conclude
from benchkit.records.report import Check


def check_converged(records: Sequence[Mapping[str, Any]]) -> Check | None:
    """records: what the probe told of its fit on each fold; None where it has no solver that could stop short.

    warn: `converged` is false in one of them, or settings that it tried before are listed as `not_converged`.
    """
    told = [r for r in records if "converged" in r]
    if not told:
        return None
    failed = [i for i, r in enumerate(told) if not r["converged"]]
    tried = sorted({setting for r in told for setting in r.get("not_converged", ())})
    findings = []
    if failed:
        where = f" in {len(failed)} of {len(told)} folds" if len(told) > 1 else ""
        findings.append(Finding("warn", f"the solver stopped before it had converged{where}: give a larger max_iter"))
    if tried:
        text = ", ".join(f"{setting:g}" for setting in tried)
        findings.append(Finding("warn", f"it did not converge at C = {text} when C was chosen: give a larger max_iter"))
    return conclude("converged", findings, "the solver converged", {"not_converged": failed, "tried": tried})
