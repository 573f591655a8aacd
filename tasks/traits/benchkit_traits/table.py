"""The table of traits: one line a file, one column a trait; read and checked before anything is computed with it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchkit import DataError, did_you_mean, on_disk

SPLITS = ("train", "test")
IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
RECORDINGS = ("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "caf", "w64")
_OURS = ("path", "split", "id")
_NAMED = 3


@dataclass(frozen=True)
class Part:
    """One split. labels: 1 where the file has the trait."""

    ids: tuple[str, ...]
    paths: tuple[str, ...]
    labels: UInt8[np.ndarray, "N T"]


@dataclass(frozen=True)
class Table:
    modality: str
    traits: tuple[str, ...]
    parts: dict[str, Part]


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    split: str
    id: str
    values: tuple[int, ...]


def read(root: Path, table: Path, ignore: Sequence[str] = ()) -> Table:
    """Raises DataError, in one line that names file and line, for everything that cannot be right."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.reader(f, strict=True)
            header = next(reader, [])
            traits = _traits(header, ignore, table)
            rows = list(_rows(reader, header, traits, table))
    except OSError as e:
        raise DataError(f"cannot read the table of traits '{table}': {e.strerror}") from e
    except (UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"'{table}' is no table of comma-separated values: {e}") from e
    if not rows:
        raise DataError(f"'{table}' names no files")
    modality = _check_files(rows, root, table)
    parts = {split: _part([row for row in rows if row.split == split], len(traits)) for split in SPLITS}
    for split, part in parts.items():
        if not part.ids:
            raise DataError(f"'{table}' has no line whose split is {split}")
        if not part.labels.any():
            raise DataError(f"'{table}': nothing in {split} has any of the {len(traits)} traits")
    return Table(modality, traits, parts)


def _traits(header: Sequence[str], ignore: Sequence[str], table: Path) -> tuple[str, ...]:
    """The columns that are traits."""
    for column in ("path", "split"):
        if column not in header and not (column == "path" and "id" in header):
            raise DataError(
                f"'{table}' has no column {column}{did_you_mean(column, header)}: it needs path, split (train or test) "
                "and one column of 0 and 1 for each trait"
            )
    for number, name in enumerate(header, 1):
        if not name.strip() or not name.isprintable():
            raise DataError(f"'{table}': column {number} has no name that can be printed")
        if header.index(name) != number - 1:
            raise DataError(f"'{table}' has two columns '{name}'")
    for name in ignore:
        if name not in header or name in _OURS:
            known = [c for c in header if c not in _OURS]
            raise DataError(f"ignore={name}: '{table}' has no such column of a trait{did_you_mean(name, known)}")
    traits = tuple(name for name in header if name not in (*_OURS, *ignore))
    if not traits:
        raise DataError(f"'{table}' has no column of a trait beside {', '.join(header)}")
    return traits


def _rows(reader: Any, header: Sequence[str], traits: Sequence[str], table: Path) -> Iterator[_Row]:
    numbers = {"0": 0, "1": 1}
    for cells in reader:
        where = f"'{table}', line {reader.line_num}:"
        if len(cells) != len(header):
            raise DataError(f"{where} it has {len(cells)} values, and the header {len(header)} columns")
        row = dict(zip(header, cells, strict=True))
        if row["split"] not in SPLITS:
            raise DataError(f"{where} split is '{row['split']}', not train or test")
        for trait in traits:
            if row[trait] not in numbers:
                hint = "" if traits == [trait] else f" (ignore={trait} leaves the column out)"
                raise DataError(f"{where} trait '{trait}' is '{row[trait]}', not 0 or 1{hint}")
        path = row.get("path", row.get("id", ""))
        name = row.get("id", path)
        if not name.strip() or not name.isprintable():
            raise DataError(f"{where} id is '{ascii(name)[1:-1]}': it must be text on one line")
        yield _Row(reader.line_num, path, row["split"], name, tuple(numbers[row[t]] for t in traits))


def _check_files(rows: Sequence[_Row], root: Path, table: Path) -> str:
    """The modality of all files. Each must be there, and named once."""
    seen: dict[tuple[str, str], int] = {}
    kinds: dict[str, _Row] = {}
    for row in rows:
        where = f"'{table}', line {row.line}:"
        path = PurePosixPath(row.path)
        if path.is_absolute() or not path.parts or any(part.startswith(".") for part in path.parts):
            raise DataError(
                f"{where} path is '{row.path}': it must be relative to '{root}', inside of it, and not hidden"
            )
        for what, name in (("path", str(path)), ("id", row.id)):
            first = seen.setdefault((what, name), row.line)
            if first != row.line:
                raise DataError(f"{where} {what} '{name}' is in line {first} already")
        suffix = path.suffix.lower().removeprefix(".")
        kind = "image" if suffix in IMAGES else "audio" if suffix in RECORDINGS else None
        if kind is None:
            raise DataError(
                f"{where} '{row.path}' is neither an image ({', '.join(IMAGES[:_NAMED])}, ...) nor a recording "
                f"({', '.join(RECORDINGS[:_NAMED])}, ...)"
            )
        kinds.setdefault(kind, row)
        if len(kinds) == 2:
            image, recording = kinds["image"], kinds["audio"]
            raise DataError(
                f"'{table}' mixes images and recordings: '{image.path}' in line {image.line}, '{recording.path}' in "
                f"line {recording.line}; make a table of each"
            )
        if not on_disk(root / path).is_file():
            raise DataError(f"{where} there is no file '{row.path}' in '{root}'")
    return next(iter(kinds))


def _part(rows: Sequence[_Row], n_traits: int) -> Part:
    labels = np.array([row.values for row in rows], np.uint8).reshape(len(rows), n_traits)
    return Part(tuple(row.id for row in rows), tuple(row.path for row in rows), labels)
