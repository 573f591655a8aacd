"""Pooled features that come by on a pass made for something else go to the cache too."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64

from benchkit.features.batches import Part
from benchkit.features.cache import Writer
from benchkit.features.lock import try_lock
from benchkit.features.pipeline import Run


@dataclass(frozen=True)
class Filling:
    """writer: None where nothing is to be written. there: rows that the cache has."""

    writer: Writer | None
    there: frozenset[int]

    def missing(self, rows: Int[np.ndarray, " B"]) -> Bool[np.ndarray, " B"]:
        """Which of the rows the cache still wants."""
        if self.writer is None:
            return np.zeros(len(rows), bool)
        return np.array([row not in self.there for row in rows.tolist()], bool)

    def write(self, part: Part) -> None:
        new = self.missing(part.rows)
        if self.writer is not None and new.any():
            self.writer.write(part.rows[new], part.encoded.pooled[new], part.media[new])


@contextmanager
def filling(run: Run, rows: Int64[np.ndarray, " m"], key: Mapping[str, str] | None) -> Iterator[Filling]:
    """Holds the lock of the cache entry that `key` names, to fill it. Without a key, and where another process is
    filling the entry already, nothing is written. Raises StoreError."""
    entry = run.entry(key, len(run.task.ids(run.split))) if key is not None else None
    if entry and entry.read(rows).good.all():
        entry = None  # nothing to write, and the folder may be one that is only read
    lock = try_lock(entry.folder) if entry else None
    with lock or nullcontext():
        with run.writer(entry) if entry and lock else nullcontext() as writer:
            good = rows[entry.read(rows).good] if entry and writer else rows[:0]
            yield Filling(writer, frozenset(good.tolist()))
        if entry and writer:
            run.keep_measured(entry)
