"""The shuffled reader: every vector of a recording exactly once an epoch, in random order, in bounded memory.

Padding, rows of NaN, is no vector.

Chunks of a few neighbouring examples are read in random order from all shards into a buffer. Whenever it is full, it is
shuffled, one half of it leaves as batches, and the other half waits for what comes next: so the vectors of an example,
which are much alike, are spread over many batches. Reading and shuffling happen in a thread, ahead of who trains.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from benchkit.features.batches import ahead
from benchkit.machine.seeds import Purpose, generator

BUFFER_BYTES = 1 << 28
CHUNK_BYTES = 1 << 20
"""Read at a time: large enough for a disk, small enough that a buffer holds many."""
AHEAD = 4
"""Batches that are ready before they are asked for."""


def shuffled(
    shards: Sequence[Any],
    first: int,
    batch_size: int,
    seed: int,
    epochs: int | None,
    skip: int,
    buffer_bytes: int,
    before: Callable[[int], None] | None = None,
    vectors: int | None = None,
    use: int = 0,
) -> Generator[Float32[np.ndarray, "B D"], None, None]:
    """Batches of float32 vectors, the same for the same arguments. The last batch of an epoch may be smaller.

    shards: arrays [_, T, D], or what can be sliced as one. first: tokens before this one are left out. epochs: None is
    without end. skip: batches left out at the beginning.
    before: is called in the reader's thread with a shard's number, each time before some of it is read. vectors: how
    many there are, where some are padding (rows of NaN), which is left out. use: of the order, beside the seed.
    """
    if vectors is None:
        vectors = sum(len(s) for s in shards) * (shards[0].shape[1] - first) if shards else 0
    per_epoch = -(-vectors // batch_size)
    if not per_epoch:
        return
    epoch, skip = divmod(skip, per_epoch)
    stopped = threading.Event()

    def batches() -> Iterator[Float32[np.ndarray, "B D"]]:
        number, left = epoch, skip
        while epochs is None or number < epochs:
            rng = generator(seed, Purpose.ACTIVATIONS, use, number)
            for batch in _epoch(shards, first, batch_size, rng, buffer_bytes, before):
                if stopped.is_set():
                    return
                if left:
                    left -= 1
                else:
                    yield batch.astype(np.float32, copy=False)
            number += 1

    with ahead(batches(), AHEAD, stopped.set) as ready:
        yield from ready


def is_padding(vectors: Float[np.ndarray, "*N D"]) -> Bool[np.ndarray, "*N"]:
    """Which of them are no vectors but padding: NaN in every dimension."""
    found = np.isnan(vectors[..., 0])
    if found.any():
        found[found] = np.isnan(vectors[found]).all(axis=-1)
    return found


def views_of(
    shards: Sequence[Float[np.ndarray, "_ T D"]], examples: Int[np.ndarray, " n"]
) -> list[Float[np.ndarray, "_ T D"]]:
    """These examples, ascending and counted through all shards, as views of neighbouring ones: nothing is copied."""
    return numbered_views(shards, examples)[1]


def numbered_views(
    shards: Sequence[Float[np.ndarray, "_ T D"]], examples: Int[np.ndarray, " n"]
) -> tuple[list[int], list[Float[np.ndarray, "_ T D"]]]:
    """As `views_of`; and of which shard each is."""
    views: list[np.ndarray] = []
    numbers: list[int] = []
    begin = 0
    for number, shard in enumerate(shards):
        low, high = np.searchsorted(examples, (begin, begin + len(shard)))
        own = examples[low:high] - begin
        plain = np.asarray(shard)  # of a memory map, a slice costs more than of an array
        runs = np.split(own, np.flatnonzero(np.diff(own) != 1) + 1)
        some = [plain[run[0] : run[-1] + 1] for run in runs if len(run)]
        views += some
        numbers += [number] * len(some)
        begin += len(shard)
    return numbers, views


def _epoch(
    shards: Sequence[Any],
    first: int,
    batch_size: int,
    rng: np.random.Generator,
    buffer_bytes: int,
    before: Callable[[int], None] | None = None,
) -> Iterator[Float[np.ndarray, "B D"]]:
    tokens, dim = shards[0].shape[1] - first, shards[0].shape[2]
    vector_bytes = dim * shards[0].dtype.itemsize
    examples = max(1, CHUNK_BYTES // (tokens * vector_bytes))
    examples = min(examples, max(1, buffer_bytes // (16 * tokens * vector_bytes)))  # a buffer holds several chunks
    chunks = [(s, at) for s, shard in enumerate(shards) for at in range(0, len(shard), examples)]
    room = max(buffer_bytes // vector_bytes, 2 * batch_size, 2 * examples * tokens)
    room = min(room, tokens * sum(map(len, shards)))
    buffer = np.empty((room, dim), shards[0].dtype)
    held = 0
    for s, at in (chunks[i] for i in rng.permutation(len(chunks))):
        if before is not None:
            before(s)
        chunk = shards[s][at : at + examples, first:].reshape(-1, dim)
        if (padding := is_padding(chunk)).any():
            chunk = chunk[~padding]
        if held + len(chunk) > room:
            order = rng.permutation(held)
            leaving = max(len(chunk) - (room - held), held // 2)
            leaving = -(-leaving // batch_size) * batch_size  # whole batches
            leaving = min(leaving, held // batch_size * batch_size)
            yield from _cut(buffer, order[:leaving], batch_size)
            staying = buffer[order[leaving:]]
            held = len(staying)
            buffer[:held] = staying
        buffer[held : held + len(chunk)] = chunk
        held += len(chunk)
    yield from _cut(buffer, rng.permutation(held), batch_size)


def _cut(buffer: Float[np.ndarray, "_ D"], order: np.ndarray, size: int) -> Iterator[Float[np.ndarray, "B D"]]:
    for at in range(0, len(order), size):
        yield buffer[order[at : at + size]]
