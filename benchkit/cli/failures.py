"""Cells whose last attempt failed, as text or as JSON: `benchkit show failed`."""

import json
from collections.abc import Sequence

from benchkit.reading.tables import ago, clean
from benchkit.store.queries import FailureRow

TAIL = 15
"""Lines of a log that are shown without --verbose."""


def as_json(failures: Sequence[FailureRow]) -> str:
    return json.dumps([f._asdict() for f in failures], indent=2)


def as_text(failures: Sequence[FailureRow], *, verbose: bool) -> str:
    return "\n\n".join(_one(f, verbose) for f in failures)


def _one(f: FailureRow, verbose: bool) -> str:
    times = "" if f.attempts == 1 else f", {f.attempts} times"
    where = f"{f.host}, Slurm job {f.slurm_job}" if f.slurm_job else f.host
    lines = [str(f.cell), f"  {f.reason}{times}, {ago(f.failed_at)} on {where}", f"  {f.error}"]
    log = f.log.rstrip().splitlines()
    shown = log if verbose else log[-TAIL:]
    if shown:
        more = f" of {len(log)} (--verbose shows all)" if len(shown) < len(log) else ""
        lines += [f"  the last {len(shown)} lines of its log{more}:", *(f"    {line}" for line in shown)]
    return "\n".join(map(clean, lines))
