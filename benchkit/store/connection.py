"""An SQLite connection that waits for its turn: no one sees "database is locked" because another process is writing.

SQLite waits by itself in most places, but not in all (a journal that must be recovered, a change of the journal mode,
two processes that would wait for each other), and Ctrl-C has no effect while it does. So SQLite waits briefly, and
everything that found the registry locked is tried again here, until patience ends.
"""

import random
import sqlite3
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import peewee

from benchkit.errors import StoreError

PATIENCE = 600.0
"""Seconds that a command waits for another process's write before it gives up."""
BRIEFLY = 0.25
"""Seconds that SQLite waits by itself: for so long Ctrl-C has to wait too."""
SAY_SO = 5.0
"""Seconds of waiting after which the user is told what for."""

LONGEST = 256 << 20
"""Bytes of one value in a registry at most."""

_BUSY = ("locked", "busy", "locking protocol")
ANEW = "move a damaged one away, then `benchkit merge BACKUP` brings back what a backup has, `benchkit run` the rest"
"""What is left to do where the file itself is damaged; docs/registry.md has it step by step."""
T = TypeVar("T")


class StoreBusy(StoreError):
    """Another process has held the registry for longer than patience lasts."""


def patiently(path: Path, act: Callable[[], T], patience: float | None = None) -> T:
    """`act()`, again and again while the registry is locked. Raises StoreBusy once `patience` seconds are over."""
    limit = PATIENCE if patience is None else patience
    began, said = time.monotonic(), False
    while True:
        try:
            return act()
        except (sqlite3.OperationalError, peewee.OperationalError) as e:
            if not is_busy(e):
                raise
            waited = time.monotonic() - began
            if waited >= limit:
                raise StoreBusy(
                    f"registry '{path}': another process has been writing to it for {waited:.0f} s; nothing was "
                    "changed, try again once it is done"
                ) from e
        if waited > SAY_SO and not said:
            said = True
            warnings.warn(f"registry '{path}' is being written by another process: waiting for it", stacklevel=2)
        time.sleep(random.uniform(0.001, 0.02))


def is_busy(error: Exception) -> bool:
    """Whether it only says that another process is at it."""
    text = str(error).lower()
    return any(word in text for word in _BUSY)


class StoreRefused(StoreError):
    """A row contradicts the schema: a number where text belongs, the same key twice."""


_REFUSED = (
    sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.DataError, sqlite3.ProgrammingError,
    peewee.IntegrityError, peewee.InterfaceError, peewee.DataError, peewee.ProgrammingError,
)  # fmt: skip


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's errors as one clear line each."""
    try:
        yield
    except (sqlite3.Error, peewee.PeeweeException, UnicodeDecodeError) as e:
        raise explained(path, e) from e


def explained(path: Path, error: Exception) -> BaseException:
    """A StoreError for what can be wrong with a registry, StoreRefused for a row. A mistake in our SQL stays one; where
    Ctrl-C ended it, it is that."""
    text, lower = str(error), str(error).lower()
    if lower == "interrupted":
        return KeyboardInterrupt()
    if "syntax error" in lower and "malformed" not in lower:
        return error
    kind = StoreRefused if isinstance(error, _REFUSED) else StoreError
    return kind(f"registry '{path}'{_explain(text, lower)}")


def _explain(text: str, lower: str) -> str:
    if "is full" in lower:
        return ": the disk is full; nothing was changed"
    if "locked" in lower or "busy" in lower:
        return ": another process is writing to it; nothing was changed, try again once it is done"
    if "not a database" in lower:
        return f" is no registry, or damaged from its beginning on ({text}): --db names another; {ANEW}"
    if "utf-8" in lower:
        return f" is damaged, it holds text that is not UTF-8 ({text}): `benchkit check` names it; {ANEW}"
    if "malformed" in lower or "disk image" in lower:
        return f" is damaged ({text}): {ANEW}"
    if "no such table" in lower or "no such column" in lower:
        return f" is damaged or no registry ({text}): `benchkit check` names all that it lacks; {ANEW}"
    if "readonly" in lower or "unable to open" in lower or "permission" in lower:
        return f" cannot be opened ({text}): check the permissions of the file and its folder"
    return f": {text}"


class _Cursor(sqlite3.Cursor):
    """Damage often shows only when a row is read."""

    connection: "_Connection"

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as e:  # its message may hold what is damaged
            raise explained(self.connection.path, e) from e

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        try:
            return super().fetchmany(size)
        except (sqlite3.Error, UnicodeDecodeError) as e:  # its message may hold what is damaged
            raise explained(self.connection.path, e) from e

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as e:  # its message may hold what is damaged
            raise explained(self.connection.path, e) from e

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except (sqlite3.Error, UnicodeDecodeError) as e:  # its message may hold what is damaged
            raise explained(self.connection.path, e) from e


class _Connection(sqlite3.Connection):
    path: Path

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)


def harden(connection: sqlite3.Connection) -> None:
    """A registry may come from somebody else: its schema gets no function that does more than compute, pages are held
    against their own description, no value may fill memory, and Ctrl-C ends whatever it has us compute.

    https://sqlite.org/security.html
    """
    connection.execute("PRAGMA trusted_schema = 0")
    connection.execute("PRAGMA cell_size_check = 1")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if sys.version_info >= (3, 12):
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_DEFENSIVE, True)
    connection.set_progress_handler(lambda: 0, 100_000)  # comes back to Python now and then, where Ctrl-C is noticed


class Database(peewee.SqliteDatabase):
    """peewee's, with patience. Inside of a transaction only its end is tried again: all else has its lock already."""

    def __init__(self, path: Path, uri: str, pragmas: list[tuple[str, Any]]) -> None:
        super().__init__(uri, pragmas=pragmas, timeout=BRIEFLY, uri=True, autoconnect=True, factory=_Connection)
        self.path = self.place = path
        """As it is called in errors, and where it is: a copy of another may be looked at in its place."""
        self.patience: float | None = None
        """For this connection's next transaction; None: the usual."""

    def _connect(self) -> Any:
        made = patiently(self.path, super()._connect)  # type: ignore[misc]  # peewee has no types
        made.path = self.path
        harden(made)
        return made

    def begin(self, lock_type: str | None = None) -> None:
        begin = super().begin
        patiently(self.path, lambda: begin(lock_type), self.patience)
        if lock_type is None:  # the first read takes the lock of readers, which a rollback journal's writer may hold up
            read = super().execute_sql
            try:
                patiently(self.path, lambda: read("SELECT 1 FROM sqlite_master").fetchone(), self.patience)
            except BaseException:
                self.rollback()
                raise

    def commit(self) -> None:
        patiently(self.path, super().commit)

    def rollback(self) -> None:
        if self.connection().in_transaction:  # a full disk may have ended it already
            super().rollback()

    def execute_sql(self, sql: str, params: Any = None) -> Any:
        execute = super().execute_sql
        if self.connection().in_transaction:
            return execute(sql, params)
        return patiently(self.path, lambda: execute(sql, params))
