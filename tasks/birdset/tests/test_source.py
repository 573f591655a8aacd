"""Folders that are not what they should be, and the hub."""

import json
import os
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchkit import DataError, OfflineError
from benchkit import reach_hub as reach
from benchkit.catalog.fetch import fetch as catalog_fetch
from benchkit.progress import Silent
from benchkit_birdset import task as tasks
from benchkit_birdset.source import check_shards
from benchkit_birdset.table import class_names, unique_ids


def local(folder):
    return tasks.HSN(tasks.HSN.Params(repo=str(folder)))


@pytest.fixture
def writable(mini, tmp_path):
    shutil.copytree(mini, tmp_path / "copy", copy_function=shutil.copyfile)
    for folder in (tmp_path / "copy", tmp_path / "copy" / "HSN"):
        folder.chmod(0o755)
    return tmp_path / "copy"


def split_into(folder, split, parts):
    """Replaces a split's one file by several, as large data sets have them."""
    (path,) = (folder / "HSN").glob(f"{split}-*")
    table = pq.read_table(path)
    path.unlink()
    bounds = np.linspace(0, len(table), parts + 1).astype(int)
    for i, (a, b) in enumerate(pairwise(bounds)):
        name = f"{split}-{i:05d}-of-{parts:05d}.parquet"
        pq.write_table(table.slice(a, b - a), folder / "HSN" / name, row_group_size=40)


def test_a_split_of_several_files_is_the_same_split(writable, mini):
    split_into(writable, "test_5s", 3)
    whole, parts = local(mini), local(writable)
    assert parts.ids("test") == whole.ids("test")
    np.testing.assert_array_equal(parts.labels("test"), whole.labels("test"))
    wanted = [0, 39, 40, 99, 100, 101, 250, 299, 5]
    ours, theirs = (list(t.examples("test", wanted)) for t in (parts, whole))
    assert [e.media.source for e in ours] == [e.media.source for e in theirs]
    assert parts.fingerprint() != whole.fingerprint()


def test_a_file_that_is_missing_is_named(writable):
    split_into(writable, "test_5s", 3)
    (writable / "HSN" / "test_5s-00001-of-00003.parquet").unlink()
    with pytest.raises(DataError, match=r"is incomplete: 'HSN/test_5s-00001-of-00003\.parquet' is missing"):
        local(writable).ids("test")


def test_files_of_two_sets_are_refused():
    with pytest.raises(DataError, match="mixes files of a set of 1 and a set of 2"):
        check_shards(["t-00000-of-00001.parquet", "t-00000-of-00002.parquet", "t-00001-of-00002.parquet"], "DIR")


def test_a_folder_without_this_data_set_says_what_would_make_it_one(mini, tmp_path):
    with pytest.raises(DataError, match=r"holds no HSN/train-\*\.parquet \(benchkit fetch --task hsn --to DIR"):
        local(tmp_path).ids("train")
    with pytest.raises(DataError, match="give the folder above it"):
        local(mini / "HSN").ids("train")
    with pytest.raises(DataError, match=r"holds no POW/train-\*\.parquet"):
        tasks.POW(tasks.POW.Params(repo=str(mini))).ids("train")


def test_a_damaged_file_is_named(writable):
    path = writable / "HSN" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"'HSN/train-00000-of-00001\.parquet' does not read as parquet"):
        local(writable).ids("train")


def rewrite(path, table):
    pq.write_table(table, path)


def test_a_file_without_class_names_is_refused(writable):
    path = writable / "HSN" / "train-00000-of-00001.parquet"
    rewrite(path, pq.read_table(path).replace_schema_metadata({}))
    with pytest.raises(DataError, match="does not say what its classes are"):
        local(writable).ids("train")


def test_a_label_beyond_the_classes_is_refused(writable):
    path = writable / "HSN" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    labels = table["ebird_code_multilabel"].to_pylist()
    labels[7] = [10]
    at = table.schema.get_field_index("ebird_code_multilabel")
    rewrite(path, table.set_column(at, table.schema.field(at), pa.array(labels, table.schema.field(at).type)))
    with pytest.raises(DataError, match="holds the label 10, and there are 10 classes"):
        local(writable).labels("train")


def test_splits_with_other_classes_are_refused(writable):
    path = writable / "HSN" / "test_5s-00000-of-00001.parquet"
    table = pq.read_table(path)
    metadata = table.schema.metadata[b"huggingface"].replace(b"dog_bark", b"dog_song")
    rewrite(path, table.replace_schema_metadata({b"huggingface": metadata}))
    task = local(writable)
    assert "dog_bark" in task.classes
    with pytest.raises(DataError, match="its splits disagree on the classes"):
        task.ids("test")


def test_recordings_that_are_only_named_are_refused(writable):
    path = writable / "HSN" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    field = table.schema.field("audio")
    empty = pa.array([{"bytes": None, "path": "x.ogg"}] * len(table), field.type)
    rewrite(path, table.set_column(0, field, empty))
    with pytest.raises(DataError, match="holds no audio for row 3 of the split, only its name"):
        list(local(writable).examples("train", [3]))


@pytest.mark.parametrize(
    "feature",
    [
        {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "List"},
        {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "Sequence"},
        [{"names": ["a", "b"], "_type": "ClassLabel"}],
    ],
)
def test_class_names_are_found_however_the_list_is_written(feature):
    info = {"info": {"features": {"ebird_code_multilabel": feature}}}
    assert class_names({b"huggingface": json.dumps(info).encode()}) == ("a", "b")


def test_ids_are_file_names_with_a_place_or_a_number_where_they_repeat():
    rows = [
        {"filepath": "/cache/of/someone/XC1.ogg", "start_time": None, "end_time": None},
        {"filepath": "H.ogg", "start_time": 0.0, "end_time": 5.0},
        {"filepath": "H.ogg", "start_time": 5.0, "end_time": 10.0},
        {"filepath": "H.ogg", "start_time": 5.0, "end_time": 10.0},
    ]
    assert unique_ids(rows) == ("XC1.ogg", "H.ogg@0-5s", "H.ogg@5-10s#1", "H.ogg@5-10s#2")


# ----------------------------------------------------------------------------------------------------------- the hub


def test_the_hub_gives_what_the_folder_gives(hub, mini):
    ours, theirs = tasks.HSN(), local(mini)
    assert ours.classes == theirs.classes
    for split in ("train", "test"):
        assert ours.ids(split) == theirs.ids(split)
        np.testing.assert_array_equal(ours.labels(split), theirs.labels(split))
        wanted = [0, 99, 100, 250, 3]
        for a, b in zip(ours.examples(split, wanted), theirs.examples(split, wanted), strict=True):
            assert (a.index, a.id, a.media) == (b.index, b.id, b.media)


def test_a_task_on_the_hub_survives_the_way_to_another_process(hub):
    task = tasks.HSN()
    first = next(task.examples("train", [0])).media.source
    other = pickle.loads(pickle.dumps(task))
    assert other.fingerprint() == task.fingerprint()
    assert next(other.examples("train", [0])).media.source == first


def test_labels_from_the_hub_transfer_no_audio(hub, mini):
    audio = sum(len(r["bytes"]) for f in (mini / "HSN").iterdir() for r in pq.read_table(f)["audio"].to_pylist())
    task = tasks.HSN()
    task.labels("train"), task.labels("test"), task.fingerprint()
    assert hub.sent < 0.05 * audio


def test_the_hubs_troubles_do_not_show(hub, mini, monkeypatch):
    monkeypatch.setattr("benchkit.media.hub.Backoff.waits", lambda self: iter([0.01] * 7))
    hub.faults.extend(["drop", "503", "short", "429", "drop"])
    ours, theirs = tasks.HSN(), local(mini)
    assert ours.ids("test") == theirs.ids("test")
    audio = [e.media.source for e in ours.examples("test", range(300))]
    assert audio == [e.media.source for e in theirs.examples("test", range(300))]


def test_a_hub_that_stays_down_is_an_error_that_names_the_file(hub, monkeypatch):
    monkeypatch.setattr("benchkit.media.hub.Backoff.waits", lambda self: iter([0.01] * 2))
    task = tasks.HSN()
    task.ids("test")
    hub.faults.extend(["503"] * 50)
    with pytest.raises(DataError, match=r"'HSN/test_5s-00000-of-00001\.parquet' of the dataset .*HTTP 503"):
        list(task.examples("test", [0]))


def test_training_recordings_are_transferred_once_and_leave_no_file(hub, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    task = tasks.HSN()
    first = [e.media.source for e in task.examples("train", range(320))]
    sent = hub.sent
    assert [e.media.source for e in task.examples("train", range(320))] == first
    assert hub.sent == sent
    assert list((tmp_path / "scratch").iterdir()) == []
    assert not (tmp_path / "hf-cache").exists()


def test_the_fingerprint_of_the_hub_is_of_the_contents(hub, mini, tmp_path):
    before = tasks.HSN().fingerprint()
    assert before == tasks.HSN().fingerprint()
    shutil.copytree(mini, tmp_path / "other", copy_function=shutil.copyfile)
    hub.root = tmp_path / "other"
    assert tasks.HSN().fingerprint() == before
    path = hub.root / "HSN" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    assert tasks.HSN().fingerprint() != before


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://hub.invalid"])
def test_a_compute_node_without_a_network_is_told_what_to_do(monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    reach.cache_clear()
    for name in (lambda t: t.labels("train"), lambda t: t.fingerprint(), lambda t: list(t.examples("test", [0]))):
        with pytest.raises(OfflineError) as raised:
            name(tasks.HSN())
        assert str(raised.value).endswith(
            "copy it where there is one (benchkit fetch --task hsn --to DIR) and run hsn,repo=DIR"
        )
        assert "\n" not in str(raised.value)


def test_a_fetched_copy_is_read_where_nothing_may_be_written_and_no_hub_is_there(hub, mini, tmp_path, monkeypatch):
    fetched = catalog_fetch("hsn,clip=first", tmp_path / "copy", Silent())
    assert fetched.spec == f"hsn,clip=first,repo={tmp_path / 'copy'}"
    for path in [*(tmp_path / "copy").rglob("*"), tmp_path / "copy"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").rglob("*")}
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    ours, theirs = local(tmp_path / "copy"), local(mini)
    assert ours.fingerprint() == theirs.fingerprint()
    np.testing.assert_array_equal(ours.labels("test"), theirs.labels("test"))
    assert len(list(ours.examples("train", range(5)))) == 5
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "copy").rglob("*")} == before
    for path in [tmp_path / "copy", tmp_path / "copy" / "HSN"]:
        path.chmod(0o755)


def test_a_copy_that_was_cut_short_is_refused(hub, tmp_path):
    catalog_fetch("hsn", tmp_path / "copy", Silent())
    victim = tmp_path / "copy" / "HSN" / "test_5s-00000-of-00001.parquet"
    os.truncate(victim, 1000)
    with pytest.raises(DataError, match=r"is not what 'HSN/benchkit-manifest\.json' lists: run benchkit fetch"):
        local(tmp_path / "copy").ids("test")
    catalog_fetch("hsn", tmp_path / "copy", Silent())
    assert len(local(tmp_path / "copy").ids("test")) == 300


def test_a_revision_is_asked_for_and_an_unknown_one_is_named(hub):
    with pytest.raises(DataError, match="the dataset 'samuelstevens/BirdSet' has no revision 'v2'"):
        tasks.HSN(tasks.HSN.Params(revision="v2")).ids("train")
    assert len(tasks.HSN(tasks.HSN.Params(revision="main")).ids("train")) == 320


def test_importing_the_tasks_imports_nothing_heavy():
    import subprocess
    import sys

    program = (
        "import sys, benchkit_birdset.task\n"
        "print([m for m in ('torch', 'jax', 'transformers', 'datasets', 'sklearn', 'pyarrow', 'huggingface_hub', "
        "'soundfile') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert Path(tasks.__file__).name == "task.py"
