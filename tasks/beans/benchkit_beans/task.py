"""The twelve: seven classifications, five detections; splits and windows are the published ones."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchkit import (
    Audio,
    BenchkitError,
    Channel,
    DataError,
    Example,
    Fold,
    Labels,
    Progress,
    Published,
    Task,
    copy_from_hub,
    cut,
    param,
    window_labels,
    window_starts,
)
from benchkit_beans.source import PLACE, Rows, Source


def _params(hub: str) -> type:
    @dataclass(frozen=True)
    class Params:
        repo: str = param(f"DBD-research-group/beans_{hub}", place=PLACE, help="repository on the hub, or a folder")
        revision: str | None = param(None, help="branch, tag or commit of the repository; none is its default branch")
        low: bool = param(False, help="train on the small training split, train_low")
        channel: Channel = param("mix", help="what is heard of several channels")

    return Params


class _Beans(Task):
    """Train, valid and test are the published splits. Where the data is of other sizes than published, a line tells,
    and published numbers are not compared."""

    modality = "audio"
    name: ClassVar[str]
    sizes: ClassVar[tuple[int, int, int] | None]
    columns: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, hub: str = "", sizes: tuple[int, int, int] | None = None, **more: Any) -> None:
        super().__init_subclass__()
        if not hub:
            return
        cls.name, cls.sizes = f"beans-{hub}", sizes
        cls.Params = _params(hub)
        cls.Params.__module__, cls.Params.__qualname__ = cls.__module__, f"{cls.__qualname__}.Params"
        for key, value in more.items():
            setattr(cls, key, value)
        tables = json.loads((files(__package__) / "published.json").read_text())["tables"]
        cls.published = tuple(
            Published(
                t["model"], t["classifier"], -1, "top1", round(t["per_cent"][hub] / 100, 6), f"{t['source']}, {hub}"
            )
            for t in tables
            if hub in t["per_cent"]
        )

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self._read: dict[str, Rows] = {}

    @cached_property
    def source(self) -> Source:
        return Source(self.params.repo, self.params.revision, self.name)

    def fingerprint(self) -> str:
        return self.source.fingerprint()

    def media_key(self, split: str) -> str:
        heard = "" if self.params.channel == "mix" else f",channel={self.params.channel}"
        return f"{self.name}@{self.version}/{split}{heard}/{self.fingerprint()}"

    def folds(self) -> tuple[Fold, ...]:
        train = "train_low" if self.params.low else "train"
        sizes = {split: np.arange(len(self.ids(split))) for split in (train, "test", "valid")}
        if self.sizes and not self.params.low:
            found = tuple(len(self._rows(split).names) for split in ("train", "valid", "test"))
            if found != self.sizes:
                self.published = ()
                warnings.warn(f"{self.source.name} has {found} rows to train, choose and test, and {self.name} has "
                              f"{self.sizes} as published", stacklevel=2)  # fmt: skip
        return (Fold(train, sizes[train], "test", sizes["test"], "valid", sizes["valid"]),)

    def fetch(self, to: Path, progress: Progress) -> Mapping[str, str | None]:
        if self.source.folder:
            raise BenchkitError(f"repo='{self.params.repo}' is a folder here already: there is nothing to fetch")
        copy_from_hub(self.source.hub, list(self.source.listing.values()), "", to, progress)
        return {"repo": str(to), "revision": None}

    def _rows(self, split: str) -> Rows:
        if split not in self._read:
            self._read[split] = self.source.read(split, self.columns)
        return self._read[split]

    def _names(self, split: str) -> list[str]:
        """A name for each row that is its own."""
        names = self._rows(split).names
        single = len(set(names)) == len(names) and all(names)
        return list(names) if single else [f"{i}-{name}" if name else str(i) for i, name in enumerate(names)]

    def _number(self, label: Any, number: Mapping[str, int], what: str) -> int:
        if isinstance(label, int) and 0 <= label < len(number):
            return label
        if str(label) in number:
            return number[str(label)]
        raise DataError(f"{self.source.name}: {what} has the label {label!r}, which is no class")


class _Classification(_Beans):
    kind = "multiclass"
    metrics = ("top1", "balanced_accuracy", "macro_f1")
    columns = ("label",)
    clip: ClassVar[float]
    """Seconds from a recording's beginning."""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        rows = [self._rows(split) for split in ("train", "valid", "test")]
        return rows[0].classes.get("label") or tuple(sorted({str(x) for r in rows for x in r.columns["label"]}))

    def ids(self, split: str) -> Sequence[str]:
        return self._names(split)

    def labels(self, split: str) -> Labels:
        number = {name: i for i, name in enumerate(self.classes)}
        labels = self._rows(split).columns["label"]
        return np.array([self._number(x, number, f"row {i} of {split}") for i, x in enumerate(labels)], np.int64)

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        rows, names = self._rows(split), self._names(split)
        for i, data in zip(indices, self.source.audio(rows, indices), strict=True):
            yield Example(int(i), names[i], Audio(data, 0.0, self.clip, self.params.channel))


class _Detection(_Beans):
    kind = "detection"
    metrics = ("beans_map", "cmap", "auroc")
    columns = ("length", "annotations")
    width: ClassVar[float]
    shift: ClassVar[float]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        rows = [self._rows(split) for split in ("train", "valid", "test")]
        said = {str(e["label"]) for r in rows for events in r.columns["annotations"] for e in events or []}
        return rows[0].classes.get("annotations") or tuple(sorted(said))

    def ids(self, split: str) -> Sequence[str]:
        names = self._names(split)
        return [f"{names[row]}@{start:g}s" for row, start in self._windows(split)]

    def groups(self, split: str) -> Sequence[str]:
        """The recording, or the chunk of one, that a row is."""
        names = self._names(split)
        return [f"{split}/{names[row]}" for row, _ in self._windows(split)]

    def labels(self, split: str) -> Labels:
        rows, number = self._rows(split), {name: i for i, name in enumerate(self.classes)}
        parts = []
        for row, (length, events) in enumerate(zip(rows.columns["length"], rows.columns["annotations"], strict=True)):
            starts = window_starts(length, self.width, self.shift, "beans")
            found = [
                (float(e["st"]), float(e["ed"]), self._number(e["label"], number, f"row {row} of {split}"))
                for e in events or []
            ]
            parts.append(window_labels(starts.tolist(), self.width, found, len(number)))
        return np.concatenate(parts)

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        windows, ids, rows = self._windows(split), self.ids(split), self._rows(split)
        at = 0
        while at < len(indices):
            row, end = windows[indices[at]][0], at + 1
            while end < len(indices) and windows[indices[end]][0] == row:
                end += 1
            starts = [windows[i][1] for i in indices[at:end]]
            data = next(self.source.audio(rows, [row]))
            for i, medium in zip(
                indices[at:end], cut(data, starts, self.width, self.params.channel, pad=True), strict=True
            ):
                yield Example(int(i), ids[i], medium)
            at = end

    def _windows(self, split: str) -> list[tuple[int, float]]:
        if split not in self._cuts:
            self._cuts[split] = [
                (row, start)
                for row, length in enumerate(self._rows(split).columns["length"])
                for start in window_starts(length, self.width, self.shift, "beans").tolist()
            ]
        return self._cuts[split]

    @cached_property
    def _cuts(self) -> dict[str, list[tuple[int, float]]]:
        return {}


class Watkins(_Classification, hub="watkins", sizes=(1017, 339, 339), clip=3.0): ...


class Bats(_Classification, hub="bats", clip=5.0): ...


class CBI(_Classification, hub="cbi", sizes=(14_207, 3_548, 3_620), clip=10.0): ...


class Dogs(_Classification, hub="dogs", sizes=(415, 139, 139), clip=10.0): ...


class HumBugDB(_Classification, hub="humbugdb", clip=3.0): ...


class ESC50(_Classification, hub="esc50", sizes=(1200, 400, 400), clip=5.0): ...


class SpeechCommands(_Classification, hub="sc", sizes=(84_843, 9_981, 11_005), clip=1.0): ...


class DCASE(_Detection, hub="dcase", sizes=(702, 234, 232), width=2.0, shift=1.0): ...


class ENABirds(_Detection, hub="enabirds", sizes=(231, 77, 77), width=2.0, shift=1.0): ...


class HICEAS(_Detection, hub="hiceas", width=10.0, shift=5.0): ...


class RFCX(_Detection, hub="rfcx", sizes=(2_836, 945, 946), width=10.0, shift=5.0): ...


class Gibbons(_Detection, hub="gibbons", width=4.0, shift=2.0): ...
