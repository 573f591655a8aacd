"""The scores of one fold beside its labels, and what several metrics derive from the two, derived once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

from benchkit.catalog.labels import n_positives
from benchkit.errors import FitError
from benchkit.interfaces import Labels, Problem
from benchkit.metrics.ranks import Ranks, rank


@dataclass(frozen=True, eq=False)
class Scored:
    """Labels and scores of N examples. where: " in fold 3", for error messages."""

    labels: Labels
    scores: Float32[np.ndarray, "N C"]
    problem: Problem
    where: str = ""

    @property
    def n(self) -> int:
        return len(self.labels)

    @property
    def multiclass(self) -> bool:
        return self.problem.kind == "multiclass"

    @cached_property
    def top(self) -> Int64[np.ndarray, " N"]:
        """The class with the highest score, the first of several."""
        return self.scores.argmax(axis=1)

    @cached_property
    def all_rows(self) -> Int32[np.ndarray, " N"]:
        return np.arange(self.n, dtype=np.int32)

    @cached_property
    def class_ranks(self) -> tuple[Ranks, ...]:
        """For each class, its examples from the highest score down."""
        return tuple(rank(positives(self.labels, c), self.scores[:, c]) for c in range(self.problem.n_classes))

    @cached_property
    def rows_ranked(self) -> tuple[Ranks, ...]:
        """As `class_ranks`, but equal scores are no group: they follow each other as the examples do."""
        return tuple(
            rank(positives(self.labels, c), self.scores[:, c], ties=False) for c in range(self.problem.n_classes)
        )

    @cached_property
    def pair_ranks(self) -> Ranks:
        """All pairs of class and example together. Its rows name examples: a pair weighs what its example does."""
        positive = np.stack([positives(self.labels, c) for c in range(self.problem.n_classes)], axis=1)
        return rank(positive.ravel(), self.scores.ravel(), rows_per_example=self.problem.n_classes)


def positives(labels: Labels, c: int) -> Bool[np.ndarray, " N"]:
    """Which examples are of class `c`; for multiclass, that class against the rest."""
    return labels == c if labels.ndim == 1 else labels[:, c] > 0


def by_fold(
    labels: Labels, scores: Float32[np.ndarray, "N C"], problem: Problem, fold: Int[np.ndarray, " N"] | None
) -> Sequence[Scored]:
    """One Scored for each fold. Raises FitError for NaN scores or a wrong number of columns, and DataError for labels
    that name no class."""
    if scores.shape[1] != problem.n_classes:
        raise FitError(
            f"the classifier gave scores for {scores.shape[1]} classes, and the task has {problem.n_classes}"
        )
    if n_nan := int(np.count_nonzero(np.isnan(scores))):
        raise FitError(f"{n_nan:,} of {scores.size:,} scores are NaN: the features or the fit went wrong before this")
    n_positives(labels, problem.n_classes)
    if fold is None:
        return [Scored(labels, scores, problem)]
    return [Scored(labels[fold == f], scores[fold == f], problem, f" in fold {f}") for f in np.unique(fold)]
