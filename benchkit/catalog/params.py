"""Typed parameters: the fields of a plugin's frozen `Params` dataclass, from text to values and back.

A field is a bool, int, float, str, Path, Literal, a tuple of these (written 1+2+3), or one of them or None. Every value
has one spelling, and every default can be spelled: no two values of a parameter are ever written alike.
"""

import dataclasses
import math
import re
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchkit.errors import PluginError, StoreError, did_you_mean
from benchkit.machine.home import expanded

KEY = re.compile(r"[a-z][a-z0-9_]*")

_INT = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def param(
    default: Any = dataclasses.MISSING,
    *,
    help: str = "",
    low: int | float | None = None,
    high: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
    place: tuple[str, ...] | None = None,
) -> Any:
    """A field of a Params dataclass.

    help: one line for `benchkit models --params` and its like.
    low, high: the range of a number, ends included. above, below: ends that are not, as of what is divided by.
    place: makes a `str` field one that may name a local file or folder, or else something remote; for `str` and `Path`
        alike it lists the glob patterns of what is fingerprinted in a folder (everything, where it is not given).
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "low": low, "high": high, "above": above, "below": below, "place": place},
    )


def parse_value(text: str, hint: Any) -> Any:
    """`text` as a value of the annotated type. Raises ValueError with the rest of a sentence."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() == "none":
            return None
        return parse_value(text, _plain(hint))
    if origin is Literal:
        for choice in args:
            if format_value(choice) == text:
                return choice
        known = [format_value(a) for a in args]
        raise ValueError(f"is '{text}', which is none of {', '.join(known)}{did_you_mean(text, known)}")
    if origin is tuple:
        parts = text.split("+") if text else []
        inner = (args[0],) * len(parts) if args[-1] is Ellipsis else args
        if len(parts) != len(inner):
            raise ValueError(
                f"is '{text}', which is not {len(inner)} values, as in {'+'.join('ABCDEFGH'[: len(inner)])}"
            )
        return tuple(parse_value(part, i) for part, i in zip(parts, inner, strict=True))
    if hint is bool:
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise ValueError(f"is '{text}', not true or false")
    if hint is int:
        if not _INT.fullmatch(text):
            raise ValueError(f"is '{text}', not a whole number")
        return int(text)
    if hint is float:
        if not _FLOAT.fullmatch(text) or not math.isfinite(float(text)):
            raise ValueError(f"is '{text}', not a finite number")
        return float(text) + 0.0  # -0.0 is 0.0
    if hint is Path:
        path = local_path(text)
        if path is None:
            raise ValueError(f"is '{text}': there is no such file or folder")
        return path
    if hint is str:
        return text
    raise TypeError(
        f"a Params field is annotated {hint!r}: use bool, int, float, str, Path, Literal, tuple or Optional"
    )


def format_value(value: Any) -> str:
    """The one spelling of a value: what parse_value reads back."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return re.sub(r"e\+?(-?)0*", r"e\1", repr(value)).removesuffix(".0")
    if isinstance(value, tuple):
        return "+".join(format_value(v) for v in value)
    return str(value)


def local_path(value: str | Path) -> Path | None:
    """The file or folder that a place parameter names, `~` expanded; None where there is none, so that it is remote.

    A plugin with a place of type `str` decides with this, as benchkit does, whether it means a file or a hub's name.
    """
    if not str(value):
        return None
    try:
        path = expanded(value)
        return path if path.exists() else None
    except (OSError, StoreError):  # a name too long, a folder that may not be searched, `~` of an unknown user
        return None


def check_range(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """`value`, where it is within the field's range. Raises ValueError with the rest of a sentence."""
    low, high, above, below = (field.metadata.get(name) for name in ("low", "high", "above", "below"))
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)):
            continue
        if low is not None and number < low:
            raise ValueError(f"is {format_value(number)}, below the least allowed, {format_value(low)}")
        if high is not None and number > high:
            raise ValueError(f"is {format_value(number)}, above the most allowed, {format_value(high)}")
        if above is not None and number <= above:
            raise ValueError(f"is {format_value(number)}, and must be above {format_value(above)}")
        if below is not None and number >= below:
            raise ValueError(f"is {format_value(number)}, and must be below {format_value(below)}")
    return value


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """The field's default; dataclasses.MISSING where the user must give a value."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def is_place(field: "dataclasses.Field[Any]", hint: Any) -> bool:
    """Whether the field may name a local file or folder."""
    return field.metadata.get("place") is not None or _plain(hint) is Path


def _plain(hint: Any) -> Any:
    """X for X, and for X or None."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    return next(a for a in typing.get_args(hint) if a is not type(None))


@cache
def hints_of(schema: type) -> dict[str, Any]:
    """The types of a Params dataclass, checked: two different values are never spelled alike. Raises PluginError."""
    name = schema.__qualname__
    if not dataclasses.is_dataclass(schema) or not schema.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise PluginError(f"{name} is no frozen dataclass")
    try:
        hints = typing.get_type_hints(schema)
    except Exception as e:
        raise PluginError(f"the annotations of {name} cannot be evaluated: {e}") from e
    for field in dataclasses.fields(schema):
        try:
            _check_field(field, hints[field.name])
        except (TypeError, ValueError) as e:
            raise PluginError(f"the parameter '{field.name}' of {name} {e}") from e
    return hints


def _check_field(field: "dataclasses.Field[Any]", hint: Any) -> None:
    if not KEY.fullmatch(field.name) or not field.init:
        raise ValueError("cannot be set in a spec: its name must be lower case, and init true")
    _check_type(hint)
    if field.metadata.get("place") is not None and _plain(hint) not in (str, Path):
        raise TypeError(f"is a place, but annotated {hint!r}: use str or Path")
    default = default_of(field)
    if default is dataclasses.MISSING or isinstance(default, Path):
        return  # what is at a path is looked at when it is used
    text = format_value(default)
    try:
        again = check_range(field, parse_value(text, hint))
    except ValueError as e:
        raise ValueError(f"has a default that is not allowed: it {e}") from None
    if again != default or format_value(again) != text or not text.isprintable():
        raise ValueError(f"has a default that a user cannot spell: '{text}' means {again!r}, not {default!r}")


def _check_type(hint: Any, inside: str = "") -> None:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if len(args) != 2 or type(None) not in args:
            raise TypeError(f"is annotated {hint!r}: use one type, or one type and None")
        _check_type(_plain(hint), inside or "none")
    elif origin is Literal:
        spelled = [format_value(a) for a in args]
        if len(set(spelled)) != len(spelled):
            raise TypeError(f"is annotated {hint!r}, where two choices are spelled alike")
        if inside and any("+" in s or s == "none" for s in spelled):
            raise TypeError(f"is annotated {hint!r}: 'none' and '+' have a meaning of their own there")
    elif origin is tuple and args and inside != "tuple":
        for a in args:
            if a is not Ellipsis:
                _check_type(a, "tuple")
    elif hint is Path and inside == "tuple":
        raise TypeError("is a tuple of paths: use one field for each")
    elif hint not in (bool, int, float, str, Path):
        raise TypeError(f"is annotated {hint!r}: use bool, int, float, str, Path, Literal, tuple or Optional")
