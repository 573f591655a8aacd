"""SIGTERM, SIGUSR1, SIGUSR2 (Slurm's and submitit's ways to say that time is up) and Ctrl-C: save, and leave."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LISTENED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Asked:
    """The name of the signal that came, '' before."""

    name = ""

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def listening() -> Iterator[Asked]:
    """A second Ctrl-C is no longer held back; a scheduler may say the same thing several times."""
    asked = Asked()
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: Any) -> None:
        asked.name = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    for each in LISTENED:
        before[each] = signal.signal(each, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
