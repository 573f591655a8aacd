"""What a worker process tells its launcher, a JSON object a line: its progress, and what became of each cell.

The worker's side is a Progress (`Events`), the launcher's feeds what it hears into one of its own (`Relay`).
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchkit.jobs.evaluate import Outcome
from benchkit.progress import Progress, Step
from benchkit.records.report import Cell

EVERY = 0.1
"""Seconds between two lines about one step."""


class Events:
    """A Progress that writes to a file descriptor; a launcher that is gone is no error here."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._lock = threading.Lock()
        self._steps = 0

    def say(self, **event: Any) -> None:
        with self._lock:
            try:
                print(json.dumps(event), file=self._file, flush=True)
            except BrokenPipeError:
                return  # the watch on the launcher's life ends this process

    @contextmanager
    def step(self, what: str, total: int | None, unit: str = "") -> Iterator[Step]:
        self._steps += 1
        step = _Step(self, self._steps)
        self.say(event="step", step=step.number, what=what, total=total, unit=unit)
        try:
            yield step
        finally:
            step.flush()
            self.say(event="end", step=step.number)

    def note(self, line: str) -> None:
        self.say(event="note", line=line)

    def outcome(self, outcome: Outcome) -> None:
        self.say(event="outcome", cell=list(outcome.cell), error=outcome.error, reason=outcome.reason)


class _Step:
    def __init__(self, events: Events, number: int) -> None:
        self.events, self.number = events, number
        self.unsaid, self.said = 0, 0.0

    def advance(self, n: int = 1) -> None:
        self.unsaid += n
        if time.monotonic() - self.said >= EVERY:
            self.flush()

    def tell(self, figures: str) -> None:
        self.events.say(event="tell", step=self.number, figures=figures)

    def flush(self) -> None:
        if self.unsaid:
            self.events.say(event="advance", step=self.number, n=self.unsaid)
            self.unsaid, self.said = 0, time.monotonic()


class Relay:
    """One worker's events, shown as steps of the launcher's own progress, each with the worker's name before it."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name, self.progress = name, progress
        self.outcomes: list[Outcome] = []
        self._steps: dict[int, tuple[ExitStack, Step]] = {}
        self._idle = ExitStack()
        self._between("starting")

    def _between(self, what: str) -> None:
        """A worker has its line also where it shows no step."""
        self._idle.enter_context(self.progress.step(f"{self.name} {what}", None))

    def hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "step":
                self._idle.close()
                stack = ExitStack()
                what = f"{self.name} {event['what']}"
                step = stack.enter_context(self.progress.step(what, event["total"], event["unit"]))
                self._steps[event["step"]] = stack, step
            case "advance" if event["step"] in self._steps:
                self._steps[event["step"]][1].advance(event["n"])
            case "tell" if event["step"] in self._steps:
                self._steps[event["step"]][1].tell(event["figures"])
            case "end" if event["step"] in self._steps:
                self._steps.pop(event["step"])[0].close()
                if not self._steps:
                    self._between("working")
            case "note":
                self.progress.note(f"{self.name} {event['line']}")
            case "outcome":
                self.outcomes.append(Outcome(Cell(*event["cell"]), error=event["error"], reason=event["reason"]))

    def close(self) -> None:
        """Ends the steps that a killed worker left open."""
        for stack, _ in self._steps.values():
            stack.close()
        self._steps.clear()
        self._idle.close()
