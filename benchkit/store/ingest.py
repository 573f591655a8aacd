"""Taking sealed records into the store: each exactly once, in any order, by whoever comes first."""

import os
from pathlib import Path

from benchkit.records.sealing import Sealed, UnsealError, unseal
from benchkit.store.connection import StoreRefused
from benchkit.store.database import Store
from benchkit.store.insert import insert

BATCH = 1000
"""Records taken in with one transaction."""


def ingest_inbox(store: Store, patience: float | None = None) -> list[str]:
    """Takes in every sealed record. Returns a line for each damaged one, which is set aside in `inbox/damaged`, and for
    each that cannot be read.

    patience: seconds to wait for the write lock; None is the usual. Raises StoreBusy, and leaves them where they are.
    """
    notes: list[str] = []
    found = waiting(store)
    for start in range(0, len(found), BATCH):
        done, damaged = [], {}
        with store.write(patience):  # held while reading them too: of several processes only one does the work
            for path in found[start : start + BATCH]:
                try:
                    _insert(store, unseal(path))
                except FileNotFoundError:
                    continue  # another process has just taken it in
                except OSError as e:  # another user's, who keeps it from us: it holds up no other, and stays
                    notes.append(f"sealed report '{path}' cannot be read: {e.strerror}; it waits where it is")
                except StoreRefused as e:
                    damaged[path] = f"sealed report '{path}' cannot be taken in: {e}"
                except UnsealError as e:
                    damaged[path] = str(e)
                else:
                    done.append(path)
        for path in done:  # only now: what is committed may go
            path.unlink(missing_ok=True)
        for path, why in damaged.items():
            notes += _set_aside(path, why)
    return notes


def waiting(store: Store) -> list[Path]:
    """The sealed records that nobody has taken in yet."""
    if not store.inbox.is_dir():
        return []
    return sorted(
        Path(e.path) for e in os.scandir(store.inbox) if e.name.endswith(".json") and not e.name.startswith(".")
    )


def _insert(store: Store, record: Sealed) -> None:
    """All of the record or nothing of it. Raises StoreRefused where it contradicts the schema: it holds up no other."""
    store.execute("SAVEPOINT record")
    try:
        insert(store, record)
    except BaseException as e:
        if store.db.connection().in_transaction:  # a full disk may have ended it
            store.execute("ROLLBACK TO record")
        if isinstance(e, _UNFIT):
            raise StoreRefused(f"{type(e).__name__}: {e}") from e
        raise
    store.execute("RELEASE record")


_UNFIT = (TypeError, ValueError, KeyError, AttributeError, OverflowError, StopIteration)


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
