"""benchkit: how well does a frozen model's representation solve this task?

The names below are the public API. They are imported when first used, so that `import benchkit` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "run": "benchkit.api",
    "open": "benchkit.api",
    "Results": "benchkit.api",
    "Audio": "benchkit.media",
    "Image": "benchkit.media",
    "Backbone": "benchkit.interfaces",
    "Classifier": "benchkit.interfaces",
    "Encoded": "benchkit.interfaces",
    "Example": "benchkit.interfaces",
    "Fitted": "benchkit.interfaces",
    "Fold": "benchkit.interfaces",
    "Problem": "benchkit.interfaces",
    "Published": "benchkit.interfaces",
    "Scorer": "benchkit.interfaces",
    "Subset": "benchkit.interfaces",
    "Task": "benchkit.interfaces",
    "Trainable": "benchkit.interfaces",
    "Weights": "benchkit.interfaces",
    "BenchkitError": "benchkit.errors",
    "Cell": "benchkit.report",
    "Report": "benchkit.report",
    "Entry": "benchkit.hookspecs",
    "hookimpl": "benchkit.hookspecs",
    "param": "benchkit.spec",
}

if TYPE_CHECKING:
    from benchkit.api import Results, open, run
    from benchkit.errors import BenchkitError
    from benchkit.hookspecs import Entry, hookimpl
    from benchkit.interfaces import (
        Backbone,
        Classifier,
        Encoded,
        Example,
        Fitted,
        Fold,
        Problem,
        Published,
        Scorer,
        Subset,
        Task,
        Trainable,
        Weights,
    )
    from benchkit.media import Audio, Image
    from benchkit.report import Cell, Report
    from benchkit.spec import param

__all__ = [
    "Audio", "Backbone", "BenchkitError", "Cell", "Classifier", "Encoded", "Entry", "Example", "Fitted", "Fold",
    "Image", "Problem", "Published", "Report", "Results", "Scorer", "Subset", "Task", "Trainable", "Weights",
    "hookimpl", "open", "param", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'benchkit' has no attribute '{name}'")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
