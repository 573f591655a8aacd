"""The reference of the command line, docs/cli.md, written from the commands themselves.

python -m benchkit.cli.reference > docs/cli.md
"""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

HEAD = """# The command line

Written by `python -m benchkit.cli.reference > docs/cli.md`; a test holds it against the commands.

Every command exits with 0 where it did what it was asked, with 1 and one line on stderr where it could not, with 2 and
one line for an option that there is not or a value that it does not take, and with 130 after Ctrl-C. Answers go to
stdout, everything else to stderr.

`benchkit --version` says which benchkit it is. `benchkit --install-completion` makes the Tab key complete commands and
options in the shell that it is typed into; `--install-completion bash`, `zsh` or `fish` names another.
"""
_TYPES = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


def reference() -> str:
    """Markdown: a section for each command, with its usage, arguments and options."""
    from benchkit.cli import with_commands
    from benchkit.cli.plugged import load, plugged

    app = with_commands()
    brought = {name: load(name) for name in plugged()}
    lines = [HEAD, *_sections(app, "benchkit")]
    for name, of_plugin in brought.items():
        lines += _sections(of_plugin, f"benchkit {name}")
    return "\n".join(lines)


def _sections(app: typer.Typer, name: str) -> Iterator[str]:
    for command in app.registered_commands:
        assert command.callback is not None
        yield _section(f"{name} {command.name or command.callback.__name__}", command.callback)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        yield from _sections(group.typer_instance, f"{name} {group.name}")


def _section(name: str, command: Callable[..., Any]) -> str:
    hints = typing.get_type_hints(command, include_extras=True)
    usage, rows = [name], []
    options = False
    for parameter in inspect.signature(command).parameters.values():
        kind, info = typing.get_args(hints[parameter.name])[:2]
        required = parameter.default is inspect.Parameter.empty
        if isinstance(info, ArgumentInfo):
            shown = f"{parameter.name.upper()}{'...' if _is_list(kind) else ''}"
            usage.append(shown if required else f"[{shown}]")
            rows.append((f"`{shown}`", info.help or ""))
        elif not info.hidden:
            options = True
            rows.append((_names(parameter.name, kind, info), _meaning(kind, info, parameter.default)))
    usage += ["[OPTIONS]"] if options else []
    table = "".join(f"| {_escape(left)} | {_escape(right)} |\n" for left, right in rows)
    table = f"\n| | |\n| --- | --- |\n{table}" if rows else ""
    return f"## {name}\n\n```\n{' '.join(usage)}\n```\n\n{inspect.cleandoc(command.__doc__ or '')}\n{table}"


def _names(name: str, kind: Any, info: OptionInfo) -> str:
    spelled = name.replace("_", "-")
    first = [info.default] if isinstance(info.default, str) else []  # typer.Option("--json") within Annotated
    declared = [*first, *(info.param_decls or ())]
    if _plain(kind) is bool:
        names = declared or [f"--{spelled}", f"--no-{spelled}"]
        return ", ".join(f"`{n}`" for n in names)
    return ", ".join(f"`{n} {info.metavar or _type(kind)}`" for n in declared or [f"--{spelled}"])


def _meaning(kind: Any, info: OptionInfo, default: Any) -> str:
    notes = []
    if info.min is not None:
        notes.append(f"from {info.min}" if info.max is None else f"{info.min} to {info.max}")
    if default is inspect.Parameter.empty:
        notes.append("must be given")
    elif default is True:
        notes.append("default: on")
    elif default not in (None, False):
        notes.append(f"default: {default.value if isinstance(default, Enum) else default}")
    return f"{info.help or ''} ({'; '.join(notes)})" if notes else info.help or ""


def _type(kind: Any) -> str:
    plain = _plain(kind)
    if isinstance(plain, type) and issubclass(plain, Enum):
        return "|".join(str(choice.value) for choice in plain)
    return _TYPES[plain]


def _plain(kind: Any) -> Any:
    """X for X, `X | None`, `list[X]` and `list[X] | None`."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(a for a in typing.get_args(kind) if a is not type(None))
    return typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind


def _is_list(kind: Any) -> bool:
    return any(typing.get_origin(k) is list for k in (kind, *typing.get_args(kind)))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(reference())
