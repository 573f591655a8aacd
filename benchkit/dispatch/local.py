"""Runs jobs one after another in this process."""

import traceback
from collections.abc import Iterable
from pathlib import Path

from benchkit.errors import BenchkitError
from benchkit.evaluate import Outcome
from benchkit.job import Job, JobOptions, run_job
from benchkit.plan import Planned
from benchkit.plugins import one_line
from benchkit.progress import Progress
from benchkit.report import Report
from benchkit.store.claims import Owner, claim, release
from benchkit.store.database import Store
from benchkit.store.ingest import ingest_inbox
from benchkit.times import now


def run_jobs(
    store: Store, jobs: Iterable[list[Planned]], options: JobOptions, owner: Owner, *, force: bool, progress: Progress
) -> list[Outcome]:
    """Claims and runs each group of cells; what another launcher has claimed or finished meanwhile is left to it.

    A job that fails does not stop the others. Whatever happens, no claim of these cells is left behind.
    """
    outcomes: list[Outcome] = []
    for planned in jobs:
        got = set(claim(store, [p.cell for p in planned], owner, force=force))
        mine = [p for p in planned if p.cell in got]
        if not mine:
            continue
        try:
            outcomes += _run(Job.of(mine, options), store, progress)
        finally:
            release(store, owner, got)
    return outcomes


def _run(job: Job, store: Store, progress: Progress) -> list[Outcome]:
    finished: set[object] = set()

    def sealed(report: Report) -> None:
        finished.add(report.cell)
        for note in ingest_inbox(store):
            progress.note(f"warning: {note}")

    try:
        return run_job(job, progress, sealed)
    except BenchkitError as e:
        error = str(e)
    except ModuleNotFoundError as e:
        error = f"this needs the package '{e.name}', which is not installed: pip install it, or its extra"
    except Exception as e:  # noqa: BLE001  (a plugin's bug: this job fails, the others go on, the trace is kept)
        error = f"{one_line(e)} (the trace is in '{_keep_trace(store, job)}')"
    left = [c.cell for c in job.cells if c.cell not in finished]
    return [Outcome(cell, error=error) for cell in left]


def _keep_trace(store: Store, job: Job) -> Path:
    path = store.side / "logs" / f"{now().replace(':', '')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{job.to_json()}\n{traceback.format_exc()}")
    return path
