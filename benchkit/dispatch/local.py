"""Runs jobs on this machine: one after another in this process, or several at once in worker processes.

Who runs them claims the cells first and gives every claim up again, whatever happens; what another launcher has claimed
or finished meanwhile is left to it. A job that fails does not stop the others.
"""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchkit.dispatch import LOG, machine
from benchkit.dispatch.logs import tail
from benchkit.dispatch.order import longest_first
from benchkit.dispatch.work import seal_failure, work
from benchkit.dispatch.workers import Worker, Workers
from benchkit.jobs.evaluate import Outcome
from benchkit.jobs.job import Job, JobOptions
from benchkit.machine import files
from benchkit.machine.trouble import ended_by
from benchkit.planning.plan import Planned
from benchkit.progress import Progress
from benchkit.store.claims import Held, claim, claimed_by, release
from benchkit.store.database import Store
from benchkit.store.ingest import ingest_inbox
from benchkit.store.leftovers import sweep

ATTEMPTS = 2
"""How often a job is started whose process was killed: the killer may have meant another, or memory is free again."""
EVERY = 1.0
"""Seconds between two looks at what workers have sealed."""
INTERRUPTED = 130
"""What a worker exits with that was asked to end."""


def run_here(
    store: Store, jobs: Sequence[list[Planned]], options: JobOptions, held: Held, *, force: bool, progress: Progress
) -> list[Outcome]:
    """Claims and runs each group of cells in this process, in order."""
    sweep(store)
    outcomes: list[Outcome] = []
    for planned in jobs:
        if mine := _claim(store, planned, held, force):
            try:
                outcomes += work(Job.of(mine, options), progress, lambda _: _take_in(store, progress))
            finally:
                _take_in(store, progress)
                release(store, held.owner, [p.cell for p in mine])
    return outcomes


def run_workers(
    store: Store,
    jobs: Sequence[list[Planned]],
    options: JobOptions,
    held: Held,
    *,
    n: int,
    force: bool,
    progress: Progress,
) -> list[Outcome]:
    """Runs up to `n` jobs at once, each in a process of its own with its share of the machine, the longest first."""
    sweep(store)
    waiting = longest_first(store, jobs)
    if machine.gpus(options.device):
        options = replace(options, device="cuda")
    n = min(n, len(waiting))
    pool = _Pool(store, Workers(progress, held.inherited), options, held, n, force, progress)
    looked = time.monotonic()
    with progress.step(f"{n} workers", len(waiting), "jobs") as step:
        try:
            while waiting or pool.workers.running:
                while waiting and len(pool.workers.running) < n:
                    if not pool.start(waiting.pop(0)):
                        step.advance()
                ended = pool.workers.next_event(timeout=0.5)
                if ended and pool.finish(ended):
                    step.advance()
                if time.monotonic() - looked > EVERY:  # not at each event: the folder may be on a network
                    _take_in(store, progress)
                    looked = time.monotonic()
        finally:
            interrupted = [worker.folder for worker in pool.workers.running.values()]
            pool.workers.stop()
            _take_in(store, progress)
            release(store, held.owner)
            for folder in interrupted:
                files.remove_tree(folder, store.side)
    return pool.outcomes


@dataclass
class _Pool:
    store: Store
    workers: Workers
    options: JobOptions
    held: Held
    n: int
    force: bool
    progress: Progress

    def __post_init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def start(self, planned: list[Planned]) -> bool:
        """Whether there was anything left to claim."""
        mine = _claim(self.store, planned, self.held, self.force)
        if mine:
            job = Job.of(mine, self.options)
            name = f"{self.held.owner.token}-{job.name}"
            self._start(job, self.store.side.absolute() / "jobs" / name, attempt=1)
        return bool(mine)

    def _start(self, job: Job, folder: Path, attempt: int) -> Worker:
        number = next(i for i in range(self.n) if i not in self.workers.running)
        environment = machine.environment(number, self.n, self.options.device)
        return self.workers.start(number, job, folder, environment, attempt)

    def finish(self, worker: Worker) -> bool:
        """After a process has ended. False where its job was started again."""
        outcomes, code = worker.relay.outcomes, worker.process.returncode
        _take_in(self.store, self.progress)
        silent = worker.cells_left
        left = claimed_by(self.store, self.held.owner, silent)  # a report ends its cell's claim
        outcomes += [Outcome(cell) for cell in silent if cell not in left]
        if left and worker.attempt < ATTEMPTS:
            _, how = ended_by(code)
            self.progress.note(f"warning: the worker process {how}: {worker.job.task} {worker.job.model} starts again")
            cells = tuple(c for c in worker.job.cells if c.cell in left)
            again = self._start(replace(worker.job, cells=cells), worker.folder, worker.attempt + 1)
            again.relay.outcomes += outcomes
            return False
        if left:
            log = tail(worker.folder / LOG)
            reason, how = ended_by(-signal.SIGTERM if code == INTERRUPTED else code, log)
            for cell in left:
                error = f"the worker process {how}, {ATTEMPTS} times"
                seal_failure(worker.job, cell, reason, error, log)
                outcomes.append(Outcome(cell, error=error, reason=reason))
        _take_in(self.store, self.progress)
        release(self.store, self.held.owner, [c.cell for c in worker.job.cells])
        files.remove_tree(worker.folder, self.store.side)
        self.outcomes += outcomes
        return True


def _claim(store: Store, planned: list[Planned], held: Held, force: bool) -> list[Planned]:
    got = set(claim(store, [p.cell for p in planned], held.owner, force=force))
    return [p for p in planned if p.cell in got]


def _take_in(store: Store, progress: Progress) -> None:
    for note in ingest_inbox(store):
        progress.note(f"warning: {note}")
