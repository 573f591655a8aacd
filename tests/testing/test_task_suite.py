"""The task suite passes what is right and catches each thing that is wrong, in words that say what."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchkit.errors import BenchkitError
from benchkit.interfaces import Example, Fold, Published, Task
from benchkit.media.decode import Image
from benchkit.media.fingerprint import fingerprint
from benchkit.testing import TaskSuite, check_task

N = {"train": 30, "test": 13}


def pixels(split: str, row: int) -> np.ndarray:
    return np.random.default_rng([row, len(split)]).integers(0, 256, (8, 8, 1)).astype(np.uint8)


class Right(Task):
    """Noise in three classes."""

    kind = "multiclass"
    modality = "image"
    metrics = ("top1", "macro_f1")
    published = (Published("bird-mae:large", "linear,lr=0.01", 5, "top1", 0.25, "arXiv 2504.12880, table 3"),)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("one", "two", "three")

    def ids(self, split: str) -> Sequence[str]:
        return [f"{split}/{row}.png" for row in range(N[split])]

    def labels(self, split: str) -> np.ndarray:
        return np.arange(N[split]) % 3

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for row in indices:
            yield Example(row, f"{split}/{row}.png", Image(pixels(split, row)))

    def fingerprint(self) -> str:
        return fingerprint({s: [pixels(s, row).tolist() for row in range(n)] for s, n in N.items()})


class RightInFolds(Right):
    """Several labels, and five folds of one split."""

    kind = "multilabel"
    metrics = ("cmap", "auroc")
    published = ()

    def labels(self, split: str) -> np.ndarray:
        return (np.arange(3 * N[split]).reshape(-1, 3) % 5 == 0).astype(np.uint8)

    def folds(self) -> tuple[Fold, ...]:
        rows = np.arange(N["train"])
        return tuple(Fold("train", rows[rows % 5 != i], "train", rows[rows % 5 == i]) for i in range(5))


class RightWithValidation(Right):
    """The test rows, and others of the same split to choose by."""

    def folds(self) -> tuple[Fold, ...]:
        rows = np.arange(N["test"])
        return (Fold("train", np.arange(N["train"]), "test", rows[6:], "test", rows[:6]),)


class RightTraits(Right):
    """A property says the modality, as where files decide."""

    kind = "traits"
    metrics = ("cmap", "ap_q05", "ap_q95")
    published = (Published("bird-mae:large", "random,k=2048", 16, "cmap", 0.1, "somewhere, table 1"),)

    @property
    def modality(self) -> Any:
        return "image"

    def labels(self, split: str) -> np.ndarray:
        return (np.arange(3 * N[split]).reshape(-1, 3) % 5 == 0).astype(np.uint8)


class RightInGroups(Right):
    """Windows of recordings, five each."""

    group = "site"

    def groups(self, split: str) -> Sequence[str] | None:
        return [f"{split} {row // 5}" for row in range(N[split])]


class TestRightInGroups(TaskSuite):
    task = RightInGroups


class TestRightTraits(TaskSuite):
    task = RightTraits


class TestRight(TaskSuite):
    task = Right


class TestRightWithValidation(TaskSuite):
    task = RightWithValidation


class TestRightInFolds(TaskSuite):
    task = RightInFolds


def test_all_checks_run_without_pytest() -> None:
    check_task(Right)


# ------------------------------------------------------------------------------------------------------ what is broken


class OtherKind(Right):
    kind: Any = "regression"


class MetricOfAnotherKind(RightInFolds):
    metrics = ("cmap", "balanced_accuracy")


class UnknownMetric(Right):
    metrics = ("top2",)


class ClassTwice(Right):
    classes: Any = ("one", "one", "two")


class FewerIds(Right):
    def ids(self, split: str) -> Sequence[str]:
        return super().ids(split)[1:]


class IdTwice(Right):
    def ids(self, split: str) -> Sequence[str]:
        return ["same" if row in (3, 8) else f"{split}/{row}.png" for row in range(N[split])]


class TraitsInTrainAlone(RightTraits):
    def labels(self, split: str) -> np.ndarray:
        return super().labels(split) * np.uint8(split == "train")


class TraitsOfADecision(RightTraits):
    metrics = ("cmap", "top1")


class LabelsFromOne(Right):
    def labels(self, split: str) -> np.ndarray:
        return super().labels(split) + 1


class LabelsOfTheWrongType(Right):
    def labels(self, split: str) -> np.ndarray:
        return super().labels(split).astype(np.int32)


class MultilabelAsNumbers(RightInFolds):
    def labels(self, split: str) -> np.ndarray:
        return np.arange(N[split]) % 3


class LabelsAboveOne(RightInFolds):
    def labels(self, split: str) -> np.ndarray:
        return super().labels(split) * np.uint8(2)


class RandomLabels(Right):
    def labels(self, split: str) -> np.ndarray:
        return np.random.default_rng().permutation(N[split]) % 3


class DecodesForLabels(Right):
    def labels(self, split: str) -> np.ndarray:
        return np.array([int(e.media.load().sum()) % 3 for e in self.examples(split, range(N[split]))])


class InItsOwnOrder(Right):
    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        yield from super().examples(split, sorted(indices))


class CountsFromZero(Right):
    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for i, e in enumerate(super().examples(split, indices)):
            yield Example(i, e.id, e.media)


class OtherIds(Right):
    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for e in super().examples(split, indices):
            yield Example(e.index, f"{split}/{e.index + 1}.png", e.media)


class EverythingForNothing(Right):
    """Takes an empty request for one of all rows."""

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        yield from super().examples(split, indices or range(N[split]))


class AList(Right):
    def examples(self, split: str, indices: Sequence[int]) -> Any:
        return list(super().examples(split, indices))


class MediaByPosition(Right):
    """The right row and id, but the pixels of the request's first rows: labels and media come apart."""

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for i, e in enumerate(super().examples(split, indices)):
            yield Example(e.index, e.id, Image(pixels(split, i)))


class BrokenMedia(Right):
    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for e in super().examples(split, indices):
            yield Example(e.index, e.id, Image(b"no image"))


class FourChannels(Right):
    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for e in super().examples(split, indices):
            yield Example(e.index, e.id, Image(np.zeros((8, 8, 4), np.uint8)))


class SaysAudio(Right):
    modality = "audio"


class ValidatesOnTest(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        rows = np.arange(N["train"])
        return (Fold("train", rows[10:], "train", rows[:10], "train", rows[8:12]),)


class ValidatesOnNothing(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        return (replace(super().folds()[0], val_split="test"),)


class ValidatesBeyondTheSplit(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        return (replace(super().folds()[0], val_split="test", val=np.arange(N["test"] + 1)),)


class OverlappingFolds(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        return (super().folds()[0], super().folds()[0])


class LeakyFolds(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        rows = np.arange(N["train"])
        return (Fold("train", rows, "train", rows[:5]),)


class FoldsOutOfRange(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        return (Fold("train", np.arange(N["train"]), "test", np.arange(N["test"] + 1)),)


class EmptyFold(RightInFolds):
    def folds(self) -> tuple[Fold, ...]:
        return (Fold("train", np.arange(N["train"]), "test", np.arange(0)),)


class PrintOfTheObject(Right):
    def fingerprint(self) -> str:
        return f"{id(type(self))}"


class RandomKey(Right):
    def media_key(self, split: str) -> str | None:
        return f"{id(self)}"


class InPercent(Right):
    published = (Published("bird-mae", "linear", 5, "top1", 25.0, "arXiv"),)


class Unsourced(Right):
    published = (Published("bird-mae", "linear", 5, "top1", 0.25, ""),)


class PublishedOtherwise(Right):
    published = (Published("Bird MAE", "linear", 5, "top1", 0.25, "arXiv"),)


class GroupsOfOneTooFew(Right):
    def groups(self, split: str) -> Sequence[str] | None:
        return [f"{split} {row // 5}" for row in range(N[split] - 1)]


class GroupsInTrainAndTest(Right):
    def groups(self, split: str) -> Sequence[str] | None:
        return [f"site {row // 5}" for row in range(N[split])]


class GroupsByNumber(Right):
    def groups(self, split: str) -> Any:
        return [row // 5 for row in range(N[split])]


BROKEN: list[tuple[type[Task], str, str]] = [
    (OtherKind, "its_kind_and_its_metrics_go_together", "kind is 'regression'"),
    (MetricOfAnotherKind, "its_kind_and_its_metrics_go_together", "'balanced_accuracy' is not for multilabel"),
    (TraitsOfADecision, "its_kind_and_its_metrics_go_together", "'top1' is not for traits tasks"),
    (
        TraitsInTrainAlone,
        "a_trait_task_has_a_trait_that_some_examples_have_and_some_do_not",
        "fold 0: every trait is on",
    ),
    (UnknownMetric, "its_kind_and_its_metrics_go_together", "no metric named 'top2'"),
    (ClassTwice, "its_classes_are_unique_names", "a class is named twice: 'one'"),
    (FewerIds, "ids_and_labels_agree_in_number", "split 'test' has 12 ids and 13 rows of labels"),
    (IdTwice, "ids_are_unique", "split 'test' names an example twice: 'same'"),
    (LabelsFromOne, "labels_have_the_type_and_range_of_their_kind", "run from 1 to 3, with 3 classes"),
    (LabelsOfTheWrongType, "labels_have_the_type_and_range_of_their_kind", "is int32 [13], and must be int64 [N]"),
    (MultilabelAsNumbers, "labels_have_the_type_and_range_of_their_kind", "must be uint8 [N, 3]"),
    (LabelsAboveOne, "labels_have_the_type_and_range_of_their_kind", "hold other values than 0 and 1"),
    (RandomLabels, "two_instances_agree_on_ids_and_labels", "two instances label 'test' differently"),
    (GroupsOfOneTooFew, "groups_name_one_for_each_example_or_are_none", "has 12 names, and the split 13 examples"),
    (GroupsByNumber, "groups_name_one_for_each_example_or_are_none", "must be texts"),
    (GroupsInTrainAndTest, "no_group_is_in_train_and_in_test_of_one_fold", "of the same recording: site 0, site 1"),
    (DecodesForLabels, "labels_ids_and_groups_decode_no_media", "one of them decodes media"),
    (InItsOwnOrder, "examples_come_in_the_order_asked_for_each_with_its_row_and_id", "gives the rows [0, 2, 4"),
    (CountsFromZero, "examples_come_in_the_order_asked_for_each_with_its_row_and_id", "gives the rows [0, 1, 2"),
    (OtherIds, "examples_come_in_the_order_asked_for_each_with_its_row_and_id", "but 'test/2.png' in ids()"),
    (EverythingForNothing, "examples_come_in_the_order_asked_for_each_with_its_row_and_id", "examples('test', [])"),
    (AList, "examples_come_in_the_order_asked_for_each_with_its_row_and_id", "gives list, not a stream"),
    (MediaByPosition, "an_example_is_the_same_in_whatever_company", "is another medium when asked for alone"),
    (BrokenMedia, "media_decode", "does not decode as an image"),
    (FourChannels, "media_decode", "decodes as uint8 [8, 8, 4]"),
    (SaysAudio, "media_decode", "of modality 'audio' is of type Image"),
    (OverlappingFolds, "folds_are_within_their_splits_and_keep_test_rows_apart", "fold 1 tests on 6 rows that an"),
    (LeakyFolds, "folds_are_within_their_splits_and_keep_test_rows_apart", "trains and tests on 5 of the same rows"),
    (FoldsOutOfRange, "folds_are_within_their_splits_and_keep_test_rows_apart", "rows 0 to 13 of 'test', which has 13"),
    (ValidatesOnTest, "folds_are_within_their_splits_and_keep_test_rows_apart", "validates on 2 of the rows"),
    (ValidatesOnNothing, "folds_are_within_their_splits_and_keep_test_rows_apart", "one of val_split and val alone"),
    (ValidatesBeyondTheSplit, "folds_are_within_their_splits_and_keep_test_rows_apart", "rows 0 to 13 of 'test'"),
    (EmptyFold, "folds_are_within_their_splits_and_keep_test_rows_apart", "fold 0 has no rows of 'test'"),
    (PrintOfTheObject, "the_fingerprint_is_of_the_data_alone", "in another process"),
    (RandomKey, "the_media_key_is_a_text_or_none", "differs between two instances"),
    (InPercent, "published_numbers_are_of_its_metrics_and_say_where_they_stand", "must be a share: 0.1637, not 16.37"),
    (Unsourced, "published_numbers_are_of_its_metrics_and_say_where_they_stand", "has no source"),
    (PublishedOtherwise, "published_numbers_are_of_its_metrics_and_say_where_they_stand", "'Bird MAE' is no spec"),
]


@pytest.mark.parametrize(("cls", "check", "words"), BROKEN, ids=[cls.__name__ for cls, *_ in BROKEN])
def test_each_broken_task_is_caught(cls: type[Task], check: str, words: str) -> None:
    suite = type("Suite", (TaskSuite,), {"task": cls})
    with pytest.raises((AssertionError, BenchkitError)) as caught:
        getattr(suite(), f"test_{check}")()
    assert words in str(caught.value)
