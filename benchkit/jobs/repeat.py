"""Whether the features that a job uses are those of its examples alone.

Some of its examples, from both splits, are decoded and encoded once more: a few by themselves, the others in another
order and by a second instance of the backbone. That is 16 encodings, whatever the size of the data. Only where they
differ by more than rounding, some more tell why (benchkit.checks.repeatable).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32

from benchkit import checks
from benchkit.catalog.discovery import one_line
from benchkit.checks.repeatable import HALF_ROUNDING, ROUNDING, Again, Cause, difference, scale_of
from benchkit.errors import BenchkitError, MediaError
from benchkit.features.batches import Batch, Sizer, encode, free
from benchkit.features.worker import looked_up, prepare
from benchkit.interfaces import Backbone, Precomputed
from benchkit.jobs.data import JobData
from benchkit.machine.float32 import whole_float32
from benchkit.machine.trouble import trouble_of
from benchkit.records.report import Check

PICKED = 8
"""Examples of each split."""
ALONE = 4
"""Of all of them, those that are encoded by themselves."""
SPREAD = 256
"""Examples of a split that tell how much features differ among examples."""
EXACT = 1e-4
"""In a feature's deviations: what one instance may make of one example twice."""

_ALONE, _AGAIN = "encoded alone", "encoded in another order and by a second instance"


@dataclass(frozen=True)
class _Example:
    split: str
    row: int
    id: str
    used: Float32[np.ndarray, " D"]
    """The features that the job uses."""
    array: np.ndarray
    """Preprocessed anew."""


@dataclass
class _Look:
    data: JobData
    scale: Float[np.ndarray, " D"]
    allowed: float
    second: Backbone
    found: list[Again] = field(default_factory=list)

    def encode(self, backbone: Backbone, arrays: Sequence[np.ndarray]) -> Float32[np.ndarray, "n D"]:
        n, options = len(arrays), self.data.options
        batch = Batch(np.arange(n), np.zeros(n, np.uint64), np.stack(arrays))
        parts = encode(backbone, batch, Sizer.of(n, options.device), options.device, self.data.progress, tokens=False)
        return np.concatenate([part.encoded.pooled for part in parts])

    def compare(self, backbone: Backbone, examples: Sequence[_Example], how: str) -> None:
        """Raises what the machine is to blame for."""
        try:
            made = self.encode(backbone, [e.array for e in examples])
        except Exception as e:
            if trouble_of(e) or (isinstance(e, BenchkitError) and e.reason != "error"):
                raise
            self.found += [Again(x.id, how, np.inf, f"cannot be: {one_line(e)}") for x in examples]
            return
        gaps = difference(np.stack([e.used for e in examples]), made, self.scale)
        self.found += [Again(x.id, how, float(gap)) for x, gap in zip(examples, gaps, strict=True)]

    def cause(self, worst: _Example, others: Sequence[_Example]) -> Cause:
        """Why an example's features are not the same again."""
        first, scale = self.data.backbone, self.scale
        another = type(first)(first.params)
        array, _ = _prepared(self.data, another, worst.split, [worst.row])[worst.row]
        if not np.array_equal(array, worst.array, equal_nan=array.dtype.kind in "fc"):
            return "chance"
        try:
            once, twice = self.encode(first, [worst.array]), self.encode(first, [worst.array])
            if difference(once, twice, scale)[0] > EXACT:
                return "chance"
            if difference(once, self.encode(self.second, [worst.array]), scale)[0] > self.allowed:
                return "chance"
            among = self.encode(first, [*(e.array for e in others), worst.array])[-1:]
            return "neighbours" if difference(once, among, scale)[0] > self.allowed else "history"
        except Exception as e:
            if trouble_of(e) or (isinstance(e, BenchkitError) and e.reason != "error"):
                raise
            return "neighbours"  # what cannot be encoded alone, or among others, depends on them


def check_again(data: JobData) -> Check:
    """The check `repeatable`, once a job, after extraction. Raises BenchkitError where the machine is at fault."""
    backbone, device = data.ready(), data.options.device
    second = type(backbone)(backbone.params)
    allowed = HALF_ROUNDING if _is_half(backbone) else ROUNDING
    look = _Look(data, _scale(data), allowed, second)
    examples, lost = _examples(data, second)
    look.found += lost
    if not examples:
        return checks.check_repeatable(look.found, None, allowed)
    alone, others = examples[:ALONE], examples[ALONE:] if len(examples) > 2 * ALONE else examples
    for example in alone:
        look.compare(backbone, [example], _ALONE)
    second.setup(device)
    whole_float32()
    try:
        look.compare(second, others[::-1], _AGAIN)
        worst = max(look.found, key=lambda a: a.difference)
        cause: Cause | None = None
        suspect = next((e for e in examples if e.id == worst.id), None)
        if suspect and worst.difference > EXACT:
            cause = look.cause(suspect, [e for e in examples if e is not suspect])
            if worst.difference <= allowed and cause != "chance":
                cause = None  # rounding, which depends on how many there are in a batch
    finally:
        del second, look.second
        free(device)
    return checks.check_repeatable(look.found, cause, allowed)


def _scale(data: JobData) -> Float[np.ndarray, " D"]:
    parts = []
    for split, features in data.features.items():
        rows = np.flatnonzero(features.hashes)
        if len(rows):
            parts.append(data.pooled(split, rows[:: max(1, len(rows) // SPREAD)]))
    return scale_of(np.concatenate(parts))


def _examples(data: JobData, instance: Backbone) -> tuple[list[_Example], list[Again]]:
    """Of the training and the test rows in turn; and those that do not decode any more."""
    train = {(split, row) for split, rows in data.train_rows.items() for row in rows if row not in data.bad[split]}
    test = {(f.test_split, row) for f in data.folds for row in data.test_rows(f).tolist()}
    picked = _in_turn(_middle(sorted(train)), _middle(sorted(test - train or test)))
    found: dict[tuple[str, int], _Example] = {}
    lost: list[Again] = []
    for split in dict.fromkeys(split for split, _ in picked):
        rows = sorted(row for s, row in picked if s == split)
        used, ids = data.pooled(split, np.array(rows)), data.task.ids(split)
        made = _prepared(data, instance, split, rows)
        for row, features in zip(rows, used, strict=True):
            array, problem = made[row]
            if problem:
                lost.append(Again(ids[row], "decoded again", np.inf, problem))
            else:
                found[split, row] = _Example(split, row, ids[row], features, array)
    return [found[key] for key in picked if key in found], lost


def _middle(rows: Sequence[tuple[str, int]]) -> Sequence[tuple[str, int]]:
    """Some that follow each other, so that a data set that is streamed is read in one place."""
    start = max(0, len(rows) // 2 - PICKED // 2)
    return rows[start : start + PICKED]


def _in_turn(train: Sequence[tuple[str, int]], test: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    longest = max(len(train), len(test))
    return list(dict.fromkeys(rows[i] for i in range(longest) for rows in (train, test) if i < len(rows)))


def _prepared(data: JobData, instance: Backbone, split: str, rows: Sequence[int]) -> dict[int, tuple[np.ndarray, str]]:
    """By row, the preprocessed example, or why it does not decode."""
    made = {}
    for example in data.task.examples(split, list(rows)):
        try:
            if isinstance(data.backbone, Precomputed):
                array, _ = looked_up(data.backbone, split, example)
            else:
                array, _ = prepare(instance, example.id, example.media)
            made[example.index] = (array.copy(), "")
        except MediaError as e:
            made[example.index] = (np.empty(0), f"does not decode any more: {e}")
    return made


def _is_half(backbone: Backbone) -> bool:
    """Whether its parameters say that it computes in 16 bits."""
    return any("16" in str(getattr(backbone.params, name, "")) for name in ("dtype", "precision"))
