"""Names of files, classes and splits, as people write them."""

import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchkit import DataError, Modality

SUFFIXES: dict[Modality, tuple[str, ...]] = {
    "audio": ("wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "au", "caf", "w64", "rf64"),
    "image": ("png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "gif"),
}
MODALITY: dict[str, Modality] = {s: m for m, suffixes in SUFFIXES.items() for s in suffixes}
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Names that people give to the three, and ours."""
_UNSEEN = "\ufeff\u200b\u200e\u200f\u2060"


def globs(*suffixes: str) -> tuple[str, ...]:
    """Patterns of files anywhere below a folder, with these suffixes in whatever case."""
    return tuple("**/*." + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in s) for s in suffixes)


MEDIA = globs(*MODALITY)


def clean(text: str) -> str:
    """Without what nobody sees: outer white space, byte order marks, no-break spaces, letters in two code points."""
    text = text.replace("\u00a0", " ").strip().strip(_UNSEEN).strip()
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def checked(name: str, where: str) -> str:
    """A cleaned name. Raises DataError where it cannot be printed."""
    if not name.isprintable():
        raise DataError(f"{where} {name!r} holds a character that cannot be printed: rename it")
    return name


def modality_of(name: str) -> Modality | None:
    """Of a file, by its suffix."""
    return MODALITY.get(name.rpartition(".")[2].lower())


def media_below(root: Path) -> Iterator[tuple[str, ...]]:
    """The parts of the relative names of all files below a folder that may be media, and of folders without any file,
    which end in an empty part. Hidden ones and __MACOSX are none; links to a folder seen before end."""
    seen: set[tuple[int, int]] = set()

    def walk(folder: str, parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        here = os.stat(folder)
        if (here.st_dev, here.st_ino) in seen:
            return
        seen.add((here.st_dev, here.st_ino))
        empty = True
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.name.startswith(".") or entry.name == "__MACOSX":
                    continue
                empty = False
                if entry.is_dir():
                    yield from walk(entry.path, (*parts, entry.name))
                else:
                    yield (*parts, entry.name)
        if empty:
            yield (*parts, "")

    try:
        yield from walk(str(root), ())
    except OSError as e:
        raise DataError(f"cannot read '{e.filename or root}': {e.strerror}") from e


def tell_twins(names: Iterable[str], where: str) -> None:
    """Warns of classes that differ in capitals alone: they are kept apart, and may be one."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(name.casefold(), name)
        if other != name:
            warnings.warn(
                f"{where} has the classes '{other}' and '{name}', which differ in capitals alone", stacklevel=3
            )


def one_modality(counts: dict[Modality, str], wanted: str, where: str) -> Modality:
    """counts: a file of each modality that is there. Raises DataError where there are two, or none."""
    if wanted != "auto":
        return wanted  # type: ignore[return-value]
    if not counts:
        raise DataError(f"{where} holds no recordings ({', '.join(SUFFIXES['audio'])}) and no images")
    if len(counts) == 2:
        raise DataError(
            f"{where} holds recordings ('{counts['audio']}') and images ('{counts['image']}'): "
            "add modality=audio or modality=image"
        )
    return next(iter(counts))
