"""Tables of vectors in each of the forms that people keep them in."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit import Audio, BenchkitError, Example, MediaError, require

MILLISECONDS = 1000
"""Starts are compared to the millisecond: others write 0.1 + 0.2."""
FORMS = "a .parquet, .npz, .h5 or .hdf5 file, or a folder of .npy files"


@dataclass
class Table:
    """vectors: a row each, [N, D]. by_id: (split or None, id) -> row. by_file: (split or None, name of the file, start
    in ms) -> row; under its last part alone too, as far as only one row has that."""

    path: Path
    vectors: Float32[np.ndarray, "N D"]
    by_id: Mapping[tuple[str | None, str], int] = field(default_factory=dict)
    by_file: Mapping[tuple[str | None, str, int], int] = field(default_factory=dict)

    def vector(self, split: str, example: Example) -> Float32[np.ndarray, " D"]:
        """Raises MediaError where there is none for this example: it then counts among `--skip-bad`."""
        for of in (split, None):
            if (row := self.by_id.get((of, example.id))) is not None:
                return self.vectors[row]
        source = example.media.source
        if self.by_file and isinstance(source, Path):
            start = example.media.start if isinstance(example.media, Audio) else 0.0
            for of in (split, None):
                for name in (str(source), source.name):
                    if (row := self.by_file.get((of, name, _ms(start)))) is not None:
                        return self.vectors[row]
        raise MediaError(f"there is no vector of it in '{self.path}' (under its id, or its file and start)")


def read_table(path: Path) -> Table:
    """Raises BenchkitError where it cannot be read, or has two rows for one example."""
    if not path.exists():
        raise BenchkitError(f"there is no '{path}'; vectors: takes {FORMS}")
    readers: dict[str, Callable[[Path], Mapping[str, Any]]] = {
        ".parquet": _parquet, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5
    }  # fmt: skip
    reader = _folder if path.is_dir() else readers.get(path.suffix.lower())
    if reader is None:
        raise BenchkitError(f"'{path}' is none of what vectors: takes: {FORMS}")
    try:
        columns = reader(path)
        return _table(path, columns)
    except BenchkitError:
        raise
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as e:
        raise BenchkitError(f"cannot read vectors from '{path}': {' '.join(str(e).split())[:200] or repr(e)}") from e


def _table(path: Path, columns: Mapping[str, Any]) -> Table:
    vectors = np.asarray(columns["vector"])
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu" or not vectors.size:
        raise BenchkitError(
            f"the vectors in '{path}' are {vectors.dtype} {list(vectors.shape)}, and must be numbers, [N, D]"
        )
    n = len(vectors)
    ids, files, starts, splits = (_texts(columns, c) if c != "start" else columns.get(c) for c in _KEYS)
    for name, column in zip(_KEYS, (ids, files, starts, splits), strict=True):
        if column is not None and len(column) != n:
            raise BenchkitError(f"'{path}' has {n} vectors and {len(column)} of '{name}'")
    if ids is None and files is None:
        raise BenchkitError(f"'{path}' does not say what its vectors are of: it needs a column 'id', or 'file'")
    of: Sequence[str | None] = splits or [None] * n
    by_id: dict[tuple[str | None, str], int] = {}
    by_file: dict[tuple[str | None, str, int], int] = {}
    if ids is not None:
        for row in range(n):
            if by_id.setdefault((of[row], ids[row]), row) != row:
                raise BenchkitError(_twice(path, f"id '{ids[row]}'", by_id[of[row], ids[row]], row, splits is None))
    if files is not None:
        ms = [0] * n if starts is None else [_ms(float(s or 0)) for s in starts]
        short: dict[tuple[str | None, str, int], int | None] = {}
        for row in (r for r in range(n) if files[r]):
            key = (of[row], files[row], ms[row])
            if by_file.setdefault(key, row) != row and ids is None:
                what = f"file '{files[row]}' from {ms[row] / MILLISECONDS:g} s"
                raise BenchkitError(_twice(path, what, by_file[key], row, splits is None))
            last = (of[row], os.path.basename(files[row]), ms[row])
            short[last] = row if last not in short else None
        by_file = {k: row for k, row in short.items() if row is not None} | by_file
    return Table(path, vectors.astype(np.float32, copy=False), by_id, by_file)


_KEYS = ("id", "file", "start", "split")
_OWN = {"filename": "file"}
"""Of npz, since numpy.savez has a `file` of its own."""


def _twice(path: Path, what: str, first: int, second: int, no_splits: bool) -> str:
    hint = "; where splits share names, a column 'split' tells them apart" if no_splits else ""
    return f"'{path}' has two vectors of {what}, in rows {first + 1} and {second + 1}{hint}"


def _texts(columns: Mapping[str, Any], name: str) -> list[str] | None:
    found = columns.get(name)
    if found is None:
        return None
    return [
        v.decode() if isinstance(v, bytes) else str(v) for v in (found.tolist() if hasattr(found, "tolist") else found)
    ]


def _ms(seconds: float) -> int:
    return round(seconds * MILLISECONDS)


# -------------------------------------------------------------------------------------------------------------- forms


def _parquet(path: Path) -> Mapping[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        if "vector" not in names:
            raise BenchkitError(f"'{path}' has no column 'vector', but {', '.join(names[:8])}")
        table = file.read(columns=[n for n in (*_KEYS, "vector") if n in names])
    except pa.ArrowException as e:
        raise ValueError(str(e)) from e
    columns: dict[str, Any] = {n: table[n].to_pylist() for n in _KEYS if n in names}
    for name, values in columns.items():
        if None in values and (name in ("id", "split") or "id" not in columns):
            raise BenchkitError(f"'{path}' leaves '{name}' empty in row {values.index(None) + 1}")
    vectors = table["vector"].combine_chunks()
    kind = vectors.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise BenchkitError(f"column 'vector' of '{path}' is {kind}, and must be a list of numbers")
    if vectors.null_count:
        raise BenchkitError(f"'{path}' leaves 'vector' empty in a row")
    lengths = np.unique(vectors.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) != 1:
        raise BenchkitError(
            f"the vectors in '{path}' have {lengths[0]} to {lengths[-1]} dimensions, and must be of one size"
        )
    return columns | {"vector": vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), -1)}


def _npz(path: Path) -> Mapping[str, Any]:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {_OWN.get(name, name): arrays[name] for name in arrays.files if name in (*_KEYS, *_OWN, "vector")}
            return _named(path, found, arrays.files)
    except zipfile.BadZipFile as e:
        raise ValueError(str(e)) from e


def _hdf5(path: Path) -> Mapping[str, Any]:
    require("h5py", "benchkit-vectors[hdf5]")
    import h5py

    with h5py.File(path, "r") as file:
        found = {name: file[name][()] for name in (*_KEYS, "vector") if isinstance(file.get(name), h5py.Dataset)}
        return _named(path, found, list(file))


def _named(path: Path, found: dict[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    if "vector" not in found:
        raise BenchkitError(f"'{path}' has no array 'vector', but {', '.join(names[:8]) or 'nothing'}")
    return found


def _folder(path: Path) -> Mapping[str, Any]:
    """Each file's name without .npy is the id of its example, or of its file: 'a/b.wav.npy' and 'a/b.npy'."""
    files = sorted(path.rglob("*.npy"))
    if not files:
        raise BenchkitError(f"'{path}' holds no .npy file")
    vectors = [np.load(f, allow_pickle=False) for f in files]
    for file, vector in zip(files, vectors, strict=True):
        if vector.shape != vectors[0].shape or vector.ndim != 1:
            raise BenchkitError(
                f"'{file}' is {vector.dtype} {list(vector.shape)}, and each file must hold one vector of one size, as "
                f"'{files[0].name}' {list(vectors[0].shape)}"
            )
    names = [f.relative_to(path).as_posix().removesuffix(".npy") for f in files]
    return {"id": names, "file": names, "vector": np.stack(vectors)}
