"""benchkit: how well does a frozen model's representation solve this task?

The names below are the public API. They are imported when first used, so that `import benchkit` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchkit.machine.version import __version__ as __version__

_WHERE = {
    "run": "benchkit.api",
    "open": "benchkit.api",
    "Results": "benchkit.api",
    "Audio": "benchkit.media.decode",
    "Image": "benchkit.media.decode",
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
    "Cell": "benchkit.records.report",
    "Report": "benchkit.records.report",
    "Entry": "benchkit.hookspecs",
    "hookimpl": "benchkit.hookspecs",
    "param": "benchkit.catalog.spec",
}

if TYPE_CHECKING:
    from benchkit.api import Results, open, run
    from benchkit.catalog.spec import param
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
    from benchkit.media.decode import Audio, Image
    from benchkit.records.report import Cell, Report

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
