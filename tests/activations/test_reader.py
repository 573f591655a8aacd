"""Every vector once an epoch, in random order, the same for one seed, in bounded memory."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.activations import Recording, reader
from benchkit.activations.reader import shuffled, views_of
from benchkit.errors import StoreError


def numbered(sizes: list[int], tokens: int) -> list[np.ndarray]:
    """Shards whose vectors are numbered."""
    flat = np.arange(sum(sizes) * tokens, dtype=np.float32)
    return np.split(np.stack([flat, -flat], axis=1).reshape(-1, tokens, 2), np.cumsum(sizes)[:-1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 40), st.integers(1, 900),
    st.integers(0, 5),
)  # fmt: skip
def test_every_vector_comes_once_an_epoch(sizes: list[int], tokens: int, batch: int, buffer: int, seed: int) -> None:
    n = sum(sizes) * tokens
    batches = list(shuffled(numbered(sizes, tokens), 0, batch, seed, 2, 0, 8 * buffer))
    per_epoch = -(-n // batch)
    assert len(batches) == 2 * per_epoch
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        assert all(len(b) == batch for b in epoch[:-1])
        assert sorted(np.concatenate(epoch)[:, 0].tolist()) == list(range(n))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.data())
def test_chosen_examples_are_views_of_the_shards(sizes: list[int], data: st.DataObject) -> None:
    shards = numbered(sizes, 3)
    examples = np.array(sorted(data.draw(st.sets(st.integers(0, sum(sizes) - 1)))), np.int64)
    views = views_of(shards, examples)
    found = np.concatenate([np.zeros((0, 3, 2)), *views])
    np.testing.assert_array_equal(found, np.concatenate(shards)[examples])
    assert all(any(np.shares_memory(v, s) for s in shards) for v in views)


def test_the_order_is_of_the_seed_and_differs_from_epoch_to_epoch() -> None:
    def order(seed: int, **given: int) -> list[float]:
        return np.concatenate(list(shuffled(numbered([40, 9], 5), 0, 8, seed, 2, given.get("skip", 0), 2000)))[
            :, 0
        ].tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert order(0)[:245] != order(0)[245:]
    for skip in (1, 30, 31, 40):
        at = skip * 8 - (3 if skip >= 31 else 0)  # the last batch of an epoch has 5
        assert order(0, skip=skip) == order(0)[at:]


def test_it_is_shuffled_well_beyond_a_chunk() -> None:
    """With a buffer of a quarter of the data, neighbours end up far apart."""
    out = np.concatenate(list(shuffled(numbered([200] * 5, 16), 0, 64, 0, 1, 0, 4000 * 8)))[:, 0]
    place = np.argsort(out)
    assert abs(np.corrcoef(out, np.arange(len(out)))[0, 1]) < 0.1
    assert np.median(abs(np.diff(place))) > 1000
    batch = out[:64] // 16
    assert len(set(batch.tolist())) > 40, "a batch has vectors of many examples"


def test_prefix_tokens_are_left_out_when_asked(recording: Recording) -> None:
    point = recording["blocks.2.resid_post"]
    stored = np.concatenate(point.shards).astype(np.float32)
    for patches, expected in ((False, stored), (True, stored[:, 1:])):
        found = np.concatenate(list(point.batches(100, seed=3, patches=patches)))
        assert found.dtype == np.float32
        assert len(found) == point.vectors_of(patches=patches)
        a, b = (x[np.lexsort(x.T)] for x in (found, expected.reshape(-1, 64)))
        np.testing.assert_array_equal(a, b)


def test_epochs_without_end_and_a_reader_left_early_leaves_no_thread(recording: Recording) -> None:
    before = threading.active_count()
    reader = recording["tokens"].batches(1000, epochs=None)
    assert sum(len(next(reader)) for _ in range(12)) > 2 * recording["tokens"].n_vectors
    reader.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_ctrl_c_ends_what_is_left_out_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on with a training leaves out what it has seen, which may be much."""
    cut, passed = reader._cut, [0]

    def slow(*args: object) -> Iterator[np.ndarray]:
        for batch in cut(*args):
            time.sleep(0.001)
            passed[0] += 1
            yield batch

    monkeypatch.setattr(reader, "_cut", slow)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(shuffled(numbered([250] * 4, 5), 0, 1, 0, 1, 4_999, 10_000_000))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert passed[0] < 4_999


def test_a_damaged_shard_is_found(recording: Recording, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(recording.folder, tmp_path / "r")
    path = tmp_path / "r" / "tokens" / "00001.npy"
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    again = Recording.open(tmp_path / "r")["tokens"]
    assert again.verify() == [f"'{path}' is not as it was written: its checksum does not match"]
    path.write_bytes(data[:-10])
    with pytest.raises(StoreError, match=r"00001.npy' is damaged"):
        next(again.batches(10))
    path.write_bytes(b"")
    with pytest.raises(StoreError, match=r"00001.npy' is damaged"):
        next(Recording.open(tmp_path / "r")["tokens"].batches(10))
