"""Opening a store: where it is, what makes it safe to share, and a clear word for everything that can be wrong.

with open_store(path) as store:           # created where it is missing; takes in what waits in the inbox
with open_store(path, create=False)       # for readers: an error where there is none, read-only where it must be
"""

import os
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peewee

from benchkit.errors import StoreError
from benchkit.store.migrations import APPLICATION_ID, MIGRATIONS, VERSION, statements

DEFAULT = "registry.sqlite"
PATIENCE = 600.0
"""Seconds that a write waits for another process's write before it gives up."""


def store_path(given: str | Path | None = None) -> Path:
    """`given` (--db), else BENCHKIT_DB, else ./registry.sqlite."""
    return Path(given or os.environ.get("BENCHKIT_DB") or DEFAULT).expanduser()


@dataclass(frozen=True)
class Store:
    """An open registry. Beside the SQLite file `x.sqlite` lies the folder `x.sqlite.d` with inbox and predictions."""

    path: Path
    db: peewee.SqliteDatabase
    writable: bool

    @property
    def side(self) -> Path:
        return side_folder(self.path)

    @property
    def inbox(self) -> Path:
        return self.side / "inbox"

    def execute(self, sql: str, params: Any = ()) -> Any:
        with errors(self.path):
            return self.db.execute_sql(sql, params)

    def many(self, sql: str, rows: Any) -> None:
        """One statement for many rows."""
        with errors(self.path):
            self.db.connection().executemany(sql, rows)

    @contextmanager
    def write(self) -> Iterator[None]:
        """A transaction that holds the write lock from its start, so that what is read in it stays true."""
        if not self.writable:
            raise StoreError(
                f"registry '{self.path}' cannot be written (read-only file or folder): copy it, or use --db"
            )
        with errors(self.path), self.db.atomic("IMMEDIATE"):
            yield

    def refresh(self) -> None:
        """Takes in what has come into the inbox meanwhile."""
        if not self.inbox.is_dir() or not any(e.name.endswith(".json") for e in os.scandir(self.inbox)):
            return  # and nothing of what reads records is imported
        from benchkit.store.ingest import ingest_inbox

        for note in ingest_inbox(self):
            warnings.warn(note, stacklevel=2)

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def side_folder(path: Path) -> Path:
    return path.with_name(path.name + ".d")


def open_store(given: str | Path | None = None, *, create: bool = True, ingest: bool = True) -> Store:
    """Opens, and where it must creates or migrates, a registry. Raises StoreError in one line."""
    path = store_path(given)
    if not path.exists():
        if not create:
            raise StoreError(
                f"there is no registry at '{path}': `benchkit run` makes one; --db or BENCHKIT_DB names another"
            )
        if not path.parent.is_dir():
            raise StoreError(f"cannot create the registry '{path}': there is no folder '{path.parent}'")
    elif path.is_dir():
        raise StoreError(f"'{path}' is a folder, not a registry file")
    writable = _writable(path)
    if create and not writable:
        raise StoreError(
            f"registry '{path}' cannot be written: the file or its folder is read-only; --db names another"
        )
    store = Store(path, _connect(path, writable), writable)
    try:
        with errors(path):
            _migrate(store)
        if ingest and writable:
            store.refresh()
    except BaseException:
        store.close()
        raise
    return store


def _writable(path: Path) -> bool:
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _connect(path: Path, writable: bool) -> peewee.SqliteDatabase:
    pragmas: list[tuple[str, Any]] = [
        ("foreign_keys", 1),
        ("busy_timeout", int(PATIENCE * 1000)),
        ("synchronous", "FULL"),
    ]
    uri = f"file:{_quoted(path)}?mode={'rwc' if writable else 'ro'}"
    if not writable:
        if not path.with_name(path.name + "-wal").exists():
            uri += "&immutable=1"  # a write-ahead log in a folder we may not write to could not be opened otherwise
        pragmas.append(("query_only", 1))
    return peewee.SqliteDatabase(uri, pragmas=pragmas, timeout=PATIENCE, uri=True, autoconnect=True)


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def _migrate(store: Store) -> None:
    if store.path.exists() and store.path.stat().st_size:
        application = store.execute("PRAGMA application_id").fetchone()[0]
        version = store.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID and (application or store.execute("SELECT 1 FROM sqlite_master").fetchone()):
            raise StoreError(f"'{store.path}' is an SQLite file, but no benchkit registry: --db names another")
        if version > VERSION:
            raise StoreError(
                f"registry '{store.path}' is of schema {version}, newer than this benchkit's {VERSION}: update benchkit"
            )
        if version == VERSION:
            return
        if not store.writable:
            raise StoreError(
                f"registry '{store.path}' is of schema {version} and must be migrated, but it is read-only"
            )
    _use_wal(store)
    with store.db.atomic("EXCLUSIVE"):
        done = store.execute("PRAGMA user_version").fetchone()[0]  # another process may have been faster
        for number, script in enumerate(MIGRATIONS[done:], start=done + 1):
            for statement in statements(script):
                store.execute(statement)
            store.execute(f"PRAGMA user_version = {number}")
        store.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _use_wal(store: Store) -> None:
    """A write-ahead log lets readers read while another process writes. Several first openers may collide: wait."""
    deadline = time.monotonic() + 60
    while True:
        try:
            store.db.execute_sql("PRAGMA journal_mode = WAL")
            return
        except peewee.OperationalError as e:
            if "locked" not in str(e) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's errors as one clear line each."""
    try:
        yield
    except (sqlite3.Error, peewee.PeeweeException) as e:
        text = str(e)
        if "no such column" in text or "no such table" in text or "syntax error" in text:
            raise
        raise StoreError(_explain(path, text)) from e


def _explain(path: Path, text: str) -> str:
    lower = text.lower()
    if "full" in lower:
        return f"registry '{path}': the disk is full; nothing was changed"
    if "locked" in lower or "busy" in lower:
        return f"registry '{path}': another process has held it for {PATIENCE:.0f} s; try again once it is done"
    if "not a database" in lower or "malformed" in lower or "disk image" in lower:
        return f"registry '{path}' is damaged or no SQLite file ({text}): restore a copy, or use --db"
    if "readonly" in lower or "unable to open" in lower or "permission" in lower:
        return f"registry '{path}' cannot be opened ({text}): check the permissions of the file and its folder"
    return f"registry '{path}': {text}"
