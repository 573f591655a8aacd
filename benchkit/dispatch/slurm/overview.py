"""What is being computed, as the store knows it: Slurm jobs, launchers at work, cells that failed."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from benchkit.dispatch.slurm.settle import GONE, open_jobs
from benchkit.errors import BenchkitError
from benchkit.machine.scheduler import ENDED
from benchkit.machine.times import now
from benchkit.records.gate import COUNT, JOB, TEXT, TIME
from benchkit.store.claims import alive, owners
from benchkit.store.columns import held
from benchkit.store.database import Store
from benchkit.store.leases import sightings
from benchkit.store.whole import anew


@dataclass(frozen=True)
class JobLine:
    """One Slurm job. left: cells that have neither a report nor a failure. failed: cells of its that it failed on."""

    job: str
    state: str
    task: str
    model: str
    cells: int
    left: int
    failed: int
    reason: str | None
    since: str
    """When it came into its state, or was submitted."""
    log: str
    """Its log, relative to the folder beside the registry."""


@dataclass(frozen=True)
class Working:
    """A launcher that computes by itself, here or on another host."""

    owner: str
    cells: int


@dataclass(frozen=True)
class Overview:
    jobs: tuple[JobLine, ...]
    launchers: tuple[Working, ...]
    failed: int
    """Cells whose last attempt failed, whoever made it."""

    def summary(self) -> list[str]:
        """A line each for the queue, for launchers, for failures; one that says so where there is nothing."""
        states = Counter("ended" if j.state in ENDED or j.state == GONE else j.state.lower() for j in self.jobs)
        lines = []
        if self.jobs:
            counts = ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
            lines.append(f"Slurm jobs: {counts}; {sum(j.left for j in self.jobs)} cells left")
        lines += [f"{w.cells} cells being computed by {w.owner}" for w in self.launchers]
        if self.failed:
            lines.append(
                f"failed cells: {self.failed} (`benchkit show failed` says why, `run --retry-failed` tries again)"
            )
        return lines or ["nothing is being computed"]


_KINDS = (JOB, TEXT, TEXT, TEXT, COUNT, COUNT, COUNT, TEXT.or_none(), TIME, TEXT)


def overview(store: Store, *, everything: bool = False, just_ended: Collection[str] = ()) -> Overview:
    """everything: jobs that ended long ago, too; else those that are open, and `just_ended`."""
    shown = {job.number for job in open_jobs(store)} | set(just_ended)
    rows = store.execute(
        "SELECT job, state, task, model, cells, "
        "(SELECT count(*) FROM claims WHERE claims.owner = submissions.owner), "
        "(SELECT count(*) FROM failures WHERE slurm_job = job AND failures.seq > submissions.seq), "
        "reason, updated_at, folder || '/' || job || '_0_log.out' FROM submissions ORDER BY submissions.seq"
    )
    listed = rows.fetchall()
    held(store.path, _KINDS, listed)
    jobs = tuple(JobLine(*row) for row in listed if everything or row[0] in shown)
    seen = sightings(store)
    counts = dict(store.execute("SELECT owner, count(*) FROM claims GROUP BY owner").fetchall())
    working = tuple(
        Working(str(owner), counts[owner.token])
        for owner, beat in owners(store)
        if owner.pid and owner.token in counts and alive(store.side, owner, beat, seen.get(owner.token))
    )
    (failed,) = store.execute("SELECT count(*) FROM failures").fetchone()
    return Overview(jobs, working, failed)


def drop_job(store: Store, number: str) -> int:
    """Frees the cells of a job that no scheduler will tell of any more; how many. Raises BenchkitError."""
    found = store.execute("SELECT owner, state FROM submissions WHERE job = ?", (number,)).fetchone()
    if found is None:
        raise BenchkitError(f"this registry has no Slurm job '{number}' (benchkit status --all lists them)")
    owner, state = found
    with store.write():
        if state not in ENDED:
            store.execute(
                "UPDATE submissions SET state = ?, reason = 'dropped', updated_at = ? WHERE owner = ?",
                (GONE, now(), owner),
            )
            anew(store.db.connection(), "submissions", "owner = ?", (owner,))
        return int(store.execute("DELETE FROM claims WHERE owner = ?", (owner,)).rowcount)
