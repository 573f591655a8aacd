"""The feature cache: a folder for each key, with pooled features that are believed only where they prove themselves.

    <cache>/<fingerprint of the key>/
        meta.json     the whole key, the number of rows N and the dimension D
        pooled.f32    [N, D] float32, little endian; sparse: only rows that were extracted take space
        index         [N] of (digest: u64, media: u64)
        made.json     which code made them, and what the model was given (see made.py)
        lock          held (flock) by the process that extracts; names it

A row is done when its digest in the index is that of its number, its media hash and its bytes in pooled.f32. So there
is no order of writes to keep: a kill at any instant, a torn write, a truncated or flipped file leaves rows whose digest
does not match, and only those are computed again. Files are written with pwrite, never through a memory map, so that a
full disk is an error and not a SIGBUS; they are never shrunk below what a reader may have mapped, but replaced.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt64

from benchkit.errors import StoreError
from benchkit.features.made import FILE, Made
from benchkit.machine import files
from benchkit.media.fingerprint import LENGTH, fingerprint
from benchkit.records.gate import SMALL_BYTES, strict_json

INDEX = np.dtype([("digest", "<u8"), ("media", "<u8")])
FILES = ("meta.json", "pooled.f32", "index", FILE, "lock")
_NAME = re.compile(f"[0-9a-f]{{{LENGTH}}}")
"""Of an entry's folder: whatever else lies in the cache is somebody else's."""
MOST = {"n": 1 << 27, "dim": 1 << 24}
"""Rows and dimensions that an entry may say to have: what is made for it before a row is read takes memory."""
CHUNK_BYTES = 1 << 22
"""Verified at a time: small enough for a processor's cache, large enough for numpy."""


@dataclass(frozen=True)
class Stored:
    """What an entry holds of some rows.

    good: which of the rows asked for are there and verified. pooled: [N, D] over the whole split; None where nothing
    was ever written. media: hashes of the whole split, 0 but for rows asked for and good.
    """

    good: Bool[np.ndarray, " n"]
    pooled: Float32[np.ndarray, "N D"] | None
    media: UInt64[np.ndarray, " N"]


@dataclass(frozen=True)
class Entry:
    """The features of one split by one model. key: everything that can change them. n: rows of the split."""

    folder: Path
    key: Mapping[str, Any]
    n: int

    @staticmethod
    def of(cache: Path, key: Mapping[str, Any], n: int) -> "Entry":
        return Entry(cache / fingerprint(key), key, n)

    @property
    def dim(self) -> int | None:
        """D, or None where meta.json is absent, damaged or of something else: then nothing here counts."""
        meta = read_meta(self.folder)
        if meta is None or meta["key"] != self.key or meta["n"] != self.n:
            return None
        return meta["dim"]

    def claimed(self, rows: Int[np.ndarray, " n"]) -> int:
        """How many of the rows the index calls done; cheap, nothing is verified."""
        return int(np.count_nonzero(_read_index(self.folder, self.n)["digest"][rows]))

    def read(self, rows: Int[np.ndarray, " n"], *, touch: bool = True) -> Stored:
        """Verifies the rows, and maps the features read-only. Raises StoreError for a file that cannot be read.

        touch: remember that the entry was used now, for prune.
        """
        nothing = Stored(np.zeros(len(rows), bool), None, np.zeros(self.n, np.uint64))
        dim = self.dim
        if dim is None:
            return nothing
        try:
            with files.reading(self.folder / "pooled.f32", self.folder.parent) as f:
                pooled = np.memmap(f, "<f4", "r", shape=(self.n, dim))
        except (FileNotFoundError, ValueError):  # ValueError: shorter than that
            return nothing
        except OSError as e:
            raise _unreadable(self.folder, e) from e
        index = _read_index(self.folder, self.n)
        good = verify_rows(pooled, index, rows)
        media = np.zeros(self.n, np.uint64)
        media[rows[good]] = index["media"][rows[good]]
        if touch:
            with suppress(OSError):  # a cache that is read-only is still good to read
                os.utime(self.folder / "meta.json")
        return Stored(good, pooled, media)


class Writer:
    """Writes rows into an entry. Whoever has one must hold the entry's lock. source: digest of the code that makes
    them, if it is to be kept.

    Raises StoreError for a full disk or a folder that cannot be written; what was written until then counts.
    """

    def __init__(self, entry: Entry, source: str = "") -> None:
        self.entry, self.source = entry, source
        self._dim: int | None = None
        self._files: tuple[int, int] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._files:
            try:
                if kind is None:
                    for descriptor in self._files:
                        os.fsync(descriptor)  # where the disk of a network file system is full, it says so here
            except OSError as e:
                raise unwritable(self.entry.folder, e) from e
            finally:
                for descriptor in self._files:
                    os.close(descriptor)

    def write(
        self, rows: Int[np.ndarray, " b"], pooled: Float32[np.ndarray, "b D"], media: UInt64[np.ndarray, " b"]
    ) -> None:
        """Raises StoreError."""
        try:
            if self._files is None:
                self._files = self._open(pooled.shape[1])
                self._dim = pooled.shape[1]
            index = np.empty(len(rows), INDEX)
            index["media"] = media
            index["digest"] = row_digests(rows, media, pooled)
            values = np.ascontiguousarray(pooled, "<f4")
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
                if len(run):
                    a, b, first = run[0], run[-1] + 1, int(rows[run[0]])
                    _pwrite(self._files[0], values[a:b], first * pooled.shape[1] * 4)
                    _pwrite(self._files[1], index[a:b], first * INDEX.itemsize)
        except OSError as e:
            raise unwritable(self.entry.folder, e) from e

    def _open(self, dim: int) -> tuple[int, int]:
        folder, n = self.entry.folder, self.entry.n
        left = [name for name in files.listed(folder) if name[0] == "." and name.endswith(".part")]
        files.remove_all(folder, left, folder.parent)  # of writers that were killed
        if self.entry.dim != dim:
            # Fresh, or damaged. The index goes first and the new meta.json comes last, so that a kill in between leaves
            # nothing that is called done. A reader who has the old files mapped keeps them.
            drop_rows(folder)
            files.remove_all(folder, ["pooled.f32"], folder.parent)
            meta = json.dumps({"key": dict(self.entry.key), "n": n, "dim": dim}, indent=1)
            files.write_atomic(folder / "meta.json", meta.encode(), folder.parent)
        if self.source:
            Made.read(folder).by(self.source).write(folder)
        pooled = files.open_in_place(folder / "pooled.f32", folder.parent, n * dim * 4)
        try:
            return pooled, files.open_in_place(folder / "index", folder.parent, n * INDEX.itemsize)
        except BaseException:
            os.close(pooled)
            raise


# -------------------------------------------------------------------------------------------------------------- digests


def row_digests(
    rows: Int[np.ndarray, " b"], media: UInt64[np.ndarray, " b"], pooled: Float32[np.ndarray, "b D"]
) -> UInt64[np.ndarray, " b"]:
    """64 bits for each row, never 0: of its number, its media hash and its D float32.

    Multilinear hashing (Lemire and Kaser, "Strongly universal string hashing is fast", 2014, section 3): the sum of the
    32-bit words, each times a 64-bit constant of its own, modulo 2^64. It is fast in numpy, and damage that was not
    made on purpose goes unseen with a probability below 2^-32.
    """
    words = np.ascontiguousarray(pooled, "<f4").view("<u4")
    head = _mix(rows.astype(np.uint64) ^ _mix(np.array([pooled.shape[1]], np.uint64))) + _mix(media ^ np.uint64(0xA5A5))
    return np.maximum(np.einsum("bd,d->b", words, _multipliers(pooled.shape[1])) + head, np.uint64(1))


def verify_rows(
    pooled: Float32[np.ndarray, "N D"], index: np.ndarray, rows: Int[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which of the rows are done: their digest in the index is that of their bytes."""
    good = np.zeros(len(rows), bool)
    values = pooled.view(np.ndarray)
    step = max(1, CHUNK_BYTES // max(1, pooled.shape[1] * 4))
    done = np.flatnonzero(index["digest"][rows])  # so that holes of a sparse file are not read
    for at in range(0, len(done), step):
        part = done[at : at + step]
        some = rows[part]
        run = some[-1] - some[0] == len(some) - 1 and bool((np.diff(some) == 1).all())
        block = values[some[0] : some[-1] + 1] if run else values[some]
        good[part] = row_digests(some, index["media"][some], block) == index["digest"][some]
    return good


@lru_cache(maxsize=8)
def _multipliers(dim: int) -> UInt64[np.ndarray, " dim"]:
    return _mix(np.arange(1, dim + 1, dtype=np.uint64) << np.uint64(32)) | np.uint64(1)


def _mix(x: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): the same in every version of numpy."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# ---------------------------------------------------------------------------------------------------------------- files


def read_meta(folder: Path) -> dict[str, Any] | None:
    """meta.json, or None where there is none that makes sense."""
    try:
        meta = strict_json(files.read(folder / "meta.json", SMALL_BYTES, folder.parent).decode())
    except (OSError, ValueError):
        return None
    if not isinstance(meta, dict) or not isinstance(meta.get("key"), dict):
        return None
    whole = all(type(meta.get(name)) is int and 0 <= meta[name] <= MOST[name] for name in ("n", "dim"))
    return meta if whole and fingerprint(meta["key"]) == folder.name else None


def drop_rows(folder: Path) -> None:
    """Leaves nothing in the entry that is called done, nor said of. Whoever calls has its lock. Raises StoreError."""
    try:
        files.remove_all(folder, ("index", FILE), folder.parent)
    except OSError as e:
        raise unwritable(folder, e) from e


def unwritable(folder: Path, error: OSError) -> StoreError:
    link = next((p for p in folder.parents if os.path.islink(p) and not os.path.exists(p)), None)  # these never raise
    if link:  # a disk that is not mounted, say, of which the system says no more than "File exists"
        return StoreError(
            f"cannot write features to '{folder}': '{link}' is a link to '{os.readlink(link)}', which is not there; "
            "bring that back, or name another folder with --cache or BENCHKIT_CACHE"
        )
    closed = next((p for p in reversed(folder.parents) if os.path.isdir(p) and not _enterable(p)), None)
    why = f"this user may not enter '{closed}'" if closed else str(error.strerror)
    return StoreError(
        f"cannot write features to '{folder}': {why}; make room or change its permissions, or name another folder with "
        "--cache or BENCHKIT_CACHE"
    )


def _enterable(folder: Path) -> bool:
    return os.access(folder, os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def _unreadable(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot read the feature cache '{folder}': {error.strerror}; --cache or BENCHKIT_CACHE names another folder"
    )


def _read_index(folder: Path, n: int) -> np.ndarray:
    """[n] of INDEX, zeros where the file is absent or too short. Raises StoreError where it cannot be read."""
    index = np.zeros(n, INDEX)
    try:
        with files.reading(folder / "index", folder.parent) as f:
            data = f.read(n * INDEX.itemsize)
    except FileNotFoundError:
        return index
    except OSError as e:
        raise _unreadable(folder, e) from e
    whole = len(data) // INDEX.itemsize
    index[:whole] = np.frombuffer(data, INDEX, count=whole)
    return index


def _pwrite(descriptor: int, data: np.ndarray, at: int) -> None:
    view = data.reshape(-1).view(np.uint8).data
    while view:
        written = os.pwrite(descriptor, view, at)  # less than asked for where the disk is about to be full
        view, at = view[written:], at + written


def folders(cache: Path) -> list[Path]:
    """The entries' folders, sorted, and no other's; none where the cache is not there.

    Raises StoreError where it cannot be read.
    """
    try:
        return sorted(p for p in cache.iterdir() if _NAME.fullmatch(p.name) and p.is_dir())
    except FileNotFoundError:
        return []
    except OSError as e:
        raise _unreadable(cache, e) from e
