"""Tokens: in a scratch file, or past once."""

from pathlib import Path

import numpy as np
import pytest
from feature_samples import Bands, BandsParams, Gradients, Pixels, Recordings, encoded

from benchkit.errors import BenchkitError, PluginError, StoreError
from benchkit.features import Options, extract, extract_for, ls, stream_for
from benchkit.features.batches import mark_padding
from benchkit.interfaces import Encoded
from benchkit.progress import Silent


@pytest.fixture
def expected(task: Recordings) -> np.ndarray:
    """[60, T, D] by a plain loop."""
    backbone = Bands()
    arrays = [backbone.preprocess(e.media.load(8000)) for e in task.examples("test", range(60))]
    backbone.setup("cpu")
    tokens = backbone.encode(np.stack(arrays), tokens=True).tokens
    assert tokens is not None
    return tokens


@pytest.mark.parametrize("workers", [0, 2])
def test_tokens_of_training_rows_are_those_of_a_plain_loop(
    task: Recordings, expected: np.ndarray, tmp_path: Path, workers: int
) -> None:
    options = Options(tmp_path / "cache", workers=workers, batch_size=7, scratch=tmp_path)
    rows = np.array([40, 2, 3, 59, 2])
    tokens = extract_for("tokens", task, Bands(), "test", rows, options, Silent())
    assert tokens.rows.tolist() == [2, 3, 40, 59]
    assert tokens.values.shape == (4, 8, 16)
    np.testing.assert_array_equal(tokens.values, expected[[2, 3, 40, 59]])
    assert not tokens.values.flags.writeable
    assert tokens.model_fingerprint == "w1"
    assert tokens.hashes.all()
    assert list(tmp_path.iterdir()) == [], "the scratch file has no name, and without a key nothing is cached"


def test_the_stream_passes_every_row_once(task: Recordings, expected: np.ndarray, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = Options(tmp_path / "cache", workers=0, batch_size=7)
    batches = list(
        stream_for("tokens", task, Bands(BandsParams(log=str(log))), "test", np.arange(60), options, Silent())
    )
    assert np.concatenate([b.rows for b in batches]).tolist() == list(range(60))
    np.testing.assert_array_equal(np.concatenate([b.values for b in batches]), expected)
    assert encoded(log) == 60
    assert not (tmp_path / "cache").exists()


def test_the_pooled_features_of_a_token_pass_go_to_the_cache(task: Recordings, tmp_path: Path) -> None:
    log, rows, key = tmp_path / "log", np.arange(60), {"data": "d1"}
    options = Options(tmp_path / "cache", workers=0, batch_size=7)
    backbone = Bands(BandsParams(log=str(log)))
    before = extract(task, backbone, "test", np.array([1, 9]), key, options, Silent())
    stream = stream_for("tokens", task, backbone, "test", rows, options, Silent(), key)
    passed = np.concatenate([b.rows for b in stream])
    assert encoded(log) == 62
    after = extract(task, backbone, "test", rows, key, options, Silent())
    assert encoded(log) == 62, "the pass filled the cache"
    np.testing.assert_array_equal(passed, rows)
    alone = extract(task, backbone, "test", rows, key, Options(tmp_path / "other", workers=0), Silent())
    np.testing.assert_array_equal(after.pooled, alone.pooled)
    np.testing.assert_array_equal(after.hashes[[1, 9]], before.hashes[[1, 9]])
    assert len(ls(tmp_path / "cache")) == 1


def test_a_token_pass_that_has_nothing_to_add_asks_for_no_lock(task: Recordings, tmp_path: Path) -> None:
    key, options = {"data": "d1"}, Options(tmp_path / "cache", workers=0)
    extract(task, Bands(), "test", np.arange(9), key, options, Silent())
    (entry,) = ls(tmp_path / "cache")
    (entry.folder / "lock").unlink()
    (entry.folder / "lock").mkdir()  # as good as a cache that may only be read
    assert extract_for("tokens", task, Bands(), "test", np.arange(9), options, Silent(), key).rows.tolist() == [
        *range(9)
    ]
    with pytest.raises(StoreError, match="cannot write features"):
        extract_for("tokens", task, Bands(), "test", np.arange(10), options, Silent(), key)


def test_a_stream_that_is_left_early_gives_the_lock_back(task: Recordings, tmp_path: Path) -> None:
    key, options = {"data": "d1"}, Options(tmp_path / "cache", workers=2, batch_size=7)
    stream = stream_for("tokens", task, Bands(), "test", np.arange(60), options, Silent(), key)
    next(stream)
    del stream
    assert extract(task, Bands(), "test", np.arange(60), key, options, Silent()).hashes.all()


def test_a_backbone_without_tokens_is_one_clear_line(tmp_path: Path) -> None:
    class Plain(Pixels):
        def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
            return Encoded(batch)

    with pytest.raises(BenchkitError, match="Plain has no tokens"):
        extract_for("tokens", Gradients(), Plain(), "test", np.arange(3), Options(tmp_path, workers=0), Silent())


class Padded(Bands):
    """Windows of zeros are what a recording was padded with; the first number of window 5 is broken."""

    def real_tokens(self, batch: np.ndarray, n_tokens: int) -> np.ndarray:
        real: np.ndarray = batch.reshape(len(batch), n_tokens, -1).any(axis=2)
        return real

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        made = super().encode(batch, tokens=tokens)
        if made.tokens is not None:
            made.tokens[:, 5, 0] = np.nan
        return made


def test_tokens_that_are_padding_come_as_rows_of_nan_and_broken_ones_do_not(task: Recordings, tmp_path: Path) -> None:
    arrays = np.stack([Padded().preprocess(e.media.load(8000)[:2500]) for e in task.examples("test", range(3))])
    backbone = Padded()
    backbone.setup("cpu")
    real = backbone.real_tokens(arrays, 8)
    assert real.sum(axis=1).tolist() == [3, 3, 3]
    whole = Bands.encode(backbone, arrays, tokens=True).tokens
    assert whole is not None
    marked = mark_padding(backbone, arrays, whole)
    assert np.isnan(marked).all(axis=2).tolist() == (~real).tolist()
    np.testing.assert_array_equal(marked[real], whole[real])

    options = Options(tmp_path / "cache", workers=0, batch_size=7)
    kept = extract_for("tokens", task, Padded(), "test", np.arange(4), options, Silent()).values
    padding = np.isnan(kept).all(axis=2)
    assert (np.isnan(kept).any(axis=2) == padding).all()
    np.testing.assert_array_equal(np.isinf(kept[:, 5, 0]), ~padding[:, 5])
    assert np.isinf(kept).any()


@pytest.mark.parametrize("given", ["a list", np.ones((2, 7), bool), np.zeros((2, 8), bool), np.ones((2, 8))])
def test_a_mask_that_is_none_is_a_plugins_mistake(given: object) -> None:
    backbone = Bands()
    backbone.real_tokens = lambda batch, n: given  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(PluginError, match=r"Bands\.real_tokens (gave|calls)"):
        mark_padding(backbone, np.zeros((2, 8000), np.float32), np.zeros((2, 8, 16), np.float32))
