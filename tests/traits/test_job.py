"""The protocol from end to end: what is stored is what a plain loop over numpy and scikit-learn gives."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

import benchkit
from benchkit.activations import fit, record
from benchkit.api import RunFailed, Settings
from benchkit.catalog.resolve import resolve
from benchkit.cli import with_commands
from benchkit.interfaces import Fold, Problem, Task
from benchkit.jobs import traits as job
from benchkit.jobs.data import JobData
from benchkit.jobs.job import JobOptions
from benchkit.jobs.traits import score_traits
from benchkit.planning.plan import make_plan
from benchkit.planning.sampling import subset
from benchkit.planning.sweep import read_sweep
from benchkit.progress import Silent
from benchkit.records.report import Cell
from benchkit.scorers.pca import PCA
from benchkit.scorers.random import Random

TRAITS = ("red", "striped", "bright", "never")
MODEL = "random-vit,size=32,patch=8,width=48,depth=2"
SCORER = "random,k=40,variant=directions"  # which does not depend on the order of what it is fitted on


def run(db: Path, root: Path, *, skip_bad: int = 0, shuffled: bool = False, **grid: Any) -> list[benchkit.Report]:
    settings = Settings(db=db, cache=db.parent / "cache", replicates=50, skip_bad=skip_bad, shuffled=shuffled)
    wanted = {"model": MODEL, "classifier": SCORER} | grid
    return benchkit.run(task=f"traits,root={root}", settings=settings, **wanted)


def patches(task: Task, split: str, point: str | None = None) -> np.ndarray:
    """Of all images of a split, [N, T, D]."""
    backbone = resolve("model", MODEL).build()
    backbone.setup("cpu")
    images = [backbone.preprocess(e.media.load()) for e in task.examples(split, range(len(task.ids(split))))]
    if point:
        return backbone.activations(np.stack(images), [point])[point][:, 1:]
    return backbone.encode(np.stack(images), tokens=True).tokens


def by_hand(
    root: Path, n_train: int, seed: int = 0, point: str | None = None
) -> tuple[list[float], list[int], list[int]]:
    """For each trait its average precision in test (NaN where that is undefined), the chosen prototype, and all that
    would have been as good."""
    task: Task = resolve("task", f"traits,root={root}").build()
    train, test = patches(task, "train", point), patches(task, "test", point)
    scorer = resolve("scorer", SCORER).build()
    scorer.fit(iter([train.reshape(-1, train.shape[-1])]), seed=seed)
    y, y_test = task.labels("train"), task.labels("test")
    rows = subset(y, n_train, seed, Problem("traits", y.shape[1]))
    scores, scores_test = (np.stack([scorer(image).max(axis=0) for image in x]) for x in (train[rows], test))
    aps, chosen = [], []
    for t in range(y.shape[1]):
        own = y[rows, t]
        if 0 < own.sum() < len(own):
            chosen.append(int(np.argmax([average_precision_score(own, s) for s in scores.T])))
        else:
            chosen.append(0)
        there = y_test[:, t].any()
        aps.append(average_precision_score(y_test[:, t], scores_test[:, chosen[-1]]) if there else np.nan)
    return aps, chosen, rows.tolist()


def test_reports_are_what_a_plain_loop_gives(folder: Path, tmp_path: Path) -> None:
    reports = run(tmp_path / "r.sqlite", folder, n_train=[4, 16, -1], seed=[0, 1])
    assert len({r.value for r in reports}) > 2
    for report in reports:
        aps, chosen, rows = by_hand(folder, report.cell.n_train, report.cell.seed)
        defined = [ap for ap in aps if not np.isnan(ap)]
        assert len(defined) == 3
        assert report.primary == "cmap"
        assert report.value == pytest.approx(np.mean(defined), abs=1e-6)
        metrics = {m.name: m for m in report.metrics}
        assert metrics["ap_q05"].value == pytest.approx(np.quantile(defined, 0.05), abs=1e-6)
        assert metrics["ap_q95"].value == pytest.approx(np.quantile(defined, 0.95), abs=1e-6)
        assert metrics["cmap"].low <= report.value <= metrics["cmap"].high
        assert [report.record["fit"]["prototypes"][name] for name in TRAITS] == chosen
        assert (report.n_train_used, report.n_test, report.n_classes) == (len(rows), 24, 3)
        stored = {c.class_name: c for c in report.class_metrics if c.name == "ap"}
        for name, ap in zip(TRAITS, aps, strict=True):
            assert stored[name].value == (None if np.isnan(ap) else pytest.approx(ap, abs=1e-6))


def test_a_scorer_is_given_the_patches_of_its_place_without_the_class_token(folder: Path, tmp_path: Path) -> None:
    points = ["blocks.0.norm2", "blocks.1.resid_post"]
    scorers = [SCORER, *(f"{SCORER},point={point}" for point in points)]
    for report, point in zip(run(tmp_path / "r.sqlite", folder, classifier=scorers), [None, *points], strict=True):
        aps, chosen, _ = by_hand(folder, -1, point=point)
        assert report.value == pytest.approx(np.nanmean(aps), abs=1e-6)
        assert [report.record["fit"]["prototypes"][name] for name in TRAITS] == chosen


def test_a_place_that_the_backbone_does_not_have_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"RandomViT has no point 'blocks.9.norm2'; did you mean 'blocks.\d.norm2'"):
        run(tmp_path / "r.sqlite", folder, classifier=f"{SCORER},point=blocks.9.norm2")


def test_a_trait_that_nothing_in_test_has_is_left_out_of_the_mean_and_of_chance_and_the_labels_check_says_so(
    folder: Path, tmp_path: Path
) -> None:
    (report,) = run(tmp_path / "r.sqlite", folder)
    labels = resolve("task", f"traits,root={folder}").build().labels("test")
    assert report.chance == pytest.approx(labels.mean(axis=0)[:3].mean())
    (check,) = (c for c in report.checks if c.name == "labels")
    assert check.status == "warn"
    assert "1 of 4 classes have no positives in test: 'never'" in check.summary


def test_a_trait_that_no_training_image_has_gets_the_first_prototype_and_is_named(folder: Path, tmp_path: Path) -> None:
    (report,) = run(tmp_path / "r.sqlite", folder, n_train=4)
    fit = report.record["fit"]
    assert "never" in fit["undecided"]
    for name in fit["undecided"]:
        assert fit["prototypes"][name] == 0
    assert fit["train_ap"]["never"] is None


def test_a_job_of_many_scorers_sizes_and_seeds_is_as_each_alone_and_extracts_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchkit_baselines.random_vit import RandomViT

    seen: list[int] = []
    encode = RandomViT.encode
    monkeypatch.setattr(
        RandomViT,
        "encode",
        lambda self, batch, tokens=False: seen.append(len(batch)) or encode(self, batch, tokens=tokens),
    )
    monkeypatch.setattr(JobData, "pass_seconds", lambda *_: 1e9)  # longer than the fits, on a busy machine too
    scorers = [SCORER, "random,k=16"]
    together = run(tmp_path / "a.sqlite", folder, classifier=scorers, n_train=[4, 16, -1], seed=[0, 1])
    assert sum(seen) == 64 + 16, "each example once, and sixteen again to see that they repeat"
    assert len(together) == 12
    for report in together[::5]:
        c = report.cell
        (alone,) = run(tmp_path / "b.sqlite", folder, classifier=c.classifier, n_train=c.n_train, seed=c.seed)
        assert (alone.metrics, alone.record) == (report.metrics, report.record)
    assert len({r.value for r in together}) > 6


def test_a_scorer_that_knows_no_seed_is_fitted_and_scores_once_for_all(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    fit = PCA.fit
    monkeypatch.setattr(PCA, "fit", lambda self, x, **given: fits.append(given["seed"]) or fit(self, x, **given))
    together = run(tmp_path / "a.sqlite", folder, classifier="pca,k=8", n_train=[16, -1], seed=[0, 1, 2])
    assert fits == [0]
    assert len({(r.cell.seed, r.cell.n_train) for r in together}) == len(together) == 6
    chosen = {r.cell.seed: r.record["fit"]["train_ap"] for r in together if r.cell.n_train == 16}
    assert len({json.dumps(c) for c in chosen.values()}) == 3, "on the images that each seed draws"
    (alone,) = run(tmp_path / "b.sqlite", folder, classifier="pca,k=8", n_train=16, seed=2)
    (same,) = (r for r in together if (r.cell.seed, r.cell.n_train) == (2, 16))
    assert (alone.metrics, alone.record) == (same.metrics, same.record)


def test_several_passes_over_the_test_images_give_what_one_gives(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"classifier": [SCORER, "random,k=16", "random,k=5000"], "n_train": [4, 16]}
    found = []
    for db, seconds in (("one.sqlite", 1e9), ("each.sqlite", 0.0)):
        monkeypatch.setattr(JobData, "pass_seconds", lambda *_, s=seconds: s)
        with pytest.raises(RunFailed, match="give k=640") as caught:
            run(tmp_path / db, folder, **grid)
        found.append([(r.cell, r.metrics, r.record) for r in caught.value.reports])
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_predictions_give_the_numbers_again(folder: Path, tmp_path: Path) -> None:
    (report,) = run(tmp_path / "r.sqlite", folder)
    with benchkit.open(tmp_path / "r.sqlite") as results:
        predictions = results.predictions(1)
    assert predictions.scores.shape == (24, 4)
    aps = [
        average_precision_score(y, s) for y, s in zip(predictions.labels.T[:3], predictions.scores.T[:3], strict=True)
    ]
    assert np.mean(aps) == pytest.approx(report.value, abs=1e-6)


def test_a_scorer_that_cannot_be_fitted_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"random@2,k=5000 .*there are 640: give k=640") as caught:
        run(tmp_path / "r.sqlite", folder, classifier=[SCORER, "random,k=5000"], n_train=[4, -1])
    assert [r.cell.n_train for r in caught.value.reports] == [4, -1]
    with pytest.raises(RunFailed, match=r"n_train=41 is more than the 40 training examples"):
        run(tmp_path / "r.sqlite", folder, n_train=[4, 41])


def test_a_scorer_that_was_fitted_on_another_backbone_or_on_what_is_tested_is_told_of(
    folder: Path, tmp_path: Path
) -> None:
    notes: list[str] = []

    class Noting(Silent):
        def note(self, line: str) -> None:
            notes.append(line)

    for name, of, split in (("own", MODEL, "train"), ("other", f"{MODEL},seed=1", "train"), ("seen", MODEL, "test")):
        record(f"traits,root={folder}", of, ["tokens"], tmp_path / name, split=split, workers=0)
        fit("random,k=6", tmp_path / name, tmp_path / f"{name}.safetensors")
    for name, told, seen in (("own", 0, 0), ("other", 1, 0), ("seen", 0, 1)):
        notes.clear()
        task, model = resolve("task", f"traits,root={folder}"), resolve("model", MODEL)
        options = JobOptions(str(tmp_path), str(tmp_path / "cache"), workers=0)
        spec = resolve("scorer", f"fitted:{tmp_path / name}.safetensors")
        cell = Cell(task.canonical, model.canonical, spec.canonical, 4, 0)
        results = list(score_traits({spec.portable: [cell]}, JobData.open(task, model, options, Noting())))
        assert len(results) == 1
        assert sum("may mean nothing here" in line for line in notes) == told
        assert sum("was fitted on split 'test', and examples of it are tested here" in line for line in notes) == seen


def test_a_backbone_without_tokens_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="tokens") as caught:
        run(tmp_path / "r.sqlite", folder, model="pixels,size=16,colour=rgb")
    assert "\n" not in str(caught.value)


def test_images_that_do_not_decode_are_left_out_where_that_is_allowed(folder: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(folder, tmp_path / "whole")
    for name in ("00.png", "07.png"):  # one to train on, one to test on
        (folder / name).write_bytes(b"no image")
    with pytest.raises(RunFailed, match="do not decode"):
        run(tmp_path / "r.sqlite", folder)
    (report,) = run(tmp_path / "r.sqlite", folder, skip_bad=1)
    assert (report.n_train_used, report.n_test, report.n_skipped) == (39, 23, 2)
    table = [line for line in (whole / "traits.csv").read_text().splitlines() if line[:6] not in ("00.png", "07.png")]
    (whole / "traits.csv").write_text("\n".join(table))
    (without,) = run(tmp_path / "r.sqlite", whole)
    assert report.value == pytest.approx(without.value, abs=1e-6)


def test_scores_that_are_too_many_for_memory_give_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"classifier": "random,k=100", "n_train": [4, -1]}
    before = run(tmp_path / "a.sqlite", folder, **grid)
    monkeypatch.setattr("benchkit.jobs.traits.IN_MEMORY", 0)
    monkeypatch.setattr("benchkit.traits.choosing._BLOCK", 300)
    after = run(tmp_path / "b.sqlite", folder, **grid)
    assert [(r.metrics, r.record) for r in before] == [(r.metrics, r.record) for r in after]


@pytest.mark.parametrize("allocate", [np.empty, torch.empty], ids=["numpy", "torch"])
@pytest.mark.parametrize("stage", ["fit", "choose", "test", "evaluate"])
def test_a_scorer_that_memory_does_not_suffice_for_fails_alone_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allocate: Callable[[int], Any], stage: str
) -> None:
    chosen: list[int] = []

    def watched(function: Callable[..., Any], here: str, k_of: Callable[..., int]) -> Callable[..., Any]:
        def work(*args: Any, **more: Any) -> Any:
            k = k_of(*args)
            if k == 8 and stage == here and (stage != "test" or k in chosen):
                allocate(1 << 55)
            if here == "choose":
                chosen.append(k)
            return function(*args, **more)

        return work

    monkeypatch.setattr(Random, "fit", watched(Random.fit, "fit", lambda self, *_: self.params.k))
    monkeypatch.setattr(Random, "__call__", watched(Random.__call__, "test", lambda self, *_: self.n_prototypes))
    monkeypatch.setattr(job, "choose", watched(job.choose, "choose", lambda scores, *_: scores.shape[1]))
    monkeypatch.setattr(
        job, "evaluate_cell", watched(job.evaluate_cell, "evaluate", lambda spec, *_: spec.build().params.k)
    )
    with pytest.raises(RunFailed) as caught:
        run(tmp_path / "r.sqlite", folder, classifier=["random,k=4", "random,k=8"])
    (failure,), (report,) = caught.value.failures, caught.value.reports
    assert (failure.cell.classifier, report.cell.classifier) == ("random@2,k=8", "random@2,k=4")
    assert failure.reason == "out of memory"
    assert failure.error is not None
    assert failure.error.startswith("the memory of 'cpu' does not suffice (")
    assert failure.error.endswith("leave more to this job" if stage == "evaluate" else "give fewer prototypes")
    assert "\n" not in failure.error


def test_a_sweep_may_call_a_scorer_by_its_name(folder: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f'task = "traits,root={folder}"\nmodel = "{MODEL}"\nscorer = ["random,k=4", "random,k=8"]\n')
    (grid,) = read_sweep(sweep)
    assert grid.classifier == ("random,k=4", "random,k=8")
    assert [p.cell.classifier for p in make_plan([grid], None).cells] == ["random@2,k=4", "random@2,k=8"]


def test_permuted_labels_are_checked_on_demand(folder: Path, tmp_path: Path) -> None:
    (report,) = run(tmp_path / "r.sqlite", folder, shuffled=True)
    (check,) = (c for c in report.checks if c.name == "shuffled")
    assert check.details["true"] == report.value != check.details["value"]


def test_in_folds_every_scorer_is_fitted_on_its_own_folds_images_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, model = resolve("task", f"traits,root={folder}"), resolve("model", MODEL)
    rows = np.arange(40)
    folds = tuple(Fold("train", rows[rows % 4 != k], "train", rows[rows % 4 == k]) for k in range(4))
    fitted_on: list[np.ndarray] = []
    fit = Random.fit

    def spied(self: Random, activations: Any, **more: Any) -> None:
        batches = list(activations)
        fitted_on.append(np.concatenate(batches))
        fit(self, iter(batches), **more)

    monkeypatch.setattr(Random, "fit", spied)

    def scores(of: Sequence[Fold]) -> np.ndarray:
        class InFolds(spec.cls):
            def folds(self) -> tuple[Fold, ...]:
                return tuple(of)

        options = JobOptions(str(tmp_path), str(tmp_path / "cache"))
        data = JobData.open(replace(spec, cls=InFolds), model, options, Silent())
        cell = Cell(spec.canonical, model.canonical, SCORER, 12, 0)
        ((_, result),) = score_traits({SCORER: [cell]}, data)
        return result.scores

    together = scores(folds)
    own = patches(spec.build(), "train")
    for fold, seen in zip(folds, fitted_on, strict=True):
        expected = own[fold.train].reshape(-1, own.shape[-1])
        np.testing.assert_allclose(in_order(seen), in_order(expected), atol=1e-5)
    assert together.shape == (40, 4)
    np.testing.assert_allclose(together, np.concatenate([scores([fold]) for fold in folds]), atol=1e-6)


def in_order(x: np.ndarray) -> np.ndarray:
    return x[np.argsort(x[:, 0])]


def test_a_long_record_of_choices_is_cut_where_it_is_shown_and_whole_as_json(folder: Path, tmp_path: Path) -> None:
    table = folder / "traits.csv"
    header, *lines = table.read_text().splitlines()
    more = [f"another_trait_with_a_long_name_{i}" for i in range(8)]
    table.write_text("\n".join([",".join([header, *more]), *(line + ",0,1" * 4 for line in lines)]))
    run(tmp_path / "r.sqlite", folder)
    shown = CliRunner().invoke(with_commands(), ["show", "last", "--db", str(tmp_path / "r.sqlite")]).output
    (line,) = (line for line in shown.splitlines() if line.startswith("  fit "))
    assert len(line) < 500
    assert line.endswith("characters, all with --json)")
    whole = CliRunner().invoke(with_commands(), ["show", "last", "--json", "--db", str(tmp_path / "r.sqlite")]).output
    assert set(json.loads(whole)["record"]["fit"]["prototypes"]) == {*TRAITS, *more}


@pytest.mark.slow
def test_real_recordings_through_the_command_line(sounds: Path, shared: Path, tmp_path: Path) -> None:
    db = tmp_path / "r.sqlite"
    model = f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"

    def call(*words: str) -> str:
        command = [sys.executable, "-m", "benchkit", *words, "--db", str(db)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    grid = ["--task", f"traits,root={sounds}", "--model", model, "--n-train", "16", "--n-train", "-1"]
    call("run", *grid, "--scorer", "random,k=256", "--replicates", "100")
    few, all_ = json.loads(call("sql", "SELECT * FROM results ORDER BY n_train DESC", "--format", "json"))
    assert (few["n_train_used"], all_["n_train_used"], all_["n_test"]) == (16, 80, 80)
    assert all_["chance"] == pytest.approx((0.2 + 0.2 + 0.3 + 0.2) / 4)
    assert all_["low"] > all_["chance"] + 0.05  # even random weights know rain from a rooster
    assert all_["classifier"] == "random@2,k=256"
    assert all_["marks"] is None
    table = call("table", "--rows", "classifier", "--cols", "n_train", "--canonical")
    assert "random@2,k=256" in table
    assert "n_train=16" in table
