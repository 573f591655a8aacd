"""What the end of a job means for its cells: what it sealed is taken in, every other cell of it gets the reason.

A cell's fate is what was sealed and what the scheduler says, never that a file is missing. As long as the scheduler
does not answer, or another cluster's scheduler would have to, a job counts as alive.
"""

import platform
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchkit.dispatch.logs import tail
from benchkit.dispatch.slurm.folder import Submission, decide, job_file, log_name, read_fate, verdict_of
from benchkit.errors import BenchkitError, Reason, StoreError
from benchkit.machine import files, scheduler
from benchkit.machine.scheduler import ENDED, Seen, Unreachable
from benchkit.machine.times import now
from benchkit.machine.trouble import ended_by
from benchkit.records.gate import SEALED_BYTES
from benchkit.records.others import Failure
from benchkit.records.report import Cell
from benchkit.store.columns import gate
from benchkit.store.database import Store
from benchkit.store.insert import insert_failure
from benchkit.store.opening import refresh
from benchkit.store.whole import anew

GONE = "GONE"
"""Our own word for a job that the scheduler does not know (any more)."""
GRACE = 120.0
"""Seconds after which the cells of a job that is gone, or that completed without them, are given up."""
INTERRUPTED = "interrupted by its launcher"

_OUT_OF_MEMORY = re.compile(r"^slurmstepd\S*: error: (.*(?:[Ee]xceeded .*memory limit|oom.kill).*)", re.MULTILINE)
"""What Slurm writes into the log: where it polls memory instead of using cgroups, the job's state is only FAILED."""


@dataclass(frozen=True)
class Open:
    """A job that is not settled: it has not ended, or has claims left."""

    number: str
    owner: str
    folder: Path
    state: str
    reason: str | None
    updated_at: str
    claims: int

    @property
    def index(self) -> int:
        return int(self.owner.rpartition("-")[2])


@dataclass(frozen=True)
class Settled:
    """What was found. unreachable: why the scheduler could not be asked, if it could not."""

    ended: tuple[str, ...] = ()
    unreachable: str | None = None


def settle(store: Store, *, grace_s: float = GRACE) -> Settled:
    """Asks for every open job, and for each that has ended takes in what it sealed and settles its other cells.

    Any process may do this at any time, several at once too.
    """
    waiting = open_jobs(store)
    if not waiting or not store.writable:
        return Settled()
    for job in waiting:
        if job.folder.is_dir() and verdict_of(job.folder) is None:
            decide(job.folder, "go")  # its launcher died between telling the registry and telling the job
    try:
        seen = _ask(waiting)
    except Unreachable as e:
        return Settled(unreachable=str(e))
    _take_in(store)
    ended = []
    for job in waiting:
        if job.number in seen and _settle(store, job, seen[job.number], grace_s):
            ended.append(job.number)
    for folder in {job.folder for job in waiting if job.number in ended}:
        _tidy(store, folder)
    return Settled(tuple(ended))


def open_jobs(store: Store) -> list[Open]:
    """Every job that has not ended, or whose cells have not all been settled."""
    rows = store.execute(
        "SELECT job, owner, folder, state, reason, updated_at, "
        "(SELECT count(*) FROM claims WHERE claims.owner = submissions.owner) AS n FROM submissions "
        f"WHERE n OR state NOT IN ({', '.join('?' * (len(ENDED) + 1))}) ORDER BY seq",
        (*sorted(ENDED), GONE),
    )
    found = rows.fetchall()
    gate(store.path, "submissions", ("job", "owner", "folder", "state", "reason", "updated_at"), found)
    return [Open(job, owner, store.side / folder, *rest) for job, owner, folder, *rest in found]


def _ask(jobs: list[Open]) -> dict[str, Seen]:
    """What this host's scheduler says of those of `jobs` that were given to it."""
    here, me = scheduler.cluster().name, scheduler.user()
    mine: dict[str, Submission] = {}
    folders: dict[Path, Submission | None] = {}
    for job in jobs:
        if job.folder not in folders:
            folders[job.folder] = _submission(job.folder)
        submission = folders[job.folder]
        if submission is not None and submission.cluster == here:
            mine[job.number] = submission
    if not mine:
        return {}
    answers = scheduler.ask({number: s.name for number, s in mine.items()}, [s.user for s in mine.values()])
    gone = Seen(GONE, "the scheduler does not know it any more")
    return {n: gone for n, s in mine.items() if s.user == me} | answers  # another user's jobs may be hidden from us


def _submission(folder: Path) -> Submission | None:
    try:
        return Submission.read(folder)
    except StoreError:
        return None


def _take_in(store: Store) -> None:
    """Everything that is sealed by now. Making a file in the inbox has a network file system list it afresh."""
    if store.inbox.is_dir():
        with files.nameless(store.inbox):
            pass
    refresh(store)


def _settle(store: Store, job: Open, seen: Seen, grace_s: float) -> bool:
    """Writes down what the scheduler says of one job; where that is its end, settles its cells. Whether it is over."""
    changed = job.state != seen.state
    fate = read_fate(job.folder, job.index)
    over = seen.state in ENDED or seen.state == GONE
    # to do again, and no failure: a job that never began, that made room for others, that its own launcher called off
    free = verdict_of(job.folder) == "void" or seen.state == "PREEMPTED" or job.reason == INTERRUPTED
    if over and job.claims and seen.state in ("COMPLETED", GONE) and not free and fate in ({}, {"exit": 0}):
        over = not changed and not 0 <= _seconds_since(job.updated_at) <= grace_s  # before 0, a clock was set
    reason = INTERRUPTED if job.reason == INTERRUPTED else seen.detail
    with store.write():
        if changed or reason != job.reason:
            store.execute(
                "UPDATE submissions SET state = ?, reason = ?, updated_at = ? WHERE job = ? AND owner = ?",
                (seen.state, reason, now(), job.number, job.owner),
            )
            anew(store.db.connection(), "submissions", "job = ?", (job.number,))
        if over:
            if not free:
                cells = _left(store, job)
                for failure in _failures(job, cells, seen, fate) if cells else ():
                    insert_failure(store, failure)
            store.execute("DELETE FROM claims WHERE owner = ?", (job.owner,))
    return over


def _tidy(store: Store, folder: Path) -> None:
    """Removes the folder of a submission whose jobs have all completed; what failed is kept to be looked at."""
    name = str(folder.relative_to(store.side))
    others = (
        "SELECT 1 FROM submissions WHERE folder = ? AND (state <> 'COMPLETED' OR owner IN (SELECT owner FROM claims))"
    )
    if not store.execute(others, (name,)).fetchone():
        files.remove_tree(folder, store.side)


def _left(store: Store, job: Open) -> list[Cell]:
    """Cells of a job that have neither a report nor a failure from it: those end its claim."""
    rows = store.execute(f"SELECT {', '.join(Cell._fields)} FROM claims WHERE owner = ?", (job.owner,))
    return [Cell(*row) for row in rows.fetchall()]


def _failures(job: Open, cells: list[Cell], seen: Seen, fate: Mapping[str, Any]) -> list[Failure]:
    log = tail(job.folder / log_name(job.number))
    reason, error = judge(seen, fate, log)
    return [
        Failure(uuid.uuid4().hex, cell, reason, error, platform.node(), now(), log, job.number, _options(job))
        for cell in cells
    ]


def judge(seen: Seen, fate: Mapping[str, Any], log: str) -> tuple[Reason, str]:
    """Why a job that has ended did not finish, and that in one line.

    fate: what the job could still say itself. log: the end of its log.
    """
    said = f"Slurm: {seen.state}" + (f" ({seen.detail})" if seen.detail else "")
    code = fate.get("exit")
    if fate.get("reason") == "time limit":
        return "time limit", f"the time limit was met too often; {said}"
    if seen.state in _REASONS:
        reason = _REASONS[seen.state]
        return reason, f"{reason}; {said}"
    if match := _OUT_OF_MEMORY.search(log):
        return "out of memory", f"out of memory; {said}: {match[1]}"
    if seen.state == GONE and code is None:
        return "killed", f"the job is gone; {said}"
    if isinstance(code, int) and code < 0:
        reason, how = ended_by(code, log)
        return reason, f"the job's process {how}; {said}"
    how = "without a word" if code is None else f"with exit code {code}"
    return "killed", f"the job ended {how}, its log says more (benchkit show); {said}"


_REASONS: dict[str, Reason] = {
    "CANCELLED": "cancelled",
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node lost",
    "BOOT_FAIL": "node lost",
}


def _options(job: Open) -> dict[str, Any]:
    """The job's circumstances, as a failure has them."""
    from benchkit.jobs.job import Job

    try:
        text = files.read(job_file(job.folder, job.index), SEALED_BYTES, job.folder.parent.parent).decode()
        return Job.from_json(text).options.circumstances()
    except (OSError, ValueError, BenchkitError):  # it is gone, or not what was written: then nothing is known of it
        return {}


def _seconds_since(stamp: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()
