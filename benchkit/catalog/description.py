"""What a user may want to know of a task, model, probe, scorer or objective before using it, from its class alone."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchkit.catalog.discovery import Provided
from benchkit.catalog.params import default_of, format_value, hints_of
from benchkit.catalog.spec import prefix, presets_of
from benchkit.errors import BenchkitError

_FACTS = ("kind", "modality", "metrics", "modalities", "sample_rate", "needs", "kinds")
"""Class attributes of the four interfaces that are worth telling."""


@dataclass(frozen=True)
class Parameter:
    """One field of a Params dataclass, as it is written in a spec.

    type: "int", "float", "true|false", "a|b" for choices, "path", "int+int" for tuples, "... or none".
    default: its spelling; None where the user must give a value.
    """

    name: str
    type: str
    default: str | None
    low: int | float | None
    high: int | float | None
    help: str

    @property
    def brief(self) -> str:
        return f"{self.name}={self.type.upper() if self.default is None else self.default}"

    @property
    def default_text(self) -> str:
        return "(must be given)" if self.default is None else self.default

    @property
    def range(self) -> str:
        low, high = (None if end is None else format_value(end) for end in (self.low, self.high))
        if low is None and high is None:
            return ""
        return f"{low} to {high}" if low and high else f"from {low}" if low else f"up to {high}"


@dataclass(frozen=True)
class Description:
    """One task, model, classifier, scorer or objective.

    spec: how the name is written, with its distribution where several provide it. error: why it does not load.
    checkpoints: that can be named after a ':', as far as the class says; the default first. presets: likewise, and the
    values that each stands for, as they are written in a spec.
    """

    name: str
    spec: str
    summary: str
    dist: str
    version: str
    target: str
    error: str | None = None
    class_version: int | None = None
    checkpoints: tuple[str, ...] = ()
    presets: dict[str, dict[str, str]] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()
    needs_checkpoint: bool = False
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def usage(self) -> str:
        return f"{self.spec}:NAME" if self.needs_checkpoint else self.spec


def describe(provided: Provided) -> Description:
    """Loads the class, which imports no framework. One that does not load is described with its error."""
    plugin, entry = provided.plugin, provided.entry
    spec = f"{prefix(plugin.dist)}/{provided.name}" if provided.ambiguous else provided.name
    known = Description(provided.name, spec, entry.summary, plugin.dist, plugin.version, entry.target)
    try:
        cls = provided.load()
        parameters = {p.name: p for p in _parameters(cls.Params)}
    except BenchkitError as e:
        return dataclasses.replace(known, error=str(e))
    checkpoint = parameters.pop("checkpoint", None)
    facts = {name.replace("_", " "): _fact(getattr(cls, name, None)) for name in _FACTS}
    return dataclasses.replace(
        known,
        class_version=cls.version,
        checkpoints=_checkpoints(cls.Params, checkpoint) if checkpoint else (),
        presets={
            name: {key: format_value(value) for key, value in values.items()}
            for name, values in presets_of(cls.Params).items()
        },
        parameters=tuple(parameters.values()),
        needs_checkpoint=checkpoint is not None and checkpoint.default is None,
        facts={name: value for name, value in facts.items() if value},
    )


def as_record(description: Description) -> dict[str, Any]:
    """As JSON takes it."""
    return dataclasses.asdict(description)


def _parameters(schema: type) -> list[Parameter]:
    hints = hints_of(schema)
    found = []
    for f in dataclasses.fields(schema):
        default = default_of(f)
        spelled = None if default is dataclasses.MISSING else format_value(default)
        meta = f.metadata
        found.append(
            Parameter(
                f.name, _spelled_type(hints[f.name]), spelled, meta.get("low"), meta.get("high"), meta.get("help", "")
            )
        )
    return found


def _spelled_type(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return f"{_spelled_type(next(a for a in args if a is not type(None)))} or none"
    if origin is Literal:
        return "|".join(format_value(a) for a in args)
    if origin is tuple:
        inner = [_spelled_type(a) for a in args if a is not Ellipsis]
        return "+".join([*inner, "..."] if Ellipsis in args else inner)
    return {bool: "true|false", Path: "path", str: "text"}.get(hint, getattr(hint, "__name__", str(hint)))


def _checkpoints(schema: type, checkpoint: Parameter) -> tuple[str, ...]:
    """The choices where they are a Literal, else the default."""
    hint = hints_of(schema)["checkpoint"]
    choices = [format_value(a) for a in typing.get_args(hint)] if typing.get_origin(hint) is Literal else []
    first = [] if checkpoint.default in (None, "none", "") else [str(checkpoint.default)]
    return tuple(dict.fromkeys([*first, *choices]))


def _fact(value: Any) -> str:
    if value is None or isinstance(value, property):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
