"""Events of annotated recordings, from tables that give a start and an end: Raven, Audacity, BirdNET, or one's own."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchkit import DataError
from benchkit_own.columns import class_columns, find, plain, present
from benchkit_own.files import Files
from benchkit_own.sheet import Row, Sheet, seconds

SLACK = 0.5
"""Seconds that an event may reach over a recording's edge and still be cut there."""


@dataclass(frozen=True)
class Event:
    """labels: none where nobody says what it is. split, group: as the table has them, or None."""

    where: str
    file: str
    start: float
    end: float
    labels: tuple[str, ...]
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Reading:
    """How the user says that the table is read: names of columns, or "" where they are found by themselves."""

    file: str = ""
    label: str = ""
    split: str = ""
    fold: str = ""
    group: str = ""
    start: str = ""
    end: str = ""
    classes: tuple[str, ...] = ()
    separator: str = ""
    threshold: float | None = None


def is_timed(sheet: Sheet, reading: Reading) -> bool:
    """Whether its rows are events in recordings, and not whole files."""
    return not sheet.header or find(sheet, "start", reading.start) is not None


def events_of(sheet: Sheet, reading: Reading, files: Files) -> tuple[list[str], list[Event]]:
    """The recordings that the table is of, and its events. Raises DataError, naming the row."""
    if not sheet.header:
        return _audacity(sheet, files)
    at = {
        what: find(sheet, what, getattr(reading, what, ""))
        for what in ("file", "label", "split", "fold", "group", "start", "end")
    }
    at["duration"] = find(sheet, "duration", "")
    if at["end"] is None and at["duration"] is None:
        raise DataError(f"'{sheet.path}' has a start and no end: say which column it is, as in end=NAME")
    columns = (
        [] if at["label"] is not None else class_columns(sheet, reading.classes, list(at.values()), reading.threshold)
    )
    if at["label"] is None and not columns:
        find(sheet, "label", "", needed=True)
    own = files.beside(sheet.path, f"'{sheet.path}'") if at["file"] is None else None
    places = {plain(name): i for i, name in enumerate(sheet.header)}
    offset, raven = places.get("fileoffsets"), "selection" in places and "begintimes" in places
    if raven and offset is None and at["file"] is not None and len({row.cells[at["file"]] for row in sheet.rows}) > 1:
        raise DataError(
            f"'{sheet.path}' counts its times over several files and has no column File Offset (s): "
            "export it from Raven with that"
        )
    confidence = places.get("confidence")
    recordings, events, seen = [own] if own else [], [], set()
    shift: dict[str, tuple[float, Row]] = {}
    for row in sheet.rows:
        cell = {what: "" if i is None else row.cells[i] for what, i in at.items()}
        file = own or files.find(cell["file"], row.where)
        recordings.append(file)
        if not cell["start"] and not cell["end"] and not cell["duration"] and not cell["label"]:
            continue  # a recording in which there is nothing
        begin, end = _times(cell, row)
        if offset is not None:
            begin, end = _in_its_file(row, offset, begin, end, file, shift)
        if columns:
            labels = tuple(
                sheet.header[i] for i in columns if present(row.cells[i], reading.threshold, row.where, sheet.header[i])
            )
        else:
            labels = tuple(split_labels(cell["label"], reading.separator, row.where))
        if (
            confidence is not None
            and reading.threshold is not None
            and float(row.cells[confidence] or 0) < reading.threshold
        ):
            continue
        if raven:  # a row for each view of one selection
            key = (file, row.cells[places["selection"]], begin, end, labels)
            if key in seen:
                continue
            seen.add(key)
        events.append(
            Event(row.where, file, begin, end, labels, cell["split"] or cell["fold"] or None, cell["group"] or None)
        )
    return list(dict.fromkeys(recordings)), events


def split_labels(cell: str, separator: str, where: str) -> list[str]:
    """The labels in one cell; a list as Python or JSON writes it is one. Raises DataError."""
    from ast import literal_eval

    if cell.startswith("[") and cell.endswith("]"):
        try:
            found = literal_eval(cell)
            if not all(isinstance(x, str) for x in found):
                raise ValueError
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            raise DataError(f"{where} '{cell[:60]}' is no list of labels, as ['owl', 'wren'] is") from None
        return list(dict.fromkeys(x.strip() for x in found if x.strip()))
    if not separator:
        return [cell] if cell else []
    parts = cell.split() if separator == " " else cell.split(separator)
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def cut_to(events: Sequence[Event], lengths: dict[str, float]) -> Iterator[Event]:
    """The events, cut at the edges of their recordings where they reach over them by little.

    lengths: in seconds. Raises DataError for an event that lies beyond the end, or reaches over an edge by more.
    """
    n = 0
    for e in events:
        length = lengths[e.file]
        if e.end < e.start:
            raise DataError(f"{e.where} the event ends ({e.end:g} s) before it starts ({e.start:g} s)")
        if e.start < -SLACK or e.start >= length or e.end > length + SLACK:
            raise DataError(
                f"{e.where} an event from {e.start:g} to {e.end:g} s does not lie in '{e.file}', which is {length:g} s "
                "long "
                "(are the times in seconds, and of this file?)"
            )
        over = e.start < 0 or e.end > length
        n += over
        yield Event(e.where, e.file, max(0.0, e.start), min(e.end, length), e.labels, e.split, e.group) if over else e
    if n:
        warnings.warn(
            f"{n} events reach over the edge of their recordings by up to {SLACK} s, and are cut there", stacklevel=2
        )


def _times(cell: dict[str, str], row: Row) -> tuple[float, float]:
    begin = seconds(cell["start"], row.where, "the start")
    if cell["end"]:
        return begin, seconds(cell["end"], row.where, "the end")
    if cell["duration"]:
        return begin, begin + seconds(cell["duration"], row.where, "the duration")
    raise DataError(f"{row.where} it has no end")


def _in_its_file(
    row: Row, offset: int, begin: float, end: float, file: str, shift: dict[str, tuple[float, Row]]
) -> tuple[float, float]:
    """Times of a table over several sound files, in seconds of the event's own. Raises DataError where the two columns
    of times contradict each other."""
    there = seconds(row.cells[offset], row.where, "the File Offset")
    before, first = shift.setdefault(file, (begin - there, row))
    if abs(before - (begin - there)) > SLACK:
        raise DataError(
            f"{row.where} Begin Time and File Offset say that '{file}' begins at {begin - there:g} s, and "
            f"{first.where.rstrip(':')} says at {before:g} s"
        )
    return there, there + (end - begin)


def _audacity(sheet: Sheet, files: Files) -> tuple[list[str], list[Event]]:
    file = files.beside(sheet.path, f"'{sheet.path}'")
    events = []
    for row in sheet.rows:
        if row.cells[0].startswith("\\"):
            continue  # the frequency band of the label above
        if len(row.cells) < 2:
            raise DataError(f"{row.where} it is no label: start, end and text, with tabs between them")
        begin = seconds(row.cells[0], row.where, "the start")
        short = len(row.cells) == 2 and not _is_time(row.cells[1])  # Audacity 1.2 wrote no end
        end = begin if short else seconds(row.cells[1], row.where, "the end")
        text = row.cells[1] if short else row.cells[2] if len(row.cells) > 2 else ""
        events.append(Event(row.where, file, begin, end, (text,) if text else ()))
    return [file], events


def _is_time(text: str) -> bool:
    try:
        seconds(text, "", "")
    except DataError:
        return False
    return True
