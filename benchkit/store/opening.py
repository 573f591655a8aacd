"""Opening a store, and taking in what waits in its inbox.

with open_store(path) as store:           # created where it is missing; takes in what waits in the inbox
with open_store(path, create=False)       # for readers: an error where there is none, read-only where it must be
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import listed
from benchkit.store.database import Store, is_anothers, open_alone, open_untouched, store_path

READERS_PATIENCE = 2.0
"""Seconds that a command that only reads waits to take in reports: not at all long, as another process is doing it."""


def open_store(given: str | Path | None = None, *, create: bool = True, ingest: bool = True) -> Store:
    """Opens, and where it must creates or migrates, a registry. Raises StoreError in one line."""
    store = open_alone(given, create=create)
    try:
        if ingest and store.writable:
            _take_in(store, create)
    except BaseException:
        store.close()
        raise
    return store


@contextmanager
def look(given: str | Path | None = None, *, read_only: bool = False) -> Iterator[Store]:
    """For a command that only looks. In one's own registry it takes in what waits, as any other; of a registry that is
    another user's, and with `read_only`, it changes no file and makes none. Raises StoreError."""
    path = store_path(given)
    if read_only or is_anothers(path):
        with open_untouched(path) as store:
            if n := sum(name.endswith(".json") for name in _waiting(store)):
                why = "with --read-only they stay" if read_only else "it is another user's, so they stay"
                warnings.warn(f"{n:,} finished reports wait in '{store.inbox}': {why} there", stacklevel=2)
            yield store
        return
    with open_store(path, create=False) as store:
        yield store


def refresh(store: Store, patience: float | None = None) -> None:
    """Takes in what has come into the inbox meanwhile."""
    if not any(name.endswith(".json") for name in _waiting(store)):
        return  # and nothing of what reads records is imported
    from benchkit.store.ingest import ingest_inbox

    for note in ingest_inbox(store, patience):
        warnings.warn(note, stacklevel=2)


def _waiting(store: Store) -> list[str]:
    try:
        return listed(store.inbox, store.side)
    except OSError as e:
        raise StoreError(f"the inbox '{store.inbox}' cannot be read: {e.strerror}") from e


def _take_in(store: Store, create: bool) -> None:
    """Whoever only reads goes on where the reports cannot be taken in now: they stay where they are."""
    if create:
        refresh(store)
        return
    try:
        refresh(store, READERS_PATIENCE)
    except StoreError as e:
        warnings.warn(f"finished reports in '{store.inbox}' are not taken in yet: {e}", stacklevel=2)
