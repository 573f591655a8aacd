"""Opening a store, and taking in what waits in its inbox.

with open_store(path) as store:           # created where it is missing; takes in what waits in the inbox
with open_store(path, create=False)       # for readers: an error where there is none, read-only where it must be
"""

import warnings
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import listed
from benchkit.store.database import Store, open_alone

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


def refresh(store: Store, patience: float | None = None) -> None:
    """Takes in what has come into the inbox meanwhile."""
    try:
        if not any(name.endswith(".json") for name in listed(store.inbox, store.side)):
            return  # and nothing of what reads records is imported
    except OSError as e:
        raise StoreError(f"the inbox '{store.inbox}' cannot be read: {e.strerror}") from e
    from benchkit.store.ingest import ingest_inbox

    for note in ingest_inbox(store, patience):
        warnings.warn(note, stacklevel=2)


def _take_in(store: Store, create: bool) -> None:
    """Whoever only reads goes on where the reports cannot be taken in now: they stay where they are."""
    if create:
        refresh(store)
        return
    try:
        refresh(store, READERS_PATIENCE)
    except StoreError as e:
        warnings.warn(f"finished reports in '{store.inbox}' are not taken in yet: {e}", stacklevel=2)
