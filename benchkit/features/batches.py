"""From prepared examples to encoded batches: how large a batch is, how it is put together, what a full memory means."""

import gc
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt64

from benchkit.catalog.contract import checked_real_tokens
from benchkit.errors import NoTokens, OutOfMemory, PluginError
from benchkit.features.pool import Prepared
from benchkit.interfaces import Backbone, Encoded
from benchkit.machine.float32 import fast_float32
from benchkit.machine.trouble import is_out_of_memory
from benchkit.progress import Progress

START = 32
MOST = 1024
MOST_BYTES = 1 << 28
"""Of one batch of preprocessed examples, up to which its size grows."""
MOST_MADE = 1 << 30
"""Bytes of what a backbone makes of one batch, likewise: tokens may be a hundred times as large as what they are of."""
WORTH = 1.05
"""A larger batch must be this much faster for each example, or growth ends."""
TRIES = 2
"""Batches timed at each size; the best counts, because the first one warms up kernels and allocators."""

T = TypeVar("T")


@dataclass
class Sizer:
    """How many examples the next batch should have.

    grows: doubles while that is faster for each example. Otherwise the size stays as it is, so that two runs make the
    same batches; either way `shrink` halves it for good.
    """

    size: int = START
    grows: bool = False
    limit: int = MOST
    """No batch larger than this fits into memory, as far as was found out."""
    _times: list[float] = field(default_factory=list)
    _previous: tuple[int, float] | None = None

    @staticmethod
    def of(batch_size: int | None, device: str) -> "Sizer":
        """Automatic sizes grow on an accelerator only: a CPU is as fast with few, and then gives the same sums."""
        if batch_size is not None:
            return Sizer(max(1, batch_size), limit=max(1, batch_size))
        return Sizer(grows=not device.startswith("cpu"))

    def took(self, n: int, n_bytes: int, seconds: float, made: int = 0) -> None:
        """A batch of n examples, n_bytes large, was encoded in this time, to so many bytes."""
        if not self.grows or n != self.size:
            return
        self._times.append(seconds)
        if len(self._times) < TRIES:
            return
        rate = n / max(min(self._times), 1e-9)
        self._times = []
        if self._previous and rate < WORTH * self._previous[1]:
            self.size, self.grows = self._previous[0], False
        elif 2 * n > MOST or 2 * n_bytes > MOST_BYTES or 2 * made > MOST_MADE:
            self.grows = False
        else:
            self._previous, self.size = (n, rate), 2 * n

    def shrink(self, n: int) -> None:
        """A batch of n examples did not fit into memory."""
        self.limit, self.grows = max(1, n // 2), False
        self.size = min(self.size, self.limit)


@dataclass(frozen=True)
class Batch:
    """array: [B, ...] of the examples that decode. bad: those that do not."""

    rows: Int64[np.ndarray, " B"]
    media: UInt64[np.ndarray, " B"]
    array: np.ndarray | None
    bad: tuple[Prepared, ...] = ()

    def where(self, wanted: Bool[np.ndarray, " B"]) -> "Batch":
        """Only these examples, and none that does not decode."""
        if self.array is None or not wanted.any():
            return Batch(self.rows[:0], self.media[:0], None)
        return Batch(self.rows[wanted], self.media[wanted], self.array if wanted.all() else self.array[wanted])


def assemble(prepared: Iterable[Prepared], sizer: Sizer) -> Iterator[Batch]:
    """Batches in the order of the examples; the last may be smaller.

    Raises PluginError where `preprocess` gives arrays of different shapes.
    """
    good: list[Prepared] = []
    bad: list[Prepared] = []
    first: Prepared | None = None
    for one in prepared:
        if one.array is None:
            bad.append(one)
        else:
            first = first or one
            assert first.array is not None
            if (one.array.shape, one.array.dtype) != (first.array.shape, first.array.dtype):
                raise PluginError(
                    f"preprocess must give one shape: '{first.id}' became {first.array.dtype} {first.array.shape}, "
                    f"and '{one.id}' became {one.array.dtype} {one.array.shape}"
                )
            good.append(one)
        if len(good) >= sizer.size or len(bad) >= sizer.size:
            yield _batch(good, bad)
            good, bad = [], []
    if good or bad:
        yield _batch(good, bad)


def _batch(good: list[Prepared], bad: list[Prepared]) -> Batch:
    rows = np.array([p.row for p in good], np.int64)
    media = np.array([p.media for p in good], np.uint64)
    return Batch(rows, media, np.stack([p.array for p in good if p.array is not None]) if good else None, tuple(bad))


@dataclass
class _Raised:
    error: BaseException


class _End:
    pass


@contextmanager
def ahead(items: Iterable[T], depth: int, cancel: Callable[[], None]) -> Iterator[Iterator[T]]:
    """The same items, made in a thread, up to `depth` of them before they are asked for.

    cancel: called on the way out; it must make the thread's `items` end where it waits for something.
    """
    made: queue.Queue[T | _Raised | _End] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: T | _Raised | _End) -> None:
        while not stop.is_set():
            try:
                return made.put(item, timeout=0.2)
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                put(item)
                if stop.is_set():
                    return
            put(_End())
        except BaseException as e:  # noqa: BLE001 - it is raised where the items are taken
            put(_Raised(e))

    def take() -> Iterator[T]:
        while not isinstance(item := made.get(), _End):
            if isinstance(item, _Raised):
                raise item.error
            yield item

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield take()
    finally:
        stop.set()
        cancel()
        thread.join()


@dataclass(frozen=True)
class Part:
    """Encoded rows: a batch, or a part of one that had to be halved. A token that is padding is a row of NaN."""

    rows: Int64[np.ndarray, " B"]
    media: UInt64[np.ndarray, " B"]
    encoded: Encoded


def encode(
    backbone: Backbone, batch: Batch, sizer: Sizer, device: str, progress: Progress, *, tokens: bool
) -> Iterator[Part]:
    """Encodes a batch; where memory does not suffice, halves it until it does, and tells the sizer.

    Raises OutOfMemory where not even one example fits, PluginError where the backbone breaks its contract.
    """

    def compute(array: np.ndarray) -> Encoded:
        made: object = backbone.encode(array, tokens=tokens)
        if not isinstance(made, Encoded):
            what = "None" if made is None else f"a {type(made).__name__}"
            raise PluginError(f"{type(backbone).__name__}.encode gave {what}, not a benchkit.Encoded")
        arrays: dict[str, object] = {"pooled": made.pooled, "tokens": made.tokens}
        for name, given in arrays.items():
            if not hasattr(given, "dtype") and (given is not None or name == "pooled"):
                what = "None" if given is None else f"a {type(given).__name__}"
                raise PluginError(f"{type(backbone).__name__}.encode gave {what} as {name}, not a numpy array")
        return made

    for part, encoded in computed(backbone, batch, compute, sizer, device, progress):
        _check(backbone, encoded, len(batch.rows[part]), tokens)
        if encoded.tokens is not None:
            assert batch.array is not None
            encoded = replace(encoded, tokens=mark_padding(backbone, batch.array[part], encoded.tokens))
        yield Part(batch.rows[part], batch.media[part], encoded)


def mark_padding(
    backbone: Backbone, batch: np.ndarray, tokens: Float32[np.ndarray, "B T D"]
) -> Float32[np.ndarray, "B T D"]:
    """The same tokens, but rows of NaN where they are of what an example was padded with.

    A token that the model itself gives a NaN in the first place gets an infinity there: it is wrong, and no padding.
    Raises PluginError where the backbone breaks its contract.
    """
    real = checked_real_tokens(backbone, batch, tokens.shape[1])
    wrong = np.isnan(tokens[..., 0])
    if real is None and not wrong.any():
        return tokens
    marked = tokens.copy()
    marked[..., 0][wrong] = np.inf
    if real is not None:
        marked[~real] = np.nan
    return marked


def computed(
    backbone: Backbone,
    batch: Batch,
    compute: Callable[[np.ndarray], T],
    sizer: Sizer,
    device: str,
    progress: Progress,
) -> Iterator[tuple[slice, T]]:
    """What `compute` makes of a batch, or of parts of it where memory does not suffice for the whole; the sizer is
    told. Raises OutOfMemory where not even one example fits."""
    if batch.array is None:
        return
    at, step = 0, min(len(batch.rows), sizer.limit)
    while at < len(batch.rows):
        part = slice(at, at + step)
        array = batch.array[part]
        began = time.perf_counter()
        try:
            with fast_float32(device):
                made = compute(array)
        except Exception as e:
            if not is_out_of_memory(e):
                raise
            if len(array) == 1:
                raise OutOfMemory(
                    f"{type(backbone).__name__} needs more memory than '{device}' has even for one example: {e}"
                ) from e
            why = str(e).splitlines()[0] if str(e) else type(e).__name__
        else:
            sizer.took(len(array), array.nbytes, time.perf_counter() - began, _made_bytes(made))
            yield part, made
            at += step
            continue
        # Outside of the except clause: there, the exception's frames still hold what filled the memory.
        sizer.shrink(len(array))
        step = sizer.limit
        free(device)
        progress.note(f"a batch of {len(array)} did not fit into the memory of '{device}' ({why}); now {sizer.size}")


def _made_bytes(made: object) -> int:
    """Of features, or of activations by place."""
    if isinstance(made, Encoded):
        return made.pooled.nbytes + (0 if made.tokens is None else made.tokens.nbytes)
    return sum(x.nbytes for x in made.values()) if isinstance(made, Mapping) else 0


@contextmanager
def memory_suffices(device: str, advice: str) -> Iterator[None]:
    """Where it does not, raises OutOfMemory, one line that ends with the advice; what had filled it is given back."""
    try:
        yield
    except Exception as e:
        if not is_out_of_memory(e):
            raise
        why = str(e).splitlines()[0] if str(e) else type(e).__name__
        traceback.clear_frames(e.__traceback__)  # they would hold it for as long as anybody holds the error
        free(device)
        raise OutOfMemory(f"the memory of '{device}' does not suffice ({why}): {advice}") from e


def free(device: str) -> None:
    """Gives memory back that nothing holds any more."""
    gc.collect()
    if device.startswith("cuda") and "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()


def _check(backbone: Backbone, encoded: Encoded, n: int, tokens: bool) -> None:
    name = f"{type(backbone).__name__}.encode"
    pooled = encoded.pooled
    if pooled.shape != (n, backbone.dim) or pooled.dtype != np.float32:
        raise PluginError(
            f"{name} gave pooled {pooled.dtype} {pooled.shape} for {n} examples, not float32 {(n, backbone.dim)}"
        )
    if tokens:
        found = encoded.tokens
        if found is None:
            raise NoTokens(f"{type(backbone).__name__} has no tokens: choose a classifier that takes pooled features")
        if found.ndim != 3 or len(found) != n or found.dtype != np.float32:
            raise PluginError(
                f"{name} gave tokens {found.dtype} {found.shape} for {n} examples, not float32 ({n}, T, D)"
            )
