"""Token features: [T, D] for each example, too large to keep. Training rows, which are few, go to a scratch file; the
rows that are scored go past once."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt64

from benchkit.errors import PluginError, StoreError
from benchkit.features.cache import Writer
from benchkit.features.lock import try_lock
from benchkit.features.pipeline import Options, Run, checked_rows
from benchkit.interfaces import Backbone, Encoded, Task
from benchkit.progress import Progress


@dataclass(frozen=True)
class Tokens:
    """Token features of some rows. values: a read-only memory map of a file without a name, gone with the last
    reference. rows: which row each is of; those that did not decode are in `skipped` and not here."""

    values: Float32[np.ndarray, "n T D"]
    rows: Int64[np.ndarray, " n"]
    hashes: UInt64[np.ndarray, " n"]
    skipped: Mapping[int, str]
    model_fingerprint: str


class TokenBatch(NamedTuple):
    """A part of a split on its way past. encoded.tokens is there."""

    rows: Int64[np.ndarray, " B"]
    encoded: Encoded
    hashes: UInt64[np.ndarray, " B"]


def extract_tokens(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
) -> Tokens:
    """Token features of these rows, in a scratch file: for training rows, which are few.

    Arguments and errors as for `stream_tokens`; raises StoreError where the scratch folder cannot hold them.
    """
    run = Run(task, backbone, split, options, progress, (key or {}).get("task", type(task).__name__))
    found: list[np.ndarray] = [np.zeros(0, np.int64)]
    hashes: list[np.ndarray] = [np.zeros(0, np.uint64)]
    shape: tuple[int, ...] | None = None
    with _Scratch(options.scratch or Path(tempfile.gettempdir())) as scratch:
        for batch in _stream(run, rows, key):
            tokens = batch.encoded.tokens
            assert tokens is not None
            shape = shape or tokens.shape[1:]
            if tokens.shape[1:] != shape:
                raise PluginError(f"{type(backbone).__name__} gave tokens of shape {tokens.shape[1:]} after {shape}")
            scratch.append(tokens)
            found.append(batch.rows)
            hashes.append(batch.hashes)
        kept = np.concatenate(found)
        values = scratch.map((len(kept), *(shape or (0, 0))))
    return Tokens(values, kept, np.concatenate(hashes), dict(run.bad), run.weights)


def stream_tokens(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    options: Options,
    progress: Progress,
    key: Mapping[str, str] | None = None,
) -> Iterator[TokenBatch]:
    """Token features of these rows in a single pass, batch by batch; they are stored nowhere.

    key: as for `extract`; with it, the pooled features of the same pass go to the cache, so that a later `extract` of
    these rows costs nothing (once this stream has ended: until then it holds the entry's lock). Rows that do not decode
    are left out. Raises as `extract` does.
    """
    run = Run(task, backbone, split, options, progress, (key or {}).get("task", type(task).__name__))
    return _stream(run, rows, key)


def _stream(run: Run, rows: Int[np.ndarray, " n"], key: Mapping[str, str] | None) -> Iterator[TokenBatch]:
    n = len(run.task.ids(run.split))
    rows = checked_rows(rows, n, run.split)
    entry = run.entry(key, n) if key is not None else None
    lock = try_lock(entry.folder) if entry else None
    # Where another process is filling the entry, it is left to that one.
    with lock or nullcontext(), Writer(entry) if entry and lock else nullcontext() as writer:
        there = set(rows[entry.read(rows).good].tolist()) if entry and writer else set()
        with closing(run.parts(rows, tokens=True)) as parts:
            for part in parts:
                if writer and not there.issuperset(part.rows.tolist()):
                    new = np.array([row not in there for row in part.rows.tolist()])
                    writer.write(part.rows[new], part.encoded.pooled[new], part.media[new])
                yield TokenBatch(part.rows, part.encoded, part.media)
        run.judge(len(rows))


class _Scratch:
    """A file without a name: whatever becomes of this process, nothing is left of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "_Scratch":
        with self._explained():
            self._file = tempfile.TemporaryFile(dir=self.folder, prefix="benchkit-tokens-", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, values: np.ndarray) -> None:
        view = np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8).data
        with self._explained():
            while view:
                view = view[self._file.write(view) :]

    def map(self, shape: tuple[int, ...]) -> np.ndarray:
        """Read-only; it outlives the file's descriptor."""
        return np.memmap(self._file, "<f4", "r", shape=shape) if np.prod(shape) else np.zeros(shape, np.float32)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise StoreError(
                f"cannot keep tokens in '{self.folder}': {e.strerror}; make room, or let TMPDIR name another folder"
            ) from e
