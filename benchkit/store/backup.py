"""A copy of a registry while it is in use: its file, the predictions of its runs, and what waits in its inbox."""

import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import fsync_folder, write_atomic
from benchkit.progress import Progress
from benchkit.records.report import Report
from benchkit.records.sealing import UnsealError, unseal
from benchkit.store.check import is_inside
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
    _refuse_taken(target)
    with _scratch(target) as folder:
        copy = folder / target.name
        side_folder(copy).mkdir()  # first of all: that it is gone means that it was moved to its place (_interrupted)
        inbox = _copy_inbox(store, side_folder(copy))
        try:
            copy_database(store, copy, progress)
            runs, files = _verified(copy)
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the backup '{target}': {e} (see `benchkit check`)") from e
        files += inbox
        lacking: list[str] = []
        copied = 0
        with progress.step("copy the predictions", len(files), "files") as step:
            for path, sha256 in files:
                if not is_inside(path) or not copy_file(store.side / path, side_folder(copy) / path, sha256, link=link):
                    lacking.append(path)
                else:
                    copied += 1
                step.advance()
        if lacking:
            lacking, gone = _still_named(store, lacking, copy, [path for path, _ in inbox])
            runs -= gone
        fsync_folder(folder)
        os.rename(side_folder(copy), side_folder(target))
        os.rename(copy, target)
        fsync_folder(target.parent)
    return Copied(runs, copied, tuple(lacking))


def _copy_inbox(store: Store, side: Path) -> list[tuple[str, str]]:
    """Copies what waits there, before the registry: whoever takes it in meanwhile, it is in one of both. Returns the
    files that these reports name.
    """
    named = []
    for path in waiting(store):
        try:
            record, data = unseal(path), path.read_bytes()
        except (FileNotFoundError, UnsealError):
            continue  # taken in meanwhile; or damaged, which is no part of a backup
        except OSError as e:
            raise StoreError(f"cannot write the backup: the report '{path}' cannot be read: {e.strerror}") from e
        write_atomic(side / "inbox" / path.name, data)
        if isinstance(record, Report):
            named += [(a.path, a.sha256) for a in record.artifacts]
    return named


def _verified(copy: Path) -> tuple[int, list[tuple[str, str]]]:
    """The number of runs in the copy and the files that they name. Raises StoreError where it is not sound."""
    with sqlite3.connect(copy, isolation_level=None) as db:
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            why = " ".join(found.split())
            raise StoreError(f"the copy is not sound ({why}), and neither may the registry be: see `benchkit check`")
        runs = db.execute("SELECT count(*) FROM runs").fetchone()[0]
        files = db.execute("SELECT path, sha256 FROM artifacts").fetchall()
        # Nobody computes anything for the copy. A backup of a backup, or a move to another host, starts afresh.
        db.execute("DELETE FROM claims")
        db.execute("DELETE FROM sightings")
    db.close()
    with copy.open("rb") as f:
        os.fsync(f.fileno())
    return runs, files


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
        if os.path.lexists(taken) and not _interrupted(target):
            raise StoreError(f"'{taken}' is there already: a backup overwrites nothing, give another name")


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder beside the target for what is not whole yet. What a killed backup has left is removed."""
    folder = _scratch_folder(target)
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as e:
        raise StoreError(f"cannot write the backup '{target}': {e.strerror}") from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise StoreError(f"another process is writing the backup '{target}'") from e
        if _interrupted(target):
            shutil.rmtree(side_folder(target), ignore_errors=True)
        else:
            _refuse_taken(target)  # it may have come meanwhile
        try:
            _empty(folder)
            yield folder
        except OSError as e:
            raise StoreError(f"cannot write the backup '{target}': {e.strerror}") from e
        finally:
            if _interrupted(target):  # between the two renames
                shutil.rmtree(side_folder(target), ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _scratch_folder(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def _interrupted(target: Path) -> bool:
    """Whether a backup was killed after it had moved its predictions, and before its file, to their place."""
    waiting_copy = _scratch_folder(target) / target.name
    return waiting_copy.exists() and not side_folder(waiting_copy).exists() and not os.path.lexists(target)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
