"""Specs: `name[:checkpoint][,key=value]*`, from what a user types to the canonical string that names a cell.

    RawSpec.parse("bird-mae:large,pool=cls")       syntax only; parse and str are inverse
    catalog.resolve.resolve("model", "bird-mae:large,pool=cls")    checked against the plugin's Params, ready to build

The canonical form sorts the keys, drops values equal to their default, writes `name@2` for a plugin at version 2, and
puts a fingerprint of the contents in place of a path. Two spellings of one thing are one string; everything that can
change a number is in it. No character of it needs quoting in a shell.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

from benchkit.catalog.params import (
    KEY,
    check_range,
    default_of,
    format_value,
    hints_of,
    is_place,
    local_path,
    param,
    parse_value,
)
from benchkit.errors import BenchkitError, PluginError, SpecError, did_you_mean
from benchkit.machine.home import expanded

Kind = Literal["task", "model", "classifier", "scorer", "objective"]

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_DIST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
FINGERPRINT = re.compile(r"fp-[0-9a-f]{16}")
_SHOWN = 120
"""Characters of a wrong spec that an error message repeats."""


@dataclass(frozen=True)
class RawSpec:
    """A spec as syntax: nothing in it is known to exist."""

    name: str
    dist: str | None = None
    version: int | None = None
    checkpoint: str | None = None
    params: tuple[tuple[str, str], ...] = ()

    @staticmethod
    def parse(text: str) -> "RawSpec":
        """Raises SpecError where `text` is no `[distribution/]name[@version][:checkpoint][,key=value]*`."""
        text = text.strip()
        wrong = f"'{_shown(text)}' is no spec"
        if not text.isprintable():
            raise SpecError(f"{wrong}: it holds a character that cannot be printed")
        head, *pairs = text.split(",")
        head, colon, checkpoint = head.partition(":")
        dist, slash, name = head.rpartition("/")
        name, at, version = name.partition("@")
        if not NAME.fullmatch(name):
            raise SpecError(f"{wrong}: it must begin with a name (lower case), as in 'bird-mae:large,pool=cls'")
        if slash and not _DIST.fullmatch(dist):
            raise SpecError(f"{wrong}: '{_shown(dist)}' is no name of a distribution")
        if at and not _VERSION.fullmatch(version):
            raise SpecError(f"{wrong}: the version after '@' must be a number from 1, not '{_shown(version)}'")
        if colon and not checkpoint:
            raise SpecError(f"{wrong}: nothing follows the ':' (leave it out for the default)")
        params: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not KEY.fullmatch(key):
                raise SpecError(f"{wrong}: '{_shown(pair)}' is no key=value (a comma in a value is written %2C)")
            if key in params:
                raise SpecError(f"{wrong}: '{key}' is given twice")
            if key == "checkpoint":
                raise SpecError(f"{wrong}: write the checkpoint as '{name}:{_shown(value)}'")
            params[key] = _unescape(value, wrong)
        return RawSpec(
            name=name,
            dist=prefix(dist) if slash else None,
            version=int(version) if at else None,
            checkpoint=_unescape(checkpoint, wrong) if colon else None,
            params=tuple(sorted(params.items())),
        )

    def __str__(self) -> str:
        dist = f"{self.dist}/" if self.dist else ""
        version = f"@{self.version}" if self.version else ""
        checkpoint = "" if self.checkpoint is None else f":{_escape(self.checkpoint)}"
        params = "".join(f",{k}={_escape(v)}" for k, v in sorted(self.params))
        return f"{dist}{self.name}{version}{checkpoint}{params}"


def normalised(dist: str) -> str:
    """A distribution's name as package indexes compare it: `My_Plugin` and `my-plugin` are one (PEP 503)."""
    return re.sub(r"[-_.]+", "-", dist).lower()


def prefix(dist: str) -> str:
    """A distribution as specs write it, before the '/'. The core's is `benchkit-core`, and was `benchkit` at first:
    names of cells in registries keep that."""
    name = normalised(dist)
    return "benchkit" if name == "benchkit-core" else name


def unqualified(name: str) -> str:
    """A canonical name without the distribution before it."""
    head, comma, rest = name.partition(",")
    first, colon, checkpoint = head.partition(":")
    return first.rpartition("/")[2] + colon + checkpoint + comma + rest


def _escape(value: str) -> str:
    # quote() keeps letters, digits and _ . - of ASCII, and ~, which a shell may take for a home folder.
    return quote(value, safe="/:+@", errors="surrogateescape").replace("~", "%7E")


def _unescape(value: str, wrong: str) -> str:
    if _ESCAPE.search(value):
        raise SpecError(f"{wrong}: a '%' in a value is written %25")
    try:
        decoded = unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise SpecError(f"{wrong}: '{_shown(value)}' does not decode as UTF-8") from None
    if not decoded.isprintable():
        raise SpecError(f"{wrong}: '{_shown(value)}' holds a character that cannot be printed")
    return decoded


def _shown(text: str) -> str:
    """`text` as an error message can hold it: on one line, printable, and not longer than that."""
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@dataclass(frozen=True)
class Spec:
    """A spec checked against the plugin class it names."""

    kind: Kind
    name: str
    dist: str
    """Distribution and version that provide it, for the record: 'benchkit-baselines 0.1.0'."""
    cls: Any
    params: Any
    qualifier: str | None = None
    """The distribution, where several provide this name and the user chose one."""

    def build(self) -> Any:
        """The backbone, task, classifier or scorer itself; cheap, loads no data or weights."""
        return self.cls(self.params)

    @cached_property
    def canonical(self) -> str:
        """The string that names this in the store. Reads the files that a place parameter names (cached by stat)."""
        return self._format(_canonical_place)

    @cached_property
    def portable(self) -> str:
        """A spelling that means the same from any working directory: places as absolute paths."""
        return self._format(_portable_place)

    def _format(self, place: "Callable[[dataclasses.Field[Any], Any], str]") -> str:
        schema: type = type(self.params)
        hints = hints_of(schema)
        preset, base = _nearest_preset(self.params)
        given: dict[str, str] = {}
        for field in dataclasses.fields(self.params):
            value = getattr(self.params, field.name)
            if is_place(field, hints[field.name]) and _is_local(value):
                given[field.name] = place(field, value)  # by default too: what is there may change
            elif _differs(field, value, base):
                given[field.name] = format_value(value)
        checkpoint = given.pop("checkpoint", preset)
        version = self.cls.version if self.cls.version > 1 else None
        return str(RawSpec(self.name, self.qualifier, version, checkpoint, tuple(given.items())))

    def describe(self) -> dict[str, Any]:
        """Every parameter with its value, defaults too, as JSON takes it: the record kept in a Report."""
        return {f.name: _jsonable(getattr(self.params, f.name)) for f in dataclasses.fields(self.params)}


def parse_params(kind: str, raw: RawSpec, schema: type) -> Any:
    """An instance of the frozen dataclass `schema` from the spec's text values.

    Raises SpecError for what the user wrote, PluginError for a schema that cannot work.
    """
    hints = hints_of(schema)
    fields = {f.name: f for f in dataclasses.fields(schema)}
    given = dict(raw.params)
    values: dict[str, Any] = {}
    if raw.checkpoint is not None and "checkpoint" in fields:
        given["checkpoint"] = raw.checkpoint
    elif raw.checkpoint is not None:
        values.update(_preset(kind, raw, presets_of(schema)))
    for key, text in given.items():
        if key not in fields:
            known = sorted(set(fields) - {"checkpoint"})
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise SpecError(f"{kind} '{raw.name}' has no parameter '{_shown(key)}'{did_you_mean(key, known)} ({has})")
        try:
            if is_place(fields[key], hints[key]):
                text = _located(text)
            values[key] = check_range(fields[key], parse_value(text, hints[key]))
        except ValueError as e:
            where = "checkpoint" if key == "checkpoint" else f"parameter '{key}'"
            raise SpecError(f"{kind} '{raw.name}': {where} {e}") from None
    for name, field in fields.items():
        if name not in values and default_of(field) is dataclasses.MISSING:
            usage = f"'{raw.name}:NAME'" if name == "checkpoint" else f"'{raw.name},{name}=...'"
            raise SpecError(
                f"{kind} '{raw.name}' needs {name}, as in {usage}"
                f"{': ' + field.metadata['help'] if field.metadata.get('help') else ''}"
            )
    try:
        return schema(**values)
    except BenchkitError:
        raise  # says already what is wrong with what
    except ValueError as e:
        raise SpecError(f"{kind} '{raw.name}': {_shown(str(e))}") from None
    except Exception as e:
        raise PluginError(f"{kind} '{raw.name}': its Params raise {type(e).__name__}: {_shown(str(e))}") from e


def presets_of(schema: type) -> Mapping[str, Mapping[str, Any]]:
    """The presets of a Params dataclass: its class attribute PRESETS, {name: {field: value}}.

    A preset is written where a checkpoint is, `linear:bird-mae,lr=0.001`, and only stands for its values. It is for
    classes without checkpoints.
    """
    presets: Mapping[str, Mapping[str, Any]] = getattr(schema, "PRESETS", {})
    return presets


def _preset(kind: str, raw: RawSpec, presets: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    assert raw.checkpoint is not None
    if not presets:
        raise SpecError(f"{kind} '{raw.name}' has no checkpoints; '{_shown(str(raw))}' names one")
    if raw.checkpoint not in presets:
        near = did_you_mean(raw.checkpoint, presets)
        has = f"it has {', '.join(sorted(presets))}"
        raise SpecError(f"{kind} '{raw.name}' has no preset '{_shown(raw.checkpoint)}'{near} ({has})")
    return presets[raw.checkpoint]


def _nearest_preset(params: Any) -> tuple[str | None, Mapping[str, Any]]:
    """The preset that takes the fewest further values to spell `params`; of equals the defaults, then the first.

    It depends on the values alone, so that a preset spelled out and the preset's name are one canonical form.
    """
    choices: dict[str | None, Mapping[str, Any]] = {None: {}}
    choices.update(presets_of(type(params)))

    def further(name: str | None) -> int:
        return sum(_differs(f, getattr(params, f.name), choices[name]) for f in dataclasses.fields(params))

    nearest = min(choices, key=further)
    return nearest, choices[nearest]


def _differs(field: "dataclasses.Field[Any]", value: Any, base: Mapping[str, Any]) -> bool:
    default = base.get(field.name, default_of(field))
    return default is dataclasses.MISSING or format_value(value) != format_value(default)


def _located(text: str) -> str:
    """A place from any working directory: its absolute path where it is local, else what the user wrote."""
    if (path := local_path(text)) is not None:
        return str(path.absolute())
    if FINGERPRINT.fullmatch(text):
        raise ValueError(f"is '{text}', the fingerprint of a file or folder: give its path")
    return text


def _is_local(value: Any) -> bool:
    return isinstance(value, Path) or (isinstance(value, str) and local_path(value) is not None)


def _canonical_place(field: "dataclasses.Field[Any]", value: Any) -> str:
    from benchkit.media.fingerprint import fingerprint_path

    return f"fp-{fingerprint_path(expanded(value), field.metadata.get('place') or ('**/*',))}"


def _portable_place(field: "dataclasses.Field[Any]", value: Any) -> str:
    return str(expanded(value).absolute())


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


__all__ = [
    "NAME", "Kind", "RawSpec", "Spec", "format_value", "local_path", "normalised", "param", "parse_params",
    "parse_value", "prefix", "presets_of", "unqualified",
]  # fmt: skip
