"""Whether a record read from a file holds what its annotations say: Python does not ask, and the store must."""

import dataclasses
import math
import types
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from benchkit.records.gate import TIME, is_text, predictions_path, short

Check = Callable[[Any], bool]


def admit(record: Any) -> None:
    """As `conform`, and a report names no file but its own predictions. Raises ValueError, naming the field."""
    conform(record)
    for artifact in getattr(record, "artifacts", ()):
        if artifact.path != (own := predictions_path(record.uuid)):
            raise ValueError(f"it names the file {short(artifact.path)}, and may name '{own}' alone")


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
        one = _check(inner[0])
        return lambda v: type(v) is list and all(map(one, v))
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

    def conforms(record: Any) -> bool:
        if type(record) is not cls:
            return False
        for holds, value in zip(checks, values(record), strict=True):  # noqa: SIM110  (a report has some hundred)
            if not holds(value):
                return False
        return True

    return conforms


def _is_number(value: Any) -> bool:
    kind = type(value)
    return (kind is float or kind is int) and math.isfinite(value)
