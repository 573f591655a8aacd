"""Discovery: which plugins are installed, what each provides, and why one of them failed.

Entry points of the group `benchkit` are loaded one by one, each in a thread with a time limit (BENCHKIT_PLUGIN_TIMEOUT,
in seconds), so that one that raises, exits or hangs is a line in `benchkit plugins` and nothing worse. What a plugin
prints while it is imported goes to stderr: stdout belongs to the command's own output, which may be JSON in a pipe.
"""

import math
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from inspect import isabstract
from typing import Any, Literal, get_args

import pluggy

from benchkit import hookspecs
from benchkit.catalog.namesakes import complaint
from benchkit.catalog.params import hints_of
from benchkit.catalog.spec import NAME, Kind, normalised, prefix
from benchkit.errors import BenchkitError, MissingDependency, PluginError, SpecError, did_you_mean
from benchkit.hookspecs import Entry

KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = "benchkit"
TIMEOUT_S = 10.0
CLASS_FACTOR = 6
"""Importing a plugin's class may take this many times as long as its hooks: it brings numpy, scipy and their like."""

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_BASES: dict[Kind, str] = {
    "task": "Task", "model": "Backbone", "classifier": "Classifier", "scorer": "Scorer", "objective": "Objective",
}  # fmt: skip


@dataclass(frozen=True)
class Plugin:
    """One installed entry point."""

    name: str
    dist: str
    version: str
    module: str
    provides: dict[Kind, dict[str, Entry]] = field(default_factory=dict)
    commands: dict[str, Entry] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Provided:
    """One name that one plugin provides."""

    kind: Kind
    name: str
    entry: Entry
    plugin: Plugin
    ambiguous: bool = False

    def load(self) -> Any:
        """The class itself. Raises PluginError or MissingDependency with the reason, in one line."""
        module, _, attribute = self.entry.target.partition(":")
        who = f"{self.kind} '{self.name}' of {self.plugin.dist} {self.plugin.version}"
        cls, e = _guarded(lambda: getattr(import_module(module), attribute), CLASS_FACTOR * _limit())
        if isinstance(e, ModuleNotFoundError):
            if not e.name or f"{module}.".startswith(f"{e.name}."):
                raise PluginError(f"{who}: its target '{self.entry.target}' is not there ({one_line(e)})") from e
            raise MissingDependency(
                f"{who} needs the package '{e.name}', which is not installed: pip install it, or "
                f"look at the documentation of {self.plugin.dist} for the extra that brings it"
            ) from e
        if e is not None:
            raise PluginError(f"{who} does not load from '{self.entry.target}': {_reason(e)}") from e
        if problem := _problem(self.kind, cls):
            raise PluginError(f"{who}: '{self.entry.target}' {problem}")
        return cls


@dataclass(frozen=True)
class Catalog:
    """All plugins found, and what they provide."""

    plugins: tuple[Plugin, ...]

    def provided(self, kind: Kind) -> Iterator[Provided]:
        """Every name of one kind, sorted; a name that several plugins provide comes once for each."""
        found = [(n, p.dist, e, p) for p in self.plugins for n, e in p.provides.get(kind, {}).items()]
        names = [n for n, *_ in found]
        for name, _, entry, plugin in sorted(found, key=lambda f: f[:2]):
            yield Provided(kind, name, entry, plugin, ambiguous=names.count(name) > 1)

    def find(self, kind: Kind, name: str, dist: str | None = None) -> Provided:
        """The plugin that provides `name`. Raises SpecError where none does, or more than one and none is chosen."""
        everything = list(self.provided(kind))
        named = [p for p in everything if p.name == name]
        found = [p for p in named if dist is None or prefix(dist) == prefix(p.plugin.dist)]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(f"{p.plugin.dist} {p.plugin.version}" for p in found)
            if len({p.plugin.dist for p in found}) < len(found):
                points = " and ".join(f"'{p.plugin.name}'" for p in found)
                raise SpecError(f"{kind} '{name}' of {found[0].plugin.dist} comes from its entry points {points} alike")
            choose = " or ".join(f"'{prefix(p.plugin.dist)}/{name}'" for p in found)
            raise SpecError(f"{kind} '{name}' is provided by {owners}: write {choose}")
        if named:
            owners = " and ".join(p.plugin.dist for p in named)
            raise SpecError(f"distribution '{dist}' provides no {kind} '{name}'; {owners} does")
        broken = [p.name for p in self.plugins if p.error]
        note = f"; {len(broken)} plugin(s) failed to load ({', '.join(broken)}): see benchkit plugins" if broken else ""
        known = {p.name for p in everything}
        raise SpecError(f"no {kind} named '{name}'{did_you_mean(name, known)} (benchkit {kind}s lists all){note}")


@cache
def discover() -> Catalog:
    """Loads every entry point once a process."""
    limit = _limit()
    damaged: list[Plugin] = []
    try:
        points = list(entry_points(group=GROUP))
    except Exception:  # noqa: BLE001  (the entry_points.txt of some package, ours or not, is damaged: without it, then)
        points, damaged = _points_one_by_one()
    if wrong := complaint():
        warnings.warn(wrong, stacklevel=2)
    found = [_load(point, *_named(point.dist), limit) for point in points]
    return Catalog(tuple(sorted([*found, *damaged], key=lambda p: (p.dist, p.name))))


def _points_one_by_one() -> tuple[list[EntryPoint], list[Plugin]]:
    points: dict[str, list[EntryPoint]] = {}
    damaged: list[Plugin] = []
    for distribution in distributions():
        name, version = _named(distribution)
        if normalised(name) in points:
            continue  # the first on sys.path is the one that gets imported
        points[normalised(name)] = []
        try:
            points[normalised(name)] = [p for p in distribution.entry_points if p.group == GROUP]
        except Exception as e:  # noqa: BLE001  (it may be anything, and is shown)
            if f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or ""):
                error = f"its entry_points.txt is damaged: {one_line(e)}"
                damaged.append(Plugin(name, name, version, "entry_points.txt", error=error))
    return [p for of_one in points.values() for p in of_one], damaged


def _limit() -> float:
    given = os.environ.get("BENCHKIT_PLUGIN_TIMEOUT", "")
    try:
        limit = float(given or TIMEOUT_S)
    except ValueError:
        limit = math.nan
    if not 0 < limit < threading.TIMEOUT_MAX:
        raise BenchkitError(f"BENCHKIT_PLUGIN_TIMEOUT={given} is no number of seconds above 0")
    return limit


def _named(distribution: Distribution | None) -> tuple[str, str]:
    if distribution is None:
        return "unknown", "?"
    folder = getattr(distribution, "_path", None)  # METADATA may be missing; the folder's name is then all there is
    name, _, version = str(getattr(folder, "stem", "unknown")).partition("-")
    metadata = distribution.metadata
    return metadata["Name"] or name, metadata["Version"] or version or "?"


def _load(point: EntryPoint, dist: str, version: str, limit: float) -> Plugin:
    start = time.perf_counter()
    found, e = _guarded(lambda: _call_hooks(point.load()), limit)
    seconds = time.perf_counter() - start
    if e is not None:
        return Plugin(point.name, dist, version, point.value, error=_reason(e), seconds=seconds)
    provides, commands = found
    return Plugin(point.name, dist, version, point.value, provides, commands, seconds=seconds)


class _TooSlow(Exception):
    pass


def _guarded(function: Callable[[], Any], limit: float) -> tuple[Any, BaseException | None]:
    """What a plugin's code gives, or what it raises: sys.exit() too, or nothing at all within `limit` seconds."""
    outcome: list[tuple[Any, BaseException | None]] = []

    def call() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as e:  # noqa: BLE001  (it is handed on)
            outcome.append((None, e))

    thread = threading.Thread(target=call, daemon=True, name="benchkit-plugin")
    with redirect_stdout(sys.stderr):
        thread.start()
        thread.join(limit)
    return outcome[0] if outcome else (None, _TooSlow(f"did not load within {limit:g} s (BENCHKIT_PLUGIN_TIMEOUT)"))


def _call_hooks(module: Any) -> tuple[dict[Kind, dict[str, Entry]], dict[str, Entry]]:
    """What it provides, and its commands."""
    manager = pluggy.PluginManager(GROUP)  # one each: a broken plugin cannot touch the others
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    if not manager.get_hookcallers(module):
        raise PluginError("it implements none of benchkit's hooks (is @hookimpl missing?)")
    provides: dict[Kind, dict[str, Entry]] = {}
    for kind in KINDS:
        for result in getattr(manager.hook, f"benchkit_{kind}s")():
            provides[kind] = _checked(kind, result)
    commands: dict[str, Entry] = {}
    for result in manager.hook.benchkit_commands():
        commands = _checked("command", result)
    return provides, commands


def _checked(kind: Kind | Literal["command"], result: Any) -> dict[str, Entry]:
    if not isinstance(result, dict):
        raise PluginError(f"benchkit_{kind}s() returned {_brief(result)}, not a dict of Entry by name")
    for name, entry in result.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(f"{kind} {_brief(name)} has no name that a spec can hold: use a-z, 0-9 and - _ .")
        if not isinstance(entry, Entry):
            raise PluginError(f"{kind} '{name}' is {_brief(entry)}, not an Entry(summary, 'module:Class')")
        if not isinstance(entry.target, str) or not _TARGET.fullmatch(entry.target):
            raise PluginError(f"{kind} '{name}' has the target {_brief(entry.target)}, not 'module:Class'")
        if not isinstance(entry.summary, str) or not entry.summary.isprintable():
            raise PluginError(f"{kind} '{name}' has the summary {_brief(entry.summary)}, not one line of text")
    return dict(result)


def _problem(kind: Kind, cls: Any) -> str | None:
    """Why `cls` cannot be a plugin class of this kind; None where it can."""
    from benchkit import interfaces

    base = getattr(interfaces, _BASES[kind])
    if not isinstance(cls, type) or not issubclass(cls, base):
        return f"is no class derived from benchkit.{_BASES[kind]}"
    if isabstract(cls):
        return f"leaves out {', '.join(sorted(cls.__abstractmethods__))}"  # type: ignore[attr-defined]
    if type(cls.version) is not int or cls.version < 1:  # type: ignore[attr-defined]
        return f"has version = {_brief(cls.version)}, not a whole number from 1"  # type: ignore[attr-defined]
    if not isinstance(cls.Params, type):  # type: ignore[attr-defined]
        return "has a Params that is no class"
    try:
        hints_of(cls.Params)  # type: ignore[attr-defined]
    except PluginError as e:
        return f"has Params that cannot be used: {e}"
    return None


def _brief(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, (PluginError, _TooSlow)) else one_line(error)


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
