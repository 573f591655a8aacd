"""Shards of a recording: how they are written, so that a kill at any instant leaves finished ones and nothing else.

    <recording>/
        recording.json        what is recorded (see Identity); all points have it in common
        <point>/
            00000.npy         [n, T, D]: the first n examples, little endian float32 or float16; padding is a row of NaN
            00000.json        which examples these are, the checksum and the statistics: written after the shard
            metadata.json     the whole point: written once every example is there; then the small .json files go

A shard counts where its .json is there: it is renamed into place after the .npy, which was synced before. Whatever else
lies in a point's folder is left from a run that was killed, and removed.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float, Float32, Int64

from benchkit.activations.moments import Moments
from benchkit.activations.reader import is_padding
from benchkit.activations.rounding import Rounding
from benchkit.errors import DataError, PluginError, StoreError
from benchkit.machine import files
from benchkit.machine.files import fsync_folder, write_atomic

FORMAT = 2
READABLE = (1, FORMAT)
"""1: of float16 it was not kept how much rounding lost."""
SHARD_BYTES = 1 << 28
"""About how large a shard is."""
FLOAT16_MOST = 65_504.0


@dataclass(frozen=True)
class Identity:
    """What a folder is a recording of; a folder never holds two.

    task, model: canonical specs. rows: fingerprint of the rows that are recorded, `examples` of them. data, weights:
    fingerprints. dtype: float16 or float32.
    """

    format: int
    task: str
    model: str
    split: str
    rows: str
    examples: int
    data: str
    weights: str
    dtype: str

    def claim(self, folder: Path) -> None:
        """Makes the folder one of this recording. Raises StoreError where it holds some of another, or other files."""
        path = folder / "recording.json"
        mine = asdict(self)
        if path.exists():
            there = read_json(path)
            if there == mine:
                return
            if any(folder.glob("*/*.json")):
                key = next((key for key, value in mine.items() if there.get(key) != value), "format")
                raise StoreError(
                    f"'{folder}' is a recording of another {_WORDS[key]}: {there.get(key)!r}, not {mine[key]!r}; "
                    "choose another folder, or remove this one"
                )
            for point in (e for e in folder.iterdir() if e.is_dir()):  # of it nothing was ever finished
                finished_shards(point)
                with suppress(OSError):
                    files.remove_empty(point, folder)
            files.remove(path)
        other = [e.name for e in os.scandir(folder) if e.name != "lock" and not e.name.startswith(".")]
        if other:
            raise StoreError(
                f"'{folder}' holds '{sorted(other)[0]}' and is no recording: choose a folder that is empty or not there"
            )
        write_atomic(path, (json.dumps(mine, indent=1) + "\n").encode())


_WORDS = {
    "format": "format", "task": "task", "model": "model", "split": "split", "rows": "choice of examples",
    "examples": "number of examples", "data": "state of the data", "weights": "state of the weights", "dtype": "dtype",
}  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """One finished shard. rows: of its examples within the split, in the order of the file; ids: their names."""

    file: str
    rows: list[int]
    ids: list[str]
    tokens: int
    dim: int
    sha256: str
    prefix: Moments | None
    """Of the tokens before the patches, where there are any."""
    patches: Moments
    rounding: Rounding | None = None
    """Of all its vectors; None where nothing was rounded."""
    real: list[int] | None = None
    """Of each example, how many tokens are its own, those before the patches left out; None where all are."""

    def to_record(self) -> dict[str, Any]:
        parts = {k: part.to_record() if (part := getattr(self, k)) else None for k in ("prefix", "patches", "rounding")}
        plain = {k: getattr(self, k) for k in ("file", "rows", "ids", "tokens", "dim", "sha256", "real")}
        return plain | parts

    @staticmethod
    def from_record(r: Mapping[str, Any]) -> "Shard":
        made = {k: Moments.from_record(r[k]) if r[k] else None for k in ("prefix", "patches")}
        rounding = Rounding.from_record(r["rounding"]) if r.get("rounding") else None
        return Shard(**(dict(r) | made | {"rounding": rounding}))


def point_folder(root: Path, point: str) -> Path:
    """Where a point lies; a name that is no name of a folder is escaped."""
    name = quote(point, safe=" +=,@()[]")
    return root / (f"%2E{name[1:]}" if name.startswith(".") else name)


def finished_shards(folder: Path) -> list[Shard]:
    """The finished shards of a point that is not whole yet; removes what an interrupted run has left half-written.

    Raises StoreError for one that cannot be read."""
    shards = []
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            shards.append(Shard.from_record(read_json(path)))
        except (KeyError, TypeError, ValueError) as e:
            raise StoreError(f"'{path}' is damaged ({e}): remove it, and its shard is recorded again") from e
    known = {s.file for s in shards}
    for path in (*folder.glob("[0-9]*.npy"), *folder.glob(".*.part")):
        if path.name not in known:
            files.remove(path, folder.parent)
    return shards


class ShardWriter:
    """Cuts the activations of one point into shards. Use it as a context: what is unfinished at the end is removed.

    ids: of the split. prefix: how many tokens come before the patches. Raises StoreError where the folder cannot be
    written, DataError where float16 overflows, PluginError where T or D changes.
    """

    def __init__(
        self, root: Path, point: str, dtype: str, ids: Sequence[str], prefix: int, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.point, self.ids, self.prefix = point_folder(root, point), point, ids, prefix
        self.dtype, self.shard_bytes = np.dtype(dtype).newbyteorder("<"), shard_bytes
        with _explained(self.folder):
            files.make_folder(self.folder, root)
        self.shards = finished_shards(self.folder)
        self.done = {row for shard in self.shards for row in shard.rows}
        self._shape = (self.shards[0].tokens, self.shards[0].dim) if self.shards else None
        self._number = 1 + max((int(Path(s.file).stem) for s in self.shards), default=-1)
        self._file: io.FileIO | None = None
        self._rows: list[int] = []
        self._moments: list[Moments | None] = [None, None]
        self._rounding: Rounding | None = None
        self._real: list[int] = []

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            files.remove(Path(self._partial))

    def write(self, rows: Int64[np.ndarray, " B"], activations: Float32[np.ndarray, "B T D"]) -> None:
        """Rows that are recorded already are passed over."""
        new = np.array([row not in self.done for row in rows.tolist()], bool)
        if not new.any():
            return
        rows, activations = rows[new], activations if new.all() else activations[new]
        shape = (activations.shape[1], activations.shape[2])
        self._shape = self._shape or shape
        if shape != self._shape:
            raise PluginError(
                f"activations at '{self.point}' must have one shape: they were {self._shape} and are {shape} (T, D)"
            )
        stored = self._converted(activations)
        size = max(1, self.shard_bytes // max(1, shape[0] * shape[1] * self.dtype.itemsize))
        at = 0
        while at < len(rows):
            part = slice(at, at + size - len(self._rows))
            self._append(rows[part], stored[part], activations[part])
            at += len(rows[part])
            if len(self._rows) == size:
                self._finish()

    def close(self) -> None:
        """Finishes the last shard."""
        if self._rows:
            self._finish()

    def _converted(self, activations: Float32[np.ndarray, "B T D"]) -> Float[np.ndarray, "B T D"]:
        if self.dtype.itemsize == 4:
            return activations.astype(self.dtype, copy=False)
        with np.errstate(over="ignore"):
            stored = activations.astype(self.dtype)
        if (np.isinf(stored) & np.isfinite(activations)).any():
            most = float(np.abs(activations[np.isfinite(activations)]).max())
            raise DataError(
                f"activations at '{self.point}' reach {most:,.0f}, and float16 ends at {FLOAT16_MOST:,.0f}: record "
                f"them with --dtype float32{', into another folder' if self.shards else ''}"
            )
        return stored

    def _append(
        self, rows: Int64[np.ndarray, " B"], stored: Float[np.ndarray, "B T D"], given: Float32[np.ndarray, "B T D"]
    ) -> None:
        with _explained(self.folder):
            if self._file is None:
                self._file = io.FileIO(files.create(Path(self._partial), self.folder.parent), "r+")
                _write_all(self._file, self._header(0))
            _write_all(self._file, np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data)
        self._rows += rows.tolist()
        real = ~is_padding(stored)
        real[:, : self.prefix] = True
        self._real += real[:, self.prefix :].sum(axis=1).tolist()
        self.done.update(rows.tolist())
        dim = stored.shape[2]
        prefix, patches = stored[:, : self.prefix].reshape(-1, dim), stored[:, self.prefix :]
        for i, part in enumerate((prefix, patches[real[:, self.prefix :]])):
            found = Moments.of(part)
            before = self._moments[i]
            self._moments[i] = found if before is None else before + found
        if self.dtype.itemsize < 4:
            lost = Rounding.of(given[real], stored[real])
            self._rounding = lost if self._rounding is None else self._rounding + lost

    def _finish(self) -> None:
        patches = self._moments[1]
        assert self._file is not None
        assert self._shape is not None
        assert patches is not None
        name = f"{self._number:05d}.npy"
        with _explained(self.folder):
            os.pwrite(self._file.fileno(), self._header(len(self._rows)), 0)
            os.fsync(self._file.fileno())
            self._file.close()
            digest = sha256_of(Path(self._partial))
            files.move(Path(self._partial), self.folder / name, self.folder.parent)
            fsync_folder(self.folder)
        shard = Shard(
            name, self._rows, [self.ids[row] for row in self._rows], *self._shape, digest,
            self._moments[0] if self.prefix else None, patches, self._rounding,
            self._real if any(n < self._shape[0] - self.prefix for n in self._real) else None,
        )  # fmt: skip
        write_atomic(self.folder / f"{self._number:05d}.json", json.dumps(shard.to_record()).encode())
        self.shards.append(shard)
        self._file, self._rows, self._number = None, [], self._number + 1
        self._moments, self._rounding, self._real = [None, None], None, []

    @property
    def _partial(self) -> str:
        return str(self.folder / f".{self._number:05d}.npy.part")

    def _header(self, n: int) -> bytes:
        """Of the .npy file; numpy pads it so that its length does not depend on n."""
        made = io.BytesIO()
        assert self._shape is not None
        described = {"descr": self.dtype.str, "fortran_order": False, "shape": (n, *self._shape)}
        np.lib.format.write_array_header_1_0(made, described)
        return made.getvalue()


def sha256_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Raises StoreError where it is absent or damaged."""
    try:
        found = json.loads(path.read_text())
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found
    except OSError as e:
        raise StoreError(f"cannot read '{path}': {e.strerror}") from e
    except ValueError as e:
        raise StoreError(f"'{path}' is damaged: {e}") from e


def _write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """A full disk or a folder that may not be written, as one line."""
    try:
        yield
    except OSError as e:
        raise StoreError(
            f"cannot write activations to '{folder}': {e.strerror}; what is finished is kept, and the same command "
            "goes on from there"
        ) from e
