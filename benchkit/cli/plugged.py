"""Commands that plugins bring (the hook `benchkit_commands`): looked for where a name is none of benchkit's own, or all
are to be listed; imported where one is used."""

from functools import cache
from importlib import import_module
from typing import Any

import typer

from benchkit.catalog.discovery import Plugin, discover, one_line
from benchkit.errors import MissingDependency, PluginError
from benchkit.hookspecs import Entry


@cache
def plugged() -> dict[str, tuple[Entry, Plugin]]:
    """By name. One that several plugins bring is the first's, by the name of its distribution."""
    found: dict[str, tuple[Entry, Plugin]] = {}
    for plugin in discover().plugins:
        for name, entry in sorted(plugin.commands.items()):
            found.setdefault(name, (entry, plugin))
    return found


def load(name: str) -> typer.Typer:
    """Raises PluginError or MissingDependency, in one line, where it cannot be imported or is no command."""
    entry, plugin = plugged()[name]
    module, _, attribute = entry.target.partition(":")
    who = f"command '{name}' of {plugin.dist} {plugin.version}"
    try:
        made = getattr(import_module(module), attribute)
    except ModuleNotFoundError as e:
        if e.name and not f"{module}.".startswith(f"{e.name}."):
            raise MissingDependency(f"{who} needs the package '{e.name}', which is not installed") from e
        raise PluginError(f"{who}: its target '{entry.target}' is not there ({one_line(e)})") from e
    except Exception as e:  # a plugin's code may raise anything
        raise PluginError(f"{who} does not load from '{entry.target}': {one_line(e)}") from e
    if not isinstance(made, typer.Typer):
        raise PluginError(f"{who}: '{entry.target}' is no typer.Typer")
    return made


def command(name: str) -> Any:
    """What click runs. Raises as `load`."""
    found = typer.main.get_command(load(name))
    found.name = name
    return found
