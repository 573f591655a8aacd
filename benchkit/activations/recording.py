"""A recording, read: memory-mapped, its metadata, statistics and vectors.

recording = Recording.open(folder)
for batch in recording["blocks.11.norm2"].batches(4096, seed=0, epochs=1):   # float32 [B, D]
"""

import os
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from benchkit.activations.moments import Moments, Statistics
from benchkit.activations.reader import BUFFER_BYTES, numbered_views, shuffled
from benchkit.activations.shards import FORMAT, READABLE, point_folder, read_json, sha256_of
from benchkit.errors import BenchkitError, StoreError, did_you_mean
from benchkit.interfaces import Layout
from benchkit.media.fingerprint import fingerprint


@dataclass(frozen=True)
class RecordedPoint:
    """One point of a recording. metadata: the contents of its metadata.json."""

    folder: Path
    metadata: Mapping[str, Any]

    @staticmethod
    def open(folder: Path) -> "RecordedPoint":
        """Raises StoreError where it is not whole, damaged, or written by a newer benchkit."""
        metadata = read_json(folder / "metadata.json")
        if metadata.get("format") not in READABLE:
            raise StoreError(f"'{folder}' is of format {metadata.get('format')}, and this benchkit reads {FORMAT}")
        return RecordedPoint(folder, metadata)

    @property
    def point(self) -> str:
        return self.metadata["point"]

    @property
    def task(self) -> str:
        """Canonical spec."""
        return self.metadata["task"]

    @property
    def split(self) -> str:
        """Of the task."""
        return self.metadata["split"]

    @property
    def model(self) -> str:
        """Canonical spec."""
        return self.metadata["model"]

    @property
    def n_examples(self) -> int:
        return self.metadata["examples"]

    @property
    def tokens(self) -> int:
        """T: tokens an example, those before the patches included."""
        return self.metadata["tokens"]

    @property
    def prefix_tokens(self) -> int:
        """How many of them, the first ones, are no patches: class token, registers."""
        return self.metadata["prefix_tokens"]

    @property
    def layout(self) -> Layout | None:
        """Where the patches lie in the image or recording; None where the backbone does not say."""
        found = self.metadata.get("layout")
        if found is None:
            return None
        axes, grid, size, units = (tuple(found[k]) for k in ("axes", "grid", "size", "units"))
        return Layout(axes, grid, size, units, found["crop"])

    @property
    def dim(self) -> int:
        """D."""
        return self.metadata["dim"]

    @property
    def dtype(self) -> str:
        """As stored: float16 or float32."""
        return self.metadata["dtype"]

    @cached_property
    def real_tokens(self) -> Int64[np.ndarray, " N"]:
        """Of each example, how many of its patches or frames are its own and not padding."""
        whole = [self.tokens - self.prefix_tokens] * self.n_examples
        return np.array(self.metadata.get("real_tokens", whole), np.int64)

    @property
    def padding(self) -> float:
        """Share of the patches or frames that are padding: of clips that were shorter than the model's window."""
        whole = self.n_examples * (self.tokens - self.prefix_tokens)
        return 1 - int(self.real_tokens.sum()) / whole if whole else 0.0

    @property
    def n_vectors(self) -> int:
        """Of all tokens of all examples, without padding."""
        return self.vectors_of()

    def vectors_of(self, examples: Int[np.ndarray, " n"] | None = None, *, patches: bool = False) -> int:
        """As `n_vectors`, of these examples. patches: without the prefix tokens."""
        real = self.real_tokens if examples is None else self.real_tokens[examples]
        return int(real.sum()) + (0 if patches else len(real) * self.prefix_tokens)

    @property
    def rows(self) -> Int64[np.ndarray, " N"]:
        """Of each example within the split, in the order of the files."""
        return np.array(self.metadata["rows"], np.int64)

    @property
    def ids(self) -> list[str]:
        """Of each example, in the order of the files."""
        return self.metadata["ids"]

    @property
    def lost(self) -> dict[int, float] | None:
        """Dimensions of which rounding to `dtype` lost more than 1 % of the variance, the worst first, and how much;
        None where that is not known (float16 of an earlier benchkit)."""
        if "lost" not in self.metadata:
            return {} if self.dtype == "float32" else None
        return {int(dim): share for dim, share in self.metadata["lost"].items()}

    @cached_property
    def statistics(self) -> Statistics:
        """Of every vector."""
        patches, prefix = self._moments("patches"), self._moments("prefix")
        assert patches is not None
        return Statistics(patches + prefix if prefix else patches)

    @cached_property
    def patch_statistics(self) -> Statistics:
        """Of the patches' vectors, without the prefix tokens."""
        patches = self._moments("patches")
        assert patches is not None
        return Statistics(patches)

    @cached_property
    def fingerprint(self) -> str:
        """Of the stored activations: the same wherever the folder lies."""
        return fingerprint([self.point, [[s["examples"], s["sha256"]] for s in self.metadata["shards"]]])

    @cached_property
    def shards(self) -> tuple[Float[np.ndarray, "n T D"], ...]:
        """Read-only memory maps. Raises StoreError for one that is missing or too short."""
        return tuple(self._map(s["file"], s["examples"]) for s in self.metadata["shards"])

    @property
    def bytes(self) -> int:
        return sum(s.nbytes for s in self.shards)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epochs: int | None = 1,
        patches: bool = False,
        skip: int = 0,
        buffer_bytes: int = BUFFER_BYTES,
        examples: Int[np.ndarray, " n"] | None = None,
        use: int = 0,
    ) -> Generator[Float32[np.ndarray, "B D"], None, None]:
        """The vectors in random order, each exactly once an epoch; see benchkit.activations.reader. Each shard is
        compared with its checksum before it is read for the first time; StoreError names one that is damaged.

        epochs: None is without end. patches: leaves the prefix tokens out. skip: so many batches are left out at the
        beginning, to go on where a run stopped. buffer_bytes: memory that is shuffled in. examples: only these, by
        their place in the files, ascending. use: of the order, where one seed must give several.
        """
        first = self.prefix_tokens if patches else 0
        chosen = np.arange(self.n_examples) if examples is None else examples
        numbers, views = numbered_views(self.shards, chosen)
        return shuffled(
            views, first, batch_size, seed, epochs, skip, buffer_bytes, lambda view: self.check(numbers[view]),
            self.vectors_of(chosen, patches=patches), use,
        )  # fmt: skip

    def views(self, examples: Int[np.ndarray, " n"]) -> Iterator[Float[np.ndarray, "_ T D"]]:
        """These examples, ascending and by their place in the files, as views of neighbouring ones, each of a shard
        whose checksum was compared; padding is rows of NaN. Raises StoreError for a damaged one."""
        for number, view in zip(*numbered_views(self.shards, examples), strict=True):
            self.check(number)
            yield view

    def check(self, number: int) -> None:
        """Compares a shard with its checksum, once for this object; from any thread. Raises StoreError."""
        with self._checking:
            if number in self._checked:
                return
            shard = self.metadata["shards"][number]
            path = self.folder / shard["file"]
            if sha256_of(path) != shard["sha256"]:
                raise StoreError(
                    f"'{path}' is not as it was written: its checksum does not match; bring it back from a copy, or "
                    f"remove '{self.folder}' and record it again"
                )
            self._checked.add(number)

    @cached_property
    def _checked(self) -> set[int]:
        return set()

    @cached_property
    def _checking(self) -> threading.Lock:
        return threading.Lock()

    def verify(self) -> list[str]:
        """A line for each shard that is missing or not as it was written. Reads everything."""
        problems = []
        for s in self.metadata["shards"]:
            path = self.folder / s["file"]
            if not path.exists():
                problems.append(f"'{path}' is missing")
            elif sha256_of(path) != s["sha256"]:
                problems.append(f"'{path}' is not as it was written: its checksum does not match")
        return problems

    def _moments(self, part: str) -> Moments | None:
        record = self.metadata["statistics"][part]
        return Moments.from_record(record) if record else None

    def _map(self, file: str, examples: int) -> np.ndarray:
        path = self.folder / file
        try:
            found = np.load(path, mmap_mode="r")
        except FileNotFoundError as e:
            raise StoreError(f"'{path}' is missing from the recording") from e
        except (OSError, ValueError, EOFError) as e:
            raise StoreError(f"'{path}' is damaged: {e}") from e
        if found.shape != (examples, self.tokens, self.dim):
            raise StoreError(f"'{path}' is damaged: it holds {found.shape}, not {(examples, self.tokens, self.dim)}")
        return found


@dataclass(frozen=True)
class Recording:
    """The points of a folder that are whole, by name, and the names of those that are not."""

    folder: Path
    points: Mapping[str, RecordedPoint]
    unfinished: tuple[str, ...] = ()

    @staticmethod
    def open(folder: Path) -> "Recording":
        """Raises StoreError where the folder is no recording or a part of it is damaged."""
        if not (folder / "recording.json").exists():
            raise StoreError(f"'{folder}' is no recording: make one with benchkit activations record --to '{folder}'")
        points, unfinished = {}, []
        for entry in sorted(os.scandir(folder), key=lambda e: e.name):
            if not entry.is_dir():
                continue
            if (Path(entry.path) / "metadata.json").exists():
                found = RecordedPoint.open(Path(entry.path))
                points[found.point] = found
            else:
                unfinished.append(entry.name)
        return Recording(folder, dict(sorted(points.items(), key=lambda p: _natural(p[0]))), tuple(unfinished))

    def __getitem__(self, point: str) -> RecordedPoint:
        """Raises BenchkitError for a point that is not there or not whole."""
        if point in self.points:
            return self.points[point]
        if point_folder(self.folder, point).name in self.unfinished:
            raise BenchkitError(f"point '{point}' of '{self.folder}' is unfinished: record it again, and it goes on")
        has = ", ".join(self.points) or "none"
        raise BenchkitError(f"'{self.folder}' has no point '{point}'{did_you_mean(point, self.points)} (it has {has})")

    def __iter__(self) -> Iterator[str]:
        return iter(self.points)

    @property
    def only(self) -> RecordedPoint:
        """Its point, where there is one. Raises BenchkitError."""
        if len(self.points) != 1:
            has = ", ".join(self.points) or "none"
            raise BenchkitError(f"'{self.folder}' has {len(self.points)} points ({has}): say which, with --point")
        return next(iter(self.points.values()))


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts blocks.2 before blocks.10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
