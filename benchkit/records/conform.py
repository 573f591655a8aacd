"""Whether a record read from a file holds what its annotations say: Python does not ask, and the store must."""

import dataclasses
import math
import types
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Check = Callable[[Any], bool]


def conform(record: Any) -> None:
    """Raises ValueError, naming the field, where the dataclass or one inside of it holds something else.

    A float may be a whole number, and none is NaN or infinite. Fields that end in `_at` are ISO 8601 times.
    """
    cls: Any = type(record)
    for name, holds in _fields(cls):
        if not holds(getattr(record, name)):
            raise ValueError(f"its field '{name}' is {_short(getattr(record, name))}")


@cache
def _fields(cls: Any) -> tuple[tuple[str, Check], ...]:
    hints = get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(cls._fields)
    return tuple((name, _is_time if name.endswith("_at") else _check(hints[name])) for name in names)


@cache
def _check(annotation: Any) -> Check:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return lambda _: True
    if annotation is float:
        return lambda v: type(v) in (float, int) and math.isfinite(v)
    if annotation is type(None):
        return lambda v: v is None
    if annotation in (int, str, bool):
        return lambda v: type(v) is annotation
    if origin is Literal:
        return lambda v: type(v) is str and v in inner
    if origin in (Union, types.UnionType):
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
        cls: Any = annotation
        return lambda v: type(v) is cls and _conforms(v, cls)
    raise TypeError(f"no rule for {annotation}")


def _conforms(record: Any, cls: Any) -> bool:
    return all(holds(getattr(record, name)) for name, holds in _fields(cls))


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (ValueError, TypeError):
        return False
    return True


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
