"""A job: all cells of one (task, model). Extract once, fit many, evaluate each, seal each report once it is there.

A job is a small JSON record and runs the same anywhere: in the launcher's process, in a worker, on a cluster's node. It
never opens the store: it seals into the inbox beside it.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.errors import BenchkitError, DataError
from benchkit.evaluate import Context, Outcome, evaluate_cell
from benchkit.features import Features, Options, extract
from benchkit.interfaces import Backbone, Classifier, Fitted, Fold, Problem, Subset, Task
from benchkit.plan import Planned
from benchkit.progress import Progress
from benchkit.report import Cell, Report
from benchkit.sampling import subset
from benchkit.spec import Spec, resolve


@dataclass(frozen=True)
class JobOptions:
    """How to compute, where that cannot change the number. Paths are absolute."""

    side: str
    """The folder beside the store: sealed reports go to its inbox, predictions to its predictions."""
    cache: str
    device: str = "cpu"
    batch_size: int | None = None
    workers: int | None = None
    skip_bad: int = 0
    replicates: int = 1000
    """Bootstrap replicates for the interval of the primary metric."""
    shuffled: bool = False
    """Also fit each cell on permuted labels, which must fall to chance."""


@dataclass(frozen=True)
class JobCell:
    classifier: str
    """The spec in a spelling that means the same in any folder."""
    cell: Cell


@dataclass(frozen=True)
class Job:
    task: str
    model: str
    cells: tuple[JobCell, ...]
    options: JobOptions

    @staticmethod
    def of(planned: Sequence[Planned], options: JobOptions) -> "Job":
        """A job from planned cells of one (task, model)."""
        first = planned[0]
        cells = tuple(JobCell(p.classifier.portable, p.cell) for p in planned)
        return Job(first.task.portable, first.model.portable, cells, options)

    def to_json(self) -> str:
        return json.dumps(
            asdict(self) | {"cells": [{"classifier": c.classifier, "cell": list(c.cell)} for c in self.cells]}
        )

    @staticmethod
    def from_json(text: str) -> "Job":
        """Raises BenchkitError where `text` is no job."""
        try:
            r = json.loads(text)
            cells = tuple(JobCell(c["classifier"], Cell(*c["cell"])) for c in r["cells"])
            return Job(r["task"], r["model"], cells, JobOptions(**r["options"]))
        except (ValueError, TypeError, KeyError) as e:
            raise BenchkitError(f"this is no job file: {e}") from e


@dataclass
class _Data:
    """What all cells of a job share: the folds with what they need of the features and labels."""

    task: Task
    problem: Problem
    folds: tuple[Fold, ...]
    labels: dict[str, np.ndarray]
    features: dict[str, Features] = field(default_factory=dict)

    def valid(self, split: str) -> np.ndarray:
        """Rows of the split that decode, as far as that is known."""
        ok = np.ones(len(self.labels[split]), bool)
        if split in self.features:
            ok[list(self.features[split].skipped)] = False
        return ok

    def train(self, fold: Fold) -> np.ndarray:
        return fold.train[self.valid(fold.train_split)[fold.train]]

    def test(self, fold: Fold) -> np.ndarray:
        return fold.test[self.valid(fold.test_split)[fold.test]]

    def subset(self, fold: Fold, cell: Cell) -> np.ndarray:
        """Positions within `fold.train` that the cell trains on."""
        labels = self.labels[fold.train_split][fold.train]
        return subset(labels, cell.n_train, cell.seed, self.problem, self.valid(fold.train_split)[fold.train])


def run_job(job: Job, progress: Progress, sealed: Callable[[Report], None]) -> list[Outcome]:
    """Runs every cell. sealed: called after each report is sealed. A cell that fails does not stop the others.

    Raises BenchkitError where no cell can run: data that is missing or inconsistent, weights that do not load.
    """
    task_spec, model_spec = resolve("task", job.task), resolve("model", job.model)
    for spec, name in ((task_spec, job.cells[0].cell.task), (model_spec, job.cells[0].cell.model)):
        if spec.canonical != name:
            raise DataError(
                f"{spec.kind} '{name}' is '{spec.canonical}' by now: its files changed since it was planned"
            )
    task: Task = task_spec.build()
    backbone: Backbone = model_spec.build()
    data = _read_labels(task)
    outcomes: list[Outcome] = []
    runnable: list[JobCell] = []
    for cell in job.cells:  # before anything is computed: an n_train too large fails at once
        try:
            for fold in data.folds:
                data.subset(fold, cell.cell)
            runnable.append(cell)
        except BenchkitError as e:
            outcomes.append(Outcome(cell.cell, error=str(e)))
    if not runnable:
        return outcomes
    context = Context.start(task_spec, model_spec, task, data.problem, job.options)
    _extract(data, backbone, [c.cell for c in runnable], task_spec, model_spec, job.options, progress)
    context.look_at_data(data.folds, data.labels, data.features, data.train, data.test)
    for text, cells in groupby(runnable, key=lambda c: c.classifier):
        outcomes += _run_classifier(
            resolve("classifier", text), [c.cell for c in cells], data, context, progress, sealed
        )
    return outcomes


def _read_labels(task: Task) -> _Data:
    """Labels of every split in use, checked: a label file read wrongly must not get past this point unseen."""
    classes, folds = task.classes, task.folds()
    problem = Problem(task.kind, len(classes), tuple(classes))
    data = _Data(task, problem, folds, {})
    for split in sorted({s for f in folds for s in (f.train_split, f.test_split)}):
        labels, n = np.asarray(task.labels(split)), len(task.ids(split))
        name = f"{type(task).__name__}, split '{split}'"
        expected = (n,) if task.kind == "multiclass" else (n, len(classes))
        if labels.shape != expected:
            raise DataError(
                f"{name}: labels have shape {labels.shape}, and {n} examples of {len(classes)} classes need {expected}"
            )
        top = len(classes) - 1 if task.kind == "multiclass" else 1
        if n and not (labels.min() >= 0 and labels.max() <= top):
            raise DataError(f"{name}: labels run from {labels.min()} to {labels.max()}, outside of 0 to {top}")
        data.labels[split] = labels.astype(np.int64 if task.kind == "multiclass" else np.uint8, copy=False)
    for i, fold in enumerate(folds):
        if not len(fold.train) or not len(fold.test):
            raise DataError(
                f"{type(task).__name__}: fold {i} has {len(fold.train)} examples to train and {len(fold.test)} to test on"
            )
    return data


def _extract(
    data: _Data,
    backbone: Backbone,
    cells: Sequence[Cell],
    task: Spec,
    model: Spec,
    options: JobOptions,
    progress: Progress,
) -> None:
    """Fills data.features with every row that a cell needs: all test rows, and the union of the training subsets.

    Where examples are skipped because they do not decode, the subsets are drawn again from the others, which may need
    more rows: so until nothing changes.
    """
    while True:
        wanted: dict[str, set[int]] = {}
        for fold in data.folds:
            wanted.setdefault(fold.test_split, set()).update(fold.test.tolist())
            for cell in {(c.n_train, c.seed): c for c in cells}.values():
                wanted.setdefault(fold.train_split, set()).update(fold.train[data.subset(fold, cell)].tolist())
        before = {split: len(f.skipped) for split, f in data.features.items()}
        for split, rows in wanted.items():
            media = data.task.media_key(split) or task.canonical
            key = {
                "task": task.cls.__qualname__,
                "media": media,
                "data": data.task.fingerprint(),
                "model": model.canonical,
            }
            data.features[split] = extract(
                data.task, backbone, split, np.array(sorted(rows)), key, _feature_options(options), progress
            )
        if before == {split: len(f.skipped) for split, f in data.features.items()} or not any(
            f.skipped for f in data.features.values()
        ):
            return


def _feature_options(options: JobOptions) -> Options:
    return Options(
        cache=Path(options.cache),
        device=options.device,
        batch_size=options.batch_size,
        workers=options.workers,
        skip_bad=options.skip_bad,
    )


def _run_classifier(
    spec: Spec, cells: list[Cell], data: _Data, context: Context, progress: Progress, sealed: Callable[[Report], None]
) -> list[Outcome]:
    """All cells of one classifier, trained together where the classifier can."""
    classifier: Classifier = spec.build()
    outcomes: list[Outcome] = []
    with progress.step(f"fit {spec.canonical}", len(cells), "cells") as step:
        for cell, fits in _fit(classifier, cells, data, context.options.device):
            if isinstance(fits, BenchkitError):
                outcomes.append(Outcome(cell, error=str(fits)))
            else:
                try:
                    outcomes.append(_finish(spec, classifier, cell, fits, data, context, progress))
                except BenchkitError as e:
                    outcomes.append(Outcome(cell, error=str(e)))
                else:
                    report = outcomes[-1].report
                    assert report is not None
                    sealed(report)
            step.advance()
    return outcomes


def _fit(
    classifier: Classifier, cells: list[Cell], data: _Data, device: str, shuffle: bool = False
) -> Iterator[tuple[Cell, list[Fitted] | BenchkitError]]:
    """Each cell with its Fitted for every fold, or the error that it failed with."""
    try:
        for cell, *fits in zip(
            cells, *(_fit_fold(classifier, f, cells, data, device, shuffle) for f in data.folds), strict=True
        ):
            yield cell, fits
            cells = cells[1:]
    except BenchkitError as e:
        if len(cells) == 1:
            yield cells[0], e
            return
        for cell in cells:  # one that cannot be fitted must not take the others with it
            yield from _fit(classifier, [cell], data, device, shuffle)


def _fit_fold(
    classifier: Classifier, fold: Fold, cells: list[Cell], data: _Data, device: str, shuffle: bool
) -> Iterator[Fitted]:
    labels = data.labels[fold.train_split][fold.train]
    subsets = [Subset(data.subset(fold, cell), cell.seed) for cell in cells]
    if shuffle:  # within the rows that are used, so that the classes keep their sizes
        rows = subsets[0].rows
        labels = labels.copy()
        labels[rows] = labels[np.random.default_rng(cells[0].seed).permutation(rows)]
    needed = np.unique(np.concatenate([s.rows for s in subsets]))
    x = np.asarray(data.features[fold.train_split].pooled[fold.train[needed]])
    local = [Subset(np.searchsorted(needed, s.rows), s.seed) for s in subsets]
    return classifier.fit_many(x, labels[needed], data.problem, local, device=device)


def _scores(fits: list[Fitted], data: _Data) -> np.ndarray:
    """Test scores of all folds, one below the other."""
    parts = []
    for fitted, fold in zip(fits, data.folds, strict=True):
        x = data.features[fold.test_split].pooled[data.test(fold)]
        parts.append(np.asarray(fitted.scores(np.asarray(x)), dtype=np.float32))
    return np.concatenate(parts)


def _finish(
    spec: Spec,
    classifier: Classifier,
    cell: Cell,
    fits: list[Fitted],
    data: _Data,
    context: Context,
    progress: Progress,
) -> Outcome:
    shuffled: np.ndarray | None = None
    if context.options.shuffled:
        ((_, refits),) = _fit(classifier, [cell], data, context.options.device, shuffle=True)
        if isinstance(refits, BenchkitError):
            raise refits
        shuffled = _scores(refits, data)
    used = [data.subset(f, cell) for f in data.folds]
    record: dict[str, Any] = {"n_train_per_fold": [len(u) for u in used]} if len(used) > 1 else {}
    records = [dict(f.record) for f in fits]
    if any(records):
        record["fit"] = records[0] if len(records) == 1 else records
    train_labels = [data.labels[f.train_split][f.train[u]] for f, u in zip(data.folds, used, strict=True)]
    return evaluate_cell(spec, cell, _scores(fits, data), train_labels, record, shuffled, context, progress)
