"""benchkit.open(): the registry as pandas frames, and predictions as the arrays that were scored."""

import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import benchkit
from benchkit.errors import BenchkitError, StoreError
from benchkit.reading.results import Results
from benchkit.records.gate import predictions_path
from benchkit.records.predictions import as_parquet
from benchkit.records.report import Artifact, Cell, Metric, Report
from benchkit.store import open_store
from benchkit.store.insert import insert

CELLS = [
    Cell(task, model, classifier, n_train, seed)
    for task in ("digits", "hsn")
    for model in ("bird-mae:large,pool=cls", "pixels")
    for classifier in ("knn", "linear")
    for n_train, seeds in ((5, (0, 1, 2)), (-1, (0,)))
    for seed in seeds
]


def value_of(cell: Cell) -> float:
    return 0.3 + 0.01 * CELLS.index(cell)


@pytest.fixture
def path(tmp_path: Path, make_report: Callable[..., Report]) -> Path:
    with open_store(tmp_path / "r.sqlite") as store, store.write():
        for cell in CELLS:
            name, value = "top1" if cell.task == "digits" else "cmap", value_of(cell)
            metrics = [Metric(name, value, value - 0.1, value + 0.1), Metric("auroc", value / 2)]
            insert(store, make_report(cell=cell, primary=name, metrics=metrics))
    return tmp_path / "r.sqlite"


def test_the_table_has_the_mean_of_the_seeds_in_its_place(path: Path) -> None:
    with benchkit.open(path) as results:
        table = results.table(rows=["model", "classifier"], columns=["task", "n_train"])
        assert table.index.names == ["model", "classifier"]
        assert table.columns.names == ["task", "n_train", "metric"]
        for cell in CELLS:
            seeds = [value_of(c) for c in CELLS if c[:4] == cell[:4]]
            metric = "top1" if cell.task == "digits" else "cmap"
            mean = table.loc[(cell.model, cell.classifier), (cell.task, cell.n_train, metric)]
            assert mean == pytest.approx(statistics.fmean(seeds))
        spread = results.table(["model", "classifier"], ["task", "n_train"], show="sd")
        assert spread.loc[("pixels", "knn"), ("hsn", 5, "cmap")] == pytest.approx(statistics.stdev([0.0, 0.01, 0.02]))
        assert np.isnan(spread.loc[("pixels", "knn"), ("hsn", -1, "cmap")])
        assert results.table(show="n").to_numpy().tolist() == [[3, 1, 3, 1]] * 4


def test_the_table_of_one_task_is_as_simple_as_it_can_be(path: Path) -> None:
    with Results(path) as results:
        table = results.table(rows=["model"], columns=["n_train"], task="digits", classifier="linear")
        assert list(table.index) == ["bird-mae:large,pool=cls", "pixels"]
        assert list(table.columns) == [5, -1]
        assert (table.index.name, table.columns.name) == ("model", "n_train")
        by_seed = results.table(["model"], ["seed"], task="digits", classifier="linear", n_train=5)
        assert by_seed.loc["pixels", 2] == value_of(Cell("digits", "pixels", "linear", 5, 2))
        low = results.table(["model"], ["n_train"], show="low", task="digits", classifier="linear")
        assert low.loc["pixels", -1] == pytest.approx(value_of(Cell("digits", "pixels", "linear", -1, 0)) - 0.1)
        other = results.table(["model"], ["n_train"], metric="auroc", task="digits", classifier="linear", seed=0)
        assert other.loc["pixels", 5] == pytest.approx(value_of(Cell("digits", "pixels", "linear", 5, 0)) / 2)
        assert results.table(task="nothing").empty
        with pytest.raises(BenchkitError, match="did you mean 'model'"):
            results.table(rows=["modle"])


def test_the_view_and_the_tables_come_as_frames_with_their_types(path: Path, make_report) -> None:
    again = make_report(cell=CELLS[0], finished_at="2027-01-01T00:00:00.000000+00:00")
    with open_store(path) as store, store.write():
        insert(store, again)
    with Results(path) as results:
        view = results.results()
        assert len(view) == len(CELLS) == 32
        assert view[["value", "low", "high", "chance"]].dtypes.unique().tolist() == [np.dtype(float)]
        assert str(view.finished_at.dt.tz) == "UTC"
        assert len(results.runs()) == 33
        assert len(results.runs(history=False)) == 32
        assert sorted(results.runs(task="digits", model="pixels", n_train=-1).classifier) == ["knn", "linear"]
        metrics = results.metrics(task="hsn", seed=[1, 2])
        assert set(metrics.name) == {"cmap", "auroc"}
        assert len(metrics) == 2 * 8
        assert metrics[metrics.name == "auroc"].low.isna().all()
        classes = results.class_metrics(model="bird*", task="digits", n_train=-1)
        assert classes[classes.class_name == "1"].value.isna().all()
        assert set(classes.n_train_class) == {120}
        assert set(results.checks().status) == {"ok"}
        assert results.report("last") == again


def test_sql_comes_as_a_frame_and_cannot_write(path: Path) -> None:
    with Results(path) as results:
        frame = results.sql("SELECT task, count(*) AS n FROM results GROUP BY task ORDER BY task")
        assert frame.to_dict("records") == [{"task": "digits", "n": 16}, {"task": "hsn", "n": 16}]
        with pytest.raises(StoreError, match="only reads"):
            results.sql("DELETE FROM runs")


def test_a_registry_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no registry"):
        benchkit.open(tmp_path / "r.sqlite")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------- predictions

CLASSES = ("Turdus merula", "Parus major", "Apus apus")
SCORES = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
MULTICLASS = np.random.default_rng(1).integers(0, 3, 50)
MULTILABEL = np.random.default_rng(2).integers(0, 2, (50, 3)).astype(np.uint8)


def parquet(labels: np.ndarray) -> bytes:
    """As docs/schema.md describes it."""
    if labels.ndim == 1:
        label = pa.array(labels, pa.int64())
    else:
        label = pa.array([np.flatnonzero(row).tolist() for row in labels], pa.list_(pa.int32()))
    table = pa.table(
        {
            "id": pa.array([f"clip {i}" for i in range(50)]),
            "fold": pa.array(np.arange(50) // 10, pa.int32()),
            "label": label,
            "scores": pa.FixedSizeListArray.from_arrays(pa.array(SCORES.reshape(-1)), 3),
        }
    ).replace_schema_metadata({"classes": json.dumps(CLASSES)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=16)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def keep(tmp_path: Path, make_report: Callable[..., Report]) -> Callable[[bytes], Path]:
    """A registry with one run, and its predictions beside it."""

    def make(data: bytes) -> Path:
        artifact = Artifact("predictions", predictions_path("a" * 32), hashlib.sha256(data).hexdigest(), len(data))
        with open_store(tmp_path / "r.sqlite") as store:
            (store.side / "predictions").mkdir(parents=True)
            (store.side / artifact.path).write_bytes(data)
            with store.write():
                insert(store, make_report(uuid="a" * 32, artifacts=[artifact]))
        return tmp_path / "r.sqlite"

    return make


@pytest.mark.parametrize("labels", [MULTICLASS, MULTILABEL], ids=["multiclass", "multilabel"])
def test_predictions_are_the_arrays_that_were_scored(keep, labels: np.ndarray) -> None:
    with Results(keep(parquet(labels))) as results:
        found = results.predictions(1)
    assert list(found.ids[:2]) == ["clip 0", "clip 1"]
    assert found.classes == CLASSES
    np.testing.assert_array_equal(found.scores, SCORES)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == labels.dtype
    np.testing.assert_array_equal(found.folds, np.arange(50) // 10)
    frame = found.frame()
    assert list(frame.columns) == ["id", "fold", "label", *CLASSES]
    np.testing.assert_array_equal(frame[list(CLASSES)].to_numpy(), SCORES)
    if labels.ndim == 1:
        assert list(frame.label) == [CLASSES[c] for c in labels]
    else:
        assert [set(row) for row in frame.label] == [{CLASSES[c] for c in np.flatnonzero(row)} for row in labels]


@pytest.mark.parametrize("labels", [MULTICLASS, MULTILABEL], ids=["multiclass", "multilabel"])
def test_predictions_are_written_as_the_schema_describes_them(labels: np.ndarray) -> None:
    """Unlabelled examples, names that are not ASCII, and scores that do not lie in one piece too."""
    ids = ["", "Müsli", *(f"clip {i}" for i in range(2, 50))]
    labels = np.where(np.arange(50) == 3, 0, labels.T).T.astype(labels.dtype)
    data = as_parquet(ids, np.arange(50) // 10, labels, np.asfortranarray(SCORES), CLASSES, "r")
    written, plain = pq.read_table(pa.BufferReader(data)), pq.read_table(pa.BufferReader(parquet(labels)))
    assert written.schema.remove_metadata() == plain.schema.remove_metadata()
    assert written.drop_columns("id").equals(plain.drop_columns("id"))
    assert written["id"].to_pylist() == ids
    assert written.schema.metadata == {b"classes": json.dumps(CLASSES).encode(), b"run": b"r"}
    written.validate(full=True)


def test_writing_predictions_imports_no_pandas() -> None:
    program = (
        "import sys, numpy as np; from benchkit.records.predictions import as_parquet; "
        "as_parquet(['a'], np.zeros(1, np.int32), np.eye(1, 2, dtype='u1'), np.eye(1, 2, dtype='f4'), 'ab', 'r'); "
        "print('pyarrow' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_predictions_that_are_missing_or_altered_are_never_used(keep, tmp_path: Path) -> None:
    path = keep(parquet(MULTICLASS))
    file = tmp_path / "r.sqlite.d" / predictions_path("a" * 32)
    whole = file.read_bytes()
    with Results(path) as results:
        for damaged in (whole[:-1], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], b""):
            file.write_bytes(damaged)
            with pytest.raises(StoreError, match="damaged or altered"):
                results.predictions("last")
        file.unlink()
        with pytest.raises(StoreError, match="cannot be read"):
            results.predictions(1)
        with pytest.raises(StoreError, match="there is no run '9'"):
            results.predictions(9)


def test_a_run_without_predictions_says_so(tmp_path: Path, make_report) -> None:
    with open_store(tmp_path / "r.sqlite") as store, store.write():
        insert(store, make_report(artifacts=[]))
    with Results(tmp_path / "r.sqlite") as results, pytest.raises(StoreError, match="run 1 has no predictions"):
        results.predictions(1)


def test_without_pandas_frames_say_what_to_install_and_arrays_still_work(keep, tmp_path: Path) -> None:
    path = keep(parquet(MULTICLASS))
    program = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *args):
        return None if name == "pandas" else self.finder.find_spec(name, *args)

sys.meta_path = [Without(finder) for finder in sys.meta_path if hasattr(finder, "find_spec")]
from benchkit.errors import MissingDependency
from benchkit.reading.results import Results
with Results({str(path)!r}) as results:
    print(results.predictions(1).scores.shape)
    try:
        results.table()
    except MissingDependency as e:
        print(e)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "(50, 3)"
    assert "pip install 'benchkit-core[pandas]'" in done.stdout


def test_pandas_reads_the_documented_file_without_benchkit(keep, tmp_path: Path) -> None:
    keep(parquet(MULTICLASS))
    frame: Any = pd.read_parquet(tmp_path / "r.sqlite.d" / predictions_path("a" * 32))
    assert list(frame.columns) == ["id", "fold", "label", "scores"]
    np.testing.assert_array_equal(np.stack(frame.scores), SCORES)


def test_the_predictions_of_a_real_run_give_its_number_again(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    (report,) = benchkit.run(task="digits", model="pixels", classifier="centroid", n_train=5, db=path)
    with benchkit.open(path) as results:
        assert results.report("last") == report
        found = results.predictions("last")
        table = results.table(rows=["model"], columns=["n_train"])
    assert len(found.ids) == report.n_test == len(set(found.ids))
    assert float(np.mean(found.scores.argmax(axis=1) == found.labels)) == pytest.approx(report.value)
    assert table.loc["pixels", 5] == report.value


def test_the_table_takes_one_name_or_several_and_a_mistyped_metric_is_no_empty_table(path: Path) -> None:
    with benchkit.open(path) as results:
        assert results.table(rows="model").equals(results.table(rows=["model"]))
        assert results.table(columns="n_train").equals(results.table(columns=["n_train"]))
        assert results.table(task=None, seed=None).equals(results.table())
        assert results.table(rows=[], columns=["model", "classifier", "task", "n_train"]).shape[0] == 1
        with pytest.raises(BenchkitError, match=r"no run has the metric 'top2'; did you mean 'top1'\?"):
            results.table(metric="top2")
