"""What a user may meet, each as one line that names the thing, the value and the way out."""

import re
from collections.abc import Iterable
from typing import Literal

Reason = Literal[
    "error", "crash", "machine", "killed", "out of memory", "disk", "network", "time limit", "cancelled", "node lost"
]  # fmt: skip
"""Why a cell failed. error: said in one line. crash: a bug in somebody's code, the trace is in the log. These two come
from the data and the code, and would come again. machine: something that this machine lacks: files or threads that may
be open, a package, a permission. disk: one that is full, or that cannot be written. network: nobody answers. The
others: ended from outside."""

OF_ITSELF: tuple[Reason, ...] = ("error", "crash")
"""Reasons that will fail a cell again unless something changes. All others are the machine's or the moment's: the same
command tries such a cell again."""


class BenchkitError(Exception):
    """The user's input, data or environment is at fault: shown as one line, never as a traceback.

    reason: why a cell fails that it comes to.
    """

    reason: Reason = "error"


class SpecError(BenchkitError):
    """A spec string is malformed, or names something that is not there."""


class PluginError(BenchkitError):
    """A plugin failed to load, or breaks the contract of its interface."""


class MissingDependency(BenchkitError):
    """Something optional is needed that is not installed."""

    reason = "machine"


class DataError(BenchkitError):
    """A data set is missing, incomplete or inconsistent."""


class MediaError(DataError):
    """One recording or image does not decode. `--skip-bad` decides whether the run may go on without it."""


class NoTokens(BenchkitError):
    """A backbone has no tokens, and a probe needs them: its cells fail, those of other probes do not."""


class FitError(BenchkitError):
    """A classifier cannot be fitted on what it was given."""


class OutOfMemory(BenchkitError):
    """There is too little memory for what was asked."""

    reason = "out of memory"


class StoreError(BenchkitError):
    """The registry, or another file of benchkit's, cannot be opened, read or written."""

    reason = "disk"


def printable(text: str) -> str:
    """Text as a person may be shown it, wherever it comes from: what would move a terminal's cursor, write to its
    clipboard, make a link or turn the direction of what follows is written out (\\x1b, \\u202e)."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def redacted(text: str) -> str:
    """Without the user's name and password that an address may hold (https://user:password@host): errors are kept, and
    shown to others."""
    return _USERINFO.sub(r"\1", text)


_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s'\"@]*@")


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`"; did you mean 'hsn'?"`, or nothing where no known name is near."""
    near = min(known, key=lambda name: (_edits(wrong, name), name), default="")
    return f"; did you mean '{near}'?" if near and _edits(wrong, near) <= max(len(wrong), len(near)) / 2 else ""


def _edits(a: str, b: str) -> int:
    """Letters to insert, remove, replace or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            best = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before = above
    return row[-1]


def require(module: str, extra: str) -> None:
    """Raises MissingDependency, with the command that mends it, unless `module` can be imported."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingDependency(f"this needs the package '{module}', which is not installed: pip install '{extra}'")
