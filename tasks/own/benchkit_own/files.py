"""The files that a table names: found below the root, whichever machine wrote the table."""

import os
from functools import cached_property
from pathlib import Path, PureWindowsPath

from benchkit import DataError
from benchkit_own.names import clean, media_below


class Files:
    """Of a table, below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[str, str] = {}

    def find(self, given: str, where: str) -> str:
        """The name of the file relative to the root, as it is on disk.

        given: as in the table; with separators of Windows, below another machine's root, in other Unicode or with
        capitals in its suffix. A bare name is a file in the root itself. Raises DataError where it is not there, or
        would lie outside.
        """
        if given not in self._found:
            self._found[given] = self._look(given, where)
        return self._found[given]

    def _look(self, given: str, where: str) -> str:
        if not given:
            raise DataError(f"{where} it names no file")
        path = PureWindowsPath(given) if "\\" in given else Path(given)
        parts = [part for part in path.parts if part != "."]
        if ".." in parts:
            raise DataError(f"{where} '{given}' would leave '{self.root}'")
        absolute = path.is_absolute() or bool(path.anchor)
        if absolute:
            parts = parts[1:]
            own = self.root.absolute().parts[1:]
            if tuple(parts[: len(own)]) == own:
                return self._below(parts[len(own) :], given, where)
            for begin in range(len(parts) - 1):  # another machine's root: the longest end of two parts or more
                if name := self._there(parts[begin:]):
                    return name
            raise DataError(f"{where} '{given}' is not below '{self.root}': give the folder it is in, as in root=DIR")
        return self._below(parts, given, where)

    def _below(self, parts: list[str], given: str, where: str) -> str:
        if name := self._there(parts):
            return name
        raise DataError(f"{where} '{given}' is not in '{self.root}'")

    def _there(self, parts: list[str]) -> str | None:
        name = "/".join(parts)
        if os.path.isfile(self.root / name):
            return name
        found = self._index.get(clean(name).casefold(), [])
        exact = [n for n in found if clean(n).rpartition(".")[0] == clean(name).rpartition(".")[0]]
        return exact[0] if len(exact) == 1 else None

    @cached_property
    def _index(self) -> dict[str, list[str]]:
        index: dict[str, list[str]] = {}
        for parts in media_below(self.root):
            name = "/".join(parts)
            index.setdefault(clean(name).casefold(), []).append(name)
        return index

    def beside(self, table: Path, where: str) -> str:
        """The recording that a selection table or a label file is of, by its name. Raises DataError."""
        stem = table.name
        for ending in (
            ".txt",
            ".csv",
            ".tsv",
            ".selections",
            ".table.1",
            ".birdnet.results",
            ".birdnet.selection.table",
        ):
            if stem.lower().endswith(ending):
                stem = stem[: -len(ending)]
        try:
            folder = table.parent.absolute().relative_to(self.root.absolute()).as_posix()
        except ValueError:
            folder = "."
        start = "" if folder == "." else f"{folder}/"
        wanted = f"{start}{stem}".casefold()
        found = [
            n
            for key, names in self._index.items()
            for n in names
            if key.rpartition(".")[0] == clean(wanted) or key == clean(wanted)
        ]
        media = [n for n in found if not n.lower().endswith((".txt", ".csv", ".tsv"))]
        if len(media) != 1:
            what = "no recording" if not media else f"several recordings ({', '.join(media[:3])})"
            raise DataError(f"{where} names no file, and {what} in '{self.root}' is called '{stem}', as the table is")
        return media[0]
