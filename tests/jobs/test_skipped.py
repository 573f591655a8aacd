"""Examples that do not decode: k-shot subsets are drawn again without them, and test rows are the same for all."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit.api import RunFailed, Settings
from benchkit.catalog.resolve import resolve
from benchkit.classifiers.centroid import Centroid
from benchkit.classifiers.finetune import Finetune
from benchkit.classifiers.prototypical import Prototypical
from benchkit.interfaces import Example, Problem
from benchkit.media.decode import Image
from benchkit.planning.sampling import subset
from benchkit_digits.task import Digits

VIT = "random-vit,size=8,patch=4,width=16,depth=1,heads=2"
PROTOTYPICAL = "prototypical,prototypes=2,min_steps=2,epochs=2"
ATTENTIVE = "attentive,depth=1,min_steps=2,epochs=2"
FINETUNE = "finetune,min_steps=2,epochs=1,batch=8,precision=float32"
TEN = Problem("multiclass", 10, tuple("0123456789"))
PROBES = [("centroid", Centroid), (PROTOTYPICAL, Prototypical), (FINETUNE, Finetune)]
Break = Callable[..., None]


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Makes rows of digits' splits unreadable, from the so manieth time on that each is asked for."""
    rows: dict[tuple[str, int], int] = {}
    asked: dict[tuple[str, int], int] = {}
    examples = Digits.examples

    def some(self: Digits, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for example in examples(self, split, indices):
            key = split, example.index
            asked[key] = asked.get(key, 0) + 1
            lost = key in rows and asked[key] > rows[key]
            yield replace(example, media=Image(b"no image")) if lost else example

    def make(split: str, which: Sequence[int], after: int = 0) -> None:
        rows.update({(split, int(row)): after for row in which})

    monkeypatch.setattr(Digits, "examples", some)
    return make


def run(db: Path, *classifiers: str, model: str = VIT, n_train: Any = 2, **more: Any) -> list[benchkit.Report]:
    settings = Settings(db=db, cache=db.parent / "cache", replicates=20, workers=0, **more)
    return benchkit.run(task="digits", model=model, classifier=classifiers, n_train=n_train, settings=settings)


def name_of(cell: benchkit.Cell) -> str:
    """Of its classifier, whatever its version and parameters."""
    return re.split("[@,]", cell.classifier)[0]


def drawn_without(k: int, lost: Sequence[int]) -> np.ndarray:
    labels = Digits().labels("train")
    return subset(labels, k, 0, TEN, ~np.isin(np.arange(len(labels)), lost))


def three_that_are_drawn() -> list[int]:
    """Two rows that seed 0 draws, and the one that stands in for the first."""
    before = drawn_without(2, [])
    first, other = int(before[0]), int(before[7])
    (instead,) = set(drawn_without(2, [first])) - set(before)
    return [first, other, int(instead)]


def what_a_probe_sees(model: str, needs: str, rows: np.ndarray) -> np.ndarray:
    backbone = resolve("model", model).build()
    backbone.setup("cpu")
    images = [e.media.load() for e in Digits().examples("train", rows.tolist())]
    batch = np.stack([backbone.preprocess(image) for image in images])
    if needs == "raw":
        return batch
    made = backbone.encode(batch, tokens=needs == "tokens")
    return made.tokens if needs == "tokens" else made.pooled


@pytest.mark.parametrize(("spec", "cls"), PROBES, ids=["pooled", "tokens", "raw"])
def test_few_examples_are_drawn_again_without_those_that_do_not_decode(
    tmp_path: Path, unreadable: Break, monkeypatch: pytest.MonkeyPatch, spec: str, cls: Any
) -> None:
    lost = three_that_are_drawn()
    expected = drawn_without(2, lost)
    assert len(expected) == 20
    x, y = what_a_probe_sees(VIT, cls.needs, expected), Digits().labels("train")[expected]
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    fit_many = cls.fit_many

    def watched(self: Any, features: Any, labels: Any, problem: Any, subsets: Any, **more: Any) -> Any:
        seen.extend((np.array(features[s.rows]), labels[s.rows]) for s in subsets)
        return fit_many(self, features, labels, problem, subsets, **more)

    monkeypatch.setattr(cls, "fit_many", watched)
    unreadable("train", lost)
    (report,) = run(tmp_path / "r.sqlite", spec, skip_bad=3)
    ((features, labels),) = seen
    np.testing.assert_allclose(features, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(labels, y)
    assert (report.n_train_used, report.n_skipped, report.n_test) == (20, 3, 596)
    ids = Digits().ids("train")
    assert set(report.record["skipped"]) == {ids[row] for row in lost}


def test_pooled_and_token_probes_of_one_job_are_fitted_on_the_same_examples(tmp_path: Path, unreadable: Break) -> None:
    unreadable("train", three_that_are_drawn())
    together = run(tmp_path / "a.sqlite", "centroid", PROTOTYPICAL, n_train=[1, 2], skip_bad=3)
    assert [r.n_train_used for r in together] == [10, 20, 10, 20]
    for report in together[1::2]:
        (alone,) = run(tmp_path / "b.sqlite", report.cell.classifier, skip_bad=3)
        assert alone.metrics == report.metrics


def test_all_examples_are_those_that_decode(tmp_path: Path, unreadable: Break) -> None:
    unreadable("train", [0, 700])
    (report,) = run(tmp_path / "r.sqlite", "centroid", model="pixels", n_train=-1, skip_bad=2)
    assert (report.n_train_used, report.n_skipped) == (1199, 2)


def test_a_class_that_has_too_few_left_fails_its_own_cells_and_is_named(tmp_path: Path, unreadable: Break) -> None:
    labels = Digits().labels("train")
    sizes = np.bincount(labels)
    rarest = int(sizes.argmin())
    unreadable("train", np.flatnonzero(labels == rarest)[:1])
    with pytest.raises(RunFailed, match=rf"class '{rarest}' has {sizes.min() - 1}") as failed:
        run(tmp_path / "r.sqlite", "centroid", "knn", model="pixels", n_train=[int(sizes.min()), 2, -1], skip_bad=1)
    assert [(name_of(o.cell), o.cell.n_train) for o in failed.value.failures] == [
        ("centroid", sizes.min()),
        ("knn", sizes.min()),
    ]
    assert {r.cell.n_train for r in failed.value.reports} == {2, -1}
    assert len(failed.value.reports) == 4


def test_where_no_cell_can_be_any_more_each_says_why(tmp_path: Path, unreadable: Break) -> None:
    labels = Digits().labels("train")
    unreadable("train", np.flatnonzero(labels == 4)[1:])
    with pytest.raises(RunFailed, match="class '4' has 1: the largest n_train that works is 1") as failed:
        run(tmp_path / "r.sqlite", PROTOTYPICAL, n_train=[2, 3], skip_bad=200)
    assert [o.cell.n_train for o in failed.value.failures] == [2, 3]


@pytest.mark.parametrize("spec", ["centroid", PROTOTYPICAL])
def test_one_more_than_is_allowed_ends_the_job_with_a_line_that_names_it(
    tmp_path: Path, unreadable: Break, spec: str
) -> None:
    lost = three_that_are_drawn()
    unreadable("train", lost)
    with pytest.raises(RunFailed, match="--skip-bad"):
        run(tmp_path / "r.sqlite", spec, skip_bad=2)
    assert len(run(tmp_path / "r.sqlite", spec, skip_bad=3)) == 1


@pytest.mark.parametrize("specs", [("centroid",), (PROTOTYPICAL, ATTENTIVE), ("centroid", PROTOTYPICAL)])
def test_test_rows_that_do_not_decode_are_missing_for_every_probe(
    tmp_path: Path, unreadable: Break, specs: tuple[str, ...]
) -> None:
    unreadable("test", [3, 595])
    reports = run(tmp_path / "r.sqlite", *specs, skip_bad=2)
    ids = Digits().ids("test")
    expected = [ids[i] for i in range(596) if i not in (3, 595)]
    assert len(reports) == len(specs)
    for number, report in enumerate(reports, 1):
        assert (report.n_test, report.n_skipped, report.n_train_used) == (594, 2, 20)
        with benchkit.open(tmp_path / "r.sqlite") as results:
            predictions = results.predictions(number)
        assert list(predictions.ids) == expected
        assert np.isfinite(predictions.scores).all()


@pytest.mark.parametrize("spec", [PROTOTYPICAL, FINETUNE])
def test_a_test_row_that_decoded_at_first_and_does_not_any_more_is_no_result(
    tmp_path: Path, unreadable: Break, spec: str
) -> None:
    """Probes of one job would be judged on different test rows."""
    unreadable("test", [40], after=1)  # pooled features first, which are in time
    with pytest.raises(RunFailed, match="1 examples of split 'test' decoded at first, and do not any more") as failed:
        run(tmp_path / "r.sqlite", "centroid", spec, skip_bad=5)
    assert [name_of(o.cell) for o in failed.value.failures] == [spec.partition(",")[0]]
    (report,) = failed.value.reports
    assert (name_of(report.cell), report.n_test, report.n_skipped) == ("centroid", 596, 0)
