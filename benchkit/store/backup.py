"""A copy of a registry while it is in use: its file, the predictions of its runs, and what waits in its inbox."""

import fcntl
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine import files
from benchkit.progress import Progress
from benchkit.records.gate import SEALED_BYTES
from benchkit.records.report import Report
from benchkit.records.sealing import UnsealError, unsealed
from benchkit.store.check import is_named
from benchkit.store.connection import harden
from benchkit.store.copies import copy_database, copy_file
from benchkit.store.database import Store, side_folder
from benchkit.store.ingest import waiting
from benchkit.store.opening import open_store
from benchkit.store.remove import remove


@dataclass(frozen=True)
class Copied:
    """runs: in the copy. files: predictions copied. lacking: those that were missing or altered in the registry."""

    runs: int
    files: int
    lacking: tuple[str, ...]


def backup(store: Store, target: Path, progress: Progress, *, link: bool = False) -> Copied:
    """Copies the registry to `target`, whole or not at all; overwrites nothing. Others go on reading and writing.

    link: predictions as second names of the same files, which takes no room, where both are on one file system.
    Raises StoreError, in one line; what was copied until then is removed.
    """
    target = target.absolute()
    if not target.parent.is_dir():
        raise StoreError(f"cannot write the backup '{target}': there is no folder '{target.parent}'")
    try:
        _clear(target)
        _refuse_taken(target)
        with files.scratch(target.parent, _prefix(target)) as (folder, handle):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as it is held, it is not taken for remains
            copied = _copy(store, folder / target.name, target, progress, link)
            _publish(folder / target.name, target)
    except OSError as e:
        raise StoreError(f"cannot write the backup '{target}': {e.strerror}") from e
    return copied


def _copy(store: Store, copy: Path, target: Path, progress: Progress, link: bool) -> Copied:
    side = side_folder(copy)
    files.make_folder(side)
    inbox = _copy_inbox(store, side)
    try:
        copy_database(store, copy, progress)
        runs, wanted = _verified(copy)
    except sqlite3.Error as e:
        raise StoreError(f"cannot write the backup '{target}': {e} (see `benchkit check`)") from e
    wanted += inbox
    lacking: list[str] = []
    copied = 0
    with progress.step("copy the predictions", len(wanted), "files") as step:
        for path, sha256, size in wanted:
            whole = is_named(path, sha256, size) and copy_file(
                store.side / path, side / path, sha256, size, within=store.side, within_target=side, link=link
            )
            copied += whole
            lacking += [] if whole else [path]
            step.advance()
    if lacking:
        lacking, gone = _still_named(store, lacking, copy, [path for path, *_ in inbox])
        runs -= gone
    return Copied(runs, copied, tuple(lacking))


def _copy_inbox(store: Store, side: Path) -> list[tuple[str, str, int]]:
    """Copies what waits there, before the registry: whoever takes it in meanwhile, it is in one of both. Returns the
    files that these reports name.
    """
    named = []
    for path in waiting(store):
        try:
            record, _ = unsealed(path)
            data = files.read(path, SEALED_BYTES, store.side)
        except (FileNotFoundError, UnsealError):
            continue  # taken in meanwhile; or damaged, which is no part of a backup
        except OSError as e:
            raise StoreError(f"cannot write the backup: the report '{path}' cannot be read: {e.strerror}") from e
        files.write_atomic(side / "inbox" / path.name, data, side)
        if isinstance(record, Report):
            named += [(a.path, a.sha256, a.bytes) for a in record.artifacts]
    return named


def _verified(copy: Path) -> tuple[int, list[tuple[str, str, int]]]:
    """The number of runs in the copy and the files that they name. Raises StoreError where it is not sound."""
    with sqlite3.connect(copy, isolation_level=None) as db:
        harden(db)
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            why = " ".join(found.split())
            raise StoreError(f"the copy is not sound ({why}), and neither may the registry be: see `benchkit check`")
        runs = db.execute("SELECT count(*) FROM runs").fetchone()[0]
        named = db.execute("SELECT path, sha256, bytes FROM artifacts").fetchall()
        # Nobody computes anything for the copy. A backup of a backup, or a move to another host, starts afresh.
        db.execute("DELETE FROM claims")
        db.execute("DELETE FROM sightings")
    db.close()
    with files.reading(copy) as f:
        os.fsync(f.fileno())
    return runs, named


def _still_named(store: Store, lacking: Sequence[str], copy: Path, waiting: Sequence[str]) -> tuple[list[str], int]:
    """Of the files that could not be copied those that the registry still names, or a report that waits. The others'
    runs were removed while it was copied, and go from the copy too: how many.
    """
    rows = store.execute(f"SELECT path FROM artifacts WHERE path {_LISTED}", [json.dumps(lacking)]).fetchall()
    named = {path for (path,) in rows} | set(waiting)
    unnamed, gone = [path for path in lacking if path not in named], 0
    if unnamed:
        with open_store(copy, ingest=False) as made:
            found = made.execute(f"SELECT run_id FROM artifacts WHERE path {_LISTED}", [json.dumps(unnamed)]).fetchall()
            gone = remove(made, [run for (run,) in found]).runs
    return [path for path in lacking if path in named], gone


_LISTED = "IN (SELECT value FROM json_each(?))"


def _refuse_taken(target: Path) -> None:
    for taken in (target, side_folder(target)):
        if os.path.lexists(taken):
            raise StoreError(f"'{taken}' is there already: a backup overwrites nothing, give another name")


def _publish(copy: Path, target: Path) -> None:
    """Moves what is whole to its place: the predictions first, so that a registry there has all of them."""
    files.fsync_folder(copy.parent)
    _refuse_taken(target)  # it may have come meanwhile
    side = side_folder(copy)
    files.write_atomic(copy.with_name(MOVED), _identity(side).encode())
    try:
        files.move(side, side_folder(target))
        files.move_new(copy, target)
    except BaseException:
        _take_back(copy.parent, target)
        raise
    files.fsync_folder(target.parent)


def _take_back(folder: Path, target: Path) -> None:
    """Where a backup ended after it had moved its predictions, and before its file, to their place: removes them."""
    try:
        moved = files.read(folder / MOVED, 100).decode()
    except (OSError, ValueError):
        return
    side = side_folder(target)
    if not os.path.lexists(target) and os.path.lexists(side) and _identity(side) == moved:
        files.remove_tree(side)


def _identity(folder: Path) -> str:
    """That of the folder itself, whatever its name."""
    found = os.lstat(folder)
    return f"{found.st_dev} {found.st_ino}"


def _clear(target: Path) -> None:
    """Removes what a backup to the same place has left that was killed."""
    for folder, handle in files.remains(target.parent, _prefix(target)):
        with suppress(BlockingIOError):  # one that is at work
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _take_back(folder, target)
            files.remove_tree(folder)


def _prefix(target: Path) -> str:
    return f".{target.name}."


MOVED = "moved"
"""A file in the scratch folder that says which folder was moved from there."""
