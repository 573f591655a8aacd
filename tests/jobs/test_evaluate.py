"""What stands in a report: folds that count alike, the papers of this very cell, and the numbers of its examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score

import benchkit
from benchkit import metrics
from benchkit.api import Settings
from benchkit.interfaces import Fold, Problem, Published
from benchkit.planning.sampling import subset
from benchkit.reading.results import Predictions
from benchkit_digits.task import Digits

SIZES = (60, 150, 400)
TEN = Problem("multiclass", 10, tuple("0123456789"))


def run(db: Path, **more: Any) -> list[benchkit.Report]:
    settings = Settings(db=db, cache=db.parent / "cache", replicates=100, workers=0)
    return benchkit.run(**({"task": "digits", "model": "pixels", "classifier": "centroid"} | more), settings=settings)


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> Sequence[Fold]:
    """Three of unequal size within the training split; the first tests four of the ten classes."""
    labels = Digits().labels("train")
    order = np.random.default_rng(0).permutation(len(labels))
    few = order[labels[order] < 4][: SIZES[0]]
    rest = order[~np.isin(order, few)]
    parts = (few, rest[: SIZES[1]], rest[SIZES[1] : SIZES[1] + SIZES[2]])
    rows = np.arange(len(labels))
    others = [order[np.isin(order, np.setdiff1d(rows, part)[:: k + 1])] for k, part in enumerate(parts)]
    made = tuple(Fold("train", own, "train", part) for own, part in zip(others, parts, strict=True))
    monkeypatch.setattr(Digits, "folds", lambda self: made)
    monkeypatch.setattr(Digits, "metrics", ("cmap", "top1"))
    return made


def of_folds(found: Predictions) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and scores."""
    return [(found.labels[found.folds == k], found.scores[found.folds == k]) for k in range(3)]


def cmap(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(np.mean([average_precision_score(labels == c, scores[:, c]) for c in np.unique(labels)]))


def test_folds_of_unequal_size_count_alike_in_value_interval_and_chance(tmp_path: Path, folds: Sequence[Fold]) -> None:
    (report,) = run(tmp_path / "r.sqlite")
    with benchkit.open(tmp_path / "r.sqlite") as results:
        found = results.predictions(1)
    ids = Digits().ids("train")
    assert list(found.ids) == [ids[row] for fold in folds for row in fold.test]
    assert np.bincount(found.folds).tolist() == list(SIZES)
    each = [cmap(y, s) for y, s in of_folds(found)]
    assert report.value == pytest.approx(np.mean(each), abs=1e-9)
    assert abs(report.value - np.average(each, weights=SIZES)) > 1e-3
    top1 = [(s.argmax(axis=1) == y).mean() for y, s in of_folds(found)]
    by_name = {m.name: m for m in report.metrics}
    assert by_name["top1"].value == pytest.approx(np.mean(top1), abs=1e-9)
    (again,) = metrics.evaluate(["cmap"], found.labels, found.scores, TEN, fold=found.folds, replicates=100)
    assert (by_name["cmap"].low, by_name["cmap"].high) == (again.low, again.high)
    labels = Digits().labels("train")
    pairs = [(labels[f.train], labels[f.test]) for f in folds]
    assert report.chance == pytest.approx(metrics.chance("cmap", pairs, TEN))
    leakage = next(c for c in report.checks if c.name == "leakage")
    assert leakage.status == "ok", "what one fold tests others train on"


def test_of_folds_a_class_has_the_mean_of_those_that_define_it_and_the_examples_of_all(
    tmp_path: Path, folds: Sequence[Fold]
) -> None:
    (report,) = run(tmp_path / "r.sqlite", n_train=5)
    with benchkit.open(tmp_path / "r.sqlite") as results:
        found = results.predictions(1)
    made = {(m.class_name, m.name): m for m in report.class_metrics}
    for c in range(10):
        with_any = [(y == c, s) for y, s in of_folds(found) if (y == c).any()]
        assert len(with_any) == (3 if c < 4 else 2)
        ap = [average_precision_score(y, s[:, c]) for y, s in with_any]
        recall = [recall_score(y, s.argmax(axis=1) == c) for y, s in with_any]
        assert made[str(c), "ap"].value == pytest.approx(np.mean(ap), abs=1e-9)
        assert made[str(c), "recall"].value == pytest.approx(np.mean(recall), abs=1e-9)
        assert made[str(c), "ap"].n_test == (found.labels == c).sum()
        assert made[str(c), "ap"].n_train == 5
    assert (report.n_test, report.n_train_used, report.n_classes) == (sum(SIZES), 50, 10)
    assert report.record["n_train_per_fold"] == [50, 50, 50]


def test_with_all_examples_each_fold_says_how_many_it_trained_on(tmp_path: Path, folds: Sequence[Fold]) -> None:
    (report,) = run(tmp_path / "r.sqlite")
    sizes = [len(f.train) for f in folds]
    assert len(set(sizes)) == 3
    assert report.record["n_train_per_fold"] == sizes
    assert report.n_train_used == round(np.mean(sizes))
    labels = Digits().labels("train")
    per_class = np.sum([np.bincount(labels[f.train], minlength=10) for f in folds], axis=0) // 3
    assert [m.n_train for m in report.class_metrics if m.name == "ap"] == per_class.tolist()


def test_chance_and_the_labels_check_are_of_what_each_fold_may_train_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first fold the most frequent class is 7, of the second 2, and it has no 9."""
    labels = Digits().labels("train")
    rows = np.arange(len(labels))
    tests = (rows[labels < 5][:100], rows[labels >= 5][:80])
    left = np.setdiff1d(rows, np.concatenate(tests))
    of = [left[labels[left] == c] for c in range(10)]
    trains = (np.concatenate([c[: 30 if i == 7 else 4] for i, c in enumerate(of)]),
              np.concatenate([c[: 30 if i == 2 else 4] for i, c in enumerate(of[:9])]))  # fmt: skip
    made = tuple(Fold("train", train, "train", test) for train, test in zip(trains, tests, strict=True))
    monkeypatch.setattr(Digits, "folds", lambda self: made)
    (report,) = run(tmp_path / "r.sqlite")
    shares = [(labels[test] == c).mean() for test, c in zip(tests, (7, 2), strict=True)]
    assert report.chance == pytest.approx(np.mean(shares))
    (check,) = (c for c in report.checks if c.name == "labels")
    assert check.details["absent"] == {"train": ["9"], "test": []}
    (leakage,) = (c for c in report.checks if c.name == "leakage")
    assert (leakage.status, leakage.details["n_test"]) == ("ok", 180), (
        "what another fold trains on is no leak of this one"
    )


def test_every_fold_is_fitted_on_its_own_examples_alone(tmp_path: Path, folds: Sequence[Fold]) -> None:
    from benchkit.catalog.resolve import resolve

    backbone = resolve("model", "pixels").build()
    backbone.setup("cpu")
    labels = Digits().labels("train")
    examples = Digits().examples("train", range(len(labels)))
    x = backbone.encode(np.stack([backbone.preprocess(e.media.load()) for e in examples])).pooled
    run(tmp_path / "r.sqlite", n_train=3, seed=4)
    with benchkit.open(tmp_path / "r.sqlite") as results:
        found = results.predictions(1)
    for k, fold in enumerate(folds):
        own = np.sort(fold.train)
        rows = own[subset(labels[own], 3, 4, TEN)]
        fitted = resolve("classifier", "centroid").build().fit(x[rows], labels[rows], TEN, seed=4)
        np.testing.assert_allclose(found.scores[found.folds == k], fitted.scores(x[fold.test]), atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- published


def paper(model: str, classifier: str, n_train: int, value: float = 0.2, metric: str = "top1") -> Published:
    return Published(model, classifier, n_train, metric, value, f"arXiv 0000.00000, {classifier} {n_train}")


def name_of(report: benchkit.Report) -> str:
    """Of its classifier, whatever its version."""
    return report.cell.classifier.partition("@")[0]


def held_against(report: benchkit.Report) -> list[str]:
    """The sources of what papers say of its cell."""
    return [gap["source"] for c in report.checks if c.name == "published" for gap in c.details["gaps"]]


def test_a_papers_number_stands_beside_its_very_cell_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (paper("pixels", "centroid", -1), paper("pixels", "knn", 5), paper("pixels,size=12", "knn", -1))
    monkeypatch.setattr(Digits, "published", said)
    reports = run(tmp_path / "r.sqlite", classifier=["centroid", "knn"], n_train=[5, -1], seed=[0, 1])
    assert len(reports) == 8
    for report in reports:
        cell = (name_of(report), report.cell.n_train)
        expected = {("centroid", -1): [said[0].source], ("knn", 5): [said[1].source]}.get(cell, [])
        assert held_against(report) == expected, report.cell
        assert ("published" in {c.name for c in report.checks}) == bool(expected)
        if expected:
            (check,) = (c for c in report.checks if c.name == "published")
            assert check.status == "warn"
            assert check.details["gaps"][0]["gap"] == pytest.approx(report.value - 0.2)


def test_a_papers_cell_is_the_same_however_it_is_spelled_and_none_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        paper("pixels", "knn,weights=softmax,k=10", -1), paper("pixels", "none-such", -1), paper("no-model", "knn", -1),
        paper("pixels", "knn", -1, metric="macro_f1"),
    )  # fmt: skip
    monkeypatch.setattr(Digits, "published", said)
    (report,) = run(tmp_path / "r.sqlite", classifier="knn")
    assert held_against(report) == [said[0].source, said[3].source]


# ------------------------------------------------------------------------------------------------------------ examples


@pytest.mark.parametrize(("n_train", "used"), [(1, 10), (7, 70), (-1, 1201)])
def test_a_report_says_how_many_examples_were_used_and_judged(tmp_path: Path, n_train: int, used: int) -> None:
    (report,) = run(tmp_path / "r.sqlite", n_train=n_train)
    assert (report.n_train_used, report.n_test, report.n_classes) == (used, 596, 10)
    of_class = {m.class_name: (m.n_train, m.n_test) for m in report.class_metrics}
    test = np.bincount(Digits().labels("test"))
    train = np.bincount(Digits().labels("train")) if n_train == -1 else np.full(10, n_train)
    assert of_class == {str(c): (train[c], test[c]) for c in range(10)}
    assert report.primary == "top1"
    assert "n_train_per_fold" not in report.record


def test_chance_is_of_all_that_may_be_trained_on_and_the_checks_of_what_was(tmp_path: Path) -> None:
    reports = run(tmp_path / "r.sqlite", n_train=[1, -1])
    labels = {split: Digits().labels(split) for split in ("train", "test")}
    expected = metrics.chance("top1", [(labels["train"], labels["test"])], TEN)
    assert [r.chance for r in reports] == pytest.approx([expected] * 2)
    (leakage,) = {c.summary for r in reports for c in r.checks if c.name == "leakage"}
    assert leakage == "none of 596 test examples is in train"


def test_chance_is_held_against_random_order_of_one_folds_size(
    tmp_path: Path, folds: Sequence[Fold], monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchkit import checks

    seen: list[int | None] = []
    real = checks.check_chance

    def watched(primary: Any, chance: float, *, n_test: int | None = None) -> Any:
        seen.append(n_test)
        return real(primary, chance, n_test=n_test)

    monkeypatch.setattr(checks, "check_chance", watched)
    run(tmp_path / "r.sqlite")
    assert seen == [sum(SIZES) // 3]


def test_predictions_keep_the_recording_of_each_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Digits, "groups", lambda self, split: [f"{split} {row // 9}" for row in range(len(self.ids(split)))]
    )
    run(tmp_path / "r.sqlite")
    with benchkit.open(tmp_path / "r.sqlite") as results:
        found = results.predictions(1)
        assert list(found.groups or ()) == [f"test {row // 9}" for row in range(len(Digits().ids("test")))]
        assert found.frame()["group"].tolist() == list(found.groups or ())


def test_groups_that_are_not_one_for_each_example_fail_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Digits, "groups", lambda self, split: ["one", "two"])
    with pytest.raises(benchkit.BenchkitError, match=r"Digits.groups\('test'\) gave 2 names for"):
        run(tmp_path / "r.sqlite")
