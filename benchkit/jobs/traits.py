"""The cells of a trait task: fit every scorer, choose prototypes on the training images, score the test images.

A scorer is fitted once for each seed, on the patches of all images to train on: it is told no labels, so n_train
counts only the images that prototypes are chosen on. Patches of the training split are computed once, for all
scorers, into scratch files; those of the test split go past, and of each image only the scores of the prototypes that
were chosen stay. So no more than one scorer's scores of the training images, [N, K], are held at a time: 196 MB for
CUB-200-2011 and 8,192 prototypes. Above 2 GB they lie in a scratch file.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from benchkit.activations import TOKENS
from benchkit.activations.reader import BUFFER_BYTES, shuffled, views_of
from benchkit.activations.stream import check_points
from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import Spec
from benchkit.errors import BenchkitError
from benchkit.features import set_up
from benchkit.features.batches import memory_suffices
from benchkit.features.scratch import Scratch
from benchkit.interfaces import Fold, Scorer
from benchkit.jobs.data import JobData
from benchkit.jobs.evaluate import Context, Outcome, evaluate_cell
from benchkit.jobs.fit import Result
from benchkit.jobs.patches import Kept, keep_patches, stream_patches
from benchkit.machine.seeds import Purpose, generator
from benchkit.records.report import Cell, Report, finite
from benchkit.traits.choosing import Choice, choose
from benchkit.traits.pooling import image_scores

BATCH = 4096
"""Patches in a batch that a scorer is fitted on: of many images, in an order drawn with the cell's seed."""
FEWER = "give fewer prototypes"
"""What to do where memory does not suffice for a scorer."""
IN_MEMORY = 2 << 30
"""Bytes of a scorer's scores of the training images that are held in memory."""


def run_traits(
    groups: Mapping[str, Sequence[Cell]], data: JobData, context: Context, sealed: Callable[[Report], None]
) -> list[Outcome]:
    """Runs every cell. groups: the cells of each scorer, by its spec. Raises BenchkitError where no cell can run."""
    outcomes = []
    for spec, result in score_traits(groups, data):
        if isinstance(result.scores, BenchkitError):
            outcomes.append(Outcome.of(result.cell, result.scores))
            continue
        if not data.tested:
            data.extract_test()
            context.look_at(data)
        try:
            with memory_suffices("cpu", "leave more to this job"):
                outcome = evaluate_cell(spec, result, data, context, data.progress)
        except BenchkitError as e:
            outcome = Outcome.of(result.cell, e)
        outcomes.append(outcome)
        if outcome.report:
            sealed(outcome.report)
    return outcomes


@dataclass
class _Fit:
    """One scorer with one seed, and its cells.

    By fold: the fitted scorers, and what each cell chose; `permuted`: chose on permuted labels, where that was asked
    for. errors: of cells that came to nothing.
    """

    spec: Spec
    seed: int
    cells: list[Cell]
    point: str
    scorers: list[Scorer] = field(default_factory=list)
    chosen: dict[Cell, list[Choice]] = field(default_factory=dict)
    permuted: dict[Cell, list[Choice]] = field(default_factory=dict)
    errors: dict[Cell, BenchkitError] = field(default_factory=dict)

    @property
    def good(self) -> list[Cell]:
        return [c for c in self.cells if c not in self.errors]

    def fail(self, error: BenchkitError) -> None:
        self.errors |= dict.fromkeys(self.good, error)

    def used(self, fold: int) -> Int64[np.ndarray, " U"]:
        """The prototypes that some cell chose in a fold, ascending."""
        made = (by_cell[c] for by_cell in (self.chosen, self.permuted) for c in self.good if c in by_cell)
        choices = [by_fold[fold].prototype for by_fold in made]
        return np.unique(np.concatenate(choices)) if choices else np.zeros(0, np.int64)


def score_traits(groups: Mapping[str, Sequence[Cell]], data: JobData) -> Iterator[tuple[Spec, Result]]:
    """Each cell's test scores, [N, T]: of the prototype that was chosen for each trait.

    A pass over the test images is made whenever the fits that wait for it have taken as long as it will take.
    """
    fits = _planned(groups, data)
    good = [fit for fit in fits if fit.good]
    for fit in fits:
        if not fit.good:
            yield from _results(fit, [], data)
    if not good:
        return
    kept = _kept(good, data)
    waiting: list[_Fit] = []
    began = time.monotonic()
    for fit in good:
        with data.progress.step(f"fit {fit.spec.canonical}, seed {fit.seed}", len(data.folds), "folds") as step:
            try:
                with memory_suffices(data.options.device, FEWER):
                    for fold in data.folds:
                        _fit_one(fit, fold, kept[fold.train_split], data)
                        step.advance()
            except BenchkitError as e:
                fit.fail(e)
        waiting.append(fit)
        if fit is good[-1]:
            kept.clear()  # it is large
        elif time.monotonic() - began < data.pass_seconds("tokens"):
            continue
        for done, scores in zip(waiting, _score_test(waiting, data), strict=True):
            yield from _results(done, scores, data)
        waiting, began = [], time.monotonic()


def _planned(groups: Mapping[str, Sequence[Cell]], data: JobData) -> list[_Fit]:
    fits = []
    for text, cells in groups.items():
        spec = resolve("scorer", text)
        seeds = {c.seed: [own for own in cells if own.seed == c.seed] for c in cells}
        for seed, own in sorted(seeds.items()) if spec.cls.seeded else [(0, list(cells))]:
            fit = _Fit(spec, seed, own, TOKENS)
            fits.append(fit)
            try:
                scorer = spec.build()
                fit.point = scorer.point or TOKENS
                check_points(data.ready(), [fit.point])
                _tell_of_its_fit(scorer, spec, data)
            except BenchkitError as e:
                fit.fail(e)
    return fits


def _tell_of_its_fit(scorer: Scorer, spec: Spec, data: JobData) -> None:
    """A scorer from a file fits every backbone of its dimension, and means something to the one it was fitted on; and
    it may have seen what it is tested on."""
    record = getattr(scorer, "record", {})
    weights = set_up(data.backbone, data.options.device)
    if record.get("model_fingerprint", weights) != weights:
        data.progress.note(
            f"scorer '{spec.canonical}' was fitted on activations of '{record['model']}', whose weights are not those "
            f"of '{data.model_spec.canonical}': its prototypes may mean nothing here"
        )
    split, tested = record.get("split"), {fold.test_split for fold in data.folds}
    if split in tested and record["data_fingerprint"] == data.task.fingerprint():
        data.progress.note(
            f"scorer '{spec.canonical}' was fitted on split '{split}', and examples of it are tested here"
        )


def _results(fit: _Fit, scores: Sequence[Float32[np.ndarray, "_ _"]], data: JobData) -> Iterator[tuple[Spec, Result]]:
    for cell in fit.cells:
        if cell in fit.errors:
            yield fit.spec, Result(cell, fit.errors[cell])
            continue
        permuted = _columns(fit, fit.permuted[cell], scores) if cell in fit.permuted else None
        chosen = fit.chosen[cell]
        yield fit.spec, Result(cell, _columns(fit, chosen, scores), _record(chosen, data), permuted)


# ------------------------------------------------------------------------------------------------------------- training


def _kept(fits: Sequence[_Fit], data: JobData) -> dict[str, Kept]:
    """By split, the patches of all images to train on, at every place that some scorer wants."""
    points = sorted({fit.point for fit in fits})
    kept: dict[str, Kept] = {}
    began, n = time.monotonic(), 0
    for split in sorted({f.train_split for f in data.folds}):
        rows = np.unique(np.concatenate([f.train for f in data.folds if f.train_split == split]))
        kept[split] = keep_patches(data, split, rows, points)
        n += len(rows)
    data.token_seconds = (time.monotonic() - began) / n
    data.extract_train({"pooled": [fits[0].cells[0]._replace(n_train=-1)]})  # that pass has filled the cache
    return kept


def _fit_one(fit: _Fit, fold: Fold, kept: Kept, data: JobData) -> None:
    """Fits the scorer on the fold's training patches, and chooses for each cell."""
    rows, patches = kept[fit.point]
    own = np.flatnonzero(np.isin(rows, fold.train))
    parts = views_of([patches], own)  # a choice of rows would be a copy
    scorer: Scorer = fit.spec.build()
    stream: Any = shuffled(parts, 0, BATCH, fit.seed, 1, 0, BUFFER_BYTES)
    with closing(stream) as batches:  # which ends its thread, where the scorer does not want all of it
        scorer.fit(batches, seed=fit.seed, device=data.options.device)
    fit.scorers.append(scorer)
    scores = _train_scores(scorer, parts, len(own), data.extraction(fold.train_split).scratch)
    for cell in fit.good:
        try:
            drawn = data.subset(fold, cell)
        except BenchkitError as e:  # fewer examples decode than it asks for
            fit.errors[cell] = e
            continue
        labels = data.labels[fold.train_split][drawn]
        at = np.searchsorted(rows[own], drawn)
        some = scores if len(at) == len(scores) else scores[at]
        fit.chosen.setdefault(cell, []).append(choose(some, labels, data.progress))
        if data.options.shuffled:
            order = generator(cell.seed, Purpose.PERMUTE).permutation(len(labels))
            fit.permuted.setdefault(cell, []).append(choose(some, labels[order], data.progress))


def _train_scores(
    scorer: Scorer, parts: Sequence[Float32[np.ndarray, "_ T D"]], n: int, scratch: Any
) -> Float32[np.ndarray, "n K"]:
    k = scorer.n_prototypes
    images = (part[i : i + 64] for part in parts for i in range(0, len(part), 64))
    if n * k * 4 > IN_MEMORY:
        with Scratch(scratch, "scores of prototypes") as file:
            for some in images:
                file.append(image_scores(scorer, some))
            return file.map((n, k), np.dtype(np.float32))
    out, at = np.empty((n, k), np.float32), 0
    for some in images:
        out[at : at + len(some)] = image_scores(scorer, some)
        at += len(some)
    return out


# -------------------------------------------------------------------------------------------------------------- testing


def _score_test(fits: Sequence[_Fit], data: JobData) -> list[list[Float32[np.ndarray, "_ _"]]]:
    """Of each fit and fold, the scores of the prototypes used there, for the test images that decode."""
    out = [
        [np.full((len(fold.test), len(fit.used(k))), np.nan, np.float32) for k, fold in enumerate(data.folds)]
        for fit in fits
    ]
    used = [[fit.used(k) for k in range(len(data.folds))] for fit in fits]
    points = sorted({fit.point for fit in fits if fit.good})
    for split in sorted({f.test_split for f in data.folds}) if points else ():
        wanted = np.unique(np.concatenate([data.test_rows(f) for f in data.folds if f.test_split == split]))
        for point, rows, patches in stream_patches(data, split, wanted, points):
            for k, fold in enumerate(data.folds):
                if fold.test_split != split:
                    continue
                _, here, there = np.intersect1d(rows, fold.test, assume_unique=True, return_indices=True)
                for i, fit in enumerate(fits):
                    if fit.point != point or not fit.good or not len(here):
                        continue
                    try:
                        with memory_suffices(data.options.device, FEWER):
                            out[i][k][there] = image_scores(fit.scorers[k], patches[here])[:, used[i][k]]
                    except BenchkitError as e:
                        fit.fail(e)
    keep = [data.valid(f.test_split)[f.test] for f in data.folds]
    return [[s[ok] for s, ok in zip(by_fold, keep, strict=True)] for by_fold in out]


def _columns(
    fit: _Fit, choices: Sequence[Choice], by_fold: Sequence[Float32[np.ndarray, "_ _"]]
) -> Float32[np.ndarray, "N T"]:
    """Each trait's column: all folds' test rows one below the other."""
    return np.concatenate(
        [s[:, np.searchsorted(fit.used(k), c.prototype)] for k, (s, c) in enumerate(zip(by_fold, choices, strict=True))]
    )


def _record(choices: Sequence[Choice], data: JobData) -> dict[str, Any]:
    """What was chosen: for each trait the prototype's number and its average precision on the images it was chosen on,
    and the traits for which those images told no prototypes apart."""
    names = data.problem.classes
    records = [
        {
            "prototypes": dict(zip(names, c.prototype.tolist(), strict=True)),
            "train_ap": {name: finite(ap) for name, ap in zip(names, c.ap.tolist(), strict=True)},
            "undecided": [name for name, decided in zip(names, c.decided, strict=True) if not decided],
        }
        for c in choices
    ]
    return {"fit": records[0] if len(records) == 1 else records}
