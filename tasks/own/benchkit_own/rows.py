"""Examples from a table: one a file, one a window of an annotated recording, or one a row with a start and an end."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchkit import DataError, OpenAudio, WindowRule, window_starts
from benchkit_own.columns import class_columns, find, present
from benchkit_own.events import Event, Reading, cut_to, events_of, split_labels
from benchkit_own.files import Files
from benchkit_own.names import SPLITS, checked, clean
from benchkit_own.sheet import Sheet


@dataclass(frozen=True)
class Item:
    """One example. start: in seconds, None for a whole file. labels: its classes. split, group: as the table says."""

    where: str
    file: str
    labels: tuple[str, ...]
    split: str | None = None
    group: str | None = None
    start: float | None = None
    duration: float | None = None

    @property
    def id(self) -> str:
        name = clean(self.file)
        if self.start is None:
            return name
        return f"{name}@{self.start:g}-{self.start + (self.duration or 0):g}s"


@dataclass(frozen=True)
class Windows:
    """How recordings are cut: all in seconds."""

    width: float
    shift: float
    rule: WindowRule
    final: str


def whole_files(sheet: Sheet, reading: Reading, files: Files, kind: str) -> tuple[str, list[Item]]:
    """The kind of task, and an example a file: rows of one file are one example. Raises DataError, naming the row."""
    at = {what: find(sheet, what, getattr(reading, what)) for what in ("label", "split", "fold", "group")}
    at["file"] = find(sheet, "file", reading.file, needed=True)
    columns: list[int] = []
    if reading.classes or at["label"] is None:
        columns = class_columns(sheet, reading.classes, list(at.values()), reading.threshold)
        if not columns:
            find(sheet, "label", "", needed=True)
    if not sheet.rows:
        raise DataError(f"'{sheet.path}' has no rows below its header")
    lists = at["label"] is not None and any(row.cells[at["label"]].startswith("[") for row in sheet.rows)
    several = bool(columns or reading.separator or lists)
    single = kind == "multiclass" or (kind == "auto" and not several)
    items: dict[str, Item] = {}
    for row in sheet.rows:
        file = files.find(row.cells[at["file"] or 0], row.where)
        if columns:
            names = [sheet.header[i] for i in columns]
            labels = tuple(
                n for i, n in zip(columns, names, strict=True) if present(row.cells[i], reading.threshold, row.where, n)
            )
        else:
            labels = tuple(split_labels(row.cells[at["label"] or 0], reading.separator, row.where))
        if single and len(labels) != 1:
            raise DataError(f"{row.where} it has {'no label' if not labels else 'several labels'}")
        said = tuple(
            row.cells[i] if i is not None else None
            for i in (at["split"] if at["split"] is not None else at["fold"], at["group"])
        )
        item = Item(row.where, file, labels, *said)
        before = items.setdefault(file, item)
        if before is item:
            continue
        if (before.split, before.group) != (item.split, item.group):
            raise DataError(f"{row.where} '{file}' is in another split or group than {_place(before.where)} says")
        if single and before.labels != labels:
            raise DataError(
                f"{row.where} '{file}' is '{labels[0]}', and {_place(before.where)} says '{before.labels[0]}' "
                "(kind=multilabel unites them)"
            )
        items[file] = replace(before, labels=tuple(dict.fromkeys(before.labels + labels)))
    if single and not several:
        _suggest(sheet, at["label"])
    return "multiclass" if single else "multilabel", list(items.values())


def windows(sheets: Sequence[Sheet], reading: Reading, files: Files, how: Windows) -> list[Item]:
    """An example a window of every recording that a table is of. Raises DataError, naming the row."""
    recordings, events = _all(sheets, reading, files)
    lengths = _lengths(files, recordings)
    by_file: dict[str, list[Event]] = {file: [] for file in recordings}
    for event in cut_to(events, lengths):
        by_file[event.file].append(event)
    names = sorted({label for event in events for label in event.labels})
    number = {name: i for i, name in enumerate(names)}
    items, unknown, points, short = [], 0, 0, []
    for file in recordings:
        split, group = _said(by_file[file])
        starts = window_starts(lengths[file], how.width, how.shift, how.final)
        if not len(starts):
            short.append(file)
        known = [e for e in by_file[file] if e.labels]
        points += sum(e.start == e.end for e in known) if how.rule.name != "any" else 0
        spans = [(e.start, e.end, number[label]) for e in known for label in e.labels]
        nobody = [(e.start, e.end, 0) for e in by_file[file] if not e.labels]
        labels = _labels(starts, how, spans, len(names))
        left_out = _labels(starts, replace(how, rule=WindowRule("any")), nobody, 1)[:, 0].astype(bool)
        unknown += int(left_out.sum())
        for start, row, out in zip(starts.tolist(), labels, left_out, strict=True):
            if not out:
                found = tuple(names[c] for c in np.flatnonzero(row))
                items.append(Item(file, file, found, split, group or file, start, how.width))
    if unknown:
        warnings.warn(f"{unknown} windows are left out: an event without a label touches them", stacklevel=2)
    if points:
        warnings.warn(
            f"{points} labels of a point in time label no window by this rule (rule=any counts them)", stacklevel=2
        )
    if short:
        warnings.warn(
            f"'{short[0]}' and {len(short) - 1} others are shorter than a window, and have none (final=pad)",
            stacklevel=2,
        )
    if not items:
        raise DataError(
            f"no window of {how.width:g} s can be cut from the {len(recordings)} recordings that the table is of"
        )
    return items


def segments(sheets: Sequence[Sheet], reading: Reading, files: Files) -> list[Item]:
    """An example a row with a start and an end. Raises DataError, naming the row."""
    recordings, events = _all(sheets, reading, files)
    items: dict[tuple[str, float, float], Item] = {}
    for e in cut_to(events, _lengths(files, recordings)):
        if e.end <= e.start:
            raise DataError(f"{e.where} it has no length")
        item = Item(e.where, e.file, e.labels, e.split, e.group or e.file, e.start, e.end - e.start)
        before = items.setdefault((e.file, e.start, e.end), item)
        if before is not item:
            items[e.file, e.start, e.end] = replace(before, labels=tuple(dict.fromkeys(before.labels + e.labels)))
    if not items:
        raise DataError(f"'{sheets[0].path}' has no rows with a start and an end")
    return list(items.values())


def sides(items: Sequence[Item], column: str) -> list[str]:
    """Of each example "train", "val" or "test", as the table's column says. Raises DataError for another word."""
    found = []
    for item in items:
        side = SPLITS.get((item.split or "").casefold())
        if side is None:
            raise DataError(f"{item.where} {column} is '{item.split or ''}', which is none of {', '.join(SPLITS)}")
        found.append(side)
    return found


def check_groups(items: Sequence[Item], sides: Sequence[str]) -> None:
    """Raises DataError for a group that is on two sides."""
    first: dict[str, tuple[str, Item]] = {}
    for item, side in zip(items, sides, strict=True):
        before, other = first.setdefault(item.group or item.file, (side, item))
        if before != side:
            raise DataError(
                f"{item.where} group '{item.group or item.file}' is in {side}, and in {before} by {_place(other.where)}"
            )


def classes_of(items: Sequence[Item]) -> tuple[str, ...]:
    """Sorted, over all examples. Raises DataError where there are none, or one cannot be printed."""
    found: dict[str, str] = {}
    for item in items:
        for label in item.labels:
            found.setdefault(label, item.where)
    if not found:
        raise DataError("no example has a label")
    return tuple(sorted(checked(name, f"{where} the label") for name, where in found.items()))


def _all(sheets: Sequence[Sheet], reading: Reading, files: Files) -> tuple[list[str], list[Event]]:
    recordings: list[str] = []
    events: list[Event] = []
    for sheet in sheets:
        some, found = events_of(sheet, reading, files)
        recordings += some
        events += found
    return list(dict.fromkeys(recordings)), events


def _lengths(files: Files, recordings: Sequence[str]) -> dict[str, float]:
    """In seconds, from the files' headers."""
    found = {}
    for name in recordings:
        with OpenAudio(files.root / name) as recording:
            found[name] = recording.seconds
    return found


def _labels(starts: np.ndarray, how: Windows, spans: list[tuple[float, float, int]], n: int) -> np.ndarray:
    from benchkit import window_labels

    return window_labels(starts, how.width, spans, max(n, 1), how.rule)


def _said(events: Sequence[Event]) -> tuple[str | None, str | None]:
    """The split and group of a recording. Raises DataError where its rows disagree."""
    if not events:
        return None, None
    first = events[0]
    for e in events[1:]:
        if (e.split, e.group) != (first.split, first.group):
            raise DataError(f"{e.where} '{e.file}' is in another split or group than {_place(first.where)} says")
    return first.split, first.group


def _suggest(sheet: Sheet, at: int | None) -> None:
    if at is None:
        return
    cells = [row.cells[at] for row in sheet.rows]
    for separator, word in ((";", "semicolon"), ("|", "pipe"), (",", "comma")):
        if len(cells) > 1 and sum(separator in cell for cell in cells) > len(cells) / 2:
            warnings.warn(
                f"'{sheet.path}': most labels hold '{separator}': sep={word} reads several labels there", stacklevel=2
            )


def _place(where: str) -> str:
    return where.rstrip(":").rpartition(", ")[2] if ", " in where else where


def folder_of(path: Path) -> Path:
    """Where a table's files are, if nobody says otherwise."""
    return path if path.is_dir() else path.parent
