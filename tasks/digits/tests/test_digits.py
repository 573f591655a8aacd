import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from benchkit import DataError, Task, resolve
from benchkit.testing import TaskSuite
from benchkit_digits.task import Digits, DigitsParams, every_third


class TestConformance(TaskSuite):
    spec = "digits"


class TestConformanceOfForms(TaskSuite):
    spec = "digits,split=forms"


def rows(task: Task, split: str) -> np.ndarray:
    return np.array([int(name.removeprefix("digits-")) for name in task.ids(split)])


def pixels(task: Task, split: str) -> np.ndarray:
    n = len(task.ids(split))
    return np.stack([example.media.load().reshape(-1) for example in task.examples(split, range(n))])


@pytest.mark.parametrize("split", ["mixed", "forms"])
def test_images_and_labels_are_scikit_learns_in_whatever_order_they_are_asked_for(split: str) -> None:
    task, data = Digits(DigitsParams(split=split)), load_digits()
    for part in ("train", "test"):
        asked = np.random.default_rng(0).permutation(len(task.ids(part)))[:50].tolist()
        for index, example in zip(asked, task.examples(part, asked), strict=True):
            row = rows(task, part)[index]
            assert (example.index, example.id) == (index, f"digits-{row:04d}")
            dots = example.media.load()[:, :, 0] / 255 * 16
            np.testing.assert_array_equal(np.rint(dots), data.images[row])
            assert task.labels(part)[index] == data.target[row]


@pytest.mark.parametrize(("split", "sizes"), [("mixed", (1201, 596)), ("forms", (1157, 640))])
def test_every_row_is_in_train_or_in_test_and_in_one_only(split: str, sizes: tuple[int, int]) -> None:
    task = Digits(DigitsParams(split=split))
    train, test = rows(task, "train"), rows(task, "test")
    assert (len(train), len(test)) == sizes
    assert sorted([*train, *test]) == list(range(1797))


def test_the_mixed_split_is_stratified() -> None:
    task = Digits()
    counts = np.array([np.bincount(task.labels(part)) for part in ("train", "test")])
    assert np.abs(counts[0] - 2 * counts[1]).max() <= 2


def test_the_first_of_each_three_examples_of_a_class_are_train() -> None:
    labels = np.array([0, 1, 0, 0, 1, 1, 1, 0])
    assert every_third(labels).tolist() == [False, False, False, True, False, True, False, False]


def test_the_test_of_forms_begins_with_a_new_form() -> None:
    assert Digits(DigitsParams(split="forms")).labels("test")[:30].tolist() == list(range(10)) * 3


def test_the_split_and_the_data_are_the_same_on_every_machine() -> None:
    task = Digits()
    assert task.fingerprint() == "14d4ecf44cebb6f9"
    assert task.ids("test")[:8] == [f"digits-{row:04d}" for row in range(20, 28)]
    assert rows(task, "test").sum() == 538_473


def test_logistic_regression_on_pixels_reads_known_hands_and_unknown_hands_less_well() -> None:
    scores = {}
    for split in ("mixed", "forms"):
        task = resolve("task", f"digits,split={split}").build()
        probe = LogisticRegression(tol=1e-3).fit(pixels(task, "train") / 255, task.labels("train"))
        scores[split] = probe.score(pixels(task, "test") / 255, task.labels("test"))
    assert scores["mixed"] >= 0.94
    assert 0.90 <= scores["forms"] < scores["mixed"]


def test_a_split_that_does_not_exist_is_one_clear_line() -> None:
    with pytest.raises(DataError, match="digits has no split 'validation': it has train and test"):
        Digits().ids("validation")
