"""SQL from a user, read-only twice over: a connection that cannot write, and an authorizer that allows only reading.

The authorizer matters beyond the connection: `ATTACH` and `VACUUM INTO` write other files, and a temporary table could
hide one of the registry's.
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchkit.errors import StoreError, did_you_mean
from benchkit.store.connection import BRIEFLY, harden, patiently
from benchkit.store.database import Store, has_journal

_READING = {
    sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_PRAGMA,
}  # fmt: skip
_PRAGMAS = {
    "application_id", "collation_list", "compile_options", "database_list", "encoding", "foreign_key_check",
    "foreign_key_list", "freelist_count", "function_list", "index_info", "index_list", "index_xinfo",
    "integrity_check", "journal_mode", "page_count", "page_size", "pragma_list", "quick_check", "schema_version",
    "table_info", "table_list", "table_xinfo", "user_version",
}  # fmt: skip
_SETTABLE = {"application_id", "encoding", "journal_mode", "page_size", "schema_version", "user_version"}
_FUNCTIONS = {"load_extension", "fts3_tokenizer"}  # what runs code of the caller's choice


@dataclass(frozen=True)
class Answer:
    """Names of the columns, and the rows as they come."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def ask(store: Store, sql: str) -> Iterator[Answer]:
    """One statement, on a connection of its own. Raises StoreError, in one line, where it is wrong or would write."""
    refused: list[str] = []
    connection = _connect(store, refused)
    try:
        with _explained(connection, refused):
            cursor = patiently(store.path, lambda: connection.execute(sql))
            if cursor.description is None:
                raise StoreError('this is no query: write a SELECT, as in "SELECT * FROM results"')
            yield Answer(tuple(d[0] for d in cursor.description), iter(cursor))
    finally:
        connection.close()


def _connect(store: Store, refused: list[str]) -> sqlite3.Connection:
    place = store.db.place
    uri = f"{place.absolute().as_uri()}?mode=ro"
    if not store.writable and not has_journal(place):
        uri += "&immutable=1"  # as in database.py: its write-ahead log cannot be made in a folder that is read-only
    connection = sqlite3.connect(uri, uri=True, timeout=BRIEFLY, isolation_level=None)

    def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
        allowed = action in _READING
        if action == sqlite3.SQLITE_PRAGMA:
            allowed = first in _PRAGMAS and (second is None or first not in _SETTABLE)
        elif action == sqlite3.SQLITE_UPDATE:
            # What json_each and its like ask for as they declare their columns; a user's own UPDATE of this table is
            # refused by SQLite itself, as long as nobody may set writable_schema.
            allowed = first == "sqlite_master"
        elif action == sqlite3.SQLITE_FUNCTION:
            allowed = second not in _FUNCTIONS
        if not allowed:
            refused.append(second or first or "")
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    harden(connection)
    connection.execute("PRAGMA query_only = 1")
    connection.set_authorizer(authorize)
    return connection


@contextmanager
def _explained(connection: sqlite3.Connection, refused: list[str]) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as e:
        text = str(e)
        if text == "interrupted":
            raise KeyboardInterrupt from None
        if refused:
            raise StoreError(
                "`benchkit sql` only reads: this statement would change something, here or elsewhere"
            ) from e
        raise StoreError(f"SQL: {text}{_hint(connection, text)}") from e


def _hint(connection: sqlite3.Connection, text: str) -> str:
    missing = re.fullmatch(r"no such (table|column): (?:\w+\.)?(\w+)", text)
    if not missing:
        return ""
    tables = [r[0] for r in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    if missing[1] == "table":
        return did_you_mean(missing[2], tables) or f" (there are {', '.join(tables)})"
    columns = {r[1] for t in tables for r in connection.execute(f"PRAGMA table_info({t})")}
    return did_you_mean(missing[2], columns)
