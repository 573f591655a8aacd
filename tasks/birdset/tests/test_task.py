"""The tasks on real recordings in a local folder."""

import io
import pickle
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from benchkit import DataError, OpenAudio, Problem, SpecError, resolve
from benchkit.catalog.spec import RawSpec
from benchkit.planning.sampling import subset
from benchkit.testing import check_task
from benchkit_birdset import task as tasks
from benchkit_birdset.published import published
from benchkit_birdset.table import recording

ALL = ("pow", "per", "nes", "uhh", "hsn", "nbp", "ssw", "sne")


def rows_of(mini, split):
    return pq.read_table(next((mini / "HSN").glob(f"{split}-*"))).to_pylist()


def test_all_eight_are_found_by_name_and_differ_in_their_data_alone():
    built = {name: resolve("task", name) for name in ALL}
    assert [s.canonical for s in built.values()] == list(ALL)
    assert {name: s.cls.config for name, s in built.items()} == {name: name.upper() for name in ALL}
    assert {(s.cls.kind, s.cls.modality, s.cls.metrics) for s in built.values()} == {
        ("multilabel", "audio", ("cmap", "auroc", "auroc_birdset", "top1"))
    }
    assert {tuple(s.describe().items()) for s in built.values()} == {
        (("repo", "samuelstevens/BirdSet"), ("revision", None), ("clip", "event"), ("seconds", 5.0), ("channel", "mix"))
    }


def test_it_is_what_benchkit_expects_of_a_task(mini):
    check_task(f"hsn,repo={mini}")
    check_task(f"hsn,repo={mini},clip=loudest,seconds=2")


def test_classes_come_from_the_data_set_itself(hsn):
    assert hsn().classes == (
        "dog_bark", "rain", "sea_waves", "baby_cry", "clock_tick", "person_sneeze", "helicopter", "chainsaw",
        "rooster", "fire_crackling",
    )  # fmt: skip


@pytest.mark.parametrize(("split", "theirs"), [("train", "train"), ("test", "test_5s")])
def test_labels_and_ids_are_those_of_the_file_row_by_row(hsn, mini, split, theirs):
    task, rows = hsn(), rows_of(mini, theirs)
    labels = task.labels(split)
    assert labels.shape == (len(rows), 10)
    assert [sorted(np.flatnonzero(row)) for row in labels] == [sorted(r["ebird_code_multilabel"]) for r in rows]
    assert all(i.startswith(r["filepath"]) for i, r in zip(task.ids(split), rows, strict=True))
    assert len(set(task.ids(split))) == len(rows)


def test_many_windows_have_no_label_and_some_have_several(hsn):
    counts = Counter(hsn().labels("test").sum(axis=1).tolist())
    assert counts[0] == 35
    assert max(counts) == 3


def test_labels_are_read_without_touching_a_recording(mini, tmp_path):
    shutil.copytree(mini, tmp_path / "copy", copy_function=shutil.copy)
    for path in (tmp_path / "copy" / "HSN").iterdir():
        path.chmod(0o644)
        metadata = pq.ParquetFile(path).metadata
        with path.open("r+b") as f:
            for g in range(metadata.num_row_groups):
                column = metadata.row_group(g).column(0)
                assert column.path_in_schema == "audio.bytes"
                start = column.dictionary_page_offset or column.data_page_offset
                f.seek(start)
                f.write(b"\xff" * column.total_compressed_size)
    broken = tasks.HSN(tasks.HSN.Params(repo=str(tmp_path / "copy")))
    whole = tasks.HSN(tasks.HSN.Params(repo=str(mini)))
    for split in ("train", "test"):
        assert broken.ids(split) == whole.ids(split)
        np.testing.assert_array_equal(broken.labels(split), whole.labels(split))
    with pytest.raises(DataError, match=r"parquet' does not read as parquet"):
        list(broken.examples("test", [0]))


@pytest.mark.parametrize("indices", [[0, 1, 2], [299, 0, 150, 151, 149], [7, 7, 8], [], [120]])
def test_examples_come_as_asked_for_in_any_order(hsn, mini, indices):
    task, rows = hsn(), rows_of(mini, "test_5s")
    examples = list(task.examples("test", indices))
    assert [e.index for e in examples] == indices
    assert [e.id for e in examples] == [task.ids("test")[i] for i in indices]
    assert [e.media.source for e in examples] == [rows[i]["audio"]["bytes"] for i in indices]


def test_a_window_is_all_of_its_five_seconds_wherever_in_the_soundscape_it_lies(hsn):
    task = hsn()
    for example in task.examples("test", [0, 100, 299]):
        wave, rate = soundfile.read(io.BytesIO(example.media.source), dtype="float32")
        np.testing.assert_array_equal(example.media.load(rate), wave)


def test_the_clip_is_a_parameter(hsn):
    first = [e.media.load(32_000) for e in hsn(clip="first", seconds=1.0).examples("train", range(20))]
    event = [e.media.load(32_000) for e in hsn(clip="event", seconds=1.0).examples("train", range(20))]
    assert all(w.shape == (32_000,) for w in first + event)
    assert sum(not np.array_equal(a, b) for a, b in zip(first, event, strict=True)) >= 15


def test_events_of_the_real_recordings_lie_in_their_clips(hsn):
    for example in hsn(clip="event", seconds=2.0).examples("train", range(40)):
        middle = sum(example.media.event) / 2
        with OpenAudio(example.media.source) as recording:
            begin, _ = example.media.part(recording)
        assert begin - 1e-9 <= middle <= begin + 2.0 + 1e-9


def test_examples_of_every_rule_survive_the_way_to_a_worker(hsn):
    for rule in ("event", "first", "centre", "loudest"):
        (example,) = pickle.loads(pickle.dumps(list(hsn(clip=rule).examples("train", [3]))))
        assert 0 < len(example.media.load(32_000)) <= 160_000


def test_a_task_survives_the_way_to_a_worker_with_its_tables(hsn):
    task = hsn(clip="first")
    task.ids("train")
    other = pickle.loads(pickle.dumps(task))
    assert other.params == task.params
    assert other.ids("train") == task.ids("train")


@pytest.mark.parametrize("k", [1, 5, 32])
def test_k_shot_takes_k_of_every_class(hsn, k):
    task = hsn()
    problem = Problem("multilabel", 10, task.classes)
    rows = subset(task.labels("train"), k, 0, problem)
    assert task.labels("train")[rows].sum(axis=0).tolist() == [k] * 10


def test_rows_that_do_not_exist_are_refused(hsn):
    with pytest.raises(DataError, match="HSN test has rows 0 to 299, not -1 to 300"):
        list(hsn().examples("test", [300, -1]))
    with pytest.raises(DataError, match="HSN has no split 'valid': it has train and test"):
        hsn().ids("valid")


def test_folds_are_train_then_test(hsn):
    (fold,) = hsn().folds()
    assert (fold.train_split, len(fold.train), fold.test_split, len(fold.test)) == ("train", 320, "test", 300)


def test_the_feature_cache_shares_windows_between_clips_and_not_recordings(hsn):
    keys = {(s, c): hsn(clip=c).media_key(s) for s in ("train", "test") for c in ("first", "event")}
    assert keys["test", "first"] == keys["test", "event"]
    assert keys["train", "first"] != keys["train", "event"]
    assert keys["train", "first"] != keys["test", "first"]
    assert hsn(seconds=4.0).media_key("train") != hsn().media_key("train")


def test_the_identity_follows_this_data_set_and_no_other_in_the_folder(mini, tmp_path):
    shutil.copytree(mini, tmp_path / "copy")
    (tmp_path / "copy").chmod(0o755)
    before = resolve("task", f"hsn,repo={tmp_path / 'copy'}").canonical
    assert before == resolve("task", f"hsn,repo={mini}").canonical
    (tmp_path / "copy" / "POW").mkdir()
    (tmp_path / "copy" / "POW" / "train-00000-of-00001.parquet").write_bytes(b"another")
    assert resolve("task", f"hsn,repo={tmp_path / 'copy'}").canonical == before


def test_a_repository_that_is_neither_here_nor_a_name_is_named():
    for wrong in ("../nowhere/birdset", "no-slash", "/absolute", "a/b/c"):
        task = tasks.HSN(tasks.HSN.Params(repo=wrong))
        with pytest.raises(DataError, match="is neither a folder here nor the name of a repository"):
            task.ids("train")


def test_a_revision_of_a_local_folder_is_a_contradiction(mini):
    with pytest.raises(DataError, match="revision=main is for a repository on the hub"):
        tasks.HSN(tasks.HSN.Params(repo=str(mini), revision="main")).ids("train")


def test_parameters_are_checked():
    with pytest.raises(SpecError, match="parameter 'clip' is 'middle', which is none of event, first, centre, loudest"):
        resolve("task", "hsn,clip=middle")
    with pytest.raises(SpecError, match=r"'seconds' is 0, below the least allowed"):
        resolve("task", "hsn,seconds=0")


def test_published_numbers_name_real_cells_and_their_source():
    entries = [p for name in ALL for p in published(name)]
    assert len({(p.model, p.classifier, p.n_train, p.metric, name) for name in ALL for p in published(name)}) == len(
        entries
    )
    assert {p.metric for p in entries} <= {"cmap", "auroc_birdset", "top1"}
    assert all(0 < p.value < 1 and p.source.startswith("arXiv ") for p in entries)
    for p in entries:
        assert str(RawSpec.parse(p.model)) == p.model
        assert str(RawSpec.parse(p.classifier)) == p.classifier
    assert not [p for p in entries if p.model == "bird-mae:base"]  # that 16.37 is a ViT-L's, on its class token
    (large,) = [p for p in tasks.HSN.published if "bird-mae" in p.model and p.value == 0.1637]
    assert (large.model, large.classifier, large.metric) == (
        "bird-mae:large,pool=cls", "linear:biofoundation", "cmap",
    )  # fmt: skip
    attentive = {p.classifier for p in entries if "attentive" in p.source}
    assert attentive == {"attentive-pool:biofoundation"}


def test_published_numbers_do_not_apply_to_other_data(hsn):
    task = hsn()
    assert task.published
    task.ids("train")
    assert task.published == ()
    assert tasks.HSN.published


def test_a_window_knows_its_recording_by_the_name_of_its_file(hsn, mini):
    assert hsn().groups("test") == tuple(r["filepath"].removesuffix(".ogg") for r in rows_of(mini, "test_5s"))
    assert len(set(hsn().groups("test"))) < len(hsn().ids("test"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("UHH_001_S01_20161121_150000_000_005.ogg", "UHH_001_S01_20161121_150000"),
        ("audio/HSN_001_20150708_061805_60_65.ogg", "HSN_001_20150708_061805"),
        ("HSN_001_20150708_061805.ogg", "HSN_001_20150708_061805"),
        ("XC122104.ogg", "XC122104"),
        ("nips4b_birds_trainfile_012_013.ogg", "nips4b_birds_trainfile_012_013"),
        (None, "unnamed"),
    ],
)
def test_a_window_that_is_a_file_of_its_own_ends_in_its_seconds(file, name):
    assert recording({"filepath": file}) == name
