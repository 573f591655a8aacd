"""What all cells of a job share: folds, labels, and the features of the rows that any of them needs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int

from benchkit.catalog.contract import (
    check_rows,
    checked_fingerprint,
    checked_folds,
    checked_ids,
    checked_labels,
    checked_problem,
)
from benchkit.catalog.spec import Spec, unqualified
from benchkit.errors import MediaError
from benchkit.features import Features, Kept, Options, extract, extract_for, forget, is_cached, set_up
from benchkit.interfaces import Backbone, Fold, Needs, Problem, Task
from benchkit.jobs.job import JobOptions
from benchkit.metrics import find
from benchkit.planning.sampling import subset
from benchkit.progress import Progress
from benchkit.records.report import Cell

NAMED = 3
"""Examples that an error message names."""


@dataclass
class JobData:
    """Rows are numbers within a split; positions are numbers within a fold's `train`."""

    task_spec: Spec
    model_spec: Spec
    task: Task
    backbone: Backbone
    problem: Problem
    folds: tuple[Fold, ...]
    labels: dict[str, np.ndarray]
    options: JobOptions
    progress: Progress
    features: dict[str, Features] = field(default_factory=dict)
    kept: dict[Needs, dict[str, Kept]] = field(default_factory=dict)
    """Tokens and preprocessed examples, by split, of the rows that probes which need them train on."""
    train_rows: dict[str, set[int]] = field(default_factory=dict)
    """By split, every row that some cell trains on."""
    bad: dict[str, dict[int, str]] = field(default_factory=dict)
    """By split, rows that do not decode, and why."""
    token_seconds: float = 0.0
    """What one example's tokens took."""
    tested: bool = False
    """The test rows' features are there, and what does not decode among them is known."""

    @staticmethod
    def open(task_spec: Spec, model_spec: Spec, options: JobOptions, progress: Progress) -> "JobData":
        """Reads the labels and checks them: a label file read wrongly must not get past this point unseen."""
        task: Task = task_spec.build()
        problem, folds = checked_problem(task), checked_folds(task)
        for metric in task.metrics:
            find(metric, task.kind)
        splits = sorted({split for f in folds for _, split, _ in f.parts})
        labels = {split: checked_labels(task, split, len(checked_ids(task, split)), problem) for split in splits}
        check_rows(task, folds, {split: len(y) for split, y in labels.items()})
        bad: dict[str, dict[int, str]] = {split: {} for split in splits}
        return JobData(
            task_spec, model_spec, task, model_spec.build(), problem, folds, labels, options, progress, bad=bad
        )

    def valid(self, split: str) -> Bool[np.ndarray, " N"]:
        """Rows of the split that decode, as far as that is known."""
        ok = np.ones(len(self.labels[split]), bool)
        ok[list(self.bad[split])] = False
        return ok

    def test_rows(self, fold: Fold) -> Int[np.ndarray, " m"]:
        """The fold's test rows that decode."""
        return fold.test[self.valid(fold.test_split)[fold.test]]

    def subset(self, fold: Fold, cell: Cell) -> Int[np.ndarray, " n"]:
        """The rows that a cell trains on in this fold, ascending; none where its probe is not trained."""
        if not cell.n_train:
            return np.arange(0)
        rows = np.sort(fold.train)
        labels, ok = self.labels[fold.train_split][rows], self.valid(fold.train_split)[rows]
        return rows[subset(labels, cell.n_train, cell.seed, self.problem, ok)]

    def check_subset(self, cell: Cell) -> None:
        """Raises FitError where the cell asks for more training examples than there are."""
        for fold in self.folds:
            self.subset(fold, cell)

    def ready(self) -> Backbone:
        """The backbone, set up."""
        set_up(self.backbone, self.options.device)
        return self.backbone

    def extract_train(self, cells: Mapping[Needs, Sequence[Cell]]) -> None:
        """Features of every row that one of the cells trains on, and their tokens, or the preprocessed examples
        themselves, where the probe needs them.

        Where examples are skipped because they do not decode, the subsets are drawn again without them, which may need
        other rows: so until nothing changes.
        """
        while True:
            n_bad = sum(map(len, self.bad.values()))
            self.train_rows = self._drawn([cell for group in cells.values() for cell in group])
            for needs, group in cells.items():
                if needs == "pooled":
                    continue
                for split, wanted in self._drawn(group).items():
                    began = time.monotonic()
                    kept = extract_for(
                        needs,
                        self.task,
                        self.backbone,
                        split,
                        _array(wanted),
                        self.extraction(split),
                        self.progress,
                        self.key(split),
                    )
                    if needs == "tokens":
                        self.token_seconds = (time.monotonic() - began) / max(1, len(wanted))
                    self.kept.setdefault(needs, {})[split] = kept
                    self._note(split, kept.skipped)
            for split, wanted in self.train_rows.items():
                if wanted:
                    self._extract(split, wanted - set(self.bad[split]))
            if n_bad == sum(map(len, self.bad.values())):
                return

    def _drawn(self, cells: Sequence[Cell]) -> dict[str, set[int]]:
        """By split, the rows that any of the cells trains on."""
        rows: dict[str, set[int]] = {}
        draws = {(c.n_train, c.seed): c for c in cells}.values()
        for fold in self.folds:
            for cell in draws:
                rows.setdefault(fold.train_split, set()).update(self.subset(fold, cell).tolist())
        return rows

    def extract_test(self) -> None:
        """Features of every test row, beside those that are there."""
        for split, rows in self._test_rows().items():
            self._extract(split, (rows | self.train_rows.get(split, set())) - set(self.bad[split]))
        for split in {f.train_split for f in self.folds} - set(self.features):  # nothing is trained
            self._extract(split, set())
        self.tested = True

    def extract_all(self, split: str) -> Float32[np.ndarray, "N D"]:
        """Features of every row of the split that decodes; others have no meaning."""
        self.ready()
        self._extract(split, set(range(len(self.labels[split]))) - set(self.bad[split]))
        return self.features[split].pooled

    def test_is_cached(self) -> bool:
        """Whether `extract_test` has nothing to compute."""
        return all(
            is_cached(self.task, self.backbone, s, _array(rows - set(self.bad[s])), self.key(s), self.extraction(s))
            for s, rows in self._test_rows().items()
        )

    def pass_seconds(self, needs: Needs) -> float:
        """About how long it takes to have what these probes need of all test rows. For those that train the backbone
        that is little beside the scoring, for which each trained backbone has to run."""
        return self.token_seconds * sum(map(len, self._test_rows().values())) if needs == "tokens" else 0.0

    def lose(self, split: str, rows: Int[np.ndarray, " n"]) -> None:
        """Notes that test rows do not decode. Raises MediaError where they did before: results would not be of the same
        test rows."""
        if len(rows) and self.tested:
            raise MediaError(f"{len(rows)} examples of split '{split}' decoded at first, and do not any more")
        self.bad[split] |= dict.fromkeys(rows.tolist(), "does not decode")

    def _test_rows(self) -> dict[str, set[int]]:
        rows: dict[str, set[int]] = {}
        for fold in self.folds:
            rows.setdefault(fold.test_split, set()).update(fold.test.tolist())
        return rows

    def pooled(self, split: str, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n D"]:
        return np.asarray(self.features[split].pooled[rows])

    def not_finite(self) -> str:
        """The examples with NaN or infinity in their pooled features, for the end of an error message."""
        names = []
        for split, features in self.features.items():
            rows = np.flatnonzero(features.hashes)
            wrong = rows[~np.isfinite(self.pooled(split, rows)).all(axis=1)]
            ids = self.task.ids(split) if len(wrong) else []
            names += [f"'{ids[row]}' of {split}" for row in wrong]
        more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
        return f" (NaN or infinity in the features of {', '.join(names[:NAMED])}{more})" if names else ""

    def key(self, split: str) -> dict[str, str]:
        """Everything that can change a feature and that extraction does not know itself."""
        return {
            "task": self.task_spec.name,
            "media": self.task.media_key(split) or self.task_spec.canonical,
            "data": checked_fingerprint(self.task),
            "model": unqualified(self.model_spec.canonical),
            "package": self.model_spec.dist,
        }

    def forget(self) -> None:
        """Lets no feature count that was cached before."""
        self.ready()
        for split in self.labels:
            forget(self.task, self.backbone, split, self.key(split), self.extraction(split), self.progress)

    def extraction(self, split: str) -> Options:
        o = self.options
        left = max(0, o.skip_bad - len(self.bad[split]))
        return Options(Path(o.cache), o.device, o.batch_size, o.workers, left)

    def _extract(self, split: str, rows: set[int]) -> None:
        self.features[split] = extract(
            self.task, self.backbone, split, _array(rows), self.key(split), self.extraction(split), self.progress
        )
        self._note(split, self.features[split].skipped)

    def _note(self, split: str, skipped: Mapping[int, str]) -> None:
        self.bad[split] |= dict(skipped)
        if len(self.bad[split]) > self.options.skip_bad:
            raise MediaError(
                f"{len(self.bad[split])} examples of split '{split}' do not decode, and --skip-bad allows for "
                f"{self.options.skip_bad}"
            )


def _array(rows: set[int]) -> Int[np.ndarray, " n"]:
    return np.array(sorted(rows), np.int64)
