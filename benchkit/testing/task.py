"""Conformance of a task."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np

from benchkit.catalog.spec import Kind, RawSpec
from benchkit.interfaces import Example, Task
from benchkit.media.decode import Audio, Image
from benchkit.metrics import find
from benchkit.testing.common import Suite, expect, run_all


class TaskSuite(Suite):
    """Subclass it in a test module: `class TestMine(TaskSuite): spec = "my-task,root=DIR"`."""

    kind: ClassVar[Kind] = "task"
    attribute: ClassVar[str] = "task"

    task: Any = None
    """A class or an instance, where no `spec` is given."""
    n_examples: int = 6
    """Of each split, as many examples are decoded."""

    # ------------------------------------------------------------------------------------------------------ checks

    def test_its_kind_and_its_metrics_go_together(self) -> None:
        task = self.ready
        kinds = ("multiclass", "multilabel", "detection", "traits")
        expect(task.kind in kinds, f"kind is {task.kind!r}, and must be one of {', '.join(kinds)}")
        expect(task.modality in ("image", "audio"), f"modality is {task.modality!r}, not 'image' or 'audio'")
        listed = isinstance(task.metrics, tuple) and task.metrics
        expect(listed, f"metrics is {task.metrics!r}, and must be a tuple of names, the primary one first")
        for metric in task.metrics:
            find(metric, task.kind)

    def test_its_classes_are_unique_names(self) -> None:
        classes = self.ready.classes
        named = isinstance(classes, tuple) and classes and all(isinstance(c, str) and c for c in classes)
        expect(named, "classes must be a tuple of names")
        expect(len(set(classes)) == len(classes), f"a class is named twice: {_twice(classes)}")

    def test_ids_and_labels_agree_in_number(self) -> None:
        for split in self.splits:
            ids, labels = self.ready.ids(split), self.ready.labels(split)
            expect(len(ids) == len(labels), f"split '{split}' has {len(ids)} ids and {len(labels)} rows of labels")
            expect(len(ids), f"split '{split}' is empty")

    def test_ids_are_unique(self) -> None:
        for split in self.splits:
            ids = self.ready.ids(split)
            named = all(isinstance(i, str) and i and i.isprintable() for i in ids)
            expect(named, f"the ids of '{split}' must be texts, not empty and on one line")
            expect(len(set(ids)) == len(ids), f"split '{split}' names an example twice: {_twice(ids)}")

    def test_groups_name_one_for_each_example_or_are_none(self) -> None:
        for split in self.splits:
            groups, n = self.ready.groups(split), len(self.ready.ids(split))
            if groups is None:
                continue
            expect(not isinstance(groups, str), f"groups('{split}') is one text, and must name a group an example")
            expect(len(groups) == n, f"groups('{split}') has {len(groups)} names, and the split {n} examples")
            named = all(isinstance(g, str) and g and g.isprintable() for g in groups)
            expect(named, f"the groups of '{split}' must be texts, not empty and on one line")
            expect(list(self.make().groups(split) or ()) == list(groups), f"two instances group '{split}' differently")
        word = self.ready.group
        expect(isinstance(word, str) and word.isprintable() and word, f"group is {word!r}, and must be a word")

    def test_no_group_is_in_train_and_in_test_of_one_fold(self) -> None:
        for i, fold in enumerate(self.ready.folds()):
            train, test = self.ready.groups(fold.train_split), self.ready.groups(fold.test_split)
            if train is not None and test is not None:
                both = {train[r] for r in fold.train} & {test[r] for r in fold.test}
                few = ", ".join(sorted(both)[:3])
                expect(not both, f"fold {i} trains and tests on examples of the same {self.ready.group}: {few}")

    def test_labels_have_the_type_and_range_of_their_kind(self) -> None:
        task = self.ready
        n = len(task.classes)
        for split in self.splits:
            y = task.labels(split)
            expect(isinstance(y, np.ndarray), f"labels('{split}') is {type(y).__name__}, not a numpy array")
            if task.kind == "multiclass":
                fits = y.dtype == np.int64 and y.ndim == 1
                expect(fits, f"labels('{split}') is {y.dtype} {list(y.shape)}, and must be int64 [N] for multiclass")
                low, high = int(y.min()), int(y.max())
                expect(low >= 0 and high < n, f"labels('{split}') run from {low} to {high}, with {n} classes")
            else:
                fits = y.dtype == np.uint8 and y.ndim == 2 and y.shape[1] == n
                expect(fits, f"labels('{split}') is {y.dtype} {list(y.shape)}, and must be uint8 [N, {n}]")
                expect(set(np.unique(y)) <= {0, 1}, f"labels('{split}') hold other values than 0 and 1")

    def test_a_trait_task_has_a_trait_that_some_examples_have_and_some_do_not(self) -> None:
        if self.ready.kind != "traits":
            return
        for i, fold in enumerate(self.ready.folds()):
            for split, rows, what in ((fold.train_split, fold.train, "train"), (fold.test_split, fold.test, "test")):
                share = np.asarray(self.ready.labels(split))[rows].mean(axis=0)
                told = ((share > 0) & (share < 1)).any()
                expect(told, f"fold {i}: every trait is on all or on none of its examples to {what} on")

    def test_two_instances_agree_on_ids_and_labels(self) -> None:
        other = self.make()
        for split in self.splits:
            expect(list(other.ids(split)) == list(self.ready.ids(split)), f"two instances list '{split}' differently")
            expect(
                np.array_equal(other.labels(split), self.ready.labels(split)),
                f"two instances label '{split}' differently",
            )

    def test_labels_ids_and_groups_decode_no_media(self) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("labels, ids, groups, classes and folds must be cheap, but one of them decodes media")

        with patch.object(Audio, "load", refuse), patch.object(Image, "load", refuse):
            task = self.make()
            _ = task.classes, task.modality
            for split in _splits(task):
                task.ids(split)
                task.labels(split)
                task.groups(split)

    def test_examples_come_in_the_order_asked_for_each_with_its_row_and_id(self) -> None:
        for split in self.splits:
            ids = self.ready.ids(split)
            for rows in _requests(len(ids), self.n_examples):
                stream = self.ready.examples(split, rows)
                expect(isinstance(stream, Iterator), f"examples() gives {type(stream).__name__}, not a stream")
                found = list(stream)
                expect(all(isinstance(e, Example) for e in found), "examples() gives something that is no Example")
                got = [e.index for e in found]
                expect(got == rows, f"examples('{split}', {rows}) gives the rows {got}")
                for e in found:
                    expect(
                        e.id == ids[e.index], f"row {e.index} of '{split}' is '{e.id}', but '{ids[e.index]}' in ids()"
                    )

    def test_an_example_is_the_same_in_whatever_company(self) -> None:
        for split in self.splits:
            rows = _requests(len(self.ready.ids(split)), self.n_examples)[0]
            together = {e.index: self._load(e) for e in self.ready.examples(split, rows)}
            for row in rows:
                (alone,) = self.make().examples(split, [row])
                same = np.array_equal(together[row], self._load(alone))
                expect(same, f"row {row} of '{split}' is another medium when asked for alone")

    def test_media_decode(self) -> None:
        for split in self.splits:
            rows = _requests(len(self.ready.ids(split)), self.n_examples)[0]
            for e in self.ready.examples(split, rows):
                x = self._load(e)
                if self.ready.modality == "audio":
                    fits = x.dtype == np.float32 and x.ndim == 1 and x.size and np.isfinite(x).all()
                    expect(fits, f"'{e.id}' decodes as {x.dtype} {list(x.shape)}, not as a finite float32 waveform")
                else:
                    fits = x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] in (1, 3) and x.size
                    expect(fits, f"'{e.id}' decodes as {x.dtype} {list(x.shape)}, not as uint8 [H, W, 1 or 3]")

    def test_folds_are_within_their_splits_and_keep_test_rows_apart(self) -> None:
        folds = self.ready.folds()
        expect(isinstance(folds, tuple) and folds, "folds() must be a tuple of at least one Fold")
        tested: set[tuple[str, int]] = set()
        for i, fold in enumerate(folds):
            expect((fold.val_split is None) == (fold.val is None), f"fold {i} has one of val_split and val alone")
            for _, split, rows in fold.parts:
                n = len(self.ready.ids(split))
                expect(len(rows), f"fold {i} has no rows of '{split}'")
                inside = rows.min() >= 0 and rows.max() < n
                expect(inside, f"fold {i} names rows {rows.min()} to {rows.max()} of '{split}', which has {n}")
                expect(len(np.unique(rows)) == len(rows), f"fold {i} names a row of '{split}' twice")
            test = {(fold.test_split, int(row)) for row in fold.test}
            both = test & {(fold.train_split, int(row)) for row in fold.train}
            expect(not both, f"fold {i} trains and tests on {len(both)} of the same rows")
            *others, (_, last_split, last) = fold.parts
            for what, split, rows in others if fold.val is not None else ():
                shared = len(np.intersect1d(rows, last)) if split == last_split else 0
                expect(not shared, f"fold {i} validates on {shared} of the rows that it is to {what} on")
            expect(not test & tested, f"fold {i} tests on {len(test & tested)} rows that an earlier fold tested on")
            tested |= test

    def test_the_fingerprint_is_of_the_data_alone(self) -> None:
        print_ = self.ready.fingerprint()
        plain = isinstance(print_, str) and print_ and print_.isprintable()
        expect(plain, f"fingerprint() is {print_!r}, and must be a short text (benchkit.media.fingerprint makes one)")
        self.expect_same_in_a_fresh_process(self.make(), "x.fingerprint()", print_)

    def test_the_media_key_is_a_text_or_none(self) -> None:
        other = self.make()
        for split in self.splits:
            key = self.ready.media_key(split)
            expect(key is None or (isinstance(key, str) and key), f"media_key('{split}') is {key!r}")
            expect(other.media_key(split) == key, f"media_key('{split}') differs between two instances")

    def test_published_numbers_are_of_its_metrics_and_say_where_they_stand(self) -> None:
        for p in self.ready.published:
            find(p.metric, self.ready.kind)
            RawSpec.parse(p.model)
            RawSpec.parse(p.classifier)
            wrong = f"published {p.metric} of {p.model} is {p.value}, and must be a share: 0.1637, not 16.37"
            expect(0 <= p.value <= 1, wrong)
            expect(p.source, f"published {p.metric} of {p.model} has no source")
            expect(p.n_train == -1 or p.n_train >= 1, f"published {p.metric} of {p.model} has n_train={p.n_train}")

    # -------------------------------------------------------------------------------------------- what they work on

    @property
    def ready(self) -> Task:
        return self.once("ready", self.make)

    @property
    def splits(self) -> list[str]:
        return self.once("splits", lambda: _splits(self.ready))

    def _load(self, example: Example) -> Any:
        wanted = Audio if self.ready.modality == "audio" else Image
        media = example.media
        expect(
            isinstance(media, wanted),
            f"'{example.id}' of a task of modality '{self.ready.modality}' is of type {type(media).__name__}",
        )
        return media.load(16_000) if isinstance(media, Audio) else media.load()


def check_task(which: Any, *, n_examples: int = 6) -> None:
    """Every check, without pytest. which: the spec of an installed plugin, a class or an instance.

    Raises AssertionError that lists what is wrong.
    """
    given = {"spec": which} if isinstance(which, str) else {"task": which}
    run_all(type("Checked", (TaskSuite,), {**given, "n_examples": n_examples}))


def _splits(task: Task) -> list[str]:
    return sorted({split for fold in task.folds() for _, split, _ in fold.parts})


def _requests(n: int, k: int) -> list[list[int]]:
    """Rows of a split of n: some in no order, in reverse, in order, one, none."""
    spread = sorted({int(i) for i in np.linspace(0, n - 1, min(n, k))})
    shuffled = spread[1::2] + spread[0::2]
    return [shuffled, spread[::-1], spread, [n - 1], []]


def _twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return f"'{name}'"
        seen.add(name)
    return "none"
