"""Removing runs, with everything that belongs to them."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchkit.machine import files
from benchkit.records.gate import own_paths
from benchkit.store.database import Store
from benchkit.store.queries import FailureRow

UNUSED = """environments WHERE id NOT IN (SELECT environment_id FROM runs)
    AND id NOT IN (SELECT environment_id FROM trainings) AND id NOT IN (SELECT environment_id FROM diagnoses)"""
_CHOSEN = "IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True)
class Removed:
    """What is gone. promoted: superseded runs that are their cell's current one now. left: files that could not go."""

    runs: int
    promoted: int
    files: int
    left: tuple[Path, ...]


def remove(store: Store, runs: Sequence[int]) -> Removed:
    """Removes these runs from the store in one transaction, and then their files.

    Where a cell loses its current run, the one that came last of those that are left takes its place. A process that
    dies between the two leaves files that nothing names, never a run without its files.
    """
    chosen = [json.dumps(list(runs))]
    with store.write():
        cells = store.execute(
            f"SELECT task, model, classifier, n_train, seed FROM runs WHERE current AND id {_CHOSEN}", chosen
        ).fetchall()
        named = store.execute(
            f"SELECT path, uuid FROM artifacts JOIN runs ON runs.id = run_id WHERE run_id {_CHOSEN} "
            f"AND path NOT IN (SELECT path FROM artifacts WHERE run_id NOT {_CHOSEN})",
            chosen * 2,
        ).fetchall()
        own = {path for path, uuid in named if path in own_paths(uuid)}
        gone = store.execute(f"DELETE FROM runs WHERE id {_CHOSEN}", chosen).rowcount
        store.execute(f"DELETE FROM {UNUSED}")
        promoted = sum(_promote(store, cell) for cell in cells)
    there = [path for path, _ in named if isinstance(path, str) and os.path.lexists(store.side / path)]
    left = [store.side / path for path in there if not (path in own and _unlink(store, store.side / path))]
    return Removed(gone, promoted, len(there) - len(left), tuple(left))


def forget_failures(store: Store, failures: Sequence[FailureRow]) -> int:
    """Removes these, unless a cell has failed anew since, and says how many there were."""
    with store.write():
        return sum(
            store.execute(
                "DELETE FROM failures WHERE task = ? AND model = ? AND classifier = ? AND n_train = ? AND seed = ?"
                " AND seq = ?",
                (*f.cell, f.seq),
            ).rowcount
            for f in failures
        )


def _promote(store: Store, cell: tuple[object, ...]) -> int:
    return store.execute(
        """UPDATE runs SET current = 1 WHERE id = (
            SELECT id FROM runs INDEXED BY runs_table
            WHERE task = ? AND model = ? AND classifier = ? AND n_train = ? AND seed = ?
            ORDER BY id DESC LIMIT 1)""",
        cell,
    ).rowcount


def _unlink(store: Store, file: Path) -> bool:
    """Whether the file is gone. One outside of the store's folder is never touched, whatever the registry names."""
    try:
        files.remove(file, store.side)
    except OSError:
        return False
    return True
