"""Which seconds of a recording an example is: decided when it is decoded, in a worker, from the file itself."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchkit import Audio, Channel, OpenAudio

Rule = Literal["event", "first", "centre", "loudest"]
"""first: the beginning. centre: the middle. event: around the first detected event (see `first_event`); away from a
file's ends that is the middle of the range that BirdSet draws a training clip from, near them it is moved into the
file, and is not. loudest: the part with the most energy."""

GRID = 0.01
"""Seconds between the starts that `loudest` considers."""
SLACK = 0.5
"""Seconds that a window's audio may be longer than its times say and still be that window alone."""


@dataclass(frozen=True)
class FocalClip(Audio):
    """`duration` seconds of a focal recording, fewer where it is shorter. `start` is not used.

    event: where the first detected event begins and ends, in seconds; None: `event` means `first`.
    """

    rule: Rule = "first"
    event: tuple[float, float] | None = None

    def part(self, recording: OpenAudio) -> tuple[float, float | None]:
        """Only `loudest` decodes what lies outside of the clip, and `centre` where the file does not say how long it
        is. Raises MediaError."""
        assert self.duration is not None
        if self.rule == "first" or (self.rule == "event" and self.event is None):
            return 0.0, self.duration
        if self.rule == "loudest":
            return _loudest(recording, self.duration, self.channel), self.duration
        latest = max(0.0, recording.seconds - self.duration)
        middle = sum(self.event) / 2 if self.rule == "event" and self.event else (latest + self.duration) / 2
        return min(max(0.0, middle - self.duration / 2), latest), self.duration


@dataclass(frozen=True)
class Window(Audio):
    """A soundscape window from `start`, `duration` seconds long, whether its file is the window or the soundscape."""

    def part(self, recording: OpenAudio) -> tuple[float, float | None]:
        if self.duration is None or recording.seconds <= self.duration + SLACK:
            return 0.0, None
        return self.start, self.duration


def first_event(events: list[list[float]] | None, clusters: list[int] | None) -> tuple[float, float] | None:
    """The earliest event of a recording's largest cluster, in seconds, or None where nothing was detected.

    As BirdSet picks training events (XCEventMapping, https://github.com/DBD-research-group/BirdSet): events of cluster
    -1 are noise, unless it is the only event; of clusters with equally many events the lowest number counts.
    """
    if not events:
        return None
    numbers = clusters if clusters else [0] * len(events)
    pairs = list(zip(events, numbers, strict=True))
    if len(pairs) > 1:
        pairs = [p for p in pairs if p[1] != -1]
    if not pairs:
        return None
    found = [number for _, number in pairs]
    largest = max(sorted(set(found)), key=found.count)
    begin, end = min(event for event, number in pairs if number == largest)
    return float(begin), float(end)


def _loudest(recording: OpenAudio, seconds: float, channel: Channel) -> float:
    """Start of the `seconds` with the largest sum of squares of what is listened to,
    on a grid of GRID seconds; the earliest of equals."""
    energy = []
    rate = recording.rate
    step = max(1, round(GRID * rate))
    width = max(1, round(seconds * rate / step))
    for block in recording.blocks(size=step * 1000, channel=channel):
        squares = np.square(block.astype(np.float64)).sum(axis=1)
        energy.append(np.add.reduceat(squares, np.arange(0, len(squares), step)))
    total = np.concatenate([[0.0], *energy]).cumsum()
    if len(total) <= width + 1:
        return 0.0
    return int(np.argmax(total[width:] - total[:-width])) * step / rate
