"""Taking sealed records into the store: each exactly once, in any order, by whoever comes first."""

import os
from collections.abc import Sequence
from pathlib import Path

from benchkit.errors import StoreError
from benchkit.sealing import Sealed, unseal
from benchkit.store.database import Store, StoreRefused
from benchkit.store.insert import insert

BATCH = 500
"""Records taken in with one transaction."""


def ingest_inbox(store: Store, patience: float | None = None) -> list[str]:
    """Takes in every sealed record. Returns a line for each damaged one, which is set aside in `inbox/damaged`.

    patience: seconds to wait for the write lock; None is the usual. Raises StoreBusy, and leaves them where they are.
    """
    notes: list[str] = []
    found = waiting(store)
    for start in range(0, len(found), BATCH):
        records: list[tuple[Path, Sealed]] = []
        for path in found[start : start + BATCH]:
            try:
                records.append((path, unseal(path)))
            except FileNotFoundError:
                continue  # another process has just taken it in
            except StoreError as e:
                notes += _set_aside(path, str(e))
        if records:
            refused = _insert(store, records, patience)
            for path, _ in records:  # only now: what is committed may go
                if path in refused:
                    notes += _set_aside(path, refused[path])
                else:
                    path.unlink(missing_ok=True)
    return notes


def waiting(store: Store) -> list[Path]:
    """The sealed records that nobody has taken in yet."""
    if not store.inbox.is_dir():
        return []
    return sorted(
        Path(e.path) for e in os.scandir(store.inbox) if e.name.endswith(".json") and not e.name.startswith(".")
    )


def _insert(store: Store, records: Sequence[tuple[Path, Sealed]], patience: float | None) -> dict[Path, str]:
    """All of them in one transaction. Returns those that contradict the schema, and why: they hold up no other."""
    try:
        with store.write(patience):
            for _, record in records:
                insert(store, record)
        return {}
    except _UNFIT:
        pass  # some of them: each by itself
    refused = {}
    with store.write(patience):
        for path, record in records:
            try:
                with store.db.atomic():
                    insert(store, record)
            except _UNFIT as e:
                refused[path] = f"sealed report '{path}' cannot be taken in: {e}"
    return refused


_UNFIT = (StoreRefused, TypeError, ValueError, KeyError, AttributeError, OverflowError, StopIteration)


def _set_aside(path: Path, why: str) -> list[str]:
    """A line that says so; none where another process has done it."""
    aside = path.parent / "damaged" / path.name
    try:
        aside.parent.mkdir(exist_ok=True)
        os.replace(path, aside)
    except FileNotFoundError:
        return []
    except OSError as e:
        return [f"{why}; it could not be set aside either: {e.strerror}"]
    return [f"{why}; set aside as '{aside}'"]
