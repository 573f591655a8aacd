"""Specs: `name[:checkpoint][,key=value]*`, from what a user types to the canonical string that names a cell.

    RawSpec.parse("bird-mae:large,pool=cls")       syntax only; parse and str are inverse
    resolve("model", "bird-mae:large,pool=cls")    checked against the plugin's Params, canonical, ready to build

The canonical form sorts the keys, drops values equal to their default, writes `name@2` for a plugin at version 2, and
puts a fingerprint of the contents in place of a path. Two spellings of one thing are one string; everything that can
change a number is in it. No character of it needs quoting in a shell.
"""

import dataclasses
import math
import re
import types
import typing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

from benchkit.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    from benchkit.plugins import Catalog

Kind = Literal["task", "model", "classifier", "scorer"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_KEY = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE = "/:+@."  # beside letters, digits and _ . - ~, which quote() always keeps


@dataclass(frozen=True)
class NoParams:
    """The parameters of a plugin class that has none."""


def param(
    default: Any = dataclasses.MISSING,
    *,
    help: str = "",
    low: float | None = None,
    high: float | None = None,
    place: tuple[str, ...] | None = None,
) -> Any:
    """A field of a Params dataclass.

    help: one line for `benchkit models --params` and its like.
    low, high: the range of a number, ends included.
    place: makes a `str` field one that may name a local file or folder, or else something remote; for `str` and `Path`
        alike it lists the glob patterns of what is fingerprinted in a folder (everything, where it is not given).
    """
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "place": place})


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
        head, *pairs = text.split(",")
        head, colon, checkpoint = head.partition(":")
        dist, slash, name = head.rpartition("/")
        name, at, version = name.partition("@")
        if not _NAME.fullmatch(name):
            raise SpecError(
                f"'{text}' is no spec: it must begin with a name (lower case), as in 'bird-mae:large,pool=cls'"
            )
        if slash and not _NAME.fullmatch(dist):
            raise SpecError(f"'{text}' is no spec: '{dist}' is no name of a distribution")
        if at and not (version.isascii() and version.isdigit() and not version.startswith("0")):
            raise SpecError(f"'{text}' is no spec: the version after '@' must be a number from 1, not '{version}'")
        if colon and not checkpoint:
            raise SpecError(f"'{text}' is no spec: nothing follows the ':' (leave it out for the default)")
        params: dict[str, str] = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not _KEY.fullmatch(key):
                raise SpecError(f"'{text}' is no spec: '{pair}' is no key=value (a comma in a value is written %2C)")
            if key in params:
                raise SpecError(f"'{text}' is no spec: '{key}' is given twice")
            if key == "checkpoint":
                raise SpecError(f"'{text}' is no spec: write the checkpoint as '{name}:{value}'")
            params[key] = _unescape(value, text)
        return RawSpec(
            name=name,
            dist=dist if slash else None,
            version=int(version) if at else None,
            checkpoint=_unescape(checkpoint, text) if colon else None,
            params=tuple(sorted(params.items())),
        )

    def __str__(self) -> str:
        dist = f"{self.dist}/" if self.dist else ""
        version = f"@{self.version}" if self.version else ""
        checkpoint = "" if self.checkpoint is None else f":{quote(self.checkpoint, safe=_SAFE)}"
        params = "".join(f",{k}={quote(v, safe=_SAFE)}" for k, v in sorted(self.params))
        return f"{dist}{self.name}{version}{checkpoint}{params}"


def _unescape(value: str, text: str) -> str:
    if _ESCAPE.search(value):
        raise SpecError(f"'{text}' is no spec: a '%' in a value is written %25")
    try:
        decoded = unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise SpecError(f"'{text}' is no spec: '{value}' does not decode as UTF-8") from None
    if not decoded.isprintable():
        raise SpecError(f"'{text}' is no spec: '{value}' holds a character that cannot be printed")
    return decoded


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

    def _format(self, place: "typing.Callable[[dataclasses.Field[Any], Any], str]") -> str:
        given: dict[str, str] = {}
        for field, value in _non_defaults(self.params):
            given[field.name] = place(field, value) if _is_local_place(field, value) else format_value(value)
        checkpoint = given.pop("checkpoint", None)
        version = self.cls.version if self.cls.version > 1 else None
        return str(RawSpec(self.name, self.qualifier, version, checkpoint, tuple(given.items())))

    def describe(self) -> dict[str, Any]:
        """Every parameter with its value, defaults too, as JSON takes it: the record kept in a Report."""
        return {f.name: _jsonable(getattr(self.params, f.name)) for f in dataclasses.fields(self.params)}


def resolve(kind: Kind, text: str, catalog: "Catalog | None" = None) -> Spec:
    """Looks `text` up among the plugins and checks its parameters.

    Raises SpecError for an unknown name, parameter or value, PluginError where the plugin does not load.
    """
    from benchkit.plugins import discover

    raw = RawSpec.parse(text)
    provided = (catalog or discover()).find(kind, raw.name, raw.dist)
    cls = provided.load()
    if raw.version is not None and raw.version != cls.version:
        raise SpecError(
            f"{kind} '{raw.name}' is at version {cls.version} here, not {raw.version}: old results stay in the "
            f"registry, new ones are of '{raw.name}{f'@{cls.version}' if cls.version > 1 else ''}'"
        )
    params = parse_params(kind, raw, cls.Params)
    dist = f"{provided.plugin.dist} {provided.plugin.version}"
    return Spec(kind, raw.name, dist, cls, params, provided.plugin.dist if provided.ambiguous else None)


def parse_params(kind: str, raw: RawSpec, schema: type) -> Any:
    """An instance of the frozen dataclass `schema` from the spec's text values. Raises SpecError."""
    hints = typing.get_type_hints(schema)
    fields = {f.name: f for f in dataclasses.fields(schema)}
    given = dict(raw.params)
    if raw.checkpoint is not None:
        if "checkpoint" not in fields:
            raise SpecError(f"{kind} '{raw.name}' has no checkpoints; '{raw.name}:{raw.checkpoint}' names one")
        given["checkpoint"] = raw.checkpoint
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in fields:
            known = sorted(set(fields) - {"checkpoint"})
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise SpecError(f"{kind} '{raw.name}' has no parameter '{key}'{did_you_mean(key, known)} ({has})")
        try:
            values[key] = _check_range(fields[key], parse_value(text, hints[key]))
        except ValueError as e:
            where = "checkpoint" if key == "checkpoint" else f"parameter '{key}'"
            raise SpecError(f"{kind} '{raw.name}': {where} {e}") from None
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            usage = f"'{raw.name}:NAME'" if name == "checkpoint" else f"'{raw.name},{name}=...'"
            raise SpecError(
                f"{kind} '{raw.name}' needs {name}, as in {usage}"
                f"{': ' + field.metadata['help'] if field.metadata.get('help') else ''}"
            )
    try:
        return schema(**values)
    except ValueError as e:
        raise SpecError(f"{kind} '{raw.name}': {e}") from None


def parse_value(text: str, hint: Any) -> Any:
    """`text` as a value of the annotated type. Raises ValueError with the rest of a sentence."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in args and text.lower() == "none":
            return None
        (inner,) = [a for a in args if a is not type(None)]
        return parse_value(text, inner)
    if origin is Literal:
        for choice in args:
            if format_value(choice) == text:
                return choice
        known = [format_value(a) for a in args]
        raise ValueError(f"is '{text}', which is none of {', '.join(known)}{did_you_mean(text, known)}")
    if origin is tuple:
        return tuple(parse_value(t, args[0]) for t in text.split("+")) if text else ()
    if hint is bool:
        if text.lower() in ("true", "yes", "on", "1"):
            return True
        if text.lower() in ("false", "no", "off", "0"):
            return False
        raise ValueError(f"is '{text}', not true or false")
    if hint is int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
            raise ValueError(f"is '{text}', not a whole number")
        return int(text)
    if hint is float:
        if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII) or not math.isfinite(float(text)):
            raise ValueError(f"is '{text}', not a finite number")
        return float(text) + 0.0  # -0.0 is 0.0
    if hint is Path:
        if not text:
            raise ValueError("is empty, not a path")
        path = Path(text).expanduser()
        if not path.exists():
            raise ValueError(f"is '{text}': there is no such file or folder ({path.absolute()})")
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


def _check_range(field: "dataclasses.Field[Any]", value: Any) -> Any:
    low, high = field.metadata.get("low"), field.metadata.get("high")
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, (int, float)):
            continue
        if low is not None and number < low:
            raise ValueError(f"is {format_value(number)}, below the least allowed, {format_value(low)}")
        if high is not None and number > high:
            raise ValueError(f"is {format_value(number)}, above the most allowed, {format_value(high)}")
    return value


def _non_defaults(params: Any) -> "typing.Iterator[tuple[dataclasses.Field[Any], Any]]":
    for field in dataclasses.fields(params):
        value = getattr(params, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if default is dataclasses.MISSING or format_value(value) != format_value(default):
            yield field, value


def _is_local_place(field: "dataclasses.Field[Any]", value: Any) -> bool:
    if isinstance(value, Path):
        return True
    return isinstance(value, str) and field.metadata.get("place") is not None and Path(value).expanduser().exists()


def _canonical_place(field: "dataclasses.Field[Any]", value: Any) -> str:
    from benchkit.fingerprint import fingerprint_path

    return f"fp-{fingerprint_path(Path(value).expanduser(), field.metadata.get('place') or ('**/*',))}"


def _portable_place(field: "dataclasses.Field[Any]", value: Any) -> str:
    return str(Path(value).expanduser().absolute())


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
