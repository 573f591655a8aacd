"""What a probe is given to fit: each cell's own rows, labels and seed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit.api import Settings
from benchkit.catalog.resolve import resolve
from benchkit.classifiers.centroid import Centroid
from benchkit.classifiers.knn import KNN
from benchkit.interfaces import Problem
from benchkit.jobs.job import Job, JobOptions
from benchkit.planning.plan import Grid, make_plan
from benchkit.planning.sampling import subset
from benchkit_digits.task import Digits

TEN = Problem("multiclass", 10, tuple("0123456789"))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], list[Any]]:
    """What fit_many of a class was given: (seed, features of its rows, labels of its rows), for each fit."""

    def watch(cls: type) -> list[Any]:
        seen: list[Any] = []
        fit_many = cls.fit_many  # type: ignore[attr-defined]

        def watched(self: Any, x: Any, y: Any, problem: Any, subsets: Any, **more: Any) -> Any:
            seen.extend((s.seed, np.array(x[s.rows]), np.array(y[s.rows])) for s in subsets)
            return fit_many(self, x, y, problem, subsets, **more)

        monkeypatch.setattr(cls, "fit_many", watched)
        return seen

    return watch


def run(db: Path, **given: Any) -> list[benchkit.Report]:
    more = {"shuffled": given.pop("shuffled", False)}
    settings = Settings(db=db, cache=db.parent / "cache", replicates=20, workers=0, **more)
    return benchkit.run(**({"task": "digits", "model": "pixels"} | given), settings=settings)


def test_each_cell_is_fitted_with_its_own_seed_on_its_own_rows(
    tmp_path: Path, fits: Callable[[type], list[Any]]
) -> None:
    seen = fits(KNN)
    run(tmp_path / "r.sqlite", classifier="knn", n_train=[1, 3], seed=[2, 5])
    labels = Digits().labels("train")
    backbone = resolve("model", "pixels").build()
    backbone.setup("cpu")
    assert [seed for seed, *_ in seen] == [2, 5, 2, 5]
    for (seed, x, y), n in zip(seen, (1, 1, 3, 3), strict=True):
        rows = subset(labels, n, seed, TEN)
        np.testing.assert_array_equal(y, labels[rows])
        images = [backbone.preprocess(e.media.load()) for e in Digits().examples("train", rows.tolist())]
        np.testing.assert_allclose(x, backbone.encode(np.stack(images)).pooled, atol=1e-6)
    assert not np.array_equal(seen[0][1], seen[1][1])


def test_permuted_labels_are_a_cells_own_in_another_order_that_its_seed_draws(
    tmp_path: Path, fits: Callable[[type], list[Any]]
) -> None:
    seen = fits(Centroid)
    run(tmp_path / "r.sqlite", classifier="centroid", n_train=6, seed=[0, 1], shuffled=True)
    true, permuted = seen[:2], sorted(seen[2:], key=lambda fit: fit[0])
    assert [seed for seed, *_ in permuted] == [0, 1]
    for (_, x, y), (_, again, other) in zip(true, permuted, strict=True):
        np.testing.assert_array_equal(x, again)
        assert np.bincount(other).tolist() == np.bincount(y).tolist() == [6] * 10
        assert (y != other).mean() > 0.7
    assert not np.array_equal(permuted[0][2], permuted[1][2])


def test_the_true_labels_are_left_as_they_are_by_the_check_with_permuted_ones(tmp_path: Path) -> None:
    (with_check,) = run(tmp_path / "a.sqlite", classifier="knn", n_train=5, shuffled=True)
    (without,) = run(tmp_path / "b.sqlite", classifier="knn", n_train=5)
    assert with_check.metrics == without.metrics


def test_what_may_let_a_failed_cell_succeed_is_what_the_job_is_told_of_the_machine() -> None:
    options = JobOptions("side", "cache", device="cuda", batch_size=7, workers=3, skip_bad=2, memory="32G")
    assert options.circumstances() == {
        "device": "cuda", "batch_size": 7, "workers": 3, "skip_bad": 2, "memory": "32G"
    }  # fmt: skip


def test_a_job_is_the_same_after_json_and_names_its_reports() -> None:
    planned = make_plan([Grid(("digits",), ("pixels",), ("centroid", "knn,k=3"), (1, -1), (0, 4))], None).cells
    job = Job.of(planned, JobOptions("side", "cache", skip_bad=3))
    assert Job.from_json(job.to_json()) == job
    assert [c.cell for c in job.cells] == [p.cell for p in planned]
    assert Job.of(planned, job.options).name != job.name
    assert json.loads(job.to_json())["options"]["skip_bad"] == 3
