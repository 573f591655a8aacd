"""An SQLite connection that waits for its turn: no one sees "database is locked" because another process is writing.

SQLite waits by itself in most places, but not in all (a journal that must be recovered, a change of the journal mode,
two processes that would wait for each other), and Ctrl-C has no effect while it does. So SQLite waits briefly, and
everything that found the registry locked is tried again here, until patience ends.
"""

import random
import sqlite3
import time
import warnings
from collections.abc import Callable
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

_BUSY = ("locked", "busy", "locking protocol")
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


class Database(peewee.SqliteDatabase):
    """peewee's, with patience. Inside of a transaction only its end is tried again: all else has its lock already."""

    def __init__(self, path: Path, uri: str, pragmas: list[tuple[str, Any]]) -> None:
        super().__init__(uri, pragmas=pragmas, timeout=BRIEFLY, uri=True, autoconnect=True)
        self.path = path
        self.patience: float | None = None
        """For this connection's next transaction; None: the usual."""

    def _connect(self) -> Any:
        return patiently(self.path, super()._connect)  # type: ignore[misc]  # peewee has no types

    def begin(self, lock_type: str | None = None) -> None:
        begin = super().begin
        patiently(self.path, lambda: begin(lock_type), self.patience)

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
