"""One training for each of several places, one after the other: each in a folder of its own, with the same settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from benchkit.activations.recording import RecordedPoint, Recording
from benchkit.activations.shards import point_folder
from benchkit.errors import BenchkitError


@dataclass(frozen=True)
class Part:
    """One place and the folder of its training."""

    recording: Path
    point: RecordedPoint
    to: Path


def parts(on: Sequence[Path], points: Sequence[str], to: Path) -> list[Part]:
    """What is trained on. on: recordings. points: names, or patterns as in 'blocks.*.norm2'; each recording has at
    least one of them; none of them means its only one.

    One place is trained in `to` itself; several each in a folder below it, named after the point and, where there are
    several recordings, after theirs. Raises BenchkitError for a point that no recording has, or two folders that would
    be one.
    """
    found: list[tuple[Path, RecordedPoint]] = []
    unused = dict.fromkeys(points)
    for folder in dict.fromkeys(on):
        recording = Recording.open(folder)
        if not points:
            found.append((folder, recording.only))
            continue
        chosen: dict[str, None] = {}
        for pattern in points:
            plain = [pattern] if pattern in recording.points else []
            matching = plain or [p for p in recording if fnmatchcase(p, pattern)]
            if matching:
                unused.pop(pattern, None)
            chosen |= dict.fromkeys(matching)
        if not chosen:
            recording[points[0]]  # says which there are
            raise BenchkitError(f"'{folder}' has no point of {', '.join(points)} (it has {', '.join(recording)})")
        found += [(folder, recording[point]) for point in chosen]
    for pattern in unused:
        Recording.open(on[0])[pattern]
    if len(found) == 1:
        return [Part(*found[0], to)]
    several = len(dict.fromkeys(on)) > 1
    made = [Part(f, p, point_folder(to / f.resolve().name if several else to, p.point)) for f, p in found]
    by_folder: dict[Path, Path] = {}
    for part in made:
        other = by_folder.setdefault(part.to, part.recording)
        if other != part.recording:
            raise BenchkitError(
                f"'{other}' and '{part.recording}' have one name, and their trainings would have one folder: train "
                "them into two"
            )
    return made
