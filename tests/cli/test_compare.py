"""`benchkit compare` and its library: real runs, judged pairwise by what they left in the registry."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import benchkit
from benchkit.api import Settings
from benchkit.cli import compare as command
from benchkit.errors import BenchkitError, StoreError
from benchkit.interfaces import Problem
from benchkit.metrics import evaluate, paired_difference
from benchkit.reading.asked import asked
from benchkit.reading.compare import paired, pairs
from benchkit.reading.results import Results
from benchkit.store import open_store

COARSE = "pixels,size=3"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits: two models, two classifiers, two seeds; and one cell that only one of the models has."""
    path = tmp_path_factory.mktemp("compare") / "r.sqlite"
    settings = Settings(db=path, replicates=10)
    benchkit.run(
        task="digits", model=["pixels", COARSE], classifier=["centroid", "knn"], n_train=5, seed=[0, 1],
        settings=settings,
    )  # fmt: skip
    benchkit.run(task="digits", model="pixels", classifier="knn", settings=settings)
    return path


@pytest.fixture
def compare(db: Path) -> Callable[..., Any]:
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)

    def invoke(*words: object) -> Any:
        result = CliRunner().invoke(app, [*map(str, words), "--db", str(db), "--replicates", "100"])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def test_every_cell_that_both_models_have_is_compared(db: Path, compare: Callable[..., Any]) -> None:
    shown = compare("--model", "pixels", "--model", COARSE)
    lines = shown.stdout.splitlines()
    assert len(lines) == 2 + 4
    assert all(f"pixels vs {COARSE}" in line and "digits" in line for line in lines[2:])
    assert "has no partner" in shown.stderr
    assert shown.stderr.count("has no partner") == 1, "the run on all examples"
    rows = json.loads(compare("--model", "pixels", "--model", COARSE, "--format", "json").stdout)
    with Results(db) as results:
        for row in rows:
            a, b = results.predictions(row["run_a"]), results.predictions(row["run_b"])
            expected = paired_difference(
                "top1", a.labels, a.scores, b.scores, Problem("multiclass", 10), replicates=100
            )
            assert (row["difference"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
            ours, theirs = results.report(row["run_a"]), results.report(row["run_b"])
            assert row["difference"] == pytest.approx(ours.value - theirs.value)
            assert row["low"] > 0, "a quarter of the pixels is worse"
            assert row["share_above"] == 1


def test_the_other_way_round_the_sign_changes_and_nothing_else(db: Path) -> None:
    with Results(db) as results:
        ((a, b), *_) = pairs(results.store, asked(model=("pixels", COARSE), classifier="knn")).found
        there, back = paired(results, a.run, b.run, replicates=50), paired(results, b.run, a.run, replicates=50)
    assert there.value == -back.value
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


def test_classifiers_and_training_sizes_are_compared_too(compare: Callable[..., Any]) -> None:
    classifiers = compare("--classifier", "knn", "--classifier", "centroid", "--model", "pixels", "--seed", 1)
    assert "knn vs centroid" in classifiers.stdout
    assert len(classifiers.stdout.splitlines()) == 2 + 2, "the bare name is both models"
    sizes = compare("--n-train", "-1", "--n-train", 5, "--model", "pixels", "--classifier", "knn", "--seed", 0)
    assert "all vs 5" in sizes.stdout


def test_two_runs_are_named_by_number_and_any_metric_will_do(db: Path, compare: Callable[..., Any]) -> None:
    (row,) = json.loads(compare(1, 2, "--metric", "macro_f1", "--format", "json").stdout)
    assert (row["run_a"], row["run_b"], row["metric"]) == (1, 2, "macro_f1")
    with Results(db) as results:
        values = []
        for run in (1, 2):
            p = results.predictions(run)
            values.append(evaluate(["macro_f1"], p.labels, p.scores, Problem("multiclass", 10), replicates=0)[0].value)
    assert row["difference"] == pytest.approx(values[0] - values[1])
    assert compare(1, 2, "--format", "csv").stdout.startswith("task,run_a,run_b,")
    assert compare(1, 2, "--format", "markdown").stdout.startswith("| task |")


def test_a_spreadsheet_finds_no_formula_in_csv(db: Path, tmp_path: Path) -> None:
    copy = tmp_path / "r.sqlite"
    shutil.copy(db, copy)
    shutil.copytree(f"{db}.d", f"{copy}.d")
    with open_store(copy) as store, store.write():
        store.execute("UPDATE runs SET model = '=1+1' WHERE id = 2")
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)
    words = ["1", "2", "--db", str(copy), "--replicates", "10", "--format", "csv"]
    assert ",=1+1," in CliRunner().invoke(app, words).stdout
    assert ",'=1+1," in CliRunner().invoke(app, [*words, "--spreadsheet"]).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name what is compared"),
        (("--model", "pixels"), "name what is compared"),
        (("--model", "pixels", "--model", COARSE, "--classifier", "knn", "--classifier", "centroid"), "name what is"),
        ((1, 2, 3), "give two runs"),
        ((1, 2, "--seed", 0), "give two runs"),
        ((1, 99), "there is no run '99'"),
        (("--model", "pixels", "--model", "pixel"), "nothing to compare: no run has model 'pixel'"),
        (("--model", "pixels*", "--model", "pixels"), "'pixels[*]' is more than one model"),
        (("--model", "pixels", "--model", COARSE, "--seed", 7), "nothing to compare"),
        ((1, 2, "--metric", "cmpa"), "no metric named 'cmpa'"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    compare: Callable[..., Any], words: tuple[Any, ...], said: str
) -> None:
    with pytest.raises(BenchkitError, match=said):
        compare(*words)


def test_predictions_in_another_order_are_matched_and_of_other_examples_refused(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    with Results(db) as results:
        plain = paired(results, 1, 2, replicates=20)
        read = results.predictions

        def shuffled(run: int) -> Any:
            p = read(run)
            order = np.random.default_rng(0).permutation(len(p.ids)) if run == 2 else np.arange(len(p.ids))
            return replace(
                p, ids=[p.ids[i] for i in order], folds=p.folds[order], labels=p.labels[order], scores=p.scores[order]
            )

        monkeypatch.setattr(results, "predictions", shuffled)
        assert paired(results, 1, 2, replicates=20) == plain
        for change, said in (
            (lambda p: replace(p, ids=["x", *p.ids[1:]]), "not tested on the same examples"),
            (lambda p: replace(p, labels=(p.labels + 1) % 10), "the labels of their test examples differ"),
            (lambda p: replace(p, classes=p.classes[::-1]), "their classes differ"),
        ):
            monkeypatch.setattr(results, "predictions", lambda run, c=change: c(read(run)) if run == 2 else read(run))
            with pytest.raises(StoreError, match=said):
                paired(results, 1, 2)
