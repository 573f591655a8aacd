"""What the cache believes, and what it does not."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from feature_samples import Bands, BandsParams, FolderParams, Recordings, encoded
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.errors import StoreError
from benchkit.features import Features, Options, cache_key, extract, ls, prune, verify
from benchkit.features import pipeline as pipeline_module
from benchkit.features.cache import Entry, Writer, row_digests
from benchkit.features.lock import try_lock
from benchkit.progress import Silent

Extract = Callable[..., Features]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def run(recordings: Path, tmp_path: Path, log: Path) -> Extract:
    """Extracts rows (all 60, if none are given) without workers, and logs what was encoded."""

    def run(rows: np.ndarray | None = None, weights: str = "w1", **options: int) -> Features:
        return extract(
            Recordings(FolderParams(str(recordings))),
            Bands(BandsParams(log=str(log), weights=weights)),
            "test",
            np.arange(60) if rows is None else rows,
            {"data": "d1"},
            Options(tmp_path / "cache", workers=0, batch_size=8, **options),
            Silent(),
        )

    return run


def entry_of(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


# ----------------------------------------------------------------------------------------------------------------- rows


def test_features_come_from_the_cache_the_second_time_and_are_the_same(run: Extract, log: Path) -> None:
    first, second = run(), run()
    assert encoded(log) == 60
    np.testing.assert_array_equal(first.pooled, second.pooled)
    np.testing.assert_array_equal(first.hashes, second.hashes)
    assert len(set(first.hashes.tolist())) == 60
    assert first.model_fingerprint == "w1"


def test_only_rows_that_are_asked_for_and_not_there_are_extracted(run: Extract, log: Path) -> None:
    few = run(np.array([50, 3, 4, 3]))
    assert encoded(log) == 3
    assert np.flatnonzero(few.hashes).tolist() == [3, 4, 50]
    some = run(np.array([2, 3, 4, 5]))
    assert encoded(log) == 5
    np.testing.assert_array_equal(few.pooled[[3, 4]], some.pooled[[3, 4]])
    everything = run()
    assert encoded(log) == 60
    np.testing.assert_array_equal(everything.pooled[[3, 4, 50]], np.asarray(few.pooled[[3, 4, 50]]))


def test_features_equal_those_of_a_plain_loop(run: Extract, recordings: Path) -> None:
    features = run()
    task, backbone = Recordings(FolderParams(str(recordings))), Bands()
    raw = [e.media.load(8000) for e in task.examples("test", range(60))]
    arrays = [backbone.preprocess(r) for r in raw]
    backbone.setup("cpu")
    np.testing.assert_array_equal(features.pooled, np.stack([backbone.encode(a[None]).pooled[0] for a in arrays]))


def test_features_are_a_read_only_memory_map(run: Extract) -> None:
    pooled = run().pooled
    assert isinstance(pooled, np.memmap)
    assert not pooled.flags.writeable


def test_no_rows_are_no_features(run: Extract) -> None:
    assert run(np.array([], dtype=np.int64)).pooled.shape == (60, 16)


def test_a_row_that_the_split_does_not_have_is_refused(run: Extract) -> None:
    with pytest.raises(ValueError, match="rows 0 to 59"):
        run(np.array([60]))


# --------------------------------------------------------------------------------------------------------------- damage


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "at", "row"), [("pooled.f32", 64 * 7 + 5, 7), ("index", 16 * 7 + 3, 7), ("index", 16 * 7 + 11, 7)]
)
def test_a_flipped_bit_costs_one_row_and_is_mended(
    run: Extract, log: Path, tmp_path: Path, file: str, at: int, row: int
) -> None:
    before = np.array(run().pooled)
    flip(entry_of(tmp_path) / file, at)
    assert [v.damaged for v in verify(tmp_path / "cache")] == [1]
    after = run()
    assert encoded(log) == 61
    np.testing.assert_array_equal(after.pooled, before)
    assert [v.damaged for v in verify(tmp_path / "cache")] == [0]
    assert after.hashes[row]


@pytest.mark.parametrize(("file", "keep", "again"), [("pooled.f32", 64 * 20 + 1, 60), ("index", 16 * 20 + 1, 40)])
def test_a_truncated_file_is_mended(run: Extract, log: Path, tmp_path: Path, file: str, keep: int, again: int) -> None:
    before = np.array(run().pooled)
    os.truncate(entry_of(tmp_path) / file, keep)
    np.testing.assert_array_equal(run().pooled, before)
    # A map needs the file whole; once it is made whole again, the 20 rows that were left prove themselves.
    assert encoded(log) == 60 + (40 if file == "index" else again)


def test_rows_that_changed_places_are_not_believed(run: Extract, log: Path, tmp_path: Path) -> None:
    before = np.array(run().pooled)
    for name, width in (("pooled.f32", 64), ("index", 16)):
        data = (entry_of(tmp_path) / name).read_bytes()
        a, b = data[width * 3 : width * 4], data[width * 9 : width * 10]
        (entry_of(tmp_path) / name).write_bytes(
            data[: width * 3] + b + data[width * 4 : width * 9] + a + data[width * 10 :]
        )
    np.testing.assert_array_equal(run().pooled, before)
    assert encoded(log) == 62


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "meta.json").unlink(),
        lambda f: (f / "meta.json").write_text("{"),
        lambda f: (f / "meta.json").write_text((f / "meta.json").read_text().replace('"dim": 16', '"dim": 8')),
        lambda f: (f / "meta.json").write_text((f / "meta.json").read_text().replace('"n": 60', '"n": 30')),
        lambda f: (f / "pooled.f32").unlink(),
        lambda f: (f / "index").unlink(),
    ],
    ids=["no meta", "torn meta", "other dim", "other n", "no pooled", "no index"],
)
def test_a_missing_or_damaged_file_is_made_again(
    run: Extract, log: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    before = np.array(run().pooled)
    damage(entry_of(tmp_path))
    np.testing.assert_array_equal(run().pooled, before)
    assert encoded(log) == 120
    run()
    assert encoded(log) == 120


def test_features_that_are_mapped_stay_as_they_were_while_the_entry_is_made_anew(run: Extract, tmp_path: Path) -> None:
    mapped = run().pooled
    before = np.array(mapped)
    (entry_of(tmp_path) / "meta.json").unlink()
    run()
    np.testing.assert_array_equal(mapped, before)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_change_of_one_or_two_words_changes_the_digest(data: st.DataObject) -> None:
    d = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    row = rng.standard_normal((1, d), dtype=np.float32) * data.draw(st.sampled_from([0.0, 1.0]))
    other = row.copy()
    words = other.view(np.uint32)[0]
    for at in {data.draw(st.integers(0, d - 1)), data.draw(st.integers(0, d - 1))}:
        words[at] ^= np.uint32(1 << data.draw(st.integers(0, 31)))  # two sign bits, for one
    at, media = np.array([3]), np.array([7], np.uint64)
    digest = row_digests(at, media, row)
    assert digest != row_digests(at, media, other)
    assert digest != row_digests(at + 1, media, row)
    assert digest != row_digests(at, media + np.uint64(1), row)
    assert digest != 0


def test_a_digest_is_the_sum_that_its_docstring_says() -> None:
    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    values = np.array([[1.5, -2.0, 3e-9]], np.float32)
    words = np.frombuffer(values.tobytes(), "<u4").tolist()
    plain = sum(w * (mix((i + 1) << 32) | 1) for i, w in enumerate(words)) + mix(5 ^ mix(3)) + mix(9 ^ 0xA5A5)
    assert row_digests(np.array([5]), np.array([9], np.uint64), values).tolist() == [plain % 2**64]


# ------------------------------------------------------------------------------------------------------------------ key


def test_everything_that_can_change_a_feature_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL
    import soundfile
    import soxr

    key = {"task": "T", "media": "esc50", "data": "d1", "model": "bird-mae:base,layer=11,pool=mean,precision=float32"}
    task = Recordings()

    def folder(split: str = "test", weights: str = "w1", **changes: str) -> str:
        return Entry.of(Path("."), cache_key(task, split, key | changes, weights), 60).folder.name

    seen = {folder()}

    def is_new(name: str) -> bool:
        known = name in seen
        seen.add(name)
        return not known

    assert is_new(folder(data="d2"))
    assert is_new(folder(media="esc50,clip=10"))
    assert is_new(folder(model="bird-mae:base,layer=10,pool=mean,precision=float32"))
    assert is_new(folder(model="bird-mae:base,layer=11,pool=cls,precision=float32"))
    assert is_new(folder(model="bird-mae:base,layer=11,pool=mean,precision=bfloat16"))
    assert is_new(folder(model="bird-mae@2:base,layer=11,pool=mean,precision=float32"))
    assert is_new(folder(weights="w2"))
    assert is_new(folder(split="train"))
    for module, attribute in (
        (soundfile, "__version__"), (soundfile, "__libsndfile_version__"), (soxr, "__version__"),
        (soxr, "__libsoxr_version__"), (pipeline_module, "FEATURES_VERSION"),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(module, attribute, 99)
            assert is_new(folder()), attribute
    assert folder() in seen, "and without changes, it is as before"
    with monkeypatch.context() as patch:
        patch.setattr(PIL, "__version__", "99")
        assert folder() in seen, "what decodes images does not touch audio"


def test_nothing_else_changes_the_key(recordings: Path, tmp_path: Path, log: Path) -> None:
    task = Recordings(FolderParams(str(recordings)))
    plain = Options(tmp_path / "cache", workers=0)
    for options in (
        plain, dataclasses.replace(plain, batch_size=5), dataclasses.replace(plain, workers=1),
        dataclasses.replace(plain, skip_bad=3), dataclasses.replace(plain, scratch=tmp_path),
    ):  # fmt: skip
        backbone = Bands(BandsParams(log=str(log)))
        extract(task, backbone, "test", np.arange(5), {"b": "2", "a": "1"}, options, Silent())
    extract(task, Bands(BandsParams(log=str(log))), "test", np.arange(5), {"a": "1", "b": "2"}, plain, Silent())
    (tmp_path / "cache").rename(tmp_path / "moved")
    moved = dataclasses.replace(plain, cache=tmp_path / "moved")
    extract(task, Bands(BandsParams(log=str(log))), "test", np.arange(5), {"a": "1", "b": "2"}, moved, Silent())
    assert encoded(log) == 5


def test_other_weights_are_another_entry(run: Extract, tmp_path: Path, log: Path) -> None:
    assert run(weights="w1").model_fingerprint == "w1"
    assert run(weights="w2").model_fingerprint == "w2"
    assert encoded(log) == 120
    assert len(ls(tmp_path / "cache")) == 2


# --------------------------------------------------------------------------------------------------------- housekeeping


def test_ls_says_what_is_there(run: Extract, tmp_path: Path) -> None:
    assert ls(tmp_path / "cache") == []
    run(np.arange(10))
    (entry,) = ls(tmp_path / "cache")
    assert (entry.rows, entry.dim, entry.done) == (60, 16, 10)
    assert entry.key["key"] == {"data": "d1"}
    assert entry.key["weights"] == "w1"
    assert 0 < entry.bytes < 100_000


def test_prune_removes_the_least_recently_used_until_the_rest_fits(run: Extract, tmp_path: Path, log: Path) -> None:
    for weights in ("a", "b", "c"):
        run(weights=weights)
    for age, entry in enumerate(sorted(ls(tmp_path / "cache"), key=lambda e: e.key["weights"])):
        os.utime(entry.folder / "meta.json", (1000 + age, 1000 + age))
    run(weights="a")  # used again, from the cache
    sizes = {e.key["weights"]: e.bytes for e in ls(tmp_path / "cache")}
    removed = prune(tmp_path / "cache", keep_bytes=sizes["a"] + sizes["c"])
    assert [e.key["weights"] for e in removed] == ["b"]
    assert {e.key["weights"] for e in ls(tmp_path / "cache")} == {"a", "c"}
    assert not removed[0].folder.exists()
    assert encoded(log) == 180


def test_prune_leaves_what_is_locked_and_takes_remains(run: Extract, tmp_path: Path) -> None:
    mapped = run().pooled
    before = np.array(mapped)
    lock = try_lock(entry_of(tmp_path))
    assert lock
    with lock:
        assert prune(tmp_path / "cache", 0) == []
    remains, other = tmp_path / "cache" / "0123456789abcdef", tmp_path / "cache" / "mine"
    remains.mkdir()
    (remains / "lock").touch()
    other.mkdir()
    (other / "thesis.tex").touch()
    assert len(prune(tmp_path / "cache", 0)) == 1
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["mine"]
    np.testing.assert_array_equal(mapped, before)


def test_housekeeping_touches_no_folder_but_an_entrys(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "holiday.part").touch()
    (tmp_path / "0123456789abcdef").mkdir()
    assert ls(tmp_path) == prune(tmp_path, 0) == []
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["empty", "films", "holiday.part"]


def test_a_cache_that_is_no_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for look in (ls, lambda cache: list(verify(cache)), lambda cache: prune(cache, 0)):
        with pytest.raises(StoreError, match=r"cannot read the feature cache '.*/file': Not a directory; --cache"):
            look(tmp_path / "file")


def test_an_index_that_cannot_be_read_is_named(run: Extract, tmp_path: Path) -> None:
    run()
    (entry_of(tmp_path) / "index").unlink()
    (entry_of(tmp_path) / "index").mkdir()
    with pytest.raises(StoreError, match=r"cannot read the feature cache '.*': it is a folder, and so no file"):
        ls(tmp_path / "cache")


def test_a_lock_is_held_by_one_and_names_its_holder(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "entry")
    assert first
    assert try_lock(tmp_path / "entry") is None
    assert f"process {os.getpid()} on " in (tmp_path / "entry" / "lock").read_text()
    with first:
        pass
    again = try_lock(tmp_path / "entry")
    assert again
    with again:
        pass


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = Options(tmp_path / "file" / "cache", workers=0)
    with pytest.raises(StoreError, match=r"cannot write features to '.*file/cache/.*BENCHKIT_CACHE"):
        extract(Recordings(FolderParams(str(recordings))), Bands(), "test", np.arange(3), {}, options, Silent())


def test_rows_that_are_far_apart_are_written_in_their_places(tmp_path: Path) -> None:
    entry = Entry.of(tmp_path, {"a": 1}, 1000)
    rows = np.array([5, 6, 7, 900, 20, 999])
    values = np.random.default_rng(0).standard_normal((6, 3), dtype=np.float32)
    with Writer(entry) as writer:
        writer.write(rows, values, np.arange(1, 7, dtype=np.uint64))
    stored = entry.read(np.arange(1000))
    assert np.flatnonzero(stored.good).tolist() == sorted(rows.tolist())
    assert stored.pooled is not None
    np.testing.assert_array_equal(stored.pooled[rows], values)
    assert stored.media[rows].tolist() == [1, 2, 3, 4, 5, 6]
    assert json.loads((entry.folder / "meta.json").read_text()) == {"key": {"a": 1}, "n": 1000, "dim": 3}
