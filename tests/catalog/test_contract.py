"""What a plugin hands over at run time and must not: each is one line that names it, and no number comes of it."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit.api import Grid, RunFailed, Settings, launch
from benchkit.classifiers.centroid import Centroid, FittedCentroid
from benchkit.features.pipeline import Run
from benchkit.interfaces import Fold
from benchkit.progress import Silent
from benchkit_baselines.pixels import Pixels
from benchkit_digits.task import Digits

PUBLISHED = benchkit.Published("pixels", "centroid", -1, "top1", 93.0, "me, table 1")
TRAIN, TEST = np.arange(1198), np.arange(596)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def extracted_once(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCHKIT_CACHE", str(features))


def run(tmp_path: Path, *classifiers: str, **more: Any) -> list[benchkit.Report]:
    settings = Settings(db=tmp_path / "r.sqlite", replicates=0, workers=0, jobs=1)
    grid = {"task": "digits", "model": "pixels", "classifier": classifiers or ("centroid",)}
    return benchkit.run(**(grid | more), settings=settings)


def said(tmp_path: Path) -> str:
    with pytest.raises(RunFailed) as failed:
        run(tmp_path)
    assert not failed.value.reports
    return str(failed.value.failures[0].error)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("metrics", (), "Digits.metrics is ()"),
        ("metrics", ("accuracy",), "no metric named 'accuracy'"),
        ("classes", (), "Digits has no classes"),
        ("classes", tuple(range(10)), "0 is of type int"),
        ("classes", tuple("0123456788"), "Digits.classes has the name '8' twice"),
        ("ids", lambda self, split: list(range(596)), "must be texts, and 0 is of type int"),
        ("ids", lambda self, split: ["a.png"] * 596, "gives 'a.png' to two examples"),
        ("labels", lambda self, split: np.full(len(self.ids(split)), 0.5), "0.5 is no label"),
        ("labels", lambda self, split: np.full(len(self.ids(split)), "owl"), "not their names"),
        ("folds", lambda self: (), "gave (), not one Fold"),
        ("folds", lambda self: None, "gave None, not one Fold"),
        ("folds", lambda self: 2 * (Fold("train", TRAIN, "test", TEST),), "rows of split 'test' more than once"),
        ("folds", lambda self: (Fold("train", np.r_[TRAIN, 0], "test", TEST),), "rows of split 'train' more than once"),
        ("folds", lambda self: (Fold("train", TRAIN[:0], "test", TEST),), "fold 0 has no example to train on"),
        ("folds", lambda self: (Fold("train", np.arange(5000), "test", TEST),), "the rows 0 to 4999 to train on"),
        ("folds", lambda self: (Fold("train", TRAIN, "test", TEST, "test"),), "one of val_split and val alone"),
        ("folds", lambda self: (Fold("train", TRAIN, "test", TEST, "test", TEST[:9]),), "that it is to test on"),
        ("folds", lambda self: (Fold("train", TRAIN, "test", TEST, "train", TRAIN[:9]),), "that it is to train on"),
        (
            "folds",
            lambda self: (Fold("train", TRAIN, "test", TEST[9:], "test", TEST[:0]),),
            "no example to validate on",
        ),
        ("published", ("0.75",), "Digits.published holds '0.75', which is no benchkit.Published"),
        (
            "published",
            (PUBLISHED,),
            "Digits.published says that pixels has top1 = 93 (me, table 1): metrics are shares",
        ),
        ("published", (replace(PUBLISHED, value=float("nan")),), "top1 = nan"),
        ("fingerprint", lambda self: None, "Digits.fingerprint() gave None, not a short text"),
    ],
)
def test_a_task_that_breaks_its_contract_is_named_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, words: str
) -> None:
    monkeypatch.setattr(Digits, name, value)
    monkeypatch.setattr(Run, "batches", lambda *_: pytest.fail("something was extracted"))
    assert words in said(tmp_path)


def test_validation_rows_change_nothing_for_a_probe_that_does_not_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = (Fold("train", TRAIN, "test", TEST[9:]),)
    values = []
    for folds in (alone, (replace(alone[0], val_split="test", val=TEST[:9]),)):
        monkeypatch.setattr(Digits, "folds", lambda self, folds=folds: folds)
        (tmp_path / str(len(values))).mkdir()
        values.append(run(tmp_path / str(len(values)))[0].metrics)
    assert values[0] == values[1]


def test_media_that_are_paths_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def examples(self: Digits, split: str, indices: Any) -> Any:
        for i in indices:
            example = benchkit.Example(i, self.ids(split)[i], benchkit.Image(b""))
            object.__setattr__(example, "media", Path("0.png"))
            yield example

    monkeypatch.setattr(Digits, "examples", examples)
    assert "PosixPath" in said(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("encode", lambda self, batch, tokens=False: None, "Pixels.encode gave None, not a benchkit.Encoded"),
        (
            "encode",
            lambda self, batch, tokens=False: (batch, None),
            "Pixels.encode gave a tuple, not a benchkit.Encoded",
        ),
        ("encode", lambda self, batch, tokens=False: sys.exit("no weights"), "SystemExit: no weights"),
        ("fingerprint", lambda self: None, "Pixels.fingerprint() gave None, not a short text"),
        ("fingerprint", lambda self: "a\nb", "Pixels.fingerprint() gave 'a\\nb', not a short text"),
    ],
)
def test_a_backbone_that_breaks_its_contract_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, words: str
) -> None:
    monkeypatch.setattr(Pixels, name, value)
    assert words in said(tmp_path)


@pytest.mark.usefixtures("extracted_once")
@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (lambda self, x: np.zeros((len(x), 9), np.float32), "gave float32 (596, 9) for 596 examples and 10 classes"),
        (lambda self, x: np.zeros((len(x) - 1, 10), np.float32), "gave float32 (595, 10)"),
        (lambda self, x: np.zeros(len(x), int), "gave int64 (596,)"),
        (lambda self, x: None, "gave object ()"),
    ],
)
def test_scores_of_another_shape_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: Any, words: str
) -> None:
    monkeypatch.setattr(FittedCentroid, "scores", scores)
    assert words in said(tmp_path)


@pytest.mark.usefixtures("extracted_once")
@pytest.mark.parametrize(
    ("record", "words"),
    [({"loss": float("nan")}, "'loss' = nan"), ({"loss": np.arange(2)}, "'loss' = array"), ([1, 2], "is [1, 2]")],
)
def test_a_record_that_cannot_be_stored_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Any, words: str
) -> None:
    monkeypatch.setattr(FittedCentroid, "record", record)
    assert words in said(tmp_path)


@pytest.mark.usefixtures("extracted_once")
@pytest.mark.parametrize(
    ("fit_many", "words"),
    [
        (lambda *_, **__: iter([]), "Centroid.fit_many gave only 0 fits for 1 subsets"),
        (lambda *_, **__: iter([None]), "Centroid.fit gave None, not a benchkit.Fitted"),
        (lambda *_, **__: iter([None, None]), "Centroid.fit_many gave more fits for 1 subsets"),
    ],
)
def test_a_classifier_without_a_fit_for_each_cell_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit_many: Any, words: str
) -> None:
    monkeypatch.setattr(Centroid, "fit_many", fit_many)
    assert words in said(tmp_path)


@pytest.mark.usefixtures("extracted_once")
def test_a_probe_that_needs_tokens_takes_no_other_down_where_the_backbone_has_none(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="Pixels has no tokens") as failed:
        run(tmp_path, "centroid", "attentive")
    assert [r.cell.classifier for r in failed.value.reports] == ["centroid@2"]
    assert [o.cell.classifier for o in failed.value.failures] == ["attentive@2"]


@pytest.mark.usefixtures("extracted_once")
def test_a_report_that_the_registry_cannot_take_in_is_a_failure_and_not_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seal(report: benchkit.Report, inbox: Path) -> None:
        inbox.mkdir(exist_ok=True)
        (inbox / f"{report.uuid}.json").write_text("scrambled")

    monkeypatch.setattr("benchkit.jobs.evaluate.seal", seal)
    settings = Settings(db=tmp_path / "r.sqlite", replicates=0, workers=0, jobs=1)
    launched = launch([Grid(("digits",), ("pixels",), ("centroid",))], settings, Silent())
    assert launched.computed == 0
    assert "its report is not in the registry" in str(launched.failures[0].error)


@pytest.mark.parametrize("classifier", ["linear", "knn"])
def test_features_that_are_not_finite_are_named_by_their_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier: str
) -> None:
    encode = Pixels.encode

    def damaged(self: Pixels, batch: np.ndarray, *, tokens: bool = False) -> benchkit.Encoded:
        made = encode(self, batch, tokens=tokens)
        made.pooled[0] = np.nan
        return made

    monkeypatch.setattr(Pixels, "encode", damaged)
    with pytest.raises(RunFailed, match="NaN or infinity in the features of 'digits-0000' of train") as failed:
        run(tmp_path, classifier, n_train=-1)
    assert "more)" in str(failed.value)
