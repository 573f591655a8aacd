"""Looking after the feature cache: what is in it, is it whole, and make it smaller."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.features.cache import FILES, Entry, folders, read_meta, unwritable
from benchkit.features.lock import try_lock
from benchkit.machine import files


@dataclass(frozen=True)
class CacheEntry:
    """Features of one split by one model. rows: in the split. done: how many are in the cache. bytes: on the disk.
    used: when last, in seconds since 1970."""

    folder: Path
    key: Mapping[str, Any]
    rows: int
    dim: int
    done: int
    bytes: int
    used: float


@dataclass(frozen=True)
class Verdict:
    """damaged: rows that are called done and do not match their digest; they are computed again when needed."""

    entry: CacheEntry
    damaged: int


def ls(cache: Path) -> list[CacheEntry]:
    """What is in the cache, the least recently used first. Folders without a readable meta.json hold nothing."""
    found = []
    for folder in folders(cache):
        meta = read_meta(folder)
        if meta is None:
            continue
        try:
            used = (folder / "meta.json").stat().st_mtime
            size = sum(f.stat().st_blocks * 512 for f in folder.iterdir())
        except OSError:
            continue  # removed by another process meanwhile
        done = Entry(folder, meta["key"], meta["n"]).claimed(np.arange(meta["n"]))
        found.append(CacheEntry(folder, meta["key"], meta["n"], meta["dim"], done, size, used))
    return sorted(found, key=lambda e: (e.used, e.folder))


def verify(cache: Path) -> Iterator[Verdict]:
    """Reads everything. Raises StoreError for a file that cannot be read."""
    for entry in ls(cache):
        stored = Entry(entry.folder, entry.key, entry.rows)
        good = stored.read(np.arange(entry.rows), touch=False).good
        yield Verdict(entry, max(0, entry.done - int(good.sum())))


def prune(cache: Path, keep_bytes: int) -> list[CacheEntry]:
    """Removes entries, the least recently used first, until the others take `keep_bytes` at most.

    What a process is extracting at the moment stays; features that a process has mapped stay readable for it. Remains
    of entries that were never begun go too. Gives what was removed. Raises StoreError where it may not be removed.
    """
    entries = ls(cache)
    known = {e.folder for e in entries}
    for folder in folders(cache):
        if folder not in known and _is_remains(folder):
            _remove(folder)
    left = sum(e.bytes for e in entries)
    removed = []
    for entry in entries:
        if left <= keep_bytes:
            break
        if _remove(entry.folder):
            removed.append(entry)
            left -= entry.bytes
    return removed


def _is_remains(folder: Path) -> bool:
    """Whether nothing but an entry's files is in it."""
    try:
        return all(f.name in FILES or f.suffix == ".part" for f in folder.iterdir())
    except OSError:
        return False  # removed by another process meanwhile; or not ours to read


def _remove(folder: Path) -> bool:
    """False where a process has the entry's lock. The lock goes last: until then, nobody can begin anew."""
    lock = try_lock(folder)
    if lock is None:
        return False
    with lock:
        try:
            files.remove_all(folder, sorted(files.listed(folder), key=lambda name: name == "lock"), folder.parent)
            files.remove_empty(folder)
        except OSError as e:
            raise unwritable(folder, e) from e
    return True
