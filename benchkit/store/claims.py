"""Claims: who computes a cell right now. A claim ends with its owner, not after some days.

An owner is a process. On this host it is alive while a process of its pid and start time is; elsewhere while it renews
its heartbeat.
"""

import os
import platform
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psutil

from benchkit.errors import StoreError
from benchkit.report import Cell
from benchkit.store.database import Store, open_store
from benchkit.store.ingest import ingest_inbox
from benchkit.store.insert import CELL
from benchkit.times import now

HEARTBEAT = 30.0
"""Seconds between two renewals."""
LEASE = 600.0
"""Seconds without a renewal after which the claim of another host is given up: clocks may differ by minutes."""


@dataclass(frozen=True)
class Owner:
    """A launcher: one process, for as long as it lives."""

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
            os.environ.get("SLURM_JOB_ID"),
        )

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"{self.host} pid {self.pid}{job}"


def claim(store: Store, cells: Sequence[Cell], owner: Owner, *, force: bool = False) -> list[Cell]:
    """Claims those of `cells` that nobody has claimed and that are not done; returns them. One atomic transaction.

    force: cells that are done are claimed too (they are to be computed again).
    """
    got = []
    release_dead(store)
    ingest_inbox(store)  # after that: whatever a dead owner has sealed is done, not to do
    with store.write():
        stamp = now()
        for cell in cells:
            if not force and store.execute(f"SELECT 1 FROM runs WHERE current AND {CELL}", cell).fetchone():
                continue
            made = store.execute(
                "INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*cell, owner.token, owner.host, owner.pid, owner.process_started, owner.slurm_job, stamp, stamp),
            )
            if made.rowcount == 1:
                got.append(cell)
    return got


def release(store: Store, owner: Owner, cells: Iterable[Cell] | None = None) -> None:
    """Gives up the owner's claims: all of them, or those of `cells`."""
    with store.write():
        if cells is None:
            store.execute("DELETE FROM claims WHERE owner = ?", (owner.token,))
        else:
            store.many(f"DELETE FROM claims WHERE {CELL} AND owner = ?", [(*c, owner.token) for c in cells])


def release_dead(store: Store) -> int:
    """Deletes the claims whose owner is gone; how many."""
    owners = store.execute(
        "SELECT owner, host, pid, process_started, slurm_job, max(heartbeat_at) FROM claims GROUP BY owner"
    )
    gone = [o[0] for o in owners.fetchall() if not alive(Owner(*o[:5]), o[5])]
    if not gone:
        return 0
    with store.write():
        return sum(store.execute("DELETE FROM claims WHERE owner = ?", (token,)).rowcount for token in gone)


def alive(owner: Owner, heartbeat_at: str) -> bool:
    """Whether the owner may still be computing."""
    if owner.host == platform.node():
        try:
            return abs(psutil.Process(owner.pid).create_time() - owner.process_started) < 1.0
        except psutil.NoSuchProcess:
            return False
    return datetime.now(UTC) - datetime.fromisoformat(heartbeat_at) < timedelta(seconds=LEASE)


@contextmanager
def heartbeat(store: Store, owner: Owner) -> Iterator[None]:
    """Renews the owner's claims every now and then; on leaving, whatever the reason, gives up those that are left."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(HEARTBEAT):
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
        release(store, owner)
