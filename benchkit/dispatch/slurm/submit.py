"""Cells to jobs: claimed, written to files, submitted as arrays, and from then on owned by the jobs."""

import os
import shlex
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.dispatch.order import longest_first
from benchkit.dispatch.slurm.folder import Submission, decide, job_file
from benchkit.dispatch.slurm.settings import SlurmSettings
from benchkit.dispatch.slurm.task import JobFile
from benchkit.errors import BenchkitError, require
from benchkit.jobs.job import Job, JobOptions
from benchkit.machine import files, scheduler
from benchkit.machine.interpreter import SAFE
from benchkit.machine.scheduler import Unreachable
from benchkit.machine.times import now
from benchkit.planning.plan import Planned
from benchkit.progress import Progress
from benchkit.records.report import Cell
from benchkit.store.claims import Owner, claim, release
from benchkit.store.database import Store
from benchkit.store.insert import CELL, insert_single, next_seq


@dataclass(frozen=True)
class Submitted:
    """One job in the queue. number: the scheduler's, `12` or `12_3`. name: what it and the others of its array are
    called. owner: what its cells are claimed under."""

    number: str
    name: str
    owner: str
    cells: tuple[Cell, ...]


def submit_jobs(
    store: Store,
    jobs: Sequence[list[Planned]],
    options: JobOptions,
    settings: SlurmSettings,
    owner: Owner,
    *,
    force: bool,
    progress: Progress,
) -> list[Submitted]:
    """Claims each group of cells and submits one job for it, the longest first. What another launcher has claimed is
    left to it.

    Raises BenchkitError where the scheduler refuses; nothing stays claimed then that was not submitted.
    """
    require("submitit", "benchkit-core[slurm]")
    cluster = scheduler.cluster()
    claimed = []
    submitted: list[Submitted] = []
    try:
        for planned in longest_first(store, jobs):
            got = set(claim(store, [p.cell for p in planned], owner, force=force))
            if mine := [p for p in planned if p.cell in got]:
                claimed.append(Job.of(mine, options))
        for start in range(0, len(claimed), cluster.max_array):
            after = submitted[-1].number.partition("_")[0] if start and settings.max_running else None
            submitted += _submit(
                store, claimed[start : start + cluster.max_array], settings, owner, cluster.name, after
            )
    finally:
        release(store, owner)  # of cells that were submitted, this launcher is not the owner any more
    if submitted:
        cells = sum(len(s.cells) for s in submitted)
        first, last = submitted[0].number, submitted[-1].number
        numbers = first if first == last else f"{first} to {last}"
        progress.note(f"submitted {len(submitted)} Slurm jobs for {cells} cells: {numbers}")
    return submitted


def _submit(
    store: Store, jobs: Sequence[Job], settings: SlurmSettings, owner: Owner, cluster: str, after: str | None
) -> list[Submitted]:
    """One array, or one job. after: an array that has to end before, so that no more jobs run at once than may."""
    token = uuid.uuid4().hex
    folder = store.side.absolute() / "slurm" / token
    if any(c in str(folder) for c in "%\n"):
        raise BenchkitError(f"Slurm cannot write logs below '{folder}': '%' in a path has a meaning of its own there")
    name = f"benchkit-{token[:8]}"
    files.make_folder(folder, store.side.absolute())
    if (others := files.writable_by_others(folder)) is not None:
        raise BenchkitError(
            f"others may write to '{others}', and what Slurm runs for you lies there: name a registry with --db "
            "in a folder of yours alone, and `benchkit merge` it afterwards"
        )
    for i, job in enumerate(jobs):
        files.write_atomic(job_file(folder, i), job.to_json().encode(), store.side.absolute())
    Submission(cluster, scheduler.user(), name).write(folder)
    try:
        numbers = _sbatch(folder, name, len(jobs), settings, after)
        submitted = [
            Submitted(number, name, f"{token}-{i}", tuple(c.cell for c in job.cells))
            for i, (number, job) in enumerate(zip(numbers, jobs, strict=True))
        ]
        _record(store, submitted, f"slurm/{token}", owner)
    except BaseException:
        decide(folder, "void")  # whatever the scheduler may have taken all the same will not run
        with suppress(Unreachable):
            scheduler.cancel(name)
        raise
    decide(folder, "go")
    return submitted


def _record(store: Store, submitted: Sequence[Submitted], folder: str, owner: Owner) -> None:
    """The jobs, and their cells as theirs: from here on they go on without their launcher."""
    stamp = now()
    with store.write():
        for job in submitted:
            task, model = job.cells[0][:2]
            # a scheduler that was set up anew gives numbers again: whatever had this one is gone
            earlier = "SELECT owner FROM submissions WHERE job = ?"
            store.execute(f"DELETE FROM claims WHERE owner IN ({earlier})", (job.number,))
            what = (job.number, job.owner, task, model, len(job.cells), folder)
            insert_single(store, "submissions", *what, "PENDING", None, stamp, stamp, next_seq(store))
            store.many(
                f"UPDATE claims SET owner = ?, slurm_job = ?, pid = 0, process_started = 0 WHERE {CELL} AND owner = ?",
                [(job.owner, job.number, *cell, owner.token) for cell in job.cells],
            )


def _sbatch(folder: Path, name: str, n: int, settings: SlurmSettings, after: str | None) -> list[str]:
    """The numbers of the `n` jobs. Raises BenchkitError with what sbatch said."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    if shutil.which("sbatch") is None:
        raise BenchkitError("there is no Slurm on this machine: 'sbatch' is not installed; --executor local runs here")
    executor = submitit.SlurmExecutor(folder, max_num_timeout=settings.max_timeouts, python=_python(settings))
    executor.update_parameters(**_parameters(name, n, settings, after))
    try:
        with _outside_of_jobs():
            made = executor.submit_array([JobFile(str(folder), i) for i in range(n)])
    except (FailedJobError, FailedSubmissionError) as e:
        raise BenchkitError(f"Slurm refused the jobs: {_said(e)}") from e
    return [job.job_id for job in made]


def _python(settings: SlurmSettings) -> str:
    """The command for Python on the nodes: without the working folder on its search path."""
    return f"{settings.python} -P" if settings.python else shlex.join(SAFE)


@contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """A launcher that runs inside a job does not pass on what that job was given. What a user sets stays: SLURM_CONF,
    and sbatch's own SBATCH_* (submitit's clean_env would take both away)."""
    inside = "SLURM_JOB_ID" in os.environ
    given = [k for k in os.environ if k.startswith("SLURM_") and k != "SLURM_CONF"] if inside else []
    hidden = {k: os.environ.pop(k) for k in given}
    try:
        yield
    finally:
        os.environ |= hidden


def _parameters(name: str, n: int, settings: SlurmSettings, after: str | None) -> dict[str, Any]:
    """What submitit calls the settings."""
    given = {
        "partition": settings.partition, "account": settings.account, "qos": settings.qos, "mem": settings.memory,
        "gpus_per_node": settings.gpus, "cpus_per_task": settings.cpus, "dependency": after and f"afterany:{after}",
        # srun of Slurm 22.05 and newer does not take this over from sbatch
        "srun_args": [f"--cpus-per-task={settings.cpus}"] if settings.cpus else None,
        "setup": list(settings.setup) or None,
    }  # fmt: skip
    extra = {key: value or True for key, value in settings.extra.items()}
    return {key: value for key, value in given.items() if value is not None} | {
        "job_name": name,
        "time": settings.time,
        "signal_delay_s": min(settings.signal, settings.time * 20),  # of a short limit, a third is left
        "array_parallelism": settings.max_running or n,
        "stderr_to_stdout": True,
        "additional_parameters": ({} if "no-requeue" in extra else {"requeue": True}) | extra,
    }


def _said(error: Exception) -> str:
    """The lines of sbatch itself out of submitit's account of a failed command."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line.removeprefix("sbatch: error: ") for line in lines if line.startswith("sbatch: error: ")]
    return "; ".join(dict.fromkeys(said)) or " ".join(lines)
