"""Which seconds of a recording an example is: decided when it is decoded, in a worker, from the file itself."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from benchkit import Audio, MediaError

Rule = Literal["event", "first", "centre", "loudest"]
"""first: the beginning. centre: the middle. event: around the first detected event (see `first_event`), which is the
middle of the range that BirdSet draws a training clip from. loudest: the part with the most energy."""

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

    def load(self, sample_rate: int) -> Float32[np.ndarray, " T"]:
        """The waveform of the clip. Only this part is resampled; only `loudest` decodes the rest. Raises MediaError."""
        return Audio(self.source, self.begin(), self.duration).load(sample_rate)

    def begin(self) -> float:
        """Where the clip begins, in seconds. Raises MediaError."""
        assert self.duration is not None
        if self.rule == "first" or (self.rule == "event" and self.event is None):
            return 0.0
        if self.rule == "loudest":
            return _loudest(self.source, self.duration)
        latest = max(0.0, _length(self.source) - self.duration)
        middle = sum(self.event) / 2 if self.rule == "event" and self.event else (latest + self.duration) / 2
        return min(max(0.0, middle - self.duration / 2), latest)


@dataclass(frozen=True)
class Window(Audio):
    """A soundscape window from `start`, `duration` seconds long, whether its file is the window or the soundscape."""

    def load(self, sample_rate: int) -> Float32[np.ndarray, " T"]:
        """The waveform of the window. Raises MediaError."""
        if self.duration is None or _length(self.source) <= self.duration + SLACK:
            return Audio(self.source).load(sample_rate)
        return Audio(self.source, self.start, self.duration).load(sample_rate)


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


def _length(source: object) -> float:
    """Of a recording, in seconds, without decoding it."""
    with _open(source) as f:
        return f.frames / f.samplerate


def _loudest(source: object, seconds: float) -> float:
    """Start of the `seconds` with the largest sum of squares, on a grid of GRID seconds; the earliest of equals."""
    import soundfile

    energy = []
    with _open(source) as f:
        step = max(1, round(GRID * f.samplerate))
        width, rate = max(1, round(seconds * f.samplerate / step)), f.samplerate
        try:
            for block in f.blocks(blocksize=step * 1000, dtype="float32", always_2d=True):
                squares = np.square(block.mean(axis=1, dtype=np.float64))
                energy.append(np.add.reduceat(squares, np.arange(0, len(squares), step)))
        except (soundfile.LibsndfileError, RuntimeError) as e:
            raise MediaError(f"a focal recording does not decode as audio: {e}") from e
    total = np.concatenate([[0.0], *energy]).cumsum()
    if len(total) <= width + 1:
        return 0.0
    return int(np.argmax(total[width:] - total[:-width])) * step / rate


def _open(source: object) -> Any:
    import io

    import soundfile

    try:
        return soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (soundfile.LibsndfileError, OSError, RuntimeError) as e:
        raise MediaError(f"a recording does not decode as audio: {e}") from e
