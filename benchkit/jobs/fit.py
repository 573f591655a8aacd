"""Fits the cells of a job and scores its test examples: probes on pooled features one after another; probes on tokens,
and likewise probes that train the backbone, in passes over the test split, whose tokens (and preprocessed examples) are
never stored.

A fitted probe is worth nothing to whoever kills the job before the next pass. A pass for each probe would compute the
test split's tokens as often as there are probes; a single one for all would put hours of fitting at stake. So a pass is
made whenever the fits that wait for it have taken as long as it will take. Passes then cost at most as much as the
fits, beyond the one that there must be, and a kill costs at most one probe's fits, or fits worth less than a pass.
"""

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.contract import checked_fits, checked_scores, posed
from benchkit.catalog.discovery import one_line
from benchkit.catalog.spec import Spec
from benchkit.errors import BenchkitError, FitError, PluginError
from benchkit.features import stream_for
from benchkit.features.batches import memory_suffices
from benchkit.interfaces import Classifier, Fitted, Fold, Needs, Subset
from benchkit.jobs.data import JobData
from benchkit.machine.seeds import Purpose, generator
from benchkit.machine.trouble import is_out_of_memory
from benchkit.records.report import Cell

Scores = Float32[np.ndarray, "N C"]
LESS = "train on fewer examples, or on another device"
"""What to do where memory does not suffice for a probe."""


@dataclass(frozen=True)
class Result:
    """One cell's test scores, all folds' test rows one below the other; or the error that it failed with.

    shuffled: the scores of the same fit on permuted labels, where they were asked for.
    """

    cell: Cell
    scores: np.ndarray | BenchkitError
    record: dict[str, Any] = field(default_factory=dict)
    shuffled: np.ndarray | None = None


Fits = list[Fitted] | BenchkitError
"""A cell's classifier for every fold."""


@dataclass(frozen=True)
class Probe:
    """A classifier, built, and its cells."""

    spec: Spec
    classifier: Classifier
    cells: Sequence[Cell]


def fit_pooled(probe: Probe, data: JobData) -> Iterator[Result]:
    """All cells of one probe on pooled features, trained together where the probe can, in order."""
    for cell, fits in _fit(probe.classifier, list(probe.cells), data):
        yield _result(cell, fits, lambda fits: _score_pooled(fits, data), probe.classifier, data)


def fit_streamed(needs: Needs, probes: Sequence[Probe], data: JobData) -> Iterator[tuple[Spec, Result]]:
    """All cells of all probes with these `needs`: fitted on the training rows that were kept for them, one probe after
    another, and scored in as few passes over the test rows as the above allows."""
    waiting: list[_Waiting] = []
    began = time.monotonic()
    for i, probe in enumerate(probes, 1):
        with data.progress.step(f"fit {probe.spec.canonical}", len(probe.cells), "cells") as step:
            for cell, fits in _fit(probe.classifier, list(probe.cells), data):
                again = _shuffled(probe.classifier, cell, data) if data.options.shuffled else None
                waiting.append(_Waiting(probe.spec, cell, fits, again))
                step.advance()
        if i == len(probes):
            data.kept.pop(needs, None)  # what is left to do needs it no more, and it is large
        elif time.monotonic() - began < data.pass_seconds(needs):
            continue
        yield from _scored(needs, waiting, data)
        waiting, began = [], time.monotonic()


@dataclass(frozen=True)
class _Waiting:
    """A cell that is fitted, and not scored yet. again: fitted on permuted labels too, where that was asked for."""

    spec: Spec
    cell: Cell
    fits: Fits
    again: Fits | None


def _scored(needs: Needs, waiting: Sequence[_Waiting], data: JobData) -> Iterator[tuple[Spec, Result]]:
    ready = [f for w in waiting for f in (w.fits, w.again) if isinstance(f, list)]
    scored = iter(_score_streamed(needs, ready, data) if ready else [])
    for w in waiting:
        if isinstance(w.fits, BenchkitError):
            yield w.spec, Result(w.cell, w.fits)
            continue
        scores = next(scored)
        permuted = next(scored) if isinstance(w.again, list) else w.again
        if isinstance(scores, BenchkitError):
            yield w.spec, Result(w.cell, scores)
        elif isinstance(permuted, BenchkitError):
            yield w.spec, Result(w.cell, permuted)
        else:
            yield w.spec, Result(w.cell, scores, _record(w.fits), permuted)


def _result(cell: Cell, fits: Fits, score: Any, classifier: Classifier, data: JobData) -> Result:
    try:
        if isinstance(fits, BenchkitError):
            raise fits
        permuted = None
        if data.options.shuffled:
            again = _shuffled(classifier, cell, data)
            if isinstance(again, BenchkitError):
                raise again
            with memory_suffices(data.options.device, LESS), alone(type(classifier).__name__):
                permuted = score(again)
        with memory_suffices(data.options.device, LESS), alone(type(classifier).__name__):
            return Result(cell, score(fits), _record(fits), permuted)
    except BenchkitError as e:
        return Result(cell, e)


@contextmanager
def alone(who: str) -> Iterator[None]:
    """Makes any exception of a probe a PluginError of one line: a cell fails alone, whatever went wrong in it. What
    memory, and what the machine does, stays known by its cause (benchkit.machine.trouble)."""
    try:
        yield
    except BenchkitError:
        raise
    except Exception as e:
        if is_out_of_memory(e):
            raise
        where = traceback.extract_tb(e.__traceback__)[-1]
        raise PluginError(f"{who} failed: {one_line(e)} ({PurePath(where.filename).name}:{where.lineno})") from e


def _fit(
    classifier: Classifier, cells: list[Cell], data: JobData, shuffle: bool = False
) -> Iterator[tuple[Cell, Fits]]:
    """Each cell with its Fitted for every fold, or the error that it failed with."""
    left = cells
    try:
        with memory_suffices(data.options.device, LESS):
            with alone(type(classifier).__name__):
                by_fold = [_fit_fold(classifier, fold, cells, data, shuffle) for fold in data.folds]
            for cell in cells:
                with alone(type(classifier).__name__):
                    fits = [next(made) for made in by_fold]
                yield cell, fits
                left = left[1:]
    except BenchkitError as e:
        if len(left) == 1:
            yield left[0], FitError(f"{e}{data.not_finite()}") if isinstance(e, FitError) else e
            return
        for cell in left:  # one that cannot be fitted must not take the others with it
            yield from _fit(classifier, [cell], data, shuffle)


def _shuffled(classifier: Classifier, cell: Cell, data: JobData) -> Fits:
    ((_, fits),) = _fit(classifier, [cell], data, shuffle=True)
    return fits


def _fit_fold(classifier: Classifier, fold: Fold, cells: list[Cell], data: JobData, shuffle: bool) -> Iterator[Fitted]:
    rows = [data.subset(fold, cell) for cell in cells]
    if classifier.needs == "pooled":
        table = np.unique(np.concatenate(rows))
        x = data.pooled(fold.train_split, table)
    else:
        kept = data.kept[classifier.needs][fold.train_split]
        table, x = kept.rows, kept.values  # whole: a part of a memory map would be a copy in memory
    labels = data.labels[fold.train_split][table]
    subsets = [Subset(np.searchsorted(table, r), c.seed) for r, c in zip(rows, cells, strict=True)]
    if shuffle:  # a single cell's own rows, so that the classes keep their sizes
        own = subsets[0].rows
        labels[own] = labels[generator(cells[0].seed, Purpose.PERMUTE).permutation(own)]
    x.flags.writeable = False
    made = classifier.fit_many(x, labels, posed(data.problem, classifier), subsets, device=data.options.device)
    return checked_fits(made, classifier, len(subsets))


def _score_pooled(fits: list[Fitted], data: JobData) -> Scores:
    parts = []
    for fitted, fold in zip(fits, data.folds, strict=True):
        x = data.pooled(fold.test_split, data.test_rows(fold))
        parts.append(checked_scores(fitted, x, data.problem.n_classes))
    return np.concatenate(parts)


def _score_streamed(needs: Needs, all_fits: list[list[Fitted]], data: JobData) -> list[Scores | BenchkitError]:
    """Scores of every cell, or the error that it failed with, from one pass over each test split. Rows that turn out
    not to decode are dropped."""
    errors: dict[int, BenchkitError] = {}
    per_fold = [
        [np.full((len(fold.test), data.problem.n_classes), np.nan, np.float32) for fold in data.folds] for _ in all_fits
    ]
    for split in sorted({f.test_split for f in data.folds}):
        wanted = np.unique(np.concatenate([data.test_rows(f) for f in data.folds if f.test_split == split]))
        seen = np.zeros(len(data.labels[split]), bool)
        for batch in stream_for(
            needs, data.task, data.backbone, split, wanted, data.extraction(split), data.progress, data.key(split)
        ):
            seen[batch.rows] = True
            for k, fold in enumerate(data.folds):
                if fold.test_split != split:
                    continue
                _, here, there = np.intersect1d(batch.rows, fold.test, assume_unique=True, return_indices=True)
                if not len(here):
                    continue
                x = batch.values[here]
                x.flags.writeable = False  # all probes share it
                for i, fits in enumerate(all_fits):
                    if i in errors:
                        continue
                    try:
                        with memory_suffices(data.options.device, LESS), alone(type(fits[k]).__name__):
                            per_fold[i][k][there] = checked_scores(fits[k], x, data.problem.n_classes)
                    except BenchkitError as e:
                        errors[i] = e
        data.lose(split, wanted[~seen[wanted]])
    keep = [data.valid(f.test_split)[f.test] for f in data.folds]
    return [
        errors.get(i) or np.concatenate([s[ok] for s, ok in zip(scores, keep, strict=True)])
        for i, scores in enumerate(per_fold)
    ]


def _record(fits: list[Fitted]) -> dict[str, Any]:
    """What the classifier told of its fits."""
    records = [dict(f.record) for f in fits]
    if not any(records):
        return {}
    return {"fit": records[0] if len(records) == 1 else records}
