"""What a user may meet, each as one line that names the thing, the value and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class BenchkitError(Exception):
    """The user's input, data or environment is at fault: shown as one line, never as a traceback."""


class SpecError(BenchkitError):
    """A spec string is malformed, or names something that is not there."""


class PluginError(BenchkitError):
    """A plugin failed to load, or breaks the contract of its interface."""


class MissingDependency(BenchkitError):
    """Something optional is needed that is not installed."""


class DataError(BenchkitError):
    """A data set is missing, incomplete or inconsistent."""


class MediaError(DataError):
    """One recording or image does not decode. `--skip-bad` decides whether the run may go on without it."""


class FitError(BenchkitError):
    """A classifier cannot be fitted on what it was given."""


class StoreError(BenchkitError):
    """The registry cannot be opened, read or written."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`"; did you mean 'hsn'?"`, or nothing where no known name is near."""
    near = get_close_matches(wrong, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def require(module: str, extra: str) -> None:
    """Raises MissingDependency, with the command that mends it, unless `module` can be imported."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise MissingDependency(f"this needs the package '{module}', which is not installed: pip install '{extra}'")
