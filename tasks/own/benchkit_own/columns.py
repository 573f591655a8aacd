"""Which column of a table is what, by the names that people and programs give them."""

import re
from collections.abc import Sequence

from benchkit import DataError, did_you_mean
from benchkit_own.names import clean
from benchkit_own.sheet import Sheet

KNOWN: dict[str, tuple[str, ...]] = {
    "file": (
        "file", "filename", "filepath", "path", "audiofilename", "audiofile", "audiopath", "audio", "imagefile",
        "image", "imagepath", "recording", "soundfile", "beginpath", "beginfile", "infile", "wavfile", "wav",
    ),
    "label": (
        "label", "labels", "class", "category", "annotation", "annotations", "tags", "tag", "species", "scientificname",
        "commonname", "speciescode", "ebirdcode", "primarylabel", "top1match", "target",
    ),
    "split": ("split", "subset", "partition"),
    "fold": ("fold", "folds"),
    "group": ("group",),
    "start": ("start", "starttime", "starts", "starttimes", "begin", "begintime", "begintimes", "onset"),
    "end": ("end", "endtime", "ends", "endtimes", "offsettime", "endseconds", "stop", "stoptime"),
    "duration": ("duration", "durations", "length", "lengths", "delta", "deltatime", "deltatimes"),
}  # fmt: skip
"""Names without blanks, capitals and signs, the likeliest first."""
RAVENS = (
    "selection", "view", "channel", "begintimes", "endtimes", "deltatimes", "lowfreqhz", "highfreqhz", "lowfrequencyhz",
    "highfrequencyhz", "beginfile", "endfile", "beginpath", "endpath", "fileoffsets", "score", "confidence", "rank",
)  # fmt: skip
"""Columns that say nothing of the class."""


def plain(name: str) -> str:
    """A column's name as it is compared."""
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def find(sheet: Sheet, what: str, given: str, *, needed: bool = False) -> int | None:
    """The number of the column that is `what`; given: the name that the user gave, or "".

    Raises DataError for a name that is no column, for several that may be meant, and where one is needed.
    """
    if given:
        if clean(given) not in sheet.header:
            near = did_you_mean(given, sheet.header)
            raise DataError(f"'{sheet.path}' has no column '{given}'{near}: it has {', '.join(sheet.header)}")
        return sheet.header.index(clean(given))
    names = [plain(name) for name in sheet.header]
    found = [names.index(name) for name in KNOWN[what] if name in names]
    if what == "label" and len(found) > 1 and names[found[0]] not in ("label", "labels"):
        several = ", ".join(sheet.header[i] for i in found)
        raise DataError(
            f"'{sheet.path}' has several columns that may be the label ({several}): say which, as in "
            f"label={sheet.header[found[0]]}"
        )
    if not found and needed:
        own = [sheet.header[i] for i, name in enumerate(names) if name not in RAVENS]
        raise DataError(
            f"'{sheet.path}' has no column that is the {what}: say which, as in {what}=NAME "
            f"({', '.join(own) or 'it has none left'})"
        )
    return found[0] if found else None


def class_columns(
    sheet: Sheet, given: Sequence[str], taken: Sequence[int | None], threshold: float | None
) -> list[int]:
    """The columns that are a class each: those that were given, or all that hold shares and are nothing else.

    Raises DataError, naming the row, for a cell that is neither 0 nor 1 without a threshold.
    """
    if given:
        return [sheet.column(name) for name in given]
    left = [
        i for i, name in enumerate(sheet.header)
        if i not in taken and plain(name) not in RAVENS and sheet.rows
        and all(_share(row.cells[i]) is not None for row in sheet.rows)
    ]  # fmt: skip
    if threshold is None:
        left = [i for i in left if {_share(row.cells[i]) for row in sheet.rows} <= {0.0, 1.0} or len(left) > 1]
    return left


def present(cell: str, threshold: float | None, where: str, name: str) -> bool:
    """Whether a class's column says that it is there. Raises DataError."""
    share = _share(cell)
    if share is None:
        raise DataError(f"{where} '{name}' is '{cell}', and must be 0 or 1")
    if threshold is None and share not in (0.0, 1.0):
        raise DataError(
            f"{where} '{name}' is {cell}, neither 0 nor 1: say from where on it counts, as in threshold=0.5"
        )
    return share >= (1.0 if threshold is None else threshold)


def _share(cell: str) -> float | None:
    text = {"true": "1", "false": "0"}.get(cell.casefold(), cell)
    if not re.fullmatch(r"\d*\.?\d+([eE]-?\d+)?|\d+\.", text):
        return None
    value = float(text)
    return value if 0 <= value <= 1 else None
