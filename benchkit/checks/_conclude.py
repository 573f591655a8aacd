"""From what a check found to the Check that is stored."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchkit.records.report import Check, Status, finite


class Finding(NamedTuple):
    """One thing wrong. text: with the numbers that matter, as part of one line."""

    status: Status
    text: str


def conclude(name: str, findings: Sequence[Finding], otherwise: str, details: dict[str, Any]) -> Check:
    """The worst finding's status, the worst findings first; `otherwise` is the summary where there are none.

    details: as JSON takes it; a NaN or infinite number in it becomes None.
    """
    worst_first = sorted(findings, key=lambda f: f.status != "fail")
    status: Status = worst_first[0].status if worst_first else "ok"
    return Check(name, status, "; ".join(f.text for f in worst_first) or otherwise, _strict(details))


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return finite(value) if isinstance(value, float) else value


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(f"'{n}'" for n in names[:most]) + more
