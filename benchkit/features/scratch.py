"""What is too large to keep: it goes to a file without a name, gone with the last reference to it."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, Shaped, UInt64

from benchkit.errors import PluginError, StoreError
from benchkit.features.pipeline import Run
from benchkit.machine.files import nameless


@dataclass(frozen=True)
class Kept:
    """Arrays of some rows, tokens [T, D] (padding: NaN) or preprocessed examples [...], while they are needed.

    values: a read-only memory map. rows: which row each is of; those that did not decode are in `skipped` and not here.
    """

    values: Shaped[np.ndarray, "n ..."]
    rows: Int64[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    skipped: Mapping[int, str]
    model_fingerprint: str


class Passing(NamedTuple):
    """A part of a split on its way past. values: tokens [B, T, D], or examples as `Backbone.preprocess` made them."""

    rows: Int64[np.ndarray, " B"]
    values: Shaped[np.ndarray, "B ..."]
    hashes: UInt64[np.ndarray, " B"]


def keep(run: Run, stream: Iterable[Passing], what: str, empty: tuple[int, ...]) -> Kept:
    """Everything that the run's stream brings. what: for errors. empty: the shape of one value where there is none.

    Raises PluginError where values differ in shape or type, StoreError where the scratch folder cannot hold them.
    """
    found: list[np.ndarray] = [np.zeros(0, np.int64)]
    hashes: list[np.ndarray] = [np.zeros(0, np.uint64)]
    kind: tuple[tuple[int, ...], np.dtype] | None = None
    with Scratch(run.options.scratch, what) as scratch:
        for part in stream:
            this = (part.values.shape[1:], part.values.dtype)
            kind = kind or this
            if this != kind:
                name = type(run.backbone).__name__
                raise PluginError(f"{name} gave {what} of shape {this[0]} ({this[1]}) after {kind[0]} ({kind[1]})")
            scratch.append(part.values)
            found.append(part.rows)
            hashes.append(part.hashes)
        kept = np.concatenate(found)
        shape, dtype = kind or (empty, np.dtype(np.float32))
        values = scratch.map((len(kept), *shape), dtype)
    return Kept(values, kept, np.concatenate(hashes), dict(run.bad), run.weights)


class Scratch:
    """A file without a name: whatever becomes of this process, nothing is left of it.

    folder: None is the system's for temporary files (TMPDIR). what: is kept there, for errors.
    """

    def __init__(self, folder: Path | None, what: str) -> None:
        self.folder, self.what = folder or Path(tempfile.gettempdir()), what

    def __enter__(self) -> "Scratch":
        with self._explained():
            self._file = nameless(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, values: np.ndarray) -> None:
        """Raises StoreError."""
        if not values.size:
            return
        view = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        with self._explained():
            while view:
                view = view[self._file.write(view) :]

    def map(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """All that was appended, read-only; it outlives the file's descriptor."""
        return np.memmap(self._file, dtype, "r", shape=shape) if np.prod(shape) else np.zeros(shape, dtype)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise StoreError(
                f"cannot keep {self.what} in '{self.folder}': {e.strerror}; make room, or let TMPDIR name another "
                "folder"
            ) from e
