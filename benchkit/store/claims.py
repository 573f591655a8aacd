"""Claims: who computes a cell right now. A claim ends with its owner, not after some days.

An owner is a process or a job in a Slurm queue. A process on this host is alive while one of its pid and start time is,
or a worker that it has left behind (benchkit.store.locks); elsewhere, and where this user may not test the lock, while
it renews its heartbeat (benchkit.store.leases). What the end of a job means is settled with what the scheduler says of
it (benchkit.dispatch.slurm.settle), and until then its claims stand.
"""

import os
import platform
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchkit.errors import StoreError
from benchkit.machine.cluster import slurm_job
from benchkit.machine.files import remove
from benchkit.machine.times import now
from benchkit.records.report import Cell
from benchkit.store import leases
from benchkit.store.columns import gate
from benchkit.store.database import Store
from benchkit.store.insert import CELL
from benchkit.store.leases import Sighting, expired, note, sightings
from benchkit.store.locks import is_held, lock_file, locked
from benchkit.store.opening import open_store, refresh

QUEUED = "Slurm job "
"""How an owner that waits or runs in a queue is written."""


@dataclass(frozen=True)
class Owner:
    """A launcher: one process, for as long as it lives. Or, with pid 0, a job that one has submitted to Slurm."""

    token: str
    host: str
    pid: int
    process_started: float
    slurm_job: str | None

    @staticmethod
    def this_process() -> "Owner":
        return Owner(
            uuid.uuid4().hex,
            platform.node(),
            os.getpid(),
            psutil.Process().create_time(),
            slurm_job(),
        )

    @property
    def process(self) -> str:
        """Host, number and start of its process, as its lock names it."""
        return f"{self.host} {self.pid} {self.process_started:.6f}\n"

    def __str__(self) -> str:
        if not self.pid:
            return f"{QUEUED}{self.slurm_job}"
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"{self.host} pid {self.pid}{job}"


def claim(store: Store, cells: Sequence[Cell], owner: Owner, *, force: bool = False) -> list[Cell]:
    """Claims those of `cells` that nobody has claimed and that are not done; returns them. One atomic transaction.

    force: cells that are done are claimed too (they are to be computed again).
    """
    refresh(store)
    got = _claim(store, cells, owner, force)
    if len(got) < len(cells) and release_dead(store):
        refresh(store)  # whatever a dead owner has sealed is done, not to do
        had = set(got)
        got += _claim(store, [c for c in cells if c not in had], owner, force)
    return got


def _claim(store: Store, cells: Sequence[Cell], owner: Owner, force: bool) -> list[Cell]:
    who = (owner.token, owner.host, owner.pid, owner.process_started, owner.slurm_job)
    got = []
    with store.write():
        stamp = now()
        for cell in cells:
            if not force and store.execute(f"SELECT 1 FROM runs WHERE current AND {CELL}", cell).fetchone():
                continue
            made = store.execute(
                "INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*cell, *who, stamp, stamp)
            )
            if made.rowcount == 1:
                got.append(cell)
    return got


def release(store: Store, owner: Owner, cells: Iterable[Cell] | None = None) -> None:
    """Gives up the owner's claims: all of them, or those of `cells`. What it has sealed is taken in before that: a cell
    that has neither a claim nor a report is to do.
    """
    refresh(store)
    with store.write():
        if cells is None:
            store.execute("DELETE FROM claims WHERE owner = ?", (owner.token,))
        else:
            store.many(f"DELETE FROM claims WHERE {CELL} AND owner = ?", [(*c, owner.token) for c in cells])


def claimed_by(store: Store, owner: Owner, cells: Iterable[Cell]) -> list[Cell]:
    """Those of `cells` that the owner has claimed, and that have got no report since."""
    mine = f"SELECT 1 FROM claims WHERE {CELL} AND owner = ?"
    return [cell for cell in cells if store.execute(mine, (*cell, owner.token)).fetchone()]


def release_dead(store: Store) -> int:
    """Deletes the claims whose owner is gone: how many. Notes the heartbeats of those on other hosts."""
    seen = sightings(store)
    gone, far = [], {}
    for owner, beat in owners(store):
        if not alive(store.side, owner, beat, seen.get(owner.token)):
            gone.append((owner.token, beat))
        elif _computes(store.side, owner) is None and (
            owner.token not in seen or seen[owner.token].heartbeat_at != beat
        ):
            far[owner.token] = beat
    if not gone and not far:
        return 0
    with store.write():
        # A launcher on another host that slept may have renewed its claims since they were looked at.
        beats = {owner.token: beat for owner, beat in owners(store)}
        silent = [token for token, beat in gone if beats.get(token) == beat]
        deleted = sum(store.execute("DELETE FROM claims WHERE owner = ?", (token,)).rowcount for token in silent)
        note(store, far)
    for token in silent:
        with suppress(OSError):  # another user's: it means nothing without its claims
            remove(lock_file(store.side, token), store.side)
    return deleted


def await_orphans(store: Store, seconds: float) -> None:
    """Waits for workers of launchers that have died on this host: each ends by itself, within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(
            known_here(owner) is False and is_held(store.side, owner.token) is True for owner, _ in owners(store)
        ):
            return
        time.sleep(0.1)


def owners(store: Store) -> list[tuple[Owner, str]]:
    """Who has claims, and the newest heartbeat of each."""
    names = ("owner", "host", "pid", "process_started", "slurm_job", "heartbeat_at")
    rows = store.execute(
        "SELECT owner, host, pid, process_started, slurm_job, max(heartbeat_at) FROM claims GROUP BY owner"
    ).fetchall()
    gate(store.path, "claims", names, rows)
    return [(Owner(*row[:5]), row[5]) for row in rows]


def alive(side: Path, owner: Owner, heartbeat_at: str, sighting: Sighting | None = None) -> bool:
    """Whether the owner, or a worker of it, may still be computing.

    side: the store's side folder. heartbeat_at: what its claims say. sighting: what this host has noted of it
    (benchkit.store.leases).
    """
    known = _computes(side, owner)
    if known is None and owner.slurm_job and _job_ended(owner):
        return False
    return known if known is not None else not expired(heartbeat_at, sighting)


def in_words(side: Path, owner: Owner) -> str:
    """The owner, and why it counts as alive where that is not plain. side: of the store."""
    found = known_here(owner) is False and is_held(side, owner.token)
    if isinstance(found, OSError):
        return f"{owner} (which is gone; whether a worker of it goes on cannot be told, for its lock " \
               f"'{lock_file(side, owner.token)}' cannot be tested: {found.strerror})"  # fmt: skip
    return f"{owner} (which is gone; a worker of it goes on)" if found else str(owner)


def _computes(side: Path, owner: Owner) -> bool | None:
    """Whether the owner or a worker of it is alive; None where this host, or this user, cannot know."""
    known = known_here(owner)
    if known is not False:
        return known
    found = is_held(side, owner.token)
    return None if isinstance(found, OSError) else found


def _job_ended(owner: Owner) -> bool:
    """Whether the Slurm job that a launcher on another host runs in is over."""
    from benchkit.machine.scheduler import job_ended

    return job_ended(str(owner.slurm_job), owner.host)


def known_here(owner: Owner) -> bool | None:
    """Whether the owner is alive; None where this host cannot know."""
    if not owner.pid:
        return True  # a job in a queue
    if owner.host != platform.node():
        return None
    try:
        process = psutil.Process(owner.pid)
        started, zombie = process.create_time(), process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    if zombie:
        return False
    if abs(started - owner.process_started) < 1.0:
        return True
    # Another process has its number now, or it is the same and the clock was set, which its start is reckoned from.
    return False if owner.pid == os.getpid() else None


@dataclass(frozen=True)
class Held:
    """An owner with its lock."""

    owner: Owner
    inherited: tuple[int, ...]
    """File descriptors that worker processes inherit (pass_fds)."""


@contextmanager
def heartbeat(store: Store, owner: Owner) -> Iterator[Held]:
    """Renews the owner's claims every now and then; on leaving, whatever the reason, gives up those that are left."""
    with locked(store.side, owner.token, owner.process) as descriptor, _beating(store, owner):
        try:
            yield Held(owner, (descriptor,))
        finally:
            release(store, owner)


@contextmanager
def _beating(store: Store, owner: Owner) -> Iterator[None]:
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(leases.HEARTBEAT):
            try:
                with open_store(store.path, ingest=False) as mine, mine.write():
                    mine.execute("UPDATE claims SET heartbeat_at = ? WHERE owner = ?", (now(), owner.token))
            except StoreError:
                continue  # busy or unreachable for now: the lease outlasts many beats

    thread = threading.Thread(target=beat, daemon=True, name="benchkit-heartbeat")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
