"""What processes that were killed have left beside a registry: locks of launchers, folders of jobs, half-written files.

A file's age is taken from the clock of the file system that it lies on, never from this host's.
"""

import os
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchkit.machine.files import listed, nameless, read, remove, remove_tree
from benchkit.records.gate import OWNER
from benchkit.store.claims import Owner, known_here
from benchkit.store.database import Store
from benchkit.store.locks import is_held, lock_file

GRACE = 3600.0
"""Seconds that a file may lie there before it counts as left over: a job writes predictions before its report."""
FAR = 86400.0
"""Seconds after which the lock of a launcher on another host, which has no claims, is nobody's."""
_WHO = re.compile(r"(\S{1,255}) (\d{1,10}) (\d{1,12}(?:\.\d{1,9})?)\n")


@dataclass(frozen=True)
class Leftovers:
    """locks: of launchers that are gone. jobs: folders of theirs. parts: files that were never finished."""

    locks: tuple[Path, ...]
    jobs: tuple[Path, ...]
    parts: tuple[Path, ...]

    def __str__(self) -> str:
        counts = ((len(self.locks), "locks of launchers"), (len(self.jobs), "folders of jobs"),
                  (len(self.parts), "unfinished files"))  # fmt: skip
        return ", ".join(f"{n:,} {what}" for n, what in counts if n)

    def __bool__(self) -> bool:
        return bool(self.locks or self.jobs or self.parts)


def leftovers(store: Store) -> Leftovers:
    """Changes nothing."""
    claiming = {row[0] for row in store.execute("SELECT DISTINCT owner FROM claims").fetchall()}
    names = _names(store, "owners")
    locks = [
        lock_file(store.side, token)
        for token in (name.removesuffix(".lock") for name in names if name.endswith(".lock"))
        if OWNER(token) and token not in claiming and _is_gone(store, token)
    ]
    living = {name.removesuffix(".lock") for name in names} - {lock.name.removesuffix(".lock") for lock in locks}
    jobs = [
        store.side / "jobs" / name
        for name in _names(store, "jobs")
        if OWNER(token := name.partition("-")[0]) and token not in living and token not in claiming
    ]
    return Leftovers(tuple(locks), tuple(jobs), tuple(_parts(store)))


def sweep(store: Store) -> Leftovers:
    """Removes them; what another user left stays, where it may not be removed. What there was."""
    found = leftovers(store)
    for folder in found.jobs:
        remove_tree(folder, store.side)
    for file in (*found.locks, *found.parts):
        with suppress(OSError):
            remove(file, store.side)
    return found


def older(paths: Iterable[Path], seconds: float) -> list[Path]:
    """Those plain files that nobody has written to for so long. All lie in folders of one file system."""
    found: list[Path] = []
    moment: float | None = None
    for path in paths:
        with suppress(OSError):  # it has just gone
            moment = _moment(path.parent) if moment is None else moment
            known = path.lstat()
            if path.is_file() and not path.is_symlink() and known.st_mtime < moment - seconds:
                found.append(path)
    return found


def _moment(folder: Path) -> float:
    """This moment by the clock of the file system. Raises OSError."""
    with nameless(folder) as f:
        return os.fstat(f.fileno()).st_mtime


def _is_gone(store: Store, token: str) -> bool:
    """Whether the launcher with this lock is, as far as this host can know."""
    path = lock_file(store.side, token)
    if is_held(store.side, token) is True:
        return False
    try:
        who = _WHO.fullmatch(read(path, 1000, store.side).decode(errors="replace"))
    except OSError:
        return False
    if who and who[1] == platform.node():
        lives = known_here(Owner(token, who[1], int(who[2]), float(who[3]), None))
        if lives is not None:
            return not lives
    return bool(older([path], FAR))


def _names(store: Store, folder: str) -> list[str]:
    try:
        return sorted(listed(store.side / folder, store.side))
    except OSError:  # a link, say: nothing in it is ours to remove
        return []


def _parts(store: Store) -> list[Path]:
    found: list[Path] = []
    for folder in ("inbox", "predictions"):
        names = _names(store, folder)
        found += older((store.side / folder / n for n in names if n[0] == "." and n.endswith(".part")), GRACE)
    return found
