"""Somebody else's registry, read and not believed.

It is opened read-only, and nothing of its schema is used but benchkit's own tables, which must be as benchkit makes
them: no view, no trigger, no column that is computed. Each value is held against its type as it is read
(benchkit.store.columns), each run against the checksum that it keeps, and Ctrl-C ends it whatever it would have us do.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir

from benchkit.errors import StoreError
from benchkit.machine import files
from benchkit.progress import Silent
from benchkit.store.connection import errors
from benchkit.store.copies import copy_database
from benchkit.store.database import Store, open_alone, open_reading
from benchkit.store.migrations import MIGRATIONS, VERSION, tables

LONGEST = 64 << 20
"""Bytes of one value in it."""
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_SAVEPOINT}


SCRATCH = ".benchkit-merge-"
"""How the folders of migrated copies begin, among the temporary files."""
GRACE = 3600.0
"""Seconds after which one whose lock nobody holds is a killed merge's."""


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The other registry for reading; an older one as a migrated copy. Raises StoreError."""
    other = open_reading(path)
    try:
        version = int(other.execute("PRAGMA user_version").fetchone()[0])
        _hold_schema(other, version)
        _hold_file(other)
        if version == VERSION:
            _tables_only(other.db.connection())
            with other.db.atomic():
                yield other
            return
        _tidy(Path(gettempdir()))
        with files.scratch(Path(gettempdir()), SCRATCH) as (folder, handle):
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            copy = folder / "registry.sqlite"
            copy_database(other, copy, Silent())
            with open_alone(copy) as migrated:
                _tables_only(migrated.db.connection())
                yield Store(path, migrated.db, False)  # with the files beside the original
    finally:
        other.close()


def _tidy(folder: Path) -> None:
    """Removes what merges of this user that were killed have left there."""
    for left, handle in files.remains(folder, SCRATCH):
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(handle).st_mtime > GRACE:
                files.remove_tree(left, folder)


def _hold_schema(other: Store, version: int) -> None:
    """Raises StoreError where one of benchkit's tables is missing, or not as benchkit makes it."""
    with errors(other.path):
        found = {
            (kind, name): sql
            for kind, name, sql in other.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
        }
    for name, sql in tables(version).items():
        if found.get(("table", name)) != sql:
            raise StoreError(
                f"registry '{other.path}': its table {name} is not that of schema {version}: damaged, or changed "
                "by something else than benchkit; `benchkit check` there names all that differs"
            )
    if version < len(MIGRATIONS) and (named := [name for kind, name in found if kind == "trigger"]):
        raise StoreError(f"registry '{other.path}' has a trigger, '{named[0]}', that benchkit did not make: drop it")


def _hold_file(other: Store) -> None:
    found = other.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"registry '{other.path}' is damaged ({' '.join(str(found).split())}): see `benchkit check`")


def _tables_only(connection: sqlite3.Connection) -> None:
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100)
    known = {"sqlite_master", *tables(VERSION)}

    def authorize(action: int, first: str | None, _second: str | None, _db: str | None, view: str | None) -> int:
        if action == sqlite3.SQLITE_READ:  # json_each is ours to use, and no table of theirs
            allowed = view is None and (first in known or first in ("json_each", ""))
        else:
            allowed = action in _READING or (action == sqlite3.SQLITE_UPDATE and first == "sqlite_master")
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    connection.execute("PRAGMA query_only = 1")
    connection.set_authorizer(authorize)
