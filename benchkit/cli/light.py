"""Keeps typer from importing pydantic where no value needs it.

Typer, as of 0.29, turns every value into its type with pydantic, which takes longer to import than all of benchkit
that `ls` needs, and imports it even for options that nobody gave. Here what is simple (nothing at all, a default,
text, a path, a whole number, a choice) is converted at once, and all else goes to typer's own conversion. With a typer
that works in another way this does nothing.
"""

import re
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from typer import BadParameter


def lighten(parameters: list[Any]) -> list[Any]:
    """The same parameters of a command, each converting its value only where there is something to convert."""
    for parameter in parameters:
        if getattr(parameter, "_runtime_param", "not this typer") is None:
            parameter._runtime_param = _Conversion()
    return parameters


class _Conversion:
    """In the place of typer's RuntimeParam."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        wanted, info = param.type_descriptor.annotation, param.type_descriptor.parameter_info
        if not several:
            made = _simple(value, wanted, info)
        elif typing.get_origin(wanted) is list:
            made = [_simple(v, typing.get_args(wanted)[0], info) for v in value]
        else:
            made = _LEFT
        if made is not _LEFT and not (several and _LEFT in made):
            return made
        from typer.core import build_runtime_param

        param._runtime_param = build_runtime_param(param.type_descriptor)
        try:
            return param._runtime_param.coerce(value, param=param, ctx=ctx)
        except BadParameter as e:  # which says what it wants, and not what it got
            e.message = f"{', '.join(map(repr, value if several else [value]))}: {e.message}"
            e.message += " (-1 is all)" if param.name == "n_train" else ""
            raise


_LEFT = object()
"""Left to typer: what is not simple, and all that is wrong, so that its words are used."""


def _simple(value: Any, wanted: Any, info: Any) -> Any:
    if type(value) is wanted:
        return value
    if not isinstance(value, str):
        return _LEFT
    if wanted is Path and not (info.exists or info.resolve_path or info.allow_dash):
        from benchkit.machine.home import expanded

        return expanded(value)  # a shell leaves `--cache=~/features` as it is
    if wanted is int and re.fullmatch(r"-?[0-9]{1,18}", value):
        number = int(value)
        return (
            number if (info.min is None or number >= info.min) and (info.max is None or number <= info.max) else _LEFT
        )
    if isinstance(wanted, type) and issubclass(wanted, Enum):
        return next((choice for choice in wanted if choice.value == value), _LEFT)
    return _LEFT
