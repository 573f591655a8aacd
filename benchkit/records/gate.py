"""The one gate: every value that comes out of a file of others is held against its type here before it is believed.

A registry, a sealed report, a job file, a submission, a recording may come from somebody else, or be damaged. A `Kind`
says what one value must be; records declare theirs in their annotations (benchkit.records.conform holds them against
these), the registry's columns theirs in benchkit.store.columns. What does not pass is one line that names the field.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from benchkit.errors import StoreError

SEALED_BYTES = 64 << 20
"""Of a sealed record at most; ten thousand classes with ten metrics each take 8 MB."""
SMALL_BYTES = 1 << 20
"""Of a file in which there are a few words: what a job says of its end, a note of which files were fetched."""
TEXT_CHARACTERS = 1 << 20
JSON_CHARACTERS = 16 << 20
DEPTH = 64
"""Brackets within brackets, in JSON."""


class Refused(StoreError):
    """A value is not what its place says. Also where it was damaged."""


@dataclass(frozen=True)
class Kind:
    """What a value must be. what: in words, after "must be". plain: its type, of which every value holds unless
    `holds` is given."""

    what: str
    plain: type
    holds: Callable[[Any], bool] | None = None
    optional: bool = False

    def or_none(self) -> "Kind":
        return Kind(f"{self.what}, or nothing", self.plain, self.holds, True)

    def __call__(self, value: Any) -> bool:
        if value is None:
            return self.optional
        return type(value) is self.plain and (self.holds is None or self.holds(value))

    def wrong(self, column: Sequence[Any]) -> int | None:
        """The place of the first value of a column that is not of this kind."""
        types = set(map(type, column))
        if types <= ({self.plain, type(None)} if self.optional else {self.plain}) and self.holds is None:
            return None
        return next((i for i, v in enumerate(column) if not ((v is None and self.optional) or self(v))), None)


_UUID = re.compile(r"[0-9a-f]{32}")
_TASK_OF = re.compile(r"[0-9a-f]{32}-[0-9]{1,9}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PREDICTIONS = re.compile(r"predictions/[0-9a-f]{32}\.(parquet|replicates)")
_NAME = re.compile(r"benchkit-[0-9a-f]{8}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\+-]{0,255}")
_TIME = re.compile(r"(19[7-9]\d|20\d\d)-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?\+00:00")
_PRINT = re.compile(r"fp-[0-9a-f]{16}")
_JOB = re.compile(r"[0-9]{1,19}(_[0-9]{1,9})?")


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:  # 30 February
        return False
    return True


def is_text(value: Any) -> bool:
    """Whether it is text that a registry can hold, and of a length that makes sense."""
    return type(value) is str and len(value) <= TEXT_CHARACTERS and (value.isascii() or _is_utf8(value))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return False
    return True


def _is_json(text: str) -> bool:
    try:
        strict_json(text)
    except ValueError:
        return False
    return True


def _is_object(text: str) -> bool:
    try:
        return type(strict_json(text)) is dict
    except ValueError:
        return False


def _is_list(text: str) -> bool:
    try:
        return type(strict_json(text)) is list
    except ValueError:
        return False


UUID = Kind("32 hexadecimal digits", str, lambda v: _UUID.fullmatch(v) is not None)
OWNER = Kind(
    "32 hexadecimal digits, for a job with its number", str,
    lambda v: (_UUID.fullmatch(v) or _TASK_OF.fullmatch(v)) is not None,
)  # fmt: skip
SHA256 = Kind("a SHA-256 in 64 hexadecimal digits", str, lambda v: _SHA256.fullmatch(v) is not None)
TIME = Kind("a time in UTC as in 2026-01-31T12:00:00.000000+00:00", str, _is_time)
JOB = Kind("the number of a Slurm job", str, lambda v: _JOB.fullmatch(v) is not None)
SUBMISSION = Kind(
    "slurm/ and 32 hexadecimal digits", str,
    lambda v: v.startswith("slurm/") and _UUID.fullmatch(v[6:]) is not None,
)  # fmt: skip
PREDICTIONS = Kind(
    "predictions/, 32 hexadecimal digits and .parquet or .replicates", str,
    lambda v: _PREDICTIONS.fullmatch(v) is not None,
)  # fmt: skip
SUBMISSION_NAME = Kind("benchkit- and 8 hexadecimal digits", str, lambda v: _NAME.fullmatch(v) is not None)
USER = Kind("the name of a user", str, lambda v: _USER.fullmatch(v) is not None)
TEXT = Kind(f"text of at most {TEXT_CHARACTERS:,} characters", str, is_text)
JSON = Kind("JSON", str, _is_json)
OBJECT = Kind("a JSON object", str, _is_object)
LIST = Kind("a JSON list", str, _is_list)
INTEGER = Kind("a whole number", int, lambda v: -(2**63) <= v < 2**63)
COUNT = Kind("a whole number from 0", int, lambda v: 0 <= v < 2**63)
FLAG = Kind("0 or 1", int, lambda v: v in (0, 1))
REAL = Kind("a finite number", float, math.isfinite)
COLUMN = Kind("task, model or classifier", str, lambda v: v in ("task", "model", "classifier"))
PRINT = Kind("fp- and 16 hexadecimal digits", str, lambda v: _PRINT.fullmatch(v) is not None)
STATUS = Kind("ok, warn or fail", str, lambda v: v in ("ok", "warn", "fail"))

Uuid = Annotated[str, UUID]
"""For the annotations of records."""
Sha256 = Annotated[str, SHA256]


def predictions_path(uuid: str) -> str:
    """The one name that the predictions of a report have, in the folder beside the registry."""
    return f"predictions/{uuid}.parquet"


def replicates_path(uuid: str) -> str:
    """And its replicates."""
    return f"predictions/{uuid}.replicates"


def own_paths(uuid: str) -> tuple[str, str]:
    """The files that a report may name."""
    return predictions_path(uuid), replicates_path(uuid)


def strict_json(text: str) -> Any:
    """What `text` says. Raises ValueError where it is no JSON, has NaN or infinity, which JSON does not know, is nested
    deeper than DEPTH, or is longer than SEALED_BYTES."""
    if len(text) > SEALED_BYTES:
        raise ValueError(f"it is longer than {SEALED_BYTES:,} characters")
    if text.count("[") + text.count("{") > DEPTH and _depth(text) > DEPTH:
        raise ValueError(f"it is nested deeper than {DEPTH}")

    return _DECODER.decode(text)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")


def _depth(text: str) -> int:
    """How deep brackets lie within brackets, those in strings left out."""
    deepest = depth = 0
    for bracket in _NO_BRACKETS.sub("", _STRINGS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def hold(rows: Sequence[Sequence[Any]], columns: Sequence[tuple[str, Kind]], what: str) -> None:
    """Holds rows against the kinds of their columns; `what` names the rows, as "runs". Raises Refused."""
    for j, (name, kind) in enumerate(columns):
        i = kind.wrong([row[j] for row in rows])
        if i is not None:
            raise Refused(f"{what}: {name} is {short(rows[i][j])}, and must be {kind.what}")


def short(value: Any) -> str:
    """A value as a line shows it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
