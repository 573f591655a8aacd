"""What probes share that are asked for many fits on subsets of the same features."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64, Shaped

from benchkit.classifiers.data import Split, check_subsets, hold_out
from benchkit.interfaces import Classifier, Fitted, Labels, Problem, Subset


class SubsetProbe(Classifier):
    """One fit is many fits of one: a subclass gives `fit_many`."""

    @property
    def name(self) -> str:
        """As errors call it."""
        return type(self).__name__.lower()

    def fit(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        *,
        seed: int,
        device: str = "cpu",
    ) -> Fitted:
        (fitted,) = self.fit_many(features, labels, problem, [Subset(np.arange(len(labels)), seed)], device=device)
        return fitted

    @abstractmethod
    def fit_many(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        subsets: Sequence[Subset],
        *,
        device: str = "cpu",
    ) -> Iterator[Fitted]:
        """One Fitted for each subset, in order. A subset that cannot be fitted on raises FitError in its turn, once
        those before it were given."""


class OneByOne(SubsetProbe):
    """Fits one subset after another, on rows that were checked; a subclass gives `fit_subset`."""

    seedless: ClassVar[bool] = False
    """The seed plays no part: subsets of the same rows, as all seeds have of all examples, share one fit."""

    @abstractmethod
    def fit_subset(
        self, features: Shaped[np.ndarray, "N ..."], labels: Labels, problem: Problem, subset: Subset
    ) -> Fitted:
        """Fits on the subset's rows."""

    def fit_many(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        subsets: Sequence[Subset],
        *,
        device: str = "cpu",
    ) -> Iterator[Fitted]:
        fits: dict[Any, Fitted] = {}
        for subset, error in zip(subsets, check_subsets(self.name, features, labels, problem, subsets), strict=True):
            if error:
                raise error
            if not self.seedless:
                yield self.fit_subset(features, labels, problem, subset)
                continue
            key = subset.rows.tobytes()
            if key not in fits:
                fits[key] = self.fit_subset(features, labels, problem, subset)
            yield fits[key]


def split_of(who: str, val: float, subset: Subset, labels: Labels, problem: Problem) -> Split:
    """The subset's rows, less the part `val` that is held out. Raises FitError where that cannot be."""
    rows: Int64[np.ndarray, " n"] = subset.rows.astype(np.int64)
    if not val:
        return Split(rows, rows[:0])
    held = hold_out(who, labels[rows], problem, val, subset.seed)
    return Split(rows[held.train], rows[held.val])
