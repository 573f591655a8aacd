"""The worker function: every cell of a job to a sealed report, or to a sealed failure that says why.

What a launcher, a worker process and a cluster's node call alike. It never opens the store.
"""

import platform
import traceback
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchkit.catalog.discovery import one_line
from benchkit.dispatch import LOG
from benchkit.dispatch.logs import tail
from benchkit.errors import BenchkitError, Reason, redacted
from benchkit.jobs.evaluate import Outcome
from benchkit.jobs.job import Job
from benchkit.jobs.run import run_job
from benchkit.machine import files
from benchkit.machine.cluster import slurm_job
from benchkit.machine.environment import resolve_device
from benchkit.machine.times import now
from benchkit.machine.trouble import AGAIN, explained, trouble_of
from benchkit.progress import Progress
from benchkit.records.others import LOG_TAIL, Failure
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal


def work(job: Job, progress: Progress, sealed: Callable[[Report], None], log: Path | None = None) -> list[Outcome]:
    """Runs every cell. sealed: called after each report is sealed. log: where the end of each failure's log is found.

    A failure is sealed like a report. Only what ends the process itself (Ctrl-C, a kill) leaves cells without either.
    """
    finished: set[Cell] = set()

    def note(report: Report) -> None:
        finished.add(report.cell)
        sealed(report)

    reason: Reason = "error"
    trace = ""
    try:
        options = replace(job.options, device=resolve_device(job.options.device))
        outcomes = run_job(replace(job, options=options), progress, note)
        error = "the job ended without a word of this cell"
    except BenchkitError as e:
        outcomes, (reason, error) = [], explained(e)
    except (Exception, SystemExit) as e:  # noqa: BLE001  (a plugin's bug: this job fails, the others go on)
        outcomes = []
        if found := trouble_of(e):
            how = "the job ran out of memory" if found.reason == "out of memory" else "the job could not go on"
            reason, error = found.reason, f"{how} ({found.why}): {found.advice}, {AGAIN}"
        else:
            reason, trace = "crash", traceback.format_exc()
            error = f"{one_line(e)} (`benchkit show failed` has the trace)"
    named = {o.cell for o in outcomes}
    outcomes += [
        Outcome(c.cell, error=error, reason=reason) for c in job.cells if c.cell not in named and c.cell not in finished
    ]
    for outcome in outcomes:
        if outcome.error:
            seal_failure(job, outcome.cell, outcome.reason, outcome.error, tail(log) + trace)
    return outcomes


def work_file(path: Path, progress: Progress, sealed: Callable[[Report], None] = lambda _: None) -> list[Outcome]:
    """The job in a file, `benchkit job FILE`. What an earlier attempt at the same file finished is not done again.

    Raises BenchkitError where there is no such file, or it holds no job.
    """
    try:
        job = Job.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        raise BenchkitError(f"cannot read the job file '{path}': {getattr(e, 'strerror', e)}") from e
    done = path.with_name("done")
    before = set(done.read_text().splitlines()) if done.exists() else set()
    left = tuple(c for c in job.cells if str(c.cell) not in before)
    outcomes = [Outcome(c.cell) for c in job.cells if str(c.cell) in before]
    if not left:
        return outcomes

    def note(report: Report) -> None:
        with files.adding(done) as f:
            f.write(f"{report.cell}\n".encode())
        sealed(report)

    return outcomes + work(replace(job, cells=left), progress, note, path.with_name(LOG))


def seal_failure(job: Job, cell: Cell, reason: Reason, error: str, log: str) -> None:
    """Also for whoever saw a job end that could not say so itself."""
    failure = Failure(
        uuid=uuid.uuid4().hex,
        cell=cell,
        reason=reason,
        error=redacted(" ".join(error.split())),
        host=platform.node(),
        failed_at=now(),
        log=redacted(log[-LOG_TAIL:]),
        slurm_job=slurm_job(),
        options=job.options.circumstances(),
    )
    seal(failure, Path(job.options.side) / "inbox")
