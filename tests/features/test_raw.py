"""Preprocessed examples: in a scratch file, or past once."""

from pathlib import Path

import numpy as np
import pytest
from feature_samples import Bands, BandsParams, Gradients, Pixels, Recordings, encoded

from benchkit.features import Options, extract, extract_for, ls, stream_for
from benchkit.progress import Silent


@pytest.fixture
def expected(task: Recordings) -> np.ndarray:
    """[60, 8000] by a plain loop."""
    backbone = Bands()
    return np.stack([backbone.preprocess(e.media.load(8000)) for e in task.examples("test", range(60))])


@pytest.mark.parametrize("workers", [0, 2])
def test_examples_of_training_rows_are_those_of_a_plain_loop(
    task: Recordings, expected: np.ndarray, tmp_path: Path, workers: int
) -> None:
    log = tmp_path / "log"
    options = Options(tmp_path / "cache", workers=workers, batch_size=7, scratch=tmp_path)
    raw = extract_for(
        "raw", task, Bands(BandsParams(log=str(log))), "test", np.array([40, 2, 3, 59, 2]), options, Silent()
    )
    assert raw.rows.tolist() == [2, 3, 40, 59]
    np.testing.assert_array_equal(raw.values, expected[[2, 3, 40, 59]])
    assert isinstance(raw.values, np.memmap)
    assert not raw.values.flags.writeable
    assert raw.model_fingerprint == "w1"
    assert raw.hashes.all()
    assert encoded(log) == 0, "without a key there is nothing to encode for"
    assert list(tmp_path.iterdir()) == [], "the scratch file has no name, and nothing is cached"


def test_examples_keep_their_type(tmp_path: Path) -> None:
    class Bytes(Pixels):
        def preprocess(self, raw: np.ndarray) -> np.ndarray:
            return raw

    raw = extract_for("raw", Gradients(), Bytes(), "test", np.arange(50), Options(tmp_path, workers=0), Silent())
    assert raw.values.shape == (50, 8, 8, 1)
    assert raw.values.dtype == np.uint8
    np.testing.assert_array_equal(raw.values[7], next(Gradients().examples("test", [7])).media.load())


@pytest.mark.parametrize(("chunk", "sizes"), [(1, [7] * 8 + [4]), (20 * 32_000, [21, 21, 18]), (10**9, [60])])
def test_the_stream_passes_every_row_once_in_chunks_of_the_size_asked_for(
    task: Recordings, expected: np.ndarray, tmp_path: Path, chunk: int, sizes: list[int]
) -> None:
    options = Options(tmp_path / "cache", workers=0, batch_size=7)
    chunks = list(stream_for("raw", task, Bands(), "test", np.arange(60), options, Silent(), chunk_bytes=chunk))
    assert [len(c.rows) for c in chunks] == sizes
    assert np.concatenate([c.rows for c in chunks]).tolist() == list(range(60))
    np.testing.assert_array_equal(np.concatenate([c.values for c in chunks]), expected)
    assert not (tmp_path / "cache").exists()


def test_pooled_features_that_the_cache_lacks_are_made_on_the_way(task: Recordings, tmp_path: Path) -> None:
    log, rows, key = tmp_path / "log", np.arange(60), {"data": "d1"}
    options = Options(tmp_path / "cache", workers=0, batch_size=7)
    backbone = Bands(BandsParams(log=str(log)))
    extract(task, backbone, "test", np.array([1, 9]), key, options, Silent())
    raw = extract_for("raw", task, backbone, "test", rows, options, Silent(), key)
    assert encoded(log) == 60, "what was there was not encoded again"
    after = extract(task, backbone, "test", rows, key, options, Silent())
    list(stream_for("raw", task, backbone, "test", rows, options, Silent(), key))
    assert encoded(log) == 60
    np.testing.assert_array_equal(after.hashes, raw.hashes)
    np.testing.assert_allclose(after.pooled, backbone.encode(np.asarray(raw.values)).pooled, rtol=1e-5)
    assert len(ls(tmp_path / "cache")) == 1
