"""Each of the twelve on a small copy of real recordings in the hub's layout."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import benchkit
from benchkit import DataError, reach_hub
from benchkit.api import Settings
from benchkit.catalog.resolve import resolve
from benchkit.progress import Silent
from benchkit.testing import check_task
from benchkit.testing.hub import FakeHub

CLASSIFIED = ("watkins", "bats", "cbi", "dogs", "humbugdb", "esc50", "sc")
DETECTED = ("dcase", "enabirds", "hiceas", "rfcx", "gibbons")
NAMES = ["one", "two"]
pytestmark = pytest.mark.filterwarnings("ignore:.*as published")


@pytest.fixture(scope="module")
def copies(shared, tmp_path_factory):
    """A folder of each kind: 6, 4 and 4 rows."""
    clips = sorted((shared / "data" / "esc10" / "audio").iterdir())[:14]
    folder = tmp_path_factory.mktemp("beans")
    label = {"names": NAMES, "_type": "ClassLabel"}
    for kind in ("classified", "detected"):
        at = 0
        for split, n in (("train", 6), ("valid", 4), ("test", 4)):
            audio, lengths, events = [], [], []
            for i, clip in enumerate(clips[at : at + n]):
                wave, rate = soundfile.read(clip, dtype="float32")
                whole, out = np.resize(wave, 21 * rate), io.BytesIO()
                soundfile.write(out, whole, rate, format="flac")
                audio.append({"bytes": out.getvalue(), "path": f"/else/where/{split}{i}.flac"})
                lengths.append(21.0)
                events.append([{"st": 1.0 * i, "ed": 1.0 * i + 3, "label": i % 2}])
            columns = {"path": audio}
            columns |= {"label": [i % 2 for i in range(n)]} if kind == "classified" else {}
            columns |= {"length": lengths, "annotations": events} if kind == "detected" else {}
            features = {"label": label} if kind == "classified" else {"annotations": [{"label": label}]}
            meta = {"huggingface": json.dumps({"info": {"features": features}})}
            (folder / kind / "data").mkdir(parents=True, exist_ok=True)
            file = folder / kind / "data" / f"{split}-00000-of-00001.parquet"
            pq.write_table(pa.table(columns).replace_schema_metadata(meta), file, row_group_size=3)
            at += n
    return folder


@pytest.mark.parametrize("name", [*CLASSIFIED, *DETECTED])
def test_each_is_a_task_with_rows_to_choose_by(copies, name):
    kind = "detected" if name in DETECTED else "classified"
    task = resolve("task", f"beans-{name},repo={copies / kind}").build()
    (fold,) = task.folds()
    assert fold.val_split == "valid"
    assert task.classes == tuple(NAMES)
    if name in ("watkins", "rfcx"):
        check_task(task)


def test_windows_of_a_detection_are_cut_and_labelled_as_published(copies):
    task = resolve("task", f"beans-dcase,repo={copies / 'detected'}").build()
    assert len(task.ids("test")) == 4 * 20
    assert task.labels("test")[:4].tolist() == [[1, 0], [1, 0], [1, 0], [0, 0]]
    assert next(task.examples("test", [7])).media.load(16_000).shape == (32_000,)


@pytest.mark.parametrize(("name", "metric"), [("watkins", "top1"), ("dcase", "beans_map")])
def test_it_runs_end_to_end(copies, tmp_path, name, metric):
    kind = "detected" if name in DETECTED else "classified"
    (report,) = benchkit.run(
        task=f"beans-{name},repo={copies / kind}", model="mfcc", classifier="centroid",
        settings=Settings(db=tmp_path / "r.sqlite", cache=tmp_path / "c", replicates=5, workers=0),
    )  # fmt: skip
    assert report.primary == metric


def test_fetch_copies_one_that_is_the_same_data(copies, tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    reach_hub.cache_clear()
    with FakeHub(copies / "detected", "DBD-research-group/beans_dcase") as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        remote = resolve("task", "beans-dcase").build()
        local = type(remote)(type(remote.params)(**remote.fetch(tmp_path / "copy", Silent())))
        assert local.ids("test") == remote.ids("test")
        (there,), (here,) = (list(t.examples("test", [25])) for t in (remote, local))
        np.testing.assert_array_equal(there.media.load(16_000), here.media.load(16_000))
        assert local.fingerprint() == resolve("task", f"beans-dcase,repo={copies / 'detected'}").build().fingerprint()


def test_other_sizes_than_published_are_told_and_what_is_missing_is_named(copies):
    task = resolve("task", f"beans-watkins,repo={copies / 'classified'}").build()
    assert task.published
    with pytest.warns(UserWarning, match="as published"):
        task.folds()
    assert task.published == ()
    with pytest.raises(DataError, match="has no column length"):
        resolve("task", f"beans-dcase,repo={copies / 'classified'}").build().ids("test")
    with pytest.raises(DataError, match="holds no train_low"):
        resolve("task", f"beans-watkins,low=true,repo={copies / 'classified'}").build().folds()
