"""Taking sealed records into the store: each exactly once, in any order, by whoever comes first."""

from pathlib import Path

from benchkit.errors import StoreError
from benchkit.machine.files import listed, move, remove_all
from benchkit.records.sealing import Sealed, UnsealError, unsealed
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
                    _insert(store, *unsealed(path))
                except FileNotFoundError:
                    continue  # another process has just taken it in
                except OSError as e:  # another user's, who keeps it from us: it holds up no other, and stays
                    notes.append(f"sealed report '{path}' cannot be read: {e.strerror}; it waits where it is")
                except StoreRefused as e:
                    damaged[path] = f"sealed report '{path}' cannot be taken in: {e}"
                except UnsealError as e:
                    damaged[path] = str(e)
                else:
                    done.append(path.name)
        remove_all(store.inbox, done, store.side)  # only now: what is committed may go
        for path, why in damaged.items():
            notes += _set_aside(store, path, why)
    return notes


def waiting(store: Store) -> list[Path]:
    """The sealed records that nobody has taken in yet. Raises StoreError where the inbox cannot be read."""
    try:
        names = listed(store.inbox, store.side)
    except OSError as e:
        raise StoreError(f"the inbox '{store.inbox}' cannot be read: {e.strerror}") from e
    return sorted(store.inbox / name for name in names if name.endswith(".json") and not name.startswith("."))


def _insert(store: Store, record: Sealed, sealed: str) -> None:
    """All of the record or nothing of it. Raises StoreRefused where it contradicts the schema: it holds up no other."""
    store.execute("SAVEPOINT record")
    try:
        insert(store, record, sealed)
    except BaseException as e:
        if store.db.connection().in_transaction:  # a full disk may have ended it
            store.execute("ROLLBACK TO record")
        if isinstance(e, _UNFIT):
            raise StoreRefused(f"{type(e).__name__}: {e}") from e
        raise
    store.execute("RELEASE record")


_UNFIT = (TypeError, ValueError, KeyError, AttributeError, OverflowError, StopIteration)


def _set_aside(store: Store, path: Path, why: str) -> list[str]:
    """A line that says so; none where another process has done it."""
    aside = path.parent / "damaged" / path.name
    try:
        move(path, aside, store.side)
    except FileNotFoundError:
        return []
    except OSError as e:
        return [f"{why}; it could not be set aside either: {e.strerror}"]
    return [f"{why}; set aside as '{aside}'"]
