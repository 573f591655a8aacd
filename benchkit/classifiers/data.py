"""Checks what a probe is asked to fit on, and splits validation rows off. Every refusal is one line with a way out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64, Shaped

from benchkit.errors import FitError
from benchkit.interfaces import Labels, Problem, Subset
from benchkit.machine.seeds import Purpose, generator


@dataclass(frozen=True)
class Split:
    """Rows to train on, and rows that are held out to choose by (often none)."""

    train: Int64[np.ndarray, " n"]
    val: Int64[np.ndarray, " v"]


def class_name(problem: Problem, c: int) -> str:
    """The class as an error message names it."""
    return f"'{problem.classes[c]}'" if c < len(problem.classes) else f"{c}"


def one_column_a_class(labels: Labels, problem: Problem) -> Float32[np.ndarray, "n C"]:
    """0 or 1 for each class, from labels of either kind."""
    positive = labels[:, None] == np.arange(problem.n_classes) if problem.kind == "multiclass" else labels
    return positive.astype(np.float32)


def log_softmax(logits_nc: Float32[np.ndarray, "n C"]) -> Float32[np.ndarray, "n C"]:
    """Log-probabilities of each row's classes."""
    shifted = logits_nc - logits_nc.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def check_kind(who: str, problem: Problem) -> None:
    if problem.kind not in ("multiclass", "multilabel"):
        raise FitError(f"{who} fits multiclass and multilabel tasks, not {problem.kind}")


def finite_rows(features: Shaped[np.ndarray, "N ..."], rows: Int[np.ndarray, " n"]) -> Bool[np.ndarray, " N"]:
    """False for those of `rows` that hold NaN or infinity. Reads them a part at a time: tokens may be a memory map, and
    those that are padding (rows of NaN, of which an example has less than all) do not count."""
    finite = np.ones(len(features), bool)
    step = max(1, 2**22 // max(1, int(np.prod(features.shape[1:]))))
    for i in range(0, len(rows), step):
        finite[rows[i : i + step]] = _finite(features[rows[i : i + step]])
    return finite


def _finite(part: Shaped[np.ndarray, "n ..."]) -> Bool[np.ndarray, " n"]:
    good = np.isfinite(part)
    if part.ndim == 3 and not good.all():
        padding = np.isnan(part).all(axis=2)
        good |= (padding & ~padding.all(axis=1, keepdims=True))[..., None]
    return good.reshape(len(part), -1).all(axis=1)


def check_labels(who: str, labels: Labels, problem: Problem) -> None:
    """Raises FitError where no probe can learn anything from these labels."""
    check_kind(who, problem)
    n, wanted = len(labels), problem.n_classes
    if not n:
        raise FitError(f"{who} has no example to be fitted on")
    if problem.kind == "multiclass":
        if labels.ndim != 1 or labels.min() < 0 or labels.max() >= wanted:
            raise FitError(f"{who} needs one label below {wanted} for each example of a multiclass task")
        if (labels == labels[0]).all():
            only = class_name(problem, int(labels[0]))
            raise FitError(f"all {n} training examples are of class {only}: {who} needs at least two classes")
    else:
        if labels.ndim != 2 or labels.shape[1] != wanted:
            raise FitError(f"{who} needs labels of shape [{n}, {wanted}] for a multilabel task, not {labels.shape}")
        if not labels.any():
            raise FitError(f"none of the {n} training examples has a positive label: {who} has nothing to learn")
        if (labels == labels[0]).all():
            names = ", ".join(class_name(problem, int(c)) for c in np.flatnonzero(labels[0])[:5])
            raise FitError(f"all {n} training examples have the same labels ({names}): {who} has nothing to tell apart")


def check_finite(who: str, finite: Bool[np.ndarray, " n"]) -> None:
    """Raises FitError where a training example holds NaN or infinity."""
    if not finite.all():
        raise FitError(
            f"the features of {int((~finite).sum())} of {len(finite)} training examples hold NaN or infinity, and {who}"
            " cannot be fitted on them: look at what the backbone makes of these examples"
        )


def check_subsets(
    who: str, features: Shaped[np.ndarray, "N ..."], labels: Labels, problem: Problem, subsets: Sequence[Subset]
) -> list[FitError | None]:
    """For each subset why it cannot be fitted on, if it cannot. One that cannot must not keep the others from it."""
    finite = finite_rows(features, np.unique(np.concatenate([s.rows for s in subsets])) if subsets else np.arange(0))
    found: list[FitError | None] = []
    for subset in subsets:
        try:
            check_labels(who, labels[subset.rows], problem)
            check_finite(who, finite[subset.rows])
            found.append(None)
        except FitError as e:
            found.append(e)
    return found


def hold_out(
    who: str,
    labels: Labels,
    problem: Problem,
    fraction: float,
    seed: int,
    *,
    strict: bool = True,
    purpose: Purpose = Purpose.HOLDOUT,
) -> Split:
    """Positions to train on and to validate on, every class in both as far as it can be.

    strict: a class (of several labels: all classes) with a single example is a FitError; else it stays in training.
    """
    rng = generator(seed, purpose)
    if problem.kind == "multiclass":
        held = _hold_out_classes(who, labels, problem, fraction, rng, strict)
    else:
        held = _hold_out_labels(who, labels, fraction, rng, strict)
    return Split(np.flatnonzero(~held), np.flatnonzero(held))


def _share(n: int, fraction: float) -> int:
    """How many of `n` examples are held out: at least one, and never all."""
    return min(max(round(fraction * n), 1), n - 1)


def _hold_out_classes(
    who: str,
    labels: Int[np.ndarray, " n"],
    problem: Problem,
    fraction: float,
    rng: np.random.Generator,
    strict: bool,
) -> Bool[np.ndarray, " n"]:
    held = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        if len(rows) == 1 and strict:
            raise FitError(
                f"class {class_name(problem, int(c))} has a single training example, and {who} holds out a part of "
                "each class for validation: give val=0, or more examples"
            )
        held[rng.permutation(rows)[: _share(len(rows), fraction)]] = True
    return held


def _hold_out_labels(
    who: str, labels: Shaped[np.ndarray, "n C"], fraction: float, rng: np.random.Generator, strict: bool
) -> Bool[np.ndarray, " n"]:
    """Iterative stratification (Sechidis et al. 2011) in its simplest form: the rarest class chooses first."""
    positives = labels.astype(bool)
    counts = positives.sum(axis=0)
    if strict and counts.max() < 2:
        raise FitError(
            f"no class has two positive training examples, and {who} holds out a part of them for validation: "
            "give val=0, or more examples"
        )
    held, placed = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for c in np.argsort(counts, kind="stable"):
        if counts[c] < 2:
            placed |= positives[:, c]  # an only example is needed for training
            continue
        free = rng.permutation(np.flatnonzero(positives[:, c] & ~placed))
        wanted = max(_share(int(counts[c]), fraction) - int(held[positives[:, c]].sum()), 0)
        held[free[:wanted]] = True
        placed[free] = True
    rest = rng.permutation(np.flatnonzero(~placed))
    held[rest[: round(fraction * len(rest))]] = True
    return held
