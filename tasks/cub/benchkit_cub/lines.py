"""Lines of CUB's text files: fields between blanks, every fault with its file and line."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from benchkit import DataError

_NAMED = 3


def fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line by line, its number from 1 and its fields. Raises DataError."""
    try:
        with path.open(encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                yield number, line.split()
    except OSError as e:
        raise DataError(f"cannot read '{path}': {e.strerror} (is root the folder CUB_200_2011?)") from e
    except UnicodeDecodeError as e:
        raise DataError(f"'{path}' is no text: {e}") from e


def numbered(path: Path, what: str, *, words: bool = False) -> dict[int, str]:
    """A file of lines `<id> <value>`. words: the value may hold blanks. Raises DataError for other lines, an id that
    is no number from 1, and one that comes twice."""
    found: dict[int, str] = {}
    for number, (*parts,) in fields(path):
        if len(parts) < 2 or (len(parts) > 2 and not words):
            raise DataError(f"{at(path, number)} it has {len(parts)} fields, not an id and {what}")
        key = whole(parts[0], "id", path, number)
        if key < 1:
            raise DataError(f"{at(path, number)} id is {key}, and ids begin at 1")
        if key in found:
            raise DataError(f"{at(path, number)} id {key} comes a second time")
        found[key] = " ".join(parts[1:])
    return found


def whole(text: str, what: str, path: Path, line: int) -> int:
    """Raises DataError where `text` is no whole number."""
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{at(path, line)} {what} is '{text}', not a whole number")
    return int(text)


def same_ids(found: Collection[int], expected: Collection[int], path: Path, whose: str) -> None:
    """Raises DataError where one has an id that the other has not."""
    if missing := sorted(set(expected) - set(found)):
        raise DataError(f"'{path}' has no line for {some(missing)} of {whose}")
    if more := sorted(set(found) - set(expected)):
        raise DataError(f"'{path}' has lines for {some(more)}, which {whose} does not have")


def some(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
    return f"id {', '.join(map(str, numbers[:_NAMED]))}{more}"


def at(path: Path, line: int) -> str:
    return f"'{path}', line {line}:"
