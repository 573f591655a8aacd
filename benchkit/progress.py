"""Progress of long work: a live bar in a terminal, plain lines now and then in a log, nothing where nobody looks.

with progress.step("extract hsn/train", total=5460, unit="clips") as step:
    for batch in batches:
        ...
        step.advance(len(batch))
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO, runtime_checkable

from benchkit.errors import printable


@runtime_checkable
class Step(Protocol):
    """One piece of work under way."""

    def advance(self, n: int = 1) -> None:
        """`n` more are done."""

    def tell(self, figures: str) -> None:
        """Shows figures of the work beside its progress, in the place of those before."""


@runtime_checkable
class Progress(Protocol):
    """Where progress is shown."""

    def step(self, what: str, total: int | None, unit: str = "") -> Any:
        """A context manager that gives a Step. total: how many there are, where that is known."""

    def note(self, line: str) -> None:
        """One line that stays."""


@dataclass
class Silent:
    """Shows nothing: for tests, and for use as a library."""

    @contextmanager
    def step(self, what: str, total: int | None, unit: str = "") -> Iterator[Step]:
        yield _LineStep(what, total, unit, None, 0.0)

    def note(self, line: str) -> None:
        pass


def say(line: str, stream: TextIO | None) -> None:
    """A line for people, on `stream`; all that benchkit prints but tables and what programs read goes through here."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = printable(line).encode(encoding, "replace").decode(encoding)
    print(shown, file=stream, flush=stream is not sys.stdout)


@dataclass
class Lines:
    """For a log file or a pipe: a plain line each `every` seconds, and none for a step that is over sooner."""

    stream: TextIO
    every: float = 10.0

    @contextmanager
    def step(self, what: str, total: int | None, unit: str = "") -> Iterator[Step]:
        step = _LineStep(what, total, unit, self.stream, self.every)
        yield step
        step.finish()

    def note(self, line: str) -> None:
        say(line, self.stream)


class _LineStep:
    def __init__(self, what: str, total: int | None, unit: str, stream: TextIO | None, every: float) -> None:
        self.what, self.total, self.unit, self.stream, self.every = what, total, unit, stream, every
        self.done, self.began = 0, time.monotonic()
        self.said = self.began
        self.spoke = self.unsaid = False
        self.figures = ""

    def tell(self, figures: str) -> None:
        self.figures = figures

    def advance(self, n: int = 1) -> None:
        self.done += n
        self.unsaid = True
        if self.stream is not None and time.monotonic() - self.said >= self.every:
            self.say()

    def say(self) -> None:
        self.said, self.spoke, self.unsaid = time.monotonic(), True, False
        taken = max(self.said - self.began, 1e-9)
        rate = self.done / taken
        of = f"/{self.total:,}" if self.total else ""
        left = (
            f", {clock((self.total - self.done) / rate)} left" if self.total and rate and self.done < self.total else ""
        )
        figures = f"; {self.figures}" if self.figures else ""
        say(f"{self.what}: {self.done:,}{of} {self.unit}, {rate:,.1f}/s{left}{figures}", self.stream)

    def finish(self) -> None:
        if self.spoke and self.unsaid:
            self.say()


@dataclass
class Bars:
    """For a terminal: a live bar for each step under way, with rate and time left."""

    console: Any

    def __post_init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"), TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False), console=self.console, transient=True,
        )  # fmt: skip
        self._running = 0

    @contextmanager
    def step(self, what: str, total: int | None, unit: str = "") -> Iterator[Step]:
        if not self._running:
            self._bars.start()
        self._running += 1
        step = _BarStep(self._bars, self._bars.add_task(printable(what), total=total, unit=unit, rate="", figures=""))
        try:
            yield step
        finally:
            self._bars.remove_task(step.task)
            self._running -= 1
            if not self._running:
                self._bars.stop()

    def note(self, line: str) -> None:
        self.console.print(printable(line), markup=False, highlight=False)


class _BarStep:
    def __init__(self, bars: Any, task: Any) -> None:
        self.bars, self.task = bars, task

    def tell(self, figures: str) -> None:
        self.bars.update(self.task, figures=printable(figures))

    def advance(self, n: int = 1) -> None:
        self.bars.advance(self.task, n)
        if speed := self.bars.tasks and next(t for t in self.bars.tasks if t.id == self.task).speed:
            self.bars.update(self.task, rate=f"{speed:,.1f}/s")


def for_stream(stream: TextIO | None = None) -> Progress:
    """Bars where the stream (stderr, where none is given) is a terminal, else lines."""
    stream = stream or sys.stderr
    if not stream.isatty():
        return Lines(stream)
    from rich.console import Console

    return Bars(Console(file=stream))


def clock(seconds: float) -> str:
    """Seconds as 12 s, 3 min 20 s, 2 h 05 min."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"
