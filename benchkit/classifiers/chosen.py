"""Learning rate and weight decay chosen on held-out examples, for all subsets in one batch of heads."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from benchkit.classifiers.data import hold_out
from benchkit.classifiers.subsets import SubsetProbe
from benchkit.errors import FitError
from benchkit.interfaces import Fitted, Labels, Problem, Subset
from benchkit.machine.seeds import Purpose

Grid = Sequence[tuple[SubsetProbe, Subset]]
FitGrid = Callable[[Grid], Iterator[Fitted]]
"""Fits each pair on the same features and labels, in order (trained.fit_grid)."""
PART = 0.2
"""Of each class's examples, that settings are chosen on."""


class Chosen(Fitted):
    """A fit, and what its settings were chosen by."""

    def __init__(self, fitted: Fitted, record: dict[str, Any]) -> None:
        self.fitted, self.record = fitted, dict(fitted.record) | record

    def scores(self, x: Shaped[np.ndarray, "N ..."]) -> Float32[np.ndarray, "N C"]:
        return self.fitted.scores(x)


def settings(probe: SubsetProbe) -> list[SubsetProbe]:
    """The probe with each learning rate and decay of its grids; where one has none, its own."""
    p = probe.params
    plain = dataclasses.replace(p, lr_grid=None, decay_grid=None)
    pairs = product(p.lr_grid or (p.lr,), p.decay_grid or (p.weight_decay,))
    return [type(probe)(dataclasses.replace(plain, lr=lr, weight_decay=decay)) for lr, decay in pairs]


def fit_chosen(
    probe: SubsetProbe,
    features: Shaped[np.ndarray, "N ..."],
    labels: Labels,
    problem: Problem,
    subsets: Sequence[Subset],
    fit_grid: FitGrid,
) -> Iterator[Fitted]:
    """Each subset's own best setting, fitted on all of its rows. Where none can be chosen on so few: raises FitError.

    The best is the most accurate on the held-out rows, of equals that with the smaller loss (choose=accuracy, one
    label), or that with the smallest loss.
    """
    candidates = settings(probe)
    parts: list[tuple[Subset, Any] | FitError] = []
    for subset in subsets:
        try:
            if not len(subset.rows):
                raise FitError(f"{probe.name} has no example to be fitted on")
            split = hold_out(
                probe.name, labels[subset.rows], problem, PART, subset.seed, strict=False, purpose=Purpose.GRID
            )
            if not len(split.val):
                raise FitError(
                    f"no class has two of the {len(subset.rows)} training examples, and {probe.name} holds out a part "
                    "to choose among lr_grid and decay_grid: give lr and weight_decay alone, or more examples"
                )
            parts.append((Subset(subset.rows[split.train], subset.seed), subset.rows[split.val]))
        except FitError as e:
            parts.append(e)
    tried = [(c, part[0]) for part in parts if not isinstance(part, FitError) for c in candidates]
    fits = _each(tried, fit_grid)
    best: list[tuple[SubsetProbe, dict[str, Any]] | FitError] = []
    for part in parts:
        if isinstance(part, FitError):
            best.append(part)
            continue
        x, y = features[part[1]], labels[part[1]]
        found = [(c, _judged(next(fits), x, y, problem)) for c in candidates]
        best.append(_best(probe, found))
    finals = iter([
        (choice[0], subset) for choice, subset in zip(best, subsets, strict=True) if not isinstance(choice, FitError)
    ])  # fmt: skip
    refitted = _each(list(finals), fit_grid)
    for choice in best:
        if isinstance(choice, FitError):
            raise choice
        again = next(refitted)
        if isinstance(again, FitError):
            raise again
        yield Chosen(again, choice[1])


def _each(grid: Grid, fit_grid: FitGrid) -> Iterator[Fitted | FitError]:
    """As fit_grid, but that a setting which fails, as one that diverges, does not end the others."""
    left = list(grid)
    while left:
        done = 0
        try:
            for fitted in fit_grid(left):
                done += 1
                yield fitted
        except FitError as e:
            done += 1
            yield e
        left = left[done:]


def _judged(fitted: Fitted | FitError, x: Any, y: Labels, problem: Problem) -> tuple[float, float] | FitError:
    """What is wrong on the held-out rows, and the loss there; the smaller the better."""
    if isinstance(fitted, FitError):
        return fitted
    z = fitted.scores(x).astype(np.float64)
    if problem.kind == "multiclass":
        z -= z.max(axis=1, keepdims=True)
        loss = float((np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), y]).mean())
        return float((z.argmax(axis=1) != y).mean()), loss
    wrong = float((y[np.arange(len(z)), z.argmax(axis=1)] == 0).mean())
    return wrong, float((np.logaddexp(0, z) - z * y).mean())


def _best(
    probe: SubsetProbe, found: Sequence[tuple[SubsetProbe, tuple[float, float] | FitError]]
) -> tuple[SubsetProbe, dict[str, Any]] | FitError:
    usable = [(c, judged) for c, judged in found if not isinstance(judged, FitError)]
    if not usable:
        return next(judged for _, judged in found if isinstance(judged, FitError))
    by_accuracy = probe.params.choose == "accuracy"
    choice, (wrong, loss) = min(usable, key=lambda one: one[1] if by_accuracy else one[1][1:])
    chosen = {"lr": choice.params.lr, "weight_decay": choice.params.weight_decay}
    return choice, {"chosen": chosen | {"accuracy": 1 - wrong, "loss": loss, "of": len(found)}}
