"""The folder layout of ESC-50: meta/esc50.csv and audio/*, read and checked before anything is computed with it."""

import csv
from dataclasses import dataclass
from pathlib import Path

from benchkit import DataError, on_disk

COLUMNS = ("filename", "fold", "target", "category", "src_file")
FOLDS = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Clip:
    """One row of meta/esc50.csv.

    line: its line in the file, from 1 for the header. target: the class's number there, which may leave gaps.
    source: the recording that the clip was cut from. esc10: whether it belongs to that subset; None without the column.
    """

    line: int
    filename: str
    fold: int
    target: int
    category: str
    source: str
    esc10: bool | None

    @property
    def id(self) -> str:
        """The same whether the copy holds .wav or .ogg."""
        return Path(self.filename).stem


def read(root: Path) -> tuple[Clip, ...]:
    """All clips, in the order of the file.

    Raises DataError, in one line that names file and line, for: no csv, no clips, a missing column, a number that is
    none, a fold other than 1 to 5, a file that is not there, a clip named twice, a class with two names or a name with
    two numbers, and a source recording in two folds (the same sound in train and test).
    """
    table = root / "meta" / "esc50.csv"
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"'{table}' has no column {', '.join(missing)}: it is no ESC-50 table")
            clips = tuple(_clip(row, reader.line_num, table) for row in reader)
        present = {f.name for f in (root / "audio").iterdir()}
    except OSError as e:
        raise DataError(f"'{root}' is no ESC-50 folder: cannot read '{e.filename or table}' ({e.strerror})") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"'{table}' is no table of comma-separated values: {e}") from e
    if not clips:
        raise DataError(f"'{table}' names no clips")
    for clip in clips:
        if clip.filename not in present and on_disk(root / "audio" / clip.filename).name not in present:
            raise DataError(f"{_at(table, clip)} names '{clip.filename}', which is not in '{root / 'audio'}'")
    _check_unique(clips, table)
    return clips


def _clip(row: dict[str, str], line: int, table: Path) -> Clip:
    where = f"'{table}', line {line}:"
    if None in row.values() or None in row:
        raise DataError(f"{where} it has more or fewer values than the header has columns")
    numbers: list[int] = []
    for column in ("fold", "target"):
        if not (row[column].isascii() and row[column].isdigit()):
            raise DataError(f"{where} {column} is '{row[column]}', not a whole number")
        numbers.append(int(row[column]))
    if numbers[0] not in FOLDS:
        raise DataError(f"{where} fold is {numbers[0]}, not one of 1 to 5")
    esc10 = row.get("esc10")
    if esc10 not in (None, "True", "False"):
        raise DataError(f"{where} esc10 is '{esc10}', not True or False")
    for column in ("filename", "category", "src_file"):
        if not row[column].strip():
            raise DataError(f"{where} {column} is empty")
    return Clip(
        line, row["filename"], *numbers, row["category"], row["src_file"], None if esc10 is None else esc10 == "True"
    )


def _check_unique(clips: tuple[Clip, ...], table: Path) -> None:
    """Each of these, once seen, must stay with what it was seen with first."""
    first: dict[tuple[str, object], tuple[object, Clip]] = {}
    for clip in clips:
        for what, key, partner, value in (
            ("clip", clip.id, "line", clip.line),
            ("class", clip.target, "category", clip.category),
            ("category", clip.category, "target", clip.target),
            ("src_file", clip.source, "fold", clip.fold),
        ):
            seen, before = first.setdefault((what, key), (value, clip))
            if seen != value:
                raise DataError(
                    f"{_at(table, clip)} gives {what} '{key}' the {partner} '{value}', but line {before.line} "
                    f"gives it '{seen}'"
                )


def _at(table: Path, clip: Clip) -> str:
    return f"'{table}', line {clip.line}:"
