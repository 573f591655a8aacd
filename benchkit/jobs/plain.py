"""The plain regression beside each probe: fitted once for each set of training rows, on a bounded sample of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int

from benchkit import metrics
from benchkit.checks.plain import beats, check_plain, plain_scores
from benchkit.interfaces import Fold
from benchkit.jobs.data import JobData
from benchkit.machine.seeds import Purpose, generator
from benchkit.records.report import Cell, Check, Metric

TRAIN, TEST = 512, 2048
"""Examples at most, of all folds together (of training at least a quarter as many in each)."""
NUMBERS = 2**24
"""Of features, at most, in either sample: fewer examples where there are 100,000 dimensions."""
REPLICATES = 200


@dataclass
class Reference:
    """One job's: the sampled test rows, and the scores of the regressions on them."""

    data: JobData
    rows: list[Int[np.ndarray, " _"]] = field(default_factory=list)
    """Of each fold's test rows, which are looked at: places among them."""
    scores: dict[tuple[bytes, bool], Float32[np.ndarray, "M C"]] = field(default_factory=dict)
    """By training rows, and whether LayerNorm comes first."""

    @staticmethod
    def of(data: JobData) -> "Reference":
        made = Reference(data)
        for i, fold in enumerate(data.folds):
            n = len(data.test_rows(fold))
            made.rows.append(_some(n, made._limit(TEST, fold), 0, i))
        return made

    def _limit(self, rows: int, fold: Fold) -> int:
        dim = self.data.pooled(fold.test_split, self.data.test_rows(fold)[:1]).shape[1]
        return max(1, min(rows // len(self.data.folds), NUMBERS // dim))

    def check(
        self,
        cell: Cell,
        scores: Float32[np.ndarray, "N C"],
        untrained: bool,
        replicates: int,
        groups: Int[np.ndarray, " N"] | None = None,
    ) -> Check | None:
        """Of the cell whose test scores these are, all folds' one below the other; groups: of each, its recording's
        number. None where nothing can be said: too
        few examples, or a metric that the sample does not define."""
        data, problem = self.data, self.data.problem
        train = [self._train(fold, cell, i) for i, fold in enumerate(data.folds)]
        if any(
            len(np.unique(data.labels[f.train_split][r], axis=0)) < 2 for f, r in zip(data.folds, train, strict=True)
        ):
            return None
        at = np.cumsum([0, *(len(data.test_rows(f)) for f in data.folds)])
        places = np.concatenate([start + rows for start, rows in zip(at, self.rows, strict=False)])
        labels = np.concatenate([
            data.labels[f.test_split][data.test_rows(f)[rows]] for f, rows in zip(data.folds, self.rows, strict=True)
        ])  # fmt: skip
        fold = np.repeat(np.arange(len(self.rows)), [len(r) for r in self.rows]) if len(self.rows) > 1 else None

        codes = None if groups is None else groups[places]

        def measured(found: Float32[np.ndarray, "M C"]) -> Metric:
            (metric,) = metrics.evaluate(
                data.task.metrics[:1], labels, found, problem, fold=fold, groups=codes,
                replicates=min(replicates, REPLICATES),
            )  # fmt: skip
            return metric

        ours, plain = measured(scores[places]), measured(self._scores(train, layer=False))
        layered = measured(self._scores(train, layer=True)) if beats(plain, ours) else None
        return check_plain(ours, plain, layered, untrained=untrained, n_train=max(map(len, train)), n_test=len(places))

    def _train(self, fold: Fold, cell: Cell, number: int) -> Int[np.ndarray, " n"]:
        rows = self.data.subset(fold, cell)
        most = max(TRAIN // 4, self._limit(TRAIN, fold))
        return rows[_some(len(rows), most, cell.seed, number)]

    def _scores(self, train: Sequence[Int[np.ndarray, " _"]], layer: bool) -> Float32[np.ndarray, "M C"]:
        key = (b"|".join(rows.tobytes() for rows in train), layer)
        if key not in self.scores:
            data = self.data
            parts = []
            for fold, rows, tested in zip(data.folds, train, self.rows, strict=True):
                test = data.pooled(fold.test_split, data.test_rows(fold)[tested])
                x, y = data.pooled(fold.train_split, rows), data.labels[fold.train_split][rows]
                parts.append(plain_scores(x, y, test, data.problem, layer=layer))
            self.scores[key] = np.concatenate(parts)
        return self.scores[key]


def _some(n: int, most: int, seed: int, number: int) -> Int[np.ndarray, " m"]:
    """That many of n, ascending; all where they are fewer."""
    if n <= most:
        return np.arange(n)
    return np.sort(generator(seed, Purpose.REFERENCE, number).permutation(n)[:most])
