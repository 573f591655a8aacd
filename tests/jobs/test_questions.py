"""Questions without a probe as cells: planned once, judged with intervals, kept."""

import sqlite3
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import benchkit
from benchkit.api import Grid, Settings
from benchkit.classifiers.answers import MeanAnswer
from benchkit.errors import BenchkitError, StoreError
from benchkit.jobs.questions import measured_of
from benchkit.planning.plan import make_plan
from benchkit.progress import Silent


def test_what_is_not_trained_is_one_cell_for_all_training_sizes() -> None:
    grid = Grid(("digits",), ("pixels",), ("retrieval", "retrieval,gallery=train", "centroid"), (1, 5, -1), (0, 1))
    cells = [p.cell for p in make_plan([grid], None).cells]
    assert [(c.n_train, c.seed) for c in cells if c.classifier == "retrieval"] == [(0, 0), (0, 1)]
    assert sum(c.classifier == "retrieval,gallery=train" for c in cells) == 6
    with pytest.raises(BenchkitError, match="n_train=0 is no number of training examples for 'centroid'"):
        make_plan([Grid(("digits",), ("pixels",), ("centroid",), (0,))], None)


@pytest.mark.slow
def test_questions_beside_a_probe_are_reported_like_it(tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    classifiers = ["retrieval", "retrieval,gallery=train", "clustering,repeats=3", "centroid"]
    reports = benchkit.run(
        task="digits", model="pixels", classifier=classifiers, n_train=5,
        settings=Settings(db=db, replicates=50, shuffled=True),
    )  # fmt: skip
    by_name = {r.cell.classifier: r for r in reports}
    assert len(by_name) == 4
    for name, primary, n_train in (
        ("retrieval", "map_at_r", 0), ("retrieval,gallery=train", "map_at_r", 5), ("clustering,repeats=3", "nmi", 0)
    ):  # fmt: skip
        report = by_name[name]
        assert (report.primary, report.cell.n_train, report.n_train_used) == (primary, n_train, 10 * n_train)
        assert all(m.low is not None and m.high is not None and m.low < m.value < m.high for m in report.metrics)
        assert report.value > 5 * report.chance
        checks = {c.name: c.status for c in report.checks}
        assert checks["chance"] == checks["shuffled"] == "ok"
        assert "plain" not in checks
    (artifact,) = by_name["retrieval"].artifacts
    table = pq.read_table(tmp_path / "r.sqlite.d" / artifact.path)
    assert table.column_names == ["id", "fold", "map_at_r", "r_at_1", "p_at_1", "retrieval_auroc"]
    assert len(table) == by_name["retrieval"].n_test
    with sqlite3.connect(db) as store:
        rows = store.execute("SELECT metric, n_train FROM results WHERE classifier = 'retrieval'").fetchall()
    assert rows == [("map_at_r", 0)]
    with benchkit.open(db) as results, pytest.raises(StoreError, match="asked the features without a probe"):
        results.predictions(by_name["retrieval"].uuid[:8])


@pytest.mark.slow
def test_a_question_alone_needs_no_training_examples(tmp_path: Path) -> None:
    (report,) = benchkit.run(
        task="digits", model="pixels", classifier="retrieval", settings=Settings(db=tmp_path / "r.sqlite", replicates=0)
    )
    assert report.n_train_used == 0
    assert {c.name: c.status for c in report.checks}["features"] == "ok"


def test_intervals_are_over_recordings_where_they_are_known() -> None:
    """Windows of one recording are alike: ten of each say no more than one."""
    values = np.repeat(np.random.default_rng(0).random(30, np.float32), 10)[:, None]
    answer = MeanAnswer(("mean",), values, {"mean": 0.5}, {})
    recordings = np.repeat(np.arange(30), 10)
    alone, whole = (measured_of("mean", [answer], groups, 400, Silent()) for groups in (None, [recordings]))
    assert alone.value == whole.value == pytest.approx(values.mean(), abs=1e-6)
    width = {m: (m.high or 0) - (m.low or 0) for m in (alone, whole)}
    assert 2.3 < width[whole] / width[alone] < 4.5
