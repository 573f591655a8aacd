"""What plugins hand over at run time, held against their interface before anything is computed from it.

The conformance suites (benchkit.testing) tell an author more, and earlier; a number must not rest on their being run.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float32

from benchkit.errors import DataError, PluginError
from benchkit.interfaces import (
    Backbone,
    Classifier,
    Component,
    Fitted,
    Fold,
    Labels,
    Problem,
    Published,
    Scorer,
    Task,
    TaskKind,
)


def checked_problem(task: Task) -> Problem:
    """What is asked of a classifier. Raises PluginError for a kind that there is not or classes that are no distinct
    names, and for published numbers that are no shares."""
    name, classes = type(task).__name__, task.classes
    if task.kind not in get_args(TaskKind):
        raise PluginError(f"{name}.kind is {task.kind!r}: a task is {' or '.join(get_args(TaskKind))}")
    if not task.metrics or isinstance(task.metrics, str):
        raise PluginError(f"{name}.metrics is {task.metrics!r}, not a tuple of names, the primary one first")
    if not len(classes):
        raise DataError(f"{name} has no classes")
    _check_names(classes, f"{name}.classes", "has the name {} twice")
    for number in task.published:
        if not isinstance(number, Published):
            raise PluginError(f"{name}.published holds {number!r:.80}, which is no benchkit.Published")
        if not 0 <= number.value <= 1:
            raise PluginError(
                f"{name}.published says that {number.model} has {number.metric} = {number.value:g} ({number.source}): "
                "metrics are shares, 0.1637 and not 16.37"
            )
    return Problem(task.kind, len(classes), tuple(classes))


def solves(classifier: type[Classifier]) -> tuple[TaskKind, ...]:
    """The kinds of task that a probe takes: one for several labels also takes the windows of a detection."""
    return (*classifier.kinds, *(("detection",) if "multilabel" in classifier.kinds else ()))


def posed(problem: Problem, classifier: Classifier) -> Problem:
    """The problem as this probe is given it: a detection is several labels a window to one that knows of no other."""
    asked = problem.kind == "detection" and "detection" not in classifier.kinds
    return replace(problem, kind="multilabel") if asked else problem


def checked_ids(task: Task, split: str) -> Sequence[str]:
    """Raises PluginError for what is no text, or is not unique: predictions are compared by it."""
    ids: Sequence[str] = task.ids(split)
    _check_names(ids, f"{type(task).__name__}.ids('{split}')", "gives {} to two examples")
    return ids


def checked_groups(task: Task, split: str, n: int) -> Sequence[str] | None:
    """Of each of the split's n examples, the group that it is of; None where the task knows of none. Raises PluginError
    for another number of them, or for what is no text."""
    groups: Sequence[str] | None = task.groups(split)
    if groups is None:
        return None
    name = f"{type(task).__name__}.groups('{split}')"
    if isinstance(groups, str) or not isinstance(groups, Sequence | np.ndarray) or len(groups) != n:
        what = f"{len(groups):,} names" if isinstance(groups, list | tuple | np.ndarray) else repr(groups)[:60]
        raise PluginError(f"{name} gave {what} for {n:,} examples: it names the group of each, or is None")
    for group in groups:
        if not isinstance(group, str) or not group:
            raise PluginError(f"{name} must be texts that are not empty, and {group!r:.60} is none")
    return groups


def _check_names(names: Sequence[object], where: str, twice: str) -> None:
    for name in names:
        if not isinstance(name, str):
            raise PluginError(f"{where} must be texts, and {name!r} is of type {type(name).__name__}")
    if len(set(names)) < len(names):
        raise PluginError(f"{where} {twice.format(repr(Counter(names).most_common(1)[0][0]))}")


def checked_labels(task: Task, split: str, n: int, problem: Problem) -> Labels:
    """n: how many examples the split has. Raises DataError for labels of another shape, or beyond the classes."""
    labels = np.asarray(task.labels(split))
    name = f"{type(task).__name__}, split '{split}'"
    single = problem.kind == "multiclass"
    expected = (n,) if single else (n, problem.n_classes)
    if labels.shape != expected:
        raise DataError(
            f"{name}: labels have shape {labels.shape}; {n} examples of {problem.n_classes} classes need {expected}"
        )
    if labels.dtype.kind not in "biufO":
        raise DataError(f"{name}: labels are of type {labels.dtype}: give the numbers of the classes, not their names")
    top = problem.n_classes - 1 if single else 1
    if n and not (labels.min() >= 0 and labels.max() <= top):
        raise DataError(f"{name}: labels run from {labels.min()} to {labels.max()}, outside of 0 to {top}")
    made = labels.astype(np.int64 if single else np.uint8, copy=False)
    if (made != labels).any():
        raise DataError(f"{name}: {labels[made != labels][0]} is no label: a whole number is")
    return made


def checked_folds(task: Task) -> tuple[Fold, ...]:
    """Raises PluginError where there are none, a test row is in several of them (it would count twice), or a validation
    row is one that the fold trains or tests on."""
    name, folds = f"{type(task).__name__}.folds()", task.folds()
    if not isinstance(folds, Sequence) or not folds or not all(isinstance(f, Fold) for f in folds):
        raise PluginError(f"{name} gave {folds!r:.80}, not one Fold or more")
    for split in {f.test_split for f in folds}:
        tested = np.concatenate([f.test for f in folds if f.test_split == split])
        if len(np.unique(tested)) < len(tested):
            raise PluginError(
                f"{name} tests some rows of split '{split}' more than once, and they would count as often"
            )
    for i, fold in enumerate(folds):
        if len(np.unique(fold.train)) < len(fold.train):
            raise PluginError(f"{name} trains fold {i} on some rows of split '{fold.train_split}' more than once")
        if (fold.val_split is None) != (fold.val is None):
            raise PluginError(f"{name} gives fold {i} one of val_split and val alone: give both, or neither")
        *others, (_, last_split, last) = fold.parts
        for what, split, rows in others if fold.val is not None else ():
            if split == last_split and len(np.intersect1d(rows, last)):
                raise PluginError(f"{name} validates fold {i} on rows of split '{split}' that it is to {what} on")
    return tuple(folds)


def check_rows(task: Task, folds: Sequence[Fold], sizes: Mapping[str, int]) -> None:
    """sizes: of the splits. Raises DataError for a fold without examples, PluginError for rows that a split lacks."""
    for i, fold in enumerate(folds):
        for what, split, rows in fold.parts:
            if not len(rows):
                raise DataError(f"{type(task).__name__}: fold {i} has no example to {what} on")
            if not (rows.min() >= 0 and rows.max() < sizes[split]):
                raise PluginError(
                    f"{type(task).__name__}.folds() gives fold {i} the rows {rows.min()} to {rows.max()} to {what} on, "
                    f"and split '{split}' has {sizes[split]} examples"
                )


def checked_fingerprint(component: Task | Backbone) -> str:
    """Raises PluginError for one that is no short text in one line."""
    made = component.fingerprint()
    if not isinstance(made, str) or not made or len(made) > 1000 or not made.isprintable():
        raise PluginError(
            f"{type(component).__name__}.fingerprint() gave {made!r:.80}, not a short text "
            "(benchkit.fingerprint makes them)"
        )
    return made


def checked_real_tokens(backbone: Backbone, batch: np.ndarray, n_tokens: int) -> Bool[np.ndarray, "B T"] | None:
    """Which of T tokens of each example are no padding; None where all are. Raises PluginError for what is no such
    mask, or leaves an example without a token."""
    made = backbone.real_tokens(batch, n_tokens)
    if made is None:
        return None
    name, shape = f"{type(backbone).__name__}.real_tokens", (len(batch), n_tokens)
    if not isinstance(made, np.ndarray) or made.dtype != np.bool_ or made.shape != shape:
        what = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else f"a {type(made).__name__}"
        raise PluginError(f"{name} gave {what}, not bool {shape}, or None where all tokens are of the example")
    if not made.any(axis=1).all():
        raise PluginError(f"{name} calls every token of an example padding: one at least is its own")
    return None if made.all() else made


def checked_scores(fitted: Fitted, x: np.ndarray, n_classes: int) -> Float32[np.ndarray, "N C"]:
    """The scores of these examples. Raises PluginError for an array of another shape, or of no numbers."""
    scores = np.asarray(fitted.scores(x))
    name = f"{type(fitted).__name__}.scores"
    if scores.shape != (len(x), n_classes) or scores.dtype.kind not in "fiub":
        raise PluginError(
            f"{name} gave {scores.dtype} {scores.shape} for {len(x)} examples and {n_classes} classes, not float32 "
            f"{(len(x), n_classes)}"
        )
    return scores.astype(np.float32, copy=False)


def checked_patch_scores(scorer: Scorer, x: Float32[np.ndarray, "B D"], k: int) -> Float32[np.ndarray, "B K"]:
    """The prototypes' scores of these vectors. Raises PluginError for an array of another shape, or of no numbers."""
    scores = np.asarray(scorer(x))
    if scores.shape != (len(x), k) or scores.dtype.kind not in "fiub":
        raise PluginError(
            f"{type(scorer).__name__} gave scores {scores.dtype} {scores.shape} for {len(x)} vectors and {k} prototypes"
            f" (n_prototypes), not float32 {(len(x), k)}"
        )
    return scores.astype(np.float32, copy=False)


def checked_tensors(scorer: Scorer) -> Mapping[str, np.ndarray]:
    """What is saved of a scorer. Raises PluginError for what is no dictionary of plain arrays."""
    made = scorer.tensors()
    name = f"{type(scorer).__name__}.tensors()"
    if not isinstance(made, Mapping):
        raise PluginError(f"{name} gave a {type(made).__name__}, not arrays by name")
    for key, array in made.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            what = f"array of type {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise PluginError(f"{name} gave '{key}' as {what}, not as an array of numbers")
    return made


def checked_fitted(made: Any, component: Component) -> Fitted:
    """Raises PluginError where `fit` gave no Fitted, or one with a record that JSON does not take."""
    if not isinstance(made, Fitted):
        raise PluginError(f"{type(component).__name__}.fit gave {made!r:.80}, not a benchkit.Fitted")
    if not isinstance(made.record, Mapping):
        raise PluginError(f"{type(made).__name__}.record is {made.record!r:.80}, not a dictionary")
    for key, value in made.record.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as e:
            raise PluginError(
                f"{type(made).__name__}.record holds {key!r} = {value!r:.60}, which JSON does not take: {e}"
            ) from e
    return made


def checked_fits(made: Iterable[Any], component: Component, n: int) -> Iterator[Fitted]:
    """What `fit_many` makes of n subsets, one by one. Raises PluginError where it makes fewer or more."""
    end = object()
    stream = iter(made)
    for i in range(n):
        fitted = next(stream, end)
        if fitted is end or (i == n - 1 and next(stream, end) is not end):
            what = f"only {i}" if fitted is end else "more"
            raise PluginError(f"{type(component).__name__}.fit_many gave {what} fits for {n} subsets")
        yield checked_fitted(fitted, component)
