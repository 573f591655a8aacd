"""A launcher that stays until its jobs have ended: takes in what they seal, shows how far they are, and at Ctrl-C
cancels them. One that is killed is not needed: the jobs go on, and the next launcher, or `benchkit status`, takes in
what they sealed."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchkit.dispatch.slurm.settle import GONE, INTERRUPTED, settle
from benchkit.dispatch.slurm.submit import Submitted
from benchkit.jobs.evaluate import Outcome
from benchkit.machine import scheduler
from benchkit.machine.scheduler import ENDED, Unreachable
from benchkit.progress import Progress
from benchkit.records.report import Cell
from benchkit.store.database import Store
from benchkit.store.insert import CELL
from benchkit.store.opening import refresh
from benchkit.store.whole import anew

LOOK = 1.0
"""Seconds between two looks into the inbox."""
FIRST, LONGEST = 2.0, 20.0
"""Seconds between two questions to the scheduler: few at first, more while nothing happens."""
CANCEL_WAIT = 15.0
"""Seconds that Ctrl-C waits for the jobs to end."""


@dataclass
class Counts:
    """Jobs by what they are doing."""

    states: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        ended = sum(n for state, n in self.states.items() if state in ENDED or state == GONE)
        pending = self.states["PENDING"]
        running = self.states.total() - ended - pending
        return f"{running} running, {pending} pending, {ended} ended"


def wait_for(store: Store, jobs: Sequence[Submitted], progress: Progress) -> list[Outcome]:
    """Until every job is settled: what became of each cell. One that is free again (its job was preempted for good) is
    not among them. At Ctrl-C the jobs are cancelled, and their cells are free."""
    cells = [cell for job in jobs for cell in job.cells]
    if not jobs:
        return []
    try:
        with progress.step(f"Slurm, {len(jobs)} jobs", len(cells), "cells") as step:
            _watch(store, jobs, len(cells), progress, step.advance)
    except KeyboardInterrupt:
        progress.note(call_off(store, jobs))
        raise
    return [outcome for cell in cells if (outcome := _outcome(store, cell)) is not None]


def _watch(
    store: Store, jobs: Sequence[Submitted], n_cells: int, progress: Progress, advance: Callable[[int], None]
) -> None:
    done, said, silent = 0, "", False
    pause, due = FIRST, time.monotonic()
    while True:
        refresh(store)
        if time.monotonic() >= due:
            found = settle(store)
            if found.unreachable and not silent:
                progress.note(f"{found.unreachable}; waiting until it does")
            silent = found.unreachable is not None
            pause = min(LONGEST, pause * 1.3)
            due = time.monotonic() + pause
        left, counts = _left(store, jobs)
        if str(counts) != said:
            said, pause = str(counts), FIRST
            progress.note(f"Slurm jobs: {said}; {left} cells left")
        advance(n_cells - left - done)
        done = n_cells - left
        if not left:
            return
        time.sleep(LOOK)


def _left(store: Store, jobs: Sequence[Submitted]) -> tuple[int, Counts]:
    """Cells that are not settled, and what the jobs are doing."""
    store.execute("CREATE TEMP TABLE IF NOT EXISTS mine (owner TEXT PRIMARY KEY)")
    store.execute("DELETE FROM temp.mine")
    store.many("INSERT INTO temp.mine VALUES (?)", [(job.owner,) for job in jobs])
    (left,) = store.execute("SELECT count(*) FROM claims JOIN temp.mine USING (owner)").fetchone()
    states = store.execute("SELECT state, count(*) FROM submissions JOIN temp.mine USING (owner) GROUP BY state")
    return left, Counts(Counter(dict(states.fetchall())))


def _outcome(store: Store, cell: Cell) -> Outcome | None:
    failure = store.execute(f"SELECT error FROM failures WHERE {CELL}", cell).fetchone()
    if failure:
        return Outcome(cell, error=failure[0])
    done = store.execute(f"SELECT 1 FROM runs WHERE current AND {CELL}", cell).fetchone()
    return Outcome(cell) if done else None


def call_off(store: Store, jobs: Sequence[Submitted]) -> str:
    """Cancels the jobs and frees their cells once they have ended; what was done, in one line."""
    with store.write():
        still = "UPDATE submissions SET reason = ? WHERE owner = ? AND owner IN (SELECT owner FROM claims)"
        for job in jobs:
            if store.execute(still, (INTERRUPTED, job.owner)).rowcount:
                anew(store.db.connection(), "submissions", "owner = ?", (job.owner,))
    names = {job.name for job in jobs}
    try:
        for name in sorted(names):
            scheduler.cancel(name)
    except Unreachable as e:
        return f"the Slurm jobs go on, as they could not be cancelled: {e}"
    deadline = time.monotonic() + CANCEL_WAIT
    while time.monotonic() < deadline:
        settle(store)
        if not _left(store, jobs)[0]:
            return f"cancelled {len(jobs)} Slurm jobs (--detach leaves them running)"
        time.sleep(0.5)
    return f"cancelled {len(jobs)} Slurm jobs; benchkit status tells when they have ended"
