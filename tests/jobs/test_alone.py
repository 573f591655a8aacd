"""What is wrong with one probe, or with one example, ends that cell and no other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit.api import RunFailed, Settings
from benchkit.classifiers.centroid import Centroid
from benchkit.interfaces import Encoded
from benchkit_baselines.pixels import Pixels
from benchkit_digits.task import Digits


def run(folder: Path, *classifiers: str, **more: Any) -> list[benchkit.Report]:
    settings = Settings(db=folder / "r.sqlite", cache=folder / "cache", replicates=100, workers=0)
    return benchkit.run(**({"task": "digits", "model": "pixels", "classifier": classifiers} | more), settings=settings)


def name(cell: benchkit.Cell) -> str:
    return cell.classifier.partition("@")[0]


def test_an_exception_of_one_probe_ends_its_cell_alone_and_names_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Centroid, "fit_subset", lambda self, *_: 1 / 0)
    with pytest.raises(RunFailed) as failed:
        run(tmp_path, "knn", "centroid", "logreg,c=1", n_train=5)
    assert sorted(name(r.cell) for r in failed.value.reports) == ["knn", "logreg"]
    ((cell, error),) = [(o.cell, o.error) for o in failed.value.failures]
    assert name(cell) == "centroid"
    assert "Centroid failed: ZeroDivisionError: division by zero (test_alone.py:" in error
    assert "\n" not in error


def test_a_test_example_that_is_not_finite_is_named_by_every_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, seen = Pixels.encode, []

    def broken(self: Pixels, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        pooled = encode(self, batch, tokens=tokens).pooled.copy()
        seen.append(len(pooled))
        if sum(seen) == 596 + 50:  # the test split's batch that ends with the last example
            pooled[-1, 3] = np.nan
        return Encoded(pooled)

    monkeypatch.setattr(Pixels, "encode", broken)
    with pytest.raises(RunFailed) as failed:
        run(tmp_path, "linear,epochs=1,min_steps=9", "knn", "logreg,c=1", n_train=5)
    assert not failed.value.reports
    told = {name(o.cell): o.error for o in failed.value.failures}
    assert set(told) == {"linear", "knn", "logreg"}
    for error in told.values():
        assert "NaN or infinity in the features of '" in error


def test_where_layer_norm_takes_away_what_tells_classes_apart_a_plain_regression_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: Pixels, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        made = [np.random.default_rng(row.astype(np.float32).view(np.uint32)).standard_normal(32) for row in batch]
        dark = np.array([[row.astype(np.float64).mean() > CUT] for row in batch])
        return Encoded((np.stack(made) + 3 * dark).astype(np.float32))

    task = Digits()
    x = {
        split: [e.media.load() for e in task.examples(split, range(len(task.ids(split))))]
        for split in ("train", "test")
    }
    backbone = Pixels()
    prepared = {split: np.array([backbone.preprocess(i).astype(np.float64).mean() for i in x[split]]) for split in x}
    CUT = float(np.median(prepared["train"]))
    monkeypatch.setattr(Pixels, "encode", encode)
    monkeypatch.setattr(Pixels, "dim", 32)
    monkeypatch.setattr(Digits, "labels", lambda self, split: (prepared[split] > CUT).astype(np.int64))
    monkeypatch.setattr(Digits, "classes", ("light", "dark"))
    found = run(tmp_path, "linear,epochs=5,min_steps=50", "knn", "linear,epochs=5,min_steps=50,norm=standard")
    checks = {name(r.cell) + ("+" if "norm" in r.cell.classifier else ""): r for r in found}
    for probe in ("linear", "knn"):
        (plain,) = [c for c in checks[probe].checks if c.name == "plain"]
        assert checks[probe].value < 0.65
        assert plain.status == "warn"
        assert "give norm=standard" in plain.summary
    assert checks["linear+"].value > 0.98
    assert "plain" not in {c.name for c in checks["linear+"].warnings}
