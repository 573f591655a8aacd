"""BirdSet's eight multi-label tasks (arXiv 2403.10380): focal recordings to train on, soundscape windows to test on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from benchkit import (
    BenchkitError,
    Channel,
    DataError,
    Example,
    Hub,
    Labels,
    Progress,
    Task,
    format_value,
    local_path,
    param,
)
from benchkit import copy_from_hub as copy
from benchkit_birdset.clips import FocalClip, Window
from benchkit_birdset.published import published
from benchkit_birdset.source import SPLITS, HubRepository, LocalFolder, Source, patterns
from benchkit_birdset.table import Table, read_table, stream_audio

REPO = "samuelstevens/BirdSet"
"""The parquet conversion; the original, DBD-research-group/BirdSet, needs a loading script."""


def _params(config: str) -> type:
    """The parameters of one task: what its place fingerprints is its own files and not those of the other seven."""

    @dataclass(frozen=True)
    class Params:
        repo: str = param(REPO, place=patterns(config), help="repository on the hub, or a folder with its files")
        revision: str | None = param(None, help="branch, tag or commit of the repository; none is its default branch")
        clip: Literal["event", "first", "centre", "loudest"] = param(
            "event", help="which part of a focal recording: around its first detected event, the first, ..."
        )
        seconds: float = param(5.0, low=0.1, high=600, help="length of that part; test windows are 5 s, as they come")
        channel: Channel = param(
            "mix", help="what is heard of several channels: their mean, the first, the second, ..."
        )

    return Params


class BirdSet(Task):
    """What the eight have in common.

    Train: the split `train`, one clip of each focal recording. Test: every window of the split `test_5s`, with or
    without a label. The classes and their order are the data set's own.
    """

    kind = "multilabel"
    modality = "audio"
    metrics = ("cmap", "auroc", "auroc_birdset", "top1")
    config: ClassVar[str]
    """Name of the data set in the repository."""
    sizes: ClassVar[Mapping[str, int]]
    """Examples of each split as published."""

    def __init_subclass__(cls, train: int, test: int) -> None:
        super().__init_subclass__()
        cls.config, cls.sizes = cls.__name__, {"train": train, "test": test}
        cls.Params = _params(cls.config)
        cls.Params.__module__, cls.Params.__qualname__ = cls.__module__, f"{cls.__qualname__}.Params"
        cls.published = published(cls.config.lower())

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._tables: dict[str, Table] = {}

    @cached_property
    def source(self) -> Source:
        """Where the files are. Raises DataError for a folder that is not there."""
        repo, revision = self.params.repo, self.params.revision
        name = self.config.lower()
        if folder := local_path(repo):
            if revision is not None:
                raise DataError(f"revision={revision} is for a repository on the hub, and '{repo}' is a folder here")
            return LocalFolder(folder.absolute(), self.config)
        if repo.startswith((".", "/", "~")) or repo.count("/") != 1:
            raise DataError(f"repo='{repo}' is neither a folder here nor the name of a repository (ORG/NAME)")
        instead = f"copy it where there is one (benchkit fetch --task {name} --to DIR) and run {name},repo=DIR"
        return HubRepository(Hub(repo, "dataset", revision, instead), self.config)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._table("train").classes

    def ids(self, split: str) -> Sequence[str]:
        return self._table(split).ids

    def labels(self, split: str) -> Labels:
        return self._table(split).labels

    def groups(self, split: str) -> Sequence[str]:
        """The recording, by its file's name."""
        return self._table(split).recordings

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        """In the order of `indices`; fastest where they ascend. One row group is in memory at a time."""
        table = self._table(split)
        rows = [int(i) for i in indices]
        if rows and not 0 <= min(rows) <= max(rows) < len(table.ids):
            raise DataError(f"{self.config} {split} has rows 0 to {len(table.ids) - 1}, not {min(rows)} to {max(rows)}")
        # Training recordings may be read once an epoch; test windows are read once, and may be larger than the disk.
        for row, audio in stream_audio(self.source, table, rows, keep=split == "train"):
            yield Example(row, table.ids[row], self._medium(split, audio, table.windows[row]))

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    @property
    def _heard(self) -> str:
        """What another channel than the mix adds to the media's name."""
        return "" if self.params.channel == "mix" else f",channel={self.params.channel}"

    def media_key(self, split: str) -> str:
        """Where the data is, is not part of it; which part of a recording is, for the recordings only."""
        clip = f"/{self.params.clip},{format_value(self.params.seconds)}s" if split == "train" else ""
        return f"birdset/{self.config}/{split}@{self.version}{clip}{self._heard}/{self.fingerprint()}"

    def fetch(self, to: Path, progress: Progress) -> Mapping[str, str | None]:
        if isinstance(self.source, LocalFolder):
            raise BenchkitError(f"repo='{self.params.repo}' is a folder here already: there is nothing to fetch")
        names = [name for split in SPLITS for name in self.source.files(split)]
        copy(self.source.hub, [self.source.listing[name] for name in names], self.config, to, progress)
        return {"repo": str(to), "revision": None}

    def _medium(self, split: str, audio: bytes, window: np.ndarray) -> FocalClip | Window:
        begin, end = window.tolist()
        there = np.isfinite(window).all()
        if split == "test":
            return Window(audio, *(begin, end - begin) if there else (0.0, None), self.params.channel)
        event = (begin, end) if there else None
        return FocalClip(audio, 0.0, self.params.seconds, self.params.channel, self.params.clip, event)

    def _table(self, split: str) -> Table:
        if split not in SPLITS:
            raise DataError(f"{self.config} has no split '{split}': it has {' and '.join(SPLITS)}")
        if split not in self._tables:
            table = read_table(self.source, split, events=split == "train")
            if any(table.classes != other.classes for other in self._tables.values()):
                raise DataError(f"{self.config}: its splits disagree on the classes")
            if abs(len(table.ids) - self.sizes[split]) > self.sizes[split] / 100:
                self.published = ()  # not the data that the papers' numbers are of
            self._tables[split] = table
        return self._tables[split]


class POW(BirdSet, train=14_911, test=4_560):
    """Powdermill Nature Reserve, Pennsylvania: 48 classes."""


class PER(BirdSet, train=16_802, test=15_120):
    """Amazon Basin, Peru: 132 classes."""


class NES(BirdSet, train=16_117, test=24_480):
    """Coffee farms in Colombia and Costa Rica: 89 classes."""


class UHH(BirdSet, train=3_626, test=36_637):
    """Hawaiian Islands: 25 classes."""


class HSN(BirdSet, train=5_460, test=12_000):
    """High Sierra Nevada, California: 21 classes."""


class NBP(BirdSet, train=24_327, test=563):
    """NIPS4BPlus, France and Spain: 51 classes."""


class SSW(BirdSet, train=28_403, test=205_200):
    """Sapsucker Woods, New York: 81 classes."""


class SNE(BirdSet, train=19_390, test=23_756):
    """Sierra Nevada, California: 56 classes."""
