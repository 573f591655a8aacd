"""Discovery: which plugins are installed, what each provides, and why one of them failed.

Entry points of the group `benchkit` are loaded one by one, each in a thread with a time limit (BENCHKIT_PLUGIN_TIMEOUT,
in seconds), so that one that raises, exits or hangs is a line in `benchkit plugins` and nothing worse.
"""

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args

import pluggy

from benchkit import hookspecs
from benchkit.errors import MissingDependency, PluginError, SpecError, did_you_mean
from benchkit.hookspecs import Entry
from benchkit.spec import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = "benchkit"


@dataclass(frozen=True)
class Plugin:
    """One installed entry point."""

    name: str
    dist: str
    version: str
    module: str
    provides: dict[Kind, dict[str, Entry]] = field(default_factory=dict)
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
        try:
            cls = getattr(import_module(module), attribute)
        except ModuleNotFoundError as e:
            raise MissingDependency(
                f"{who} needs the package '{e.name}', which is not installed: pip install it, or "
                f"look at the documentation of {self.plugin.dist} for the extra that brings it"
            ) from e
        except Exception as e:
            raise PluginError(f"{who} does not load from '{self.entry.target}': {one_line(e)}") from e
        for attribute in ("Params", "version"):
            if not hasattr(cls, attribute):
                raise PluginError(
                    f"{who}: '{self.entry.target}' has no {attribute}; derive it from benchkit's base class"
                )
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
        found = [p for p in everything if p.name == name and dist in (None, p.plugin.dist)]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(f"{p.plugin.dist} {p.plugin.version}" for p in found)
            choose = " or ".join(f"'{p.plugin.dist}/{name}'" for p in found)
            raise SpecError(f"{kind} '{name}' is provided by {owners}: write {choose}")
        names = {p.name for p in everything}
        owners = ", ".join(p.plugin.dist for p in everything if p.name == name)
        if dist and owners:
            raise SpecError(f"distribution '{dist}' provides no {kind} '{name}'; {owners} does")
        broken = [p.name for p in self.plugins if p.error]
        note = f"; {len(broken)} plugin(s) failed to load ({', '.join(broken)}): see benchkit plugins" if broken else ""
        raise SpecError(f"no {kind} named '{name}'{did_you_mean(name, names)} (benchkit {kind}s lists all){note}")


@cache
def discover() -> Catalog:
    """Loads every entry point once a process."""
    limit = float(os.environ.get("BENCHKIT_PLUGIN_TIMEOUT", "10"))
    points = sorted(entry_points(group=GROUP), key=lambda p: (p.dist.name if p.dist else "", p.name))
    return Catalog(tuple(_load(point, limit) for point in points))


def _load(point: EntryPoint, limit: float) -> Plugin:
    provides: dict[Kind, dict[str, Entry]] = {}
    error: str | None = f"did not load within {limit:g} s (BENCHKIT_PLUGIN_TIMEOUT)"

    def load() -> None:
        nonlocal provides, error
        try:
            provides, error = _call_hooks(point.load()), None
        except BaseException as e:  # noqa: BLE001  (a plugin that calls sys.exit() must not end everything either)
            error = one_line(e)

    start = time.perf_counter()
    thread = threading.Thread(target=load, daemon=True, name=f"benchkit-plugin-{point.name}")
    thread.start()
    thread.join(limit)
    seconds = time.perf_counter() - start
    dist, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "?")
    if thread.is_alive():
        return Plugin(point.name, dist, version, point.value, {}, error, seconds)
    return Plugin(point.name, dist, version, point.value, provides, error, seconds)


def _call_hooks(module: Any) -> dict[Kind, dict[str, Entry]]:
    manager = pluggy.PluginManager(GROUP)  # one each: a broken plugin cannot touch the others
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    provides: dict[Kind, dict[str, Entry]] = {}
    for kind in KINDS:
        for result in getattr(manager.hook, f"benchkit_{kind}s")():
            for name, entry in result.items():
                if not isinstance(entry, Entry) or ":" not in entry.target:
                    raise PluginError(f"{kind} '{name}' is {entry!r}, not an Entry(summary, 'module:Class')")
            provides[kind] = dict(result)
    if not provides:
        raise PluginError("it implements none of benchkit's hooks (is @hookimpl missing?)")
    return provides


def one_line(error: BaseException) -> str:
    """An exception as one line: its type and the first line of its message."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
