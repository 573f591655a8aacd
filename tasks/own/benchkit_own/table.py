"""table: recordings or images that a table labels; annotated recordings, cut into windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchkit import (
    Audio,
    Channel,
    DataError,
    Example,
    Fold,
    Image,
    Labels,
    Modality,
    Task,
    WindowRule,
    cut,
    fingerprint,
    fingerprint_path,
    format_value,
    param,
)
from benchkit_own import rows
from benchkit_own.columns import find
from benchkit_own.events import Reading, is_timed
from benchkit_own.files import Files
from benchkit_own.names import MEDIA, globs, modality_of, one_modality, tell_twins
from benchkit_own.rows import Item, Windows
from benchkit_own.sheet import Sheet, read_sheet
from benchkit_own.split import SIDES, drawn_folds, fold_of

SHEETS = globs("txt", "csv", "tsv")
SPLIT = "rows"
SEPARATORS = {"semicolon": ";", "comma": ",", "pipe": "|", "blank": " "}


@dataclass(frozen=True)
class TableParams:
    path: Path = param(place=(*SHEETS, *MEDIA), help="CSV, TSV, Parquet, Raven or Audacity table; or a folder of them")
    root: Path | None = param(None, place=MEDIA, help="folder of the files that it names; by default the table's own")
    kind: Literal["auto", "multiclass", "multilabel", "detection", "segments"] = param(
        "auto", help="detection cuts recordings into windows, segments takes each row with a start and an end"
    )
    file: str = param("", help="column of the file's name; each of these is found by itself where its name tells")
    label: str = param("", help="column of the label")
    classes: tuple[str, ...] = param((), help="columns that are a class each, 0 or 1")
    sep: str = param("", help="between several labels in a cell: semicolon, comma, pipe, blank, or the sign itself")
    threshold: float | None = param(None, low=0, high=1, help="from where on a score or a confidence counts")
    start: str = param("", help="column of an event's start, in seconds")
    end: str = param("", help="column of its end")
    split: str = param("", help="column that says train, val or test; none draws a split")
    fold: str = param("", help="column with the folds of a cross-validation")
    group: str = param("", help="column of what must not be on both sides: a recordist, a site, a day")
    width: float = param(5.0, above=0, high=600, help="of a window, in seconds")
    shift: float | None = param(None, above=0, high=600, help="from one window to the next; none is the width")
    rule: str = param("beans", help="which events label a window: beans, any, seconds:0.25, share:0.5")
    final: Literal["drop", "pad"] = param("drop", help="what becomes of the rest of a recording that is no window")
    test: float = param(0.2, above=0, below=1, help="share to test on, where the split is drawn")
    val: float = param(0.2, low=0, below=1, help="share to choose by, where the split is drawn")
    folds: int = param(1, low=1, high=100, help="more than 1: a cross-validation of so many folds instead")
    split_seed: int = param(0, low=0, help="of the drawn split")
    modality: Literal["auto", "audio", "image"] = param("auto", help="where a table names both")
    channel: Channel = param("mix", help="what is heard of several channels: their mean, the first, the second, ...")

    def __post_init__(self) -> None:
        if self.test + self.val >= 1:
            raise ValueError(f"test={self.test:g} and val={self.val:g} leave nothing to train on")
        WindowRule.parse(self.rule)


class Table(Task):
    """What a table says of files. With a start and an end it is a detection: its recordings are cut into windows, and
    an event labels those that the rule says. Classes are sorted; an example's id is its file's name, and its seconds.
    """

    Params = TableParams
    params: TableParams

    @property
    def kind(self) -> Any:
        return self._loaded[0]

    @property
    def metrics(self) -> tuple[str, ...]:  # type: ignore[override]
        if self.kind == "multiclass":
            return ("top1", "balanced_accuracy", "macro_f1")
        return ("cmap", "auroc", "micro_map", *(("beans_map",) if self.kind == "detection" else ()))

    @property
    def modality(self) -> Modality:  # type: ignore[override]
        there = {kind: item.file for item in self._items if (kind := modality_of(item.file))}
        return one_modality(there, self.params.modality, f"'{self.params.path}'")

    @property
    def group(self) -> str:  # type: ignore[override]
        return self.params.group or "recording"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        columns = self.params.classes
        found = tuple(sorted({*rows.classes_of(self._items), *columns}))
        tell_twins(found, f"'{self.params.path}'")
        return found

    def ids(self, split: str) -> Sequence[str]:
        return [item.id for item in self._of(split)]

    def labels(self, split: str) -> Labels:
        number = {name: i for i, name in enumerate(self.classes)}
        items = self._of(split)
        if self.kind == "multiclass":
            return np.array([number[item.labels[0]] for item in items], np.int64)
        labels = np.zeros((len(items), len(number)), np.uint8)
        for row, item in zip(labels, items, strict=True):
            row[[number[name] for name in item.labels]] = 1
        return labels

    def groups(self, split: str) -> Sequence[str] | None:
        items = self._of(split)
        timed = items[0].start is not None
        return [item.group or item.file for item in items] if timed or items[0].group is not None else None

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        """Windows of one recording that follow each other are cut from one pass over it."""
        items = self._of(split)
        picked = [(int(i), items[i]) for i in indices]
        for (file, duration), run in groupby(picked, key=lambda p: (p[1].file, p[1].duration)):
            some, path = list(run), self._files.root / file
            if duration is None:
                media = [
                    Audio(path, channel=self.params.channel) if self.modality == "audio" else Image(path) for _ in some
                ]
            else:
                starts = [item.start or 0.0 for _, item in some]
                media = cut(path, starts, duration, self.params.channel, pad=self.params.final == "pad")  # type: ignore[assignment]
            for (i, item), medium in zip(some, media, strict=True):
                yield Example(i, item.id, medium)

    def fingerprint(self) -> str:
        root = self._files.root
        media = {file: fingerprint_path(root / file) for file in sorted({item.file for item in self._items})}
        return fingerprint([fingerprint_path(self.params.path, SHEETS), sorted(media.items())])

    def media_key(self, split: str) -> str:
        p, heard = self.params, "" if self.params.channel == "mix" else f",channel={self.params.channel}"
        cuts = "" if self._items[0].start is None else f",{p.kind},{self._cuts},{p.final}"
        return f"table@{self.version} {self.fingerprint()} {self.kind}{cuts}{heard}"

    def folds(self) -> tuple[Fold, ...]:
        p, items = self.params, self._items
        if any(item.split for item in items):
            if self._split_column in ("split", ""):
                sides = rows.sides(items, self._column_name)
                rows.check_groups(items, sides)
                if missing := {"train", "test"} - set(sides):
                    raise DataError(f"'{p.path}': no row of column '{self._column_name}' says {sorted(missing)[0]}")
                return (fold_of(SPLIT, np.array([SIDES.index(side) for side in sides])),)
            said = [item.split or "" for item in items]
            if "" in said:
                item = items[said.index("")]
                raise DataError(f"{item.where} {self._column_name} is empty")
            rows.check_groups(items, said)
            if len(set(said)) < 2:
                raise DataError(f"'{p.path}': column '{self._column_name}' has one fold, and must have two at least")
            at = np.array(said)
            return tuple(
                Fold(SPLIT, np.flatnonzero(at != f), SPLIT, np.flatnonzero(at == f))
                for f in sorted(set(said), key=_numeric)
            )
        number = {name: i for i, name in enumerate(self.classes)}
        labels = [[number[name] for name in item.labels] for item in items]
        groups = [item.group or item.file for item in items]
        return drawn_folds(SPLIT, labels, groups, p.test, p.val, p.folds, p.split_seed)

    # ---------------------------------------------------------------------------------------------------------- inside

    @property
    def _items(self) -> list[Item]:
        return self._loaded[1]

    def _of(self, split: str) -> list[Item]:
        if split != SPLIT:
            raise DataError(f"table has no split '{split}': it has one, '{SPLIT}', and folds over it")
        return self._items

    @property
    def _cuts(self) -> str:
        shift = self.params.width if self.params.shift is None else self.params.shift
        return f"{format_value(self.params.width)}/{format_value(shift)}s"

    @cached_property
    def _files(self) -> Files:
        return Files(self.params.root or rows.folder_of(self.params.path))

    @cached_property
    def _sheets(self) -> list[Sheet]:
        path = self.params.path
        if not path.is_dir():
            return [read_sheet(path)]
        names = sorted(p for p in path.iterdir() if p.suffix.lower() in (".txt", ".csv", ".tsv") and p.name[0] != ".")
        if not names:
            raise DataError(f"'{path}' holds no tables (.txt, .csv, .tsv)")
        return [read_sheet(p) for p in names]

    @property
    def _column_name(self) -> str:
        at = find(self._sheets[0], self._split_column or "split", getattr(self.params, self._split_column or "split"))
        return self._sheets[0].header[at] if at is not None else self._split_column

    @cached_property
    def _split_column(self) -> str:
        """Which of the two says how it is split."""
        for sheet in self._sheets[:1]:
            for what in ("split", "fold"):
                if sheet.header and find(sheet, what, getattr(self.params, what)) is not None:
                    return what
        return ""

    @cached_property
    def _loaded(self) -> tuple[str, list[Item]]:
        p = self.params
        separator = SEPARATORS.get(p.sep, p.sep)
        reading = Reading(p.file, p.label, p.split, p.fold, p.group, p.start, p.end, p.classes, separator, p.threshold)
        timed = [sheet for sheet in self._sheets if is_timed(sheet, reading)]
        if p.kind in ("detection", "segments") and not timed:
            raise DataError(f"'{p.path}' has no column that is a start: kind={p.kind} needs start and end")
        if timed and p.kind not in ("multiclass", "multilabel"):
            if p.kind == "segments":
                items = rows.segments(timed, reading, self._files)
                kind = "multiclass" if all(len(item.labels) == 1 for item in items) else "multilabel"
            else:
                how = Windows(p.width, p.width if p.shift is None else p.shift, WindowRule.parse(p.rule), p.final)
                kind, items = "detection", rows.windows(self._sheets, reading, self._files, how)
        else:
            if len(self._sheets) > 1:
                raise DataError(f"'{p.path}' holds {len(self._sheets)} tables of whole files: give one")
            kind, items = rows.whole_files(self._sheets[0], reading, self._files, p.kind)
        return kind, items


def _numeric(name: str) -> tuple[bool, float, str]:
    return (not name.isdigit(), float(name) if name.isdigit() else 0.0, name)
