"""Extraction: rows of a split in, features out; from the cache where they are there, through the backbone where not.

task.examples -> workers: load, hash, preprocess -> batches -> backbone.encode -> cache
"""

import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, Int, Int64, UInt64

from benchkit.catalog.contract import checked_fingerprint
from benchkit.checks.inputs import NOTHING, Measured
from benchkit.errors import MediaError, PluginError, StoreError
from benchkit.features.batches import Batch, Part, Sizer, ahead, assemble, computed, encode
from benchkit.features.cache import Entry, Stored, Writer, drop_rows
from benchkit.features.lock import Lock, holder, try_lock
from benchkit.features.made import EXAMPLES, Made, checked_feature_key, measure, source_of
from benchkit.features.pool import Pool, Prepared, made_of
from benchkit.features.worker import looked_up, prepare
from benchkit.interfaces import Backbone, Example, Precomputed, Task
from benchkit.machine import cpus
from benchkit.machine.float32 import whole_float32
from benchkit.media.decode import Media, decoder_versions
from benchkit.media.notes import hashes_and_notes
from benchkit.progress import Progress

T = TypeVar("T")

FEATURES_VERSION = 2
"""Part of every key: raise it when a change to benchkit itself (decoding, this package) can change a feature."""

AHEAD = 4
"""Batches that workers may be ahead of the device, if memory allows: where both are as fast as each other, what one
loses for a moment is not lost."""
PROBE = 8
"""Examples prepared in the main process, to see whether workers are worth their start."""
WORTH_WORKERS = 2.0
"""Seconds of preparation left from which on they are."""
MANY_BAD = 20
"""Examples beyond --skip-bad that may fail to decode before extraction gives up at once."""
NAMED = 3
"""Bad examples that an error message names."""
POLL = 0.25
"""Seconds between two looks at a lock that another process holds."""


@dataclass(frozen=True)
class Options:
    """How to extract, where that cannot change a feature.

    cache: the folder of the feature cache. device: "cpu", "cuda", "cuda:1". batch_size: None is automatic. workers:
    decoding processes; None is automatic (none where preparing is quick, else one for each processor). skip_bad: how
    many examples may fail to decode. scratch: where tokens are kept while they are needed, best on the node's own disk;
    None is the system's folder for temporary files.
    """

    cache: Path
    device: str = "cpu"
    batch_size: int | None = None
    workers: int | None = None
    skip_bad: int = 0
    scratch: Path | None = None


@dataclass(frozen=True)
class Features:
    """Pooled features of some rows of a split.

    pooled: a read-only memory map over the whole split; only the rows that were asked for have a meaning.
    hashes: of the decoded media, 0 for rows that were not asked for. notes: likewise, what was noticed of them
    (benchkit.media.notes).
    skipped: row -> why it did not decode; its features have no meaning.
    inputs: what the model was given, of some of all rows that were ever extracted.
    """

    pooled: Float32[np.ndarray, "N D"]
    hashes: UInt64[np.ndarray, " N"]
    notes: UInt64[np.ndarray, " N"]
    skipped: Mapping[int, str]
    model_fingerprint: str
    inputs: Measured = NOTHING


def extract(
    task: Task,
    backbone: Backbone,
    split: str,
    rows: Int[np.ndarray, " n"],
    key: Mapping[str, str],
    options: Options,
    progress: Progress,
) -> Features:
    """Pooled features of these rows, computed where they are not in the cache yet.

    key: everything that can change a feature and that only the caller knows: the data's fingerprint, the media's name,
    the model's canonical spec and its distribution. The weights' fingerprint, `Backbone.feature_key`, the split and the
    decoders' versions are added here. `task` in it, if there, is the name shown with the progress.

    Where features that are there were made by other code of the backbone under the same version, a line says so.

    Where another process is extracting the same features, this one waits, and takes over if the other dies. Raises
    MediaError where more examples than `skip_bad` do not decode (what did is kept), StoreError where the cache cannot
    be written, BenchkitError, and whatever the task or backbone raises.
    """
    n = len(task.ids(split))
    rows = checked_rows(rows, n, split)
    run = Run.of(task, backbone, split, options, progress, key)
    entry = run.entry(key, n)
    stored = entry.read(rows)
    if stored.good.any():
        _tell_of_other_code(run, entry)
    while not stored.good.all():
        lock = _wait_for_turn(entry, rows, run)
        if lock is None:  # another process says that all are done by now
            stored = entry.read(rows)
            continue
        with lock:
            missing = rows[~entry.read(rows).good]
            with run.writer(entry) as writer, closing(run.parts(missing, tokens=False)) as parts:
                for part in parts:
                    writer.write(part.rows, part.encoded.pooled, part.media)
            run.keep_measured(entry)
            run.judge(len(rows))
            stored = entry.read(rows)
        if lost := set(rows[~stored.good].tolist()) - set(run.bad):
            raise StoreError(f"features written to '{entry.folder}' do not read back: {len(lost)} of {len(rows)} rows")
        break
    return _features(stored, run, rows, n, Made.read(entry.folder).inputs)


def forget(
    task: Task, backbone: Backbone, split: str, key: Mapping[str, str], options: Options, progress: Progress
) -> None:
    """Makes whoever asks for these features next compute them anew. Waits for a process that is extracting them."""
    run = Run.of(task, backbone, split, options, progress, key)
    folder = run.entry(key, len(task.ids(split))).folder
    if not folder.is_dir():
        return
    while (lock := try_lock(folder)) is None:
        time.sleep(POLL)
    with lock:
        drop_rows(folder)


def is_cached(
    task: Task, backbone: Backbone, split: str, rows: Int[np.ndarray, " n"], key: Mapping[str, str], options: Options
) -> bool:
    """Whether the cache says that it has all of these rows; what it says is proved only when `extract` reads them."""
    weights = set_up(backbone, options.device)
    whole = cache_key(task, split, key, weights, checked_feature_key(backbone))
    entry = Entry.of(options.cache, whole, len(task.ids(split)))
    return entry.dim is not None and entry.claimed(rows) == len(rows)


def cache_key(
    task: Task, split: str, key: Mapping[str, str], weights: str, made_with: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The whole key of a cache entry, as JSON takes it. made_with: of `Backbone.feature_key`."""
    return {
        "version": FEATURES_VERSION,
        "split": split,
        "weights": weights,
        "decoders": decoder_versions(task.modality),
        "made_with": dict(made_with or {}),
        "key": dict(key),
    }


# ----------------------------------------------------------------------------------------------------------------- runs


@dataclass
class Run:
    """One pass over some rows: what it needs, and what it finds out."""

    task: Task
    backbone: Backbone
    split: str
    options: Options
    progress: Progress
    name: str
    bad: dict[int, str] = field(default_factory=dict)
    """row -> why it does not decode."""
    measured: Measured = NOTHING
    """What the model was given, of the first examples."""
    _named: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sizer = Sizer.of(self.options.batch_size, self.options.device)

    @staticmethod
    def of(
        task: Task,
        backbone: Backbone,
        split: str,
        options: Options,
        progress: Progress,
        key: Mapping[str, str] | None,
    ) -> "Run":
        """A run that is shown with the progress as `task` in `key`, if that is there."""
        return Run(task, backbone, split, options, progress, (key or {}).get("task", type(task).__name__))

    @property
    def title(self) -> str:
        return f"{self.name}/{self.split}"

    @property
    def unit(self) -> str:
        return "clips" if self.task.modality == "audio" else "images"

    @property
    def weights(self) -> str:
        """The fingerprint of the backbone, which is set up for it once."""
        return set_up(self.backbone, self.options.device)

    def entry(self, key: Mapping[str, str], n: int) -> Entry:
        whole = cache_key(self.task, self.split, key, self.weights, checked_feature_key(self.backbone))
        return Entry.of(self.options.cache, whole, n)

    def writer(self, entry: Entry) -> Writer:
        return Writer(entry, source_of(type(self.backbone)))

    def keep_measured(self, entry: Entry) -> None:
        """Adds what was measured to what the entry knows, as far as it still wants it. Whoever calls has its lock."""
        there = Made.read(entry.folder)
        if self.measured.n and there.inputs.n < EXAMPLES:
            replace(there, inputs=there.inputs + self.measured).write(entry.folder)

    def batches(self, rows: Int[np.ndarray, " n"]) -> Generator[Batch, None, None]:
        """The rows' examples, preprocessed. Those that do not decode go to `bad`; gives up where they are too many."""
        set_up(self.backbone, self.options.device)
        with (
            _batches(self.task, self.backbone, self.split, rows, self.options, self._sizer) as batches,
            self.progress.step(f"extract {self.title}", len(rows), self.unit) as step,
        ):
            for batch in batches:
                for one in batch.bad:
                    self._note_bad(one, len(rows))
                yield batch
                step.advance(len(batch.rows) + len(batch.bad))

    def encode(self, batch: Batch, *, tokens: bool) -> Iterator[Part]:
        """The encoded batch, in parts where it does not fit into memory as a whole."""
        if batch.array is not None and self.measured.n < EXAMPLES:
            self.measured = measure(self.backbone, batch.array, self.measured)
        return encode(self.backbone, batch, self._sizer, self.options.device, self.progress, tokens=tokens)

    def compute(self, batch: Batch, function: Callable[[np.ndarray], T]) -> Iterator[tuple[slice, T]]:
        """What the function makes of the batch, in parts where it does not fit into memory as a whole."""
        return computed(self.backbone, batch, function, self._sizer, self.options.device, self.progress)

    def parts(self, rows: Int[np.ndarray, " n"], *, tokens: bool) -> Generator[Part, None, None]:
        """Encodes the rows, as far as they decode."""
        with closing(self.batches(rows)) as batches:
            for batch in batches:
                yield from self.encode(batch, tokens=tokens)

    def _note_bad(self, one: Prepared, n: int) -> None:
        why = one.error or ""
        self.bad[one.row] = why
        self._named.append(f"'{one.id}': {why}")
        if len(self.bad) <= MANY_BAD:
            self.progress.note(f"{self.title}: '{one.id}' is left out: {why}")
        if len(self.bad) > self.options.skip_bad + MANY_BAD:
            self.judge(n, "at least ")

    def judge(self, n: int, at_least: str = "") -> None:
        """Raises MediaError where more rows than allowed did not decode, or none did."""
        count, allowed = len(self.bad), self.options.skip_bad
        if count > allowed or (count and count == n):
            named = "; ".join(self._named[:NAMED]) + ("; ..." if count > NAMED else "")
            way_out = "" if at_least or count == n else f" (--skip-bad {count} leaves them out)"
            raise MediaError(
                f"{at_least}{count} of {n} examples of {self.title} do not decode, and --skip-bad allows for "
                f"{allowed}{way_out}: {named}"
            )


_READY: dict[int, tuple[str, str]] = {}
"""id of a backbone that is set up -> its device and fingerprint."""


def set_up(backbone: Backbone, device: str) -> str:
    """Sets the backbone up on the device unless that was done, and gives its fingerprint."""
    known = _READY.get(id(backbone))
    if known is None or known[0] != device:
        backbone.setup(device)
        whole_float32()
        if known is None:
            weakref.finalize(backbone, _READY.pop, id(backbone), None)
        known = _READY[id(backbone)] = (device, checked_fingerprint(backbone))
    return known[1]


def checked_rows(rows: Int[np.ndarray, " n"], n: int, split: str) -> Int64[np.ndarray, " m"]:
    """Sorted, each once. Raises ValueError for a row that the split does not have."""
    unique = np.unique(rows).astype(np.int64)
    if len(unique) and not (unique[0] >= 0 and unique[-1] < n):
        raise ValueError(f"split '{split}' has rows 0 to {n - 1}, and {unique[0]} to {unique[-1]} were asked for")
    return unique


def _tell_of_other_code(run: Run, entry: Entry) -> None:
    made, cls = set(Made.read(entry.folder).sources), type(run.backbone)
    if made - {source_of(cls)}:
        run.progress.note(
            f"{run.title}: cached features were made by other code of {cls.__module__} than is there now, under the "
            f"same version {cls.version}: raise {cls.__name__}.version if a number can change; --force computes them "
            "anew"
        )


def _features(stored: Stored, run: Run, rows: Int64[np.ndarray, " m"], n: int, inputs: Measured) -> Features:
    pooled = stored.pooled
    if pooled is None:
        pooled = np.broadcast_to(np.float32(0), (n, run.backbone.dim))  # no rows were asked for
    skipped = dict(sorted(run.bad.items()))
    return Features(pooled, *hashes_and_notes(stored.media), skipped, run.weights, inputs)


def _wait_for_turn(entry: Entry, rows: Int64[np.ndarray, " m"], run: Run) -> Lock | None:
    """The entry's lock; or None, once the process that has it has written all rows."""
    if lock := try_lock(entry.folder):
        return lock
    run.progress.note(f"{run.title} is being extracted by {holder(entry.folder)}: waiting for it")
    done = entry.claimed(rows)
    with run.progress.step(f"wait for {run.title}", len(rows) - done, run.unit) as step:
        while True:
            time.sleep(POLL)
            if lock := try_lock(entry.folder):
                return lock
            now = entry.claimed(rows)
            step.advance(max(0, now - done))
            done = max(now, done)
            if now == len(rows) and entry.read(rows).good.all():
                return None


# ---------------------------------------------------------------------------------------------------------- preparation


@contextmanager
def _batches(
    task: Task, backbone: Backbone, split: str, rows: Int64[np.ndarray, " m"], options: Options, sizer: Sizer
) -> Iterator[Iterator[Batch]]:
    """The rows' batches. Examples are prepared by workers, or here where that is quick."""
    examples = _expected(task.examples(split, rows.tolist()), rows, task, split)
    if isinstance(backbone, Precomputed):
        yield assemble((_look_up(backbone, split, e) for e in examples), sizer)
        return
    here = type(backbone)(backbone.params)  # one that was never set up, as in a worker
    workers = options.workers
    first: list[Prepared] = []
    if workers is None:
        first, workers = _probe(here, examples, len(rows))
    if not workers:
        yield assemble(chain(first, (_prepare(here, e) for e in examples)), sizer)
        return
    chunk = min(16, max(1, len(rows) // (4 * workers)))
    with Pool(backbone, workers) as pool:
        prepared = chain(first, pool.map(examples, chunk, lambda: AHEAD * sizer.size))
        with ahead(assemble(prepared, sizer), 1, pool.stop) as batches:
            yield batches


def _probe(here: Backbone, examples: Iterator[Example], n: int) -> tuple[list[Prepared], int]:
    """Prepares the first few examples, and says how many workers the others deserve."""
    first: list[Prepared] = []
    seconds: list[float] = []
    for example in islice(examples, PROBE):
        began = time.perf_counter()
        first.append(_prepare(here, example))
        seconds.append(time.perf_counter() - began)
    left = (n - len(first)) * median(seconds[1:] or [0.0])  # the first pays for imports
    return first, cpus.available() if left > WORTH_WORKERS and made_of(here) is not None else 0


def _prepare(backbone: Backbone, example: Example) -> Prepared:
    try:
        array, media = prepare(backbone, example.id, example.media)
        return Prepared(example.index, example.id, array, media)
    except MediaError as e:
        return Prepared(example.index, example.id, error=str(e))


def _look_up(backbone: Precomputed, split: str, example: Example) -> Prepared:
    try:
        array, media = looked_up(backbone, split, example)
        return Prepared(example.index, example.id, array, media)
    except MediaError as e:
        return Prepared(example.index, example.id, error=str(e))


def _expected(examples: Iterator[Example], rows: Int64[np.ndarray, " m"], task: Task, split: str) -> Iterator[Example]:
    """The same examples. Raises PluginError where the task gives others than it was asked for: a feature in the wrong
    row would be a wrong number that nobody sees."""
    left = set(rows.tolist())
    for example in examples:
        if example.index not in left:
            raise PluginError(
                f"{type(task).__name__}.examples('{split}') gave row {example.index}, which was not asked for"
            )
        left.remove(example.index)
        if not isinstance(example.media, Media):
            raise PluginError(
                f"{type(task).__name__}.examples('{split}') gave '{example.id}' as a {type(example.media).__name__}, "
                "not as a benchkit.Audio or benchkit.Image"
            )
        yield example
    if left:
        raise PluginError(
            f"{type(task).__name__}.examples('{split}') left out {len(left)} rows, {min(left)} among them"
        )
