"""What a run keeps for intervals, as a file of 8 kB beside its predictions: its score on each resample of its test set.

Two lines, what it is and what is said of it as JSON, and then the numbers as 64-bit floats, little-endian.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int

from benchkit.errors import StoreError
from benchkit.interfaces import Labels
from benchkit.metrics.uncertainty import Kept
from benchkit.records.gate import SMALL_BYTES, strict_json

RESAMPLES = 1
"""The version of how examples are drawn: part of what two runs must have in common."""
_FIRST = b"benchkit replicates 1\n"
MOST = 64 << 20
"""Bytes of such a file: eight million resamples."""


@dataclass(frozen=True, eq=False)
class Replicates:
    """metric: the primary one. kept: its resamples. notes: what is to be said of the interval, a sentence each."""

    metric: str
    kept: Kept
    notes: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        kept = self.kept
        said = {
            "metric": self.metric, "value": kept.value, "effective": kept.effective, "df": kept.df, "same": kept.same,
            "answers": kept.answers, "bias": kept.bias, "notes": list(self.notes), "replicates": len(kept.drawn),
        }  # fmt: skip
        return _FIRST + json.dumps(said, allow_nan=False).encode() + b"\n" + kept.drawn.astype("<f8").tobytes()


def from_bytes(data: bytes) -> Replicates:
    """Raises StoreError where these are none."""
    try:
        if not data.startswith(_FIRST) or len(data) > MOST:
            raise ValueError("no file of replicates")
        line, found, rest = data[len(_FIRST) :].partition(b"\n")
        if not found or len(line) > SMALL_BYTES:
            raise ValueError("it is cut off")
        said = strict_json(line.decode())
        numbers = [said[name] for name in ("value", "effective", "df")]
        texts = [*(said[name] for name in ("metric", "same", "answers")), *said["notes"]]
        bias = said["bias"]
        if not all(type(n) in (int, float) and math.isfinite(n) for n in [*numbers, *([] if bias is None else [bias])]):
            raise ValueError("a number is none")
        if not all(type(t) is str for t in texts) or len(rest) != 8 * said["replicates"]:
            raise ValueError("it is not what it says")
        value, effective, df = map(float, numbers)
        drawn = np.frombuffer(rest, "<f8").astype(np.float64)
        if np.isinf(drawn).any() or not effective >= 1 or not df >= 1:
            raise ValueError("a number is out of range")
        kept = Kept(value, drawn, effective, df, said["same"], said["answers"], None if bias is None else float(bias))
        return Replicates(said["metric"], kept, tuple(said["notes"]))
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as e:
        raise StoreError(f"these are no replicates of benchkit's: {e}") from e


def same_tests(
    ids: Sequence[str], folds: Int[np.ndarray, " N"], labels: Labels, groups: Sequence[str] | None, *rest: int
) -> str:
    """Equal for the same test examples in the same order, folds and recordings, and the same resamples of them."""
    made = hashlib.sha256(json.dumps([list(ids), None if groups is None else list(groups), *rest]).encode())
    made.update(np.ascontiguousarray(folds, "<i4").tobytes())
    made.update(np.ascontiguousarray(labels, "<i8" if labels.ndim == 1 else "u1").tobytes())
    return made.hexdigest()


def answers(scores: Float32[np.ndarray, "N C"]) -> str:
    """Equal for equal predictions: scores may be equal by chance, these are not."""
    return hashlib.sha256(np.ascontiguousarray(scores, "<f4").tobytes()).hexdigest()
