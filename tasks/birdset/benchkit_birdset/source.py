"""Where the parquet files are: a local folder, or a repository on the hub. Both have the same names and contents."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchkit import MANIFEST, Blocks, DataError, Hub, HubFile, fingerprint, fingerprint_path, read_manifest

SPLITS = {"train": "train", "test": "test_5s"}
"""Names of our splits, and of theirs."""
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.parquet$")


def patterns(config: str) -> tuple[str, ...]:
    """What belongs to one of the eight data sets, relative to the folder or repository."""
    return tuple(f"{config}/{theirs}-*.parquet" for theirs in SPLITS.values())


@dataclass(frozen=True)
class LocalFolder:
    """A folder in the layout of the repository; it is only read."""

    root: Path
    config: str

    def files(self, split: str) -> tuple[str, ...]:
        """Names of the split's files, in order. Raises DataError where some are missing."""
        pattern = f"{self.config}/{SPLITS[split]}-*.parquet"
        found = sorted(p.relative_to(self.root).as_posix() for p in self.root.glob(pattern))
        if not found:
            hint = "; give the folder above it" if list(self.root.glob(f"{SPLITS[split]}-*.parquet")) else ""
            raise DataError(
                f"'{self.root}' holds no {pattern}{hint} (benchkit fetch --task {self.config.lower()} --to DIR copies "
                "the data there)"
            )
        self._check_copy()
        return check_shards(found, str(self.root))

    def open(self, name: str, *, keep: bool = False) -> Any:
        """A file as pyarrow takes it, without a way through Python."""
        import pyarrow as pa

        try:
            return pa.OSFile(str(self.root / name))
        except OSError as e:
            raise DataError(f"cannot read '{self.root / name}': {e}") from e

    def fingerprint(self) -> str:
        """Of the contents of both splits' files."""
        return fingerprint_path(self.root, patterns(self.config))

    def _check_copy(self) -> None:
        manifest = read_manifest(self.root / self.config)
        for name, entry in (manifest["files"] if manifest else {}).items():
            path = self.root / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                raise DataError(
                    f"'{path}' is not what '{self.config}/{MANIFEST}' lists: run benchkit fetch --task "
                    f"{self.config.lower()} --to {self.root} again"
                )


@dataclass(frozen=True)
class HubRepository:
    """The repository itself, at one commit: what is read is transferred, and nothing else."""

    hub: Hub
    config: str
    _blocks: dict[str, Blocks] = field(default_factory=dict, compare=False)

    @cached_property
    def listing(self) -> dict[str, HubFile]:
        """The files of both splits by name. Raises RemoteError."""
        stems = tuple(p.removesuffix("*.parquet") for p in patterns(self.config))
        files = self.hub.files(self.config)
        return {f.path: f for f in files if f.path.startswith(stems) and f.path.endswith(".parquet")}

    def files(self, split: str) -> tuple[str, ...]:
        """Names of the split's files, in order. Raises RemoteError or DataError."""
        stem = f"{self.config}/{SPLITS[split]}-"
        found = [name for name in self.listing if name.startswith(stem)]
        if not found:
            raise DataError(f"{self.hub} has no {stem}*.parquet at revision {self.hub.commit[:12]}")
        return check_shards(found, str(self.hub))

    def open(self, name: str, *, keep: bool = False) -> Any:
        """A file as pyarrow takes it.

        keep: for reading most of it, perhaps more than once. Without, each read is a request of its own.
        """
        if not keep:
            return self.hub.open(self.listing[name])
        blocks = self._blocks.setdefault(name, self.hub.blocks(self.listing[name], keep=True))
        return self.hub.open(self.listing[name], blocks)

    def fingerprint(self) -> str:
        """Of the checksums that the hub states for both splits' files."""
        return fingerprint(sorted((f.path, f.checksum.partition(":")[2]) for f in self.listing.values()))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": {}}  # scratch files stay with the process


Source = LocalFolder | HubRepository


def check_shards(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names, sorted. Raises DataError unless they are all parts of one set: 00000-of-N to N-1-of-N."""
    parts = {name: (int(m[1]), int(m[2])) for name in names if (m := _SHARD.search(name))}
    for name, (_, total) in parts.items():
        for missing in sorted(set(range(total)) - {i for i, n in parts.values() if n == total}):
            wanted = _SHARD.sub(f"-{missing:05d}-of-{total:05d}.parquet", name)
            raise DataError(f"{where} is incomplete: '{wanted}' is missing beside '{name}'")
    totals = sorted({total for _, total in parts.values()})
    if len(totals) > 1:
        raise DataError(f"{where} mixes files of a set of {totals[0]} and a set of {totals[1]}: remove the older ones")
    return tuple(sorted(names))
