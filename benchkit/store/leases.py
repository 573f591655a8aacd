"""Whether a launcher on another host still renews its claims, without comparing two hosts' clocks.

A host notes which heartbeat it saw of a launcher and when, by its own clock since it was started: one that nobody sets.
A heartbeat that stays the same for LEASE seconds of that clock belongs to a launcher that is gone. The notes are in the
table `sightings`, so that commands that each look for a moment only reach the same conclusion as one that waits.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchkit.store.columns import gate
from benchkit.store.database import Store

HEARTBEAT = 30.0
"""Seconds between two renewals."""
LEASE = 600.0
"""Seconds without a renewal after which a claim of another host is given up."""


@dataclass(frozen=True)
class Sighting:
    """The heartbeat that this host saw last of a launcher, and for how many seconds it has been the same."""

    heartbeat_at: str
    age: float


def sightings(store: Store) -> dict[str, Sighting]:
    """What this host has noted, by launcher. What it noted before it was started anew does not count."""
    sql = "SELECT owner, heartbeat_at, seen_s FROM sightings WHERE observer = ?"
    rows = store.execute(sql, (observer(),)).fetchall()
    gate(store.path, "sightings", ("owner", "heartbeat_at", "seen_s"), rows)
    moment = uptime()
    return {owner: Sighting(beat, moment - seen) for owner, beat, seen in rows if seen <= moment}


def expired(heartbeat_at: str, sighting: Sighting | None) -> bool:
    """Whether a launcher with this heartbeat is gone. What its clock or ours says does not count: either may be a year
    ahead."""
    return sighting is not None and sighting.heartbeat_at == heartbeat_at and sighting.age >= LEASE


def note(store: Store, heartbeats: Mapping[str, str]) -> None:
    """Notes the heartbeats, by launcher, that this host sees for the first time; inside the caller's transaction."""
    known, me, moment = sightings(store), observer(), uptime()
    for owner, beat in heartbeats.items():
        if owner not in known or known[owner].heartbeat_at != beat:
            store.execute("INSERT OR REPLACE INTO sightings VALUES (?, ?, ?, ?)", (owner, me, beat, moment))
    store.execute("DELETE FROM sightings WHERE owner NOT IN (SELECT owner FROM claims)")


@cache
def observer() -> str:
    """This host since it was started."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # macOS
        return platform.node()


def uptime() -> float:
    """Seconds since this host was started, asleep or not."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
