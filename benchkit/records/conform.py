"""Whether a record read from a file holds what its annotations say: Python does not ask, and the store must."""

import dataclasses
import math
import types
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from benchkit.records.gate import TEXT_CHARACTERS, TIME, is_text, own_paths, short

Check = Callable[[Any], bool]
Column = Callable[[Sequence[Any]], bool]
"""Likewise of many values at once, at least one: a report has hundreds, mostly of its classes."""


def admit(record: Any) -> None:
    """As `conform`, and a report names no file but its own predictions. Raises ValueError, naming the field."""
    conform(record)
    for artifact in getattr(record, "artifacts", ()):
        if artifact.path not in (own := own_paths(record.uuid)):
            raise ValueError(f"it names the file {short(artifact.path)}, and may name '{own[0]}' alone")


def conform(record: Any) -> None:
    """Raises ValueError, naming the field, where the dataclass or one inside of it holds something else.

    A float may be a whole number, and none is NaN or infinite. Fields that end in `_at` are times as benchkit writes
    them. What is annotated with a Kind (benchkit.records.gate) is of that kind.
    """
    cls: Any = type(record)
    names, checks, values = _fields(cls)
    for name, holds, value in zip(names, checks, values(record), strict=True):
        if not holds(value):
            raise ValueError(f"its field '{name}' is {short(value)}")


@cache
def _fields(cls: Any) -> tuple[tuple[str, ...], tuple[Check, ...], Callable[[Any], tuple[Any, ...]]]:
    """Names, what each must hold, and how all are got of a record at once."""
    hints = get_type_hints(cls, include_extras=True)
    names = tuple(f.name for f in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else tuple(cls._fields)
    checks = tuple(TIME if name.endswith("_at") else _check(hints[name]) for name in names)
    return names, checks, attrgetter(*names)


@cache
def _check(annotation: Any) -> Check:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return lambda _: True
    if origin is Annotated:
        kind: Check = annotation.__metadata__[0]
        return kind
    if annotation is str:
        return is_text
    if annotation is float:
        return _is_number
    if annotation is type(None):
        return lambda v: v is None
    if annotation is int:
        return lambda v: type(v) is int and -(2**63) <= v < 2**63
    if annotation is bool:
        return lambda v: type(v) is annotation
    if origin is Literal:
        return lambda v: type(v) is str and v in inner
    if origin in (Union, types.UnionType):
        several = tuple(_check(one) for one in inner if one is not type(None))
        if len(several) == 1 and type(None) in inner:
            (only,) = several
            return lambda v: v is None or only(v)
        several = tuple(map(_check, inner))
        return lambda v: any(holds(v) for holds in several)
    if origin is list:
        column = _column(inner[0])
        return lambda v: type(v) is list and (not v or column(v))
    if origin is tuple:
        each = tuple(map(_check, inner))
        return lambda v: type(v) is tuple and len(v) == len(each) and all(c(x) for c, x in zip(each, v, strict=True))
    if origin is dict:
        value = _check(inner[1])
        return lambda v: type(v) is dict and all(type(k) is str and value(x) for k, x in v.items())
    if isinstance(annotation, type) and (dataclasses.is_dataclass(annotation) or issubclass(annotation, tuple)):
        return _conforming(annotation)
    raise TypeError(f"no rule for {annotation}")


def _conforming(cls: Any) -> Check:
    _, checks, values = _fields(cls)
    return lambda v: type(v) is cls and all(holds(x) for holds, x in zip(checks, values(v), strict=True))


@cache
def _column(annotation: Any) -> Column:
    """What `_check` says of each value."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is str:
        return _are_texts
    if annotation is float:
        return _are_numbers
    if origin in (Union, types.UnionType) and len(inner) == 2 and type(None) in inner:
        only = _column(next(one for one in inner if one is not type(None)))
        return lambda column: not (there := [v for v in column if v is not None]) or only(there)
    if origin is dict and inner[1] is Any:
        return lambda column: {*map(type, column)} == {dict} and {*map(type, chain(*column))} <= {str}
    if isinstance(annotation, type) and (dataclasses.is_dataclass(annotation) or issubclass(annotation, tuple)):
        return _conforming_column(annotation)
    one = _check(annotation)
    return lambda column: all(map(one, column))


def _conforming_column(cls: Any) -> Column:
    names, checks, values = _fields(cls)
    hints = get_type_hints(cls, include_extras=True)
    columns = [check if check is TIME else _column(hints[name]) for name, check in zip(names, checks, strict=True)]

    def conform(records: Sequence[Any]) -> bool:
        if {*map(type, records)} != {cls}:
            return False
        of_fields = zip(*map(values, records), strict=True)
        return all(holds(column) for holds, column in zip(columns, of_fields, strict=True))

    return conform


def _are_texts(column: Sequence[Any]) -> bool:
    if {*map(type, column)} != {str}:
        return False
    together = "".join(column)
    return (len(together) <= TEXT_CHARACTERS and together.isascii()) or all(map(is_text, column))


def _are_numbers(column: Sequence[Any]) -> bool:
    if {*map(type, column)} == {float}:
        return all(map(math.isfinite, column))
    return all(map(_is_number, column))


def _is_number(value: Any) -> bool:
    kind = type(value)
    return (kind is float and math.isfinite(value)) or (kind is int and -LARGEST <= value <= LARGEST)


LARGEST = 2**1023
"""A whole number that a float can hold."""
