"""Taking sealed records into the store: each exactly once, in any order, by whoever comes first."""

import os
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.sealing import Sealed, unseal
from benchkit.store.database import Store
from benchkit.store.insert import insert

BATCH = 500
"""Records taken in with one transaction."""


def ingest_inbox(store: Store, patience: float | None = None) -> list[str]:
    """Takes in every sealed record. Returns a line for each damaged one, which is set aside in `inbox/damaged`.

    patience: seconds to wait for the write lock; None is the usual. Raises StoreBusy, and leaves them where they are.
    """
    if not store.inbox.is_dir():
        return []
    waiting = sorted(e.path for e in os.scandir(store.inbox) if e.name.endswith(".json") and not e.name.startswith("."))
    notes: list[str] = []
    for start in range(0, len(waiting), BATCH):
        records: list[tuple[Path, Sealed]] = []
        for path in map(Path, waiting[start : start + BATCH]):
            try:
                records.append((path, unseal(path)))
            except FileNotFoundError:
                continue  # another process has just taken it in
            except StoreError as e:
                notes.append(f"{e}; set aside as '{_set_aside(path)}'")
        if records:
            with store.write(patience):
                for _, record in records:
                    insert(store, record)
            for path, _ in records:  # only now: what is committed may go
                path.unlink(missing_ok=True)
    return notes


def _set_aside(path: Path) -> Path:
    aside = path.parent / "damaged" / path.name
    aside.parent.mkdir(exist_ok=True)
    os.replace(path, aside)
    return aside
