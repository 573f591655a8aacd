"""A registry's file: where it is, what makes it safe to share, and a clear word for everything that can be wrong."""

import os
import sqlite3
import stat
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from tempfile import gettempdir
from typing import Any

import peewee

from benchkit.errors import StoreError
from benchkit.machine.files import make_new, reading, scratch, writing
from benchkit.machine.home import expanded
from benchkit.store.connection import ANEW, Database, StoreBusy, errors, explained, patiently
from benchkit.store.filesystem import network_filesystem
from benchkit.store.migrations import APPLICATION_ID, FILLED, MIGRATIONS, PLACED, VERSION, statements, tables

DEFAULT = "registry.sqlite"
CACHE_KIB = 8_192
"""Of the registry's pages kept in memory at most: enough for the upper levels of a million runs' indexes. More than
that costs more time than it saves: the system keeps the file in its own memory anyway."""
MANY = 50_000
"""Runs whose checksums take so long to make that it is said."""
CONVERSION = 60.0
"""Seconds that a change of the journal mode waits for the others to close the registry."""


def store_path(given: str | Path | None = None) -> Path:
    """`given` (--db), else BENCHKIT_DB, else ./registry.sqlite."""
    return expanded(given or os.environ.get("BENCHKIT_DB") or DEFAULT)


@dataclass(frozen=True)
class Store:
    """An open registry. Beside the SQLite file `x.sqlite` lies the folder `x.sqlite.d` with inbox and predictions."""

    path: Path
    db: Database
    writable: bool

    @property
    def side(self) -> Path:
        return side_folder(self.path)

    @property
    def inbox(self) -> Path:
        return self.side / "inbox"

    def execute(self, sql: str, params: Any = ()) -> Any:
        try:
            connection = self.db.connection()
            if connection.in_transaction:  # has its lock: needs no patience, and so not peewee's way round
                return connection.cursor().execute(sql, params)
            return self.db.execute_sql(sql, params)
        except (sqlite3.Error, peewee.PeeweeException, UnicodeDecodeError) as e:
            raise explained(self.path, e) from e

    def many(self, sql: str, rows: Any) -> None:
        """One statement for many rows."""
        with errors(self.path):
            self.db.connection().executemany(sql, rows)

    @contextmanager
    def write(self, patience: float | None = None) -> Iterator[None]:
        """A transaction that holds the write lock from its start, so that what is read in it stays true.

        patience: seconds to wait for the lock; None is the usual (benchkit.store.connection.PATIENCE).
        """
        if not self.writable:
            raise StoreError(
                f"registry '{self.path}' cannot be written (read-only file or folder): copy it, or use --db"
            )
        self.db.patience = patience
        try:
            with errors(self.path), self.db.atomic("IMMEDIATE"):
                yield
        finally:
            self.db.patience = None

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def side_folder(path: Path) -> Path:
    """Of a link, that of the file it leads to: whichever way a registry is opened, it has one inbox and one folder of
    locks."""
    file = path.resolve() if path.is_symlink() else path
    return file.with_name(file.name + ".d")


def open_alone(given: str | Path | None = None, *, create: bool = True) -> Store:
    """Opens, and where it must creates or migrates, a registry, whatever waits in its inbox. Raises StoreError in one
    line."""
    path = store_path(given)
    if not is_there(path):
        if not create:
            raise StoreError(
                f"there is no registry at '{path}': `benchkit run` makes one; --db or BENCHKIT_DB names another"
            )
        _check_folder(path)
    writable = _writable(path)
    if create and not writable:
        raise _read_only(path)
    _refuse_strange(path)
    made = create and not path.exists() and _make(path)
    store = Store(path, _connect(path, writable), writable)
    try:
        with errors(path):
            _prepare(store, create, made)
    except BaseException:
        store.close()
        raise
    return store


def _make(path: Path) -> bool:
    """An empty file, with the mode that all in its folder have, which SQLite would not give it: whether this process
    made it."""
    try:
        return make_new(path)
    except OSError as e:
        raise StoreError(f"registry '{path}' cannot be created: {e.strerror}") from e


def _refuse_strange(path: Path) -> None:
    """What SQLite keeps beside a registry must be files: through a link it would write to what that leads to."""
    place = path.resolve()
    for end in ("-wal", "-shm", "-journal"):
        beside = place.with_name(place.name + end)
        if os.path.lexists(beside) and not stat.S_ISREG(os.lstat(beside).st_mode):
            raise StoreError(f"registry '{path}': '{beside}' is no plain file, and nothing that SQLite made: remove it")


def check_place(path: Path) -> None:
    """Raises StoreError where a registry could not be written, before anything is computed for it; makes none."""
    if is_there(path):
        open_alone(path).close()
        return
    _check_folder(path)
    if not _writable(path):
        raise _read_only(path)


def _check_folder(path: Path) -> None:
    if not path.absolute().parent.is_dir():
        raise StoreError(f"cannot create the registry '{path}': there is no folder '{path.parent}'")


def _read_only(path: Path) -> StoreError:
    return StoreError(f"registry '{path}' cannot be written: the file or its folder is read-only; --db names another")


def open_reading(path: Path) -> Store:
    """Opens a registry as it is, of this schema or an older one, without changing anything of it. Raises StoreError."""
    if not is_there(path):
        raise StoreError(f"there is no registry at '{path}'")
    _refuse_strange(path)
    store = Store(path, _connect(path, writable=False, changing=_writable(path)), False)
    try:
        with errors(path):
            _version(store)
    except BaseException:
        store.close()
        raise
    return store


def is_anothers(path: Path) -> bool:
    """Whether a registry belongs to another user."""
    return is_there(path) and path.stat().st_uid != os.geteuid()


@contextmanager
def open_untouched(path: Path) -> Iterator[Store]:
    """Opens a registry without changing or making any file beside it. Raises StoreError.

    What a journal has that the file has not, and an older schema, are looked at in a copy.
    """
    if not is_there(path):
        raise StoreError(f"there is no registry at '{path}': --db or BENCHKIT_DB names another")
    _refuse_strange(path)
    with ExitStack() as stack:
        if not has_journal(path):
            store = stack.enter_context(Store(path, _connect(path, writable=False), False))
            with errors(path):
                version = _version(store)
            if version == VERSION:
                with errors(path):
                    _hold_kinds(store)
                yield store
                return
        try:
            folder, _ = stack.enter_context(scratch(Path(gettempdir()), ".benchkit-look-"))
            copy = folder / "registry.sqlite"
            place = path.resolve()
            for end in ("", "-wal", "-journal"):
                if (beside := place.with_name(place.name + end)).exists():
                    with reading(beside) as f, writing(copy.with_name(copy.name + end)) as made:
                        copyfileobj(f, made)
        except OSError as e:
            raise StoreError(f"registry '{path}' cannot be looked at: {e.strerror}") from e
        copied = stack.enter_context(open_alone(copy))
        copied.db.path = path
        yield Store(path, copied.db, False)


def _hold_kinds(store: Store) -> None:
    """Raises StoreError where one of benchkit's tables is a view, which might go on for ever, or another program's."""
    found = store.execute("SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    known = tables()
    for name, kind, sql in found:
        if name in known and (kind != "table" or not str(sql).upper().startswith("CREATE TABLE")):
            raise StoreError(f"registry '{store.path}' is damaged or not benchkit's: '{name}' is no table: {ANEW}")


def is_there(path: Path) -> bool:
    """Raises StoreError where one cannot know, or it is something that no registry can be."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise StoreError(
                f"registry '{path}' is a link to '{os.readlink(path)}', which is not there: bring that back (is its "
                "disk mounted?), remove the link, or name another with --db"
            ) from None
        return False
    except OSError as e:
        raise StoreError(f"registry '{path}' cannot be opened: {e.strerror}; --db or BENCHKIT_DB names another") from e
    if not stat.S_ISREG(kind):
        raise StoreError(
            f"'{path}' is {'a folder' if stat.S_ISDIR(kind) else 'a device or a pipe'}, not a registry file"
        )
    return True


def _writable(path: Path) -> bool:
    return os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))


def _connect(path: Path, writable: bool, changing: bool = False) -> Database:
    """changing: others may write to it though this connection does not."""
    pragmas: list[tuple[str, Any]] = [
        ("foreign_keys", 1), ("synchronous", "FULL"), ("temp_store", "MEMORY"), ("cache_size", -CACHE_KIB),
    ]  # fmt: skip
    uri = f"file:{_quoted(path)}?mode={'rwc' if writable else 'ro'}"
    if not writable and not changing and not has_journal(path):
        uri += "&immutable=1"  # a write-ahead log in a folder we may not write to could not be opened otherwise
    return Database(path, uri, pragmas)


def has_journal(path: Path) -> bool:
    """Whether something of the registry is not in its file yet: it must not be taken for one that never changes."""
    return any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path.absolute()))  # a folder above may not be UTF-8


def _prepare(store: Store, create: bool, made: bool) -> None:
    """Refuses what is no registry or of a newer benchkit; migrates an older one; sees to the journal."""
    existed = store.path.exists() and not made
    new = not (existed and store.path.stat().st_size)
    version = 0 if new else _version(store)
    if version == 0 and existed and any(store.side.glob("predictions/[!.]*")):
        raise StoreError(f"registry '{store.path}' is empty, and '{store.side}' is not: it was cut off: {ANEW}")
    if not new:
        if version == VERSION:
            _hold_kinds(store)
            if store.writable:
                _use_journal(store, must=create)
            return
        if not store.writable:
            raise StoreError(
                f"registry '{store.path}' is of schema {version} and must be migrated, but it is read-only"
            )
    _use_journal(store, must=True, new=new)
    with store.db.atomic("EXCLUSIVE"):
        done = store.execute("PRAGMA user_version").fetchone()[0]  # another process may have been faster
        for number, script in enumerate(MIGRATIONS[done:], start=done + 1):
            for statement in statements(script):
                store.execute(statement)
            if number == PLACED and not new:
                _place(store)
            if number in FILLED and not new:
                _fill(store, FILLED[number])
            store.execute(f"PRAGMA user_version = {number}")
        store.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _place(store: Store) -> None:
    from benchkit.store.placing import place_all

    place_all(store.execute)


def _fill(store: Store, of: Sequence[str]) -> None:
    from benchkit.store.whole import fill

    n = store.execute("SELECT count(*) FROM runs").fetchone()[0] if "runs" in of else 0
    if n > MANY:
        warnings.warn(
            f"registry '{store.path}': its {n:,} runs get checksums, once: about {n / 9000:.0f} s", stacklevel=2
        )
    fill(store.db.connection(), of)


def _version(store: Store) -> int:
    """The schema's version. Raises StoreError for what is no registry, or a newer benchkit's."""
    application = store.execute("PRAGMA application_id").fetchone()[0]
    version = store.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION_ID and (application or store.execute("SELECT 1 FROM sqlite_master").fetchone()):
        raise StoreError(f"'{store.path}' is an SQLite file, but no benchkit registry: --db names another")
    if version > VERSION:
        raise StoreError(
            f"registry '{store.path}' is of schema {version}, newer than this benchkit's {VERSION}: update benchkit"
        )
    return version


def _use_journal(store: Store, *, must: bool, new: bool = False) -> None:
    """A write-ahead log on this host's disks: readers read while another process writes. On a network file system,
    where it is not safe, a rollback journal.

    A change needs the registry for itself alone. must: wait for that; else it is left to whoever can. new: it has just
    been created.
    """
    connection = store.db.connection()
    network = network_filesystem(store.path)
    wanted, now = "DELETE" if network else "WAL", patiently(store.path, lambda: _journal(connection))
    if now == wanted and not new:
        return
    if not (network or must):
        return  # whoever only reads leaves the file as it is
    change, patience = f"PRAGMA journal_mode = {wanted}", CONVERSION if must and (network or new) else 0.0
    try:
        patiently(store.path, lambda: connection.execute(change), patience)
    except StoreBusy as e:
        if must and network:
            raise StoreError(
                f"registry '{store.path}' is on {network}, where its write-ahead log is not safe, and cannot be "
                "changed to a rollback journal while other processes have it open: end them"
            ) from e
        return
    if network:
        warnings.warn(
            f"registry '{store.path}' is on {network}, a network file system: it uses a rollback journal there, which "
            "is slower; a local disk is better where only one host needs it",
            stacklevel=2,
        )


def _journal(connection: sqlite3.Connection) -> str:
    return connection.execute("PRAGMA journal_mode").fetchone()[0].upper()
