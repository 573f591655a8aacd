"""What a training is told: one TOML file with a table for each part, every field documented, checked and settable.

`read(path, overrides)` reads it; `key=value` on the command line replaces a field by its dotted name
(`data.batch=64`, `model.depth=4`), its value written as in TOML, or as bare text.
"""

import dataclasses
import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchkit import BenchkitError, did_you_mean, param
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.optimisers import Optimiser
from benchkit_birdjepa.parameterisation import Parameterisation
from benchkit_birdjepa.schedules import Schedule


@dataclass(frozen=True)
class DataConfig:
    """What is trained on, and in which order."""

    train: tuple[str, ...] = param(
        help="tasks ('esc50:..', 'hsn,repo=..', 'digits'), 'folder:DIR' of audio or images, or 'cifar100:DIR'"
    )
    labels: bool = param(True, help="false: the labels are withheld, from the online probe too")
    batch: int = param(64, low=1, help="examples a step, on all devices together")
    crop: Literal["recording", "part"] = param(
        "recording", help="where random crops lie: anywhere in a recording, or in the part that its task names"
    )
    shuffle: Literal["full", "window", "none"] = param(
        "full",
        help="full: any order; window: shards in any order, some read at once, then a window; none: as they come",
    )
    shard: int = param(256, low=1, help="examples in a shard, of shuffle=window")
    interleave: int = param(8, low=1, help="shards read side by side, of shuffle=window")
    window: int = param(2048, low=1, help="examples that the next is drawn from, of shuffle=window")
    workers: int = param(2, low=1, help="threads that decode; their number changes no number")
    ahead: int = param(2, low=1, help="batches made before they are asked for")
    max_bad: float = param(0.05, low=0, high=1, help="share of the examples seen that may not decode")
    entropy_warning: float = param(
        0.8,
        low=0,
        high=1,
        help="a warning below this share of the entropy of labels that batches of a full shuffle have",
    )


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of each view, drawn from (seed, epoch, example, view) alone."""

    gain_db: float = param(0.0, low=0, help="audio: louder or softer by up to so much")
    noise_db: float | None = param(None, help="audio: white noise so far below the signal; none is none")
    noise: float = param(0.5, low=0, high=1, help="chance of noise_db")
    shift: bool = param(False, help="audio: the crop is rotated in time by a random amount")
    time_masks: int = param(0, low=0, help="bands of frames that become the spectrogram's minimum")
    time_mask: int = param(64, low=1, help="frames of a band at most")
    freq_masks: int = param(0, low=0, help="bands of mel bins likewise")
    freq_mask: int = param(16, low=1, help="mel bins of a band at most")
    mixup: float = param(0.0, low=0, high=1, help="chance that an example is mixed with another of its batch")
    mixup_alpha: float = param(0.4, above=0, help="of the Beta distribution of the mix")
    flip: bool = param(False, help="images: left and right")
    scale: float = param(1.0, above=0, high=1, help="images: least share of the area that a random crop keeps")
    pad: int = param(0, low=0, help="images: pixels of padding around, before a crop of the first size")


@dataclass(frozen=True)
class PrecisionConfig:
    """Of the arithmetic; weights, moments, norms and losses are float32 always."""

    dtype: Literal["float32", "bfloat16"] = param("float32", help="of matrix products and attention")
    remat: Literal["none", "dots", "full"] = param("none", help="what of a block is computed again on the way back")
    scan: bool = param(True, help="one block is compiled and repeated; false: all, written out")
    matmul: Literal["default", "high", "highest"] = param(
        "default", help="of float32 products, on devices with a choice"
    )


@dataclass(frozen=True)
class ProbeConfig:
    """A linear layer behind a LayerNorm on the detached features, trained beside the encoder."""

    on: bool = param(True, help="where there are labels")
    pool: Literal["cls", "patches"] = param("cls", help="mean of the class tokens, or of the patches")
    lr: float = param(1e-3, above=0, help="of AdamW, constant")
    weight_decay: float = param(1e-7, low=0)


@dataclass(frozen=True)
class GuardConfig:
    """What counts as a step gone wrong, and what is done then."""

    nan: Literal["stop", "skip"] = param("stop", help="where a loss or gradient is not finite")
    spike: float = param(0.0, low=0, help="standard deviations above the loss's running mean; 0: no spike is one")
    on_spike: Literal["stop", "skip"] = param("skip")
    patience: int = param(20, low=0, help="steps before spikes count")
    most_skipped: int = param(100, low=1, help="skipped steps in a row that end the run")


@dataclass(frozen=True)
class CheckpointConfig:
    """When the training is saved, and what stays."""

    every: int = param(500, low=1, help="steps")
    keep: int = param(2, low=1, help="the last so many")
    keep_every: int | None = param(None, low=1, help="and those whose step is a multiple of this")


@dataclass(frozen=True)
class EvaluateConfig:
    """A cell of benchkit on checkpoints, computed in a process of its own."""

    task: str = param(help="as `benchkit run --task` takes it")
    classifier: str = param("knn", help="as --classifier takes it")
    every: int = param(1000, low=1, help="steps; the last is always one")
    n_train: int = param(-1, low=-1)
    seed: int = param(0, low=0)
    pool: Literal["cls", "patches"] = param("cls", help="of the backbone")


@dataclass(frozen=True)
class Settings:
    """A whole training."""

    data: DataConfig
    objective: dict[str, Any] = field(metadata={"help": "name, and its parameters (benchkit objectives --params)"})
    name: str = param("pretraining", help="what tables call it; no part of what it is")
    to: str = param("pretraining", help="folder for checkpoints and logs")
    steps: int = param(1000, low=1, help="of the optimiser")
    seed: int = param(0, low=0, help="of first weights, order, augmentations and masks")
    accumulate: int = param(1, low=1, help="parts that a batch is cut into, one after the other")
    drop_path: float = param(
        0.0, low=0, below=1, help="chance that the last block adds nothing to an example; rises to it through depth"
    )
    start: str | None = param(
        None, help="a checkpoint whose weights, moments and step this one begins with (its schedule decays from there)"
    )
    log_every: int = param(20, low=1, help="steps")
    test_every: int = param(0, low=0, help="steps between tests on the tasks' test rows; 0: none but at the end")
    model: EncoderConfig = field(default_factory=EncoderConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    parameterisation: Parameterisation = field(default_factory=Parameterisation)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluate: tuple[EvaluateConfig, ...] = field(default=(), metadata={"help": "[[evaluate]] tables"})

    def __post_init__(self) -> None:
        if self.data.batch % self.accumulate:
            raise ValueError(f"data.batch={self.data.batch} is no multiple of accumulate={self.accumulate}")
        if "name" not in self.objective:
            raise ValueError("[objective] has no name (benchkit objectives lists them)")

    @property
    def encoder(self) -> EncoderConfig:
        """The model with the parameterisation's factors in its forward pass."""
        return self.parameterisation.scaled(self.model)

    @property
    def objective_spec(self) -> str:
        """As `benchkit.resolve` takes it."""
        from benchkit import format_value

        rest = {k: v for k, v in self.objective.items() if k != "name"}
        given = (f"{k}={format_value(tuple(v) if isinstance(v, list) else v)}" for k, v in rest.items())
        return ",".join([str(self.objective["name"]), *given])

    def identity(self) -> str:
        """16 hexadecimal digits of all that can change a number; the same run under another name or in another folder,
        with other logs, checkpoints or workers, is the same."""
        record = dataclasses.asdict(self)
        for free in ("name", "to", "log_every", "test_every", "checkpoint", "evaluate"):
            record.pop(free)
        for free in ("workers", "ahead", "entropy_warning", "max_bad"):
            record["data"].pop(free)
        text = json.dumps(record, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """Raises BenchkitError, in one line, for what does not read, an unknown field, or a value of a wrong kind."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise BenchkitError(f"cannot read '{path}': {e.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise BenchkitError(f"'{path}' is no TOML: {e}") from None
    for text in overrides:
        _override(table, text)
    return made(table, f"'{path}'")


def made(table: Mapping[str, Any], where: str) -> Settings:
    """Settings of a table as TOML or JSON holds it. Raises BenchkitError."""
    found: Settings = _build(Settings, table, where, "")
    return found


def _override(table: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BenchkitError(f"'{text}' is no key=value, as in data.batch=64")
    *above, last = key.split(".")
    for name in above:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise BenchkitError(f"'{text}': '{name}' is no table, and has no fields")
    try:
        table[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        table[last] = value


def _build(cls: Any, table: Any, where: str, prefix: str) -> Any:
    if not isinstance(table, Mapping):
        raise BenchkitError(f"{where}: {prefix.rstrip('.')} is {table!r:.60}, not a table")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in table:
        if name not in fields:
            raise BenchkitError(f"{where} has no field '{prefix}{name}'{_nearest(prefix + name)}")
    for name, f in fields.items():
        if name not in table and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise BenchkitError(f"{where} must give {prefix}{name}: {f.metadata.get('help', '')}")
    values = {n: _value(hints[n], v, fields[n], where, prefix + n) for n, v in table.items()}
    try:
        return cls(**values)
    except ValueError as e:
        raise BenchkitError(f"{where}: {prefix}{e}") from None


def _value(hint: Any, value: Any, f: "dataclasses.Field[Any]", where: str, name: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, f"{name}.")
    if origin is tuple and dataclasses.is_dataclass(args[0]):
        if not isinstance(value, list):
            raise BenchkitError(f"{where}: {name} is {value!r:.60}, not a list of tables ([[{name}]])")
        return tuple(_build(args[0], one, where, f"{name}[{i}].") for i, one in enumerate(value))
    if hint is dict or origin is dict:
        if not isinstance(value, Mapping):
            raise BenchkitError(f"{where}: {name} is {value!r:.60}, not a table with a name")
        return dict(value)
    made = _plain(hint, value)
    if made is _WRONG:
        raise BenchkitError(f"{where}: {name} is {value!r:.60}, and must be {_words(hint)}{_choices(hint, value)}")
    for number in made if isinstance(made, tuple) else (made,):
        _check_range(f, number, where, name)
    return made


_WRONG = object()


def _plain(hint: Any, value: Any) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or value == "none":
            return None
        found = (_plain(a, value) for a in args if a is not type(None))
        return next((v for v in found if v is not _WRONG), _WRONG)
    if origin is Literal:
        return value if value in args and type(value) in {type(a) for a in args} else _WRONG
    if origin is tuple:
        given = [value] if isinstance(value, str | int | float) else value
        if not isinstance(given, list | tuple):
            return _WRONG
        inner = [args[0]] * len(given) if args[-1] is Ellipsis else list(args)
        if len(inner) != len(given):
            return _WRONG
        parts = [_plain(h, v) for h, v in zip(inner, given, strict=True)]
        return _WRONG if any(p is _WRONG for p in parts) else tuple(parts)
    if hint is float and type(value) is int:
        return float(value)
    return value if type(value) is hint else _WRONG


def _check_range(f: "dataclasses.Field[Any]", number: Any, where: str, name: str) -> None:
    if not isinstance(number, int | float) or isinstance(number, bool):
        return
    bounds = {k: f.metadata.get(k) for k in ("low", "high", "above", "below")}
    fits = {"low": number.__ge__, "high": number.__le__, "above": number.__gt__, "below": number.__lt__}
    words = {"low": "at least", "high": "at most", "above": "above", "below": "below"}
    for which, bound in bounds.items():
        if bound is not None and fits[which](type(number)(bound)) is not True:
            raise BenchkitError(f"{where}: {name} is {number}, and must be {words[which]} {bound}")


def _words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join('"none"' if a is type(None) else _words(a) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return f"a list of {_words(args[0]).removeprefix('a ')}s" if args[-1] is Ellipsis else f"{len(args)} values"
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(hint, str(hint))


def _choices(hint: Any, value: Any) -> str:
    known = [a for a in typing.get_args(hint) if isinstance(a, str)]
    return did_you_mean(str(value), known) if known else ""


def every_field(cls: Any = Settings, prefix: str = "") -> dict[str, "dataclasses.Field[Any]"]:
    """By dotted name, those of all tables."""
    found: dict[str, dataclasses.Field[Any]] = {}
    hints = typing.get_type_hints(cls)
    for f in dataclasses.fields(cls):
        hint = hints[f.name]
        inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else hint
        if dataclasses.is_dataclass(inner):
            found |= every_field(inner, f"{prefix}{f.name}.")
        else:
            found[prefix + f.name] = f
    return found


def _nearest(name: str) -> str:
    known = list(every_field())
    last = name.rpartition(".")[2]
    named = [k for k in known if k.rpartition(".")[2] == last]
    if named:
        return f": it is '{named[0]}'"
    if near := did_you_mean(name, known):
        return near
    short = {k.rpartition(".")[2]: k for k in known}
    return did_you_mean(last, short)
