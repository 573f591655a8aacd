"""cub200 on a small folder in the layout of the real one, and what it refuses."""

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchkit import DataError, SpecError, Task, resolve
from benchkit.testing import check_task

_spec = importlib.util.spec_from_file_location("cub_small", Path(__file__).parent / "conftest.py")
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)

LABELS = "attributes/image_attribute_labels.txt"
Lines = list[str]


def task(root: Path, more: str = "") -> Task:
    return resolve("task", f"cub200,root={root},partial=true{more}").build()


def expected(images: list[int], certainty: int) -> np.ndarray:
    pairs = [[small.answer(i, a) for a in range(1, 313)] for i in images]
    return np.array([[present and sure >= certainty for present, sure in row] for row in pairs]).astype(np.uint8)


TRAIN = [i for i in range(1, small.N + 1) if i % 3 != 0]
TEST = [i for i in range(1, small.N + 1) if i % 3 == 0]


def test_it_conforms(root: Path) -> None:
    check_task(f"cub200,root={root},partial=true")


@pytest.mark.parametrize("certainty", [1, 2, 3, 4])
def test_a_positive_is_present_and_sure_enough(root: Path, certainty: int) -> None:
    t = task(root, f",certainty={certainty}")
    for split, images in (("train", TRAIN), ("test", TEST)):
        np.testing.assert_array_equal(t.labels(split), expected(images, certainty))
        assert list(t.ids(split)) == [small.name(i) for i in images]
    assert t.classes[:2] == ("has_part::kind_1", "has_part::kind_2")


def test_probably_and_definitely_count_by_default(root: Path) -> None:
    np.testing.assert_array_equal(task(root).labels("test"), expected(TEST, 3))
    assert resolve("task", f"cub200,root={root},certainty=3").canonical == (
        resolve("task", f"cub200,root={root}").canonical
    )


def test_nothing_depends_on_the_order_of_the_lines(root: Path, answers: Lines) -> None:
    rng = np.random.default_rng(0)
    before = {split: (task(root).labels(split), task(root).ids(split)) for split in ("train", "test")}
    for file in ("images.txt", "train_test_split.txt", "image_class_labels.txt", LABELS, "../attributes.txt"):
        lines = (root / file).read_text().splitlines()
        small.write(root / file, [lines[i] for i in rng.permutation(len(lines))])
    for split, (labels, ids) in before.items():
        np.testing.assert_array_equal(task(root).labels(split), labels)
        assert task(root).ids(split) == ids
    assert task(root).classes[310:] == ("has_part::kind_311", "has_part::kind_312")


def test_lines_with_one_or_two_numbers_before_the_time_are_read_by_their_first_four_fields(
    root: Path, answers: Lines
) -> None:
    longer = list(answers)
    for at, extra in ((4, "0"), (700, "0 1")):
        parts = longer[at].split()
        longer[at] = " ".join([*parts[:4], extra, parts[4]])
    small.write(root / LABELS, longer)
    t = task(root)
    np.testing.assert_array_equal(t.labels("train"), expected(TRAIN, 3))
    assert t.answers.longer == (5, 701)


def test_examples_are_the_images_of_the_ids(root: Path) -> None:
    from PIL import Image

    for example in task(root).examples("test", [3, 0]):
        assert example.id == small.name(TEST[example.index])
        np.testing.assert_array_equal(example.media.load(), np.asarray(Image.open(root / "images" / example.id)))


def test_the_folder_and_the_one_around_it_are_the_same_data(root: Path, tmp_path: Path) -> None:
    inside, around = (resolve("task", f"cub200,root={r}") for r in (root, root.parent))
    assert inside.canonical == around.canonical
    moved = shutil.copytree(root.parent, tmp_path / "elsewhere")
    assert resolve("task", f"cub200,root={moved}").canonical == inside.canonical
    (moved / "CUB_200_2011" / "attributes.txt").write_text((moved / "attributes.txt").read_text())
    (moved / "attributes.txt").unlink()
    assert task(moved).fingerprint() == task(root).fingerprint()
    assert task(moved).media_key("train") == task(root, ",certainty=1").media_key("train")
    small.write(moved / "CUB_200_2011" / LABELS, (root / LABELS).read_text().splitlines()[::-1])
    assert resolve("task", f"cub200,root={moved}").canonical != inside.canonical


def test_a_part_of_the_data_set_is_refused_unless_one_says_so(root: Path) -> None:
    whole = resolve("task", f"cub200,root={root}").build()
    with pytest.raises(DataError, match=r"has 24 images, and CUB-200-2011 has 11,788.*partial=true"):
        whole.ids("train")


def line(number: int, text: str) -> Callable[[Lines], Lines]:
    return lambda lines: [text if i == number else old for i, old in enumerate(lines, 1)]


def without(number: int) -> Callable[[Lines], Lines]:
    return lambda lines: [old for i, old in enumerate(lines, 1) if i != number]


def more(text: str) -> Callable[[Lines], Lines]:
    return lambda lines: [*lines, text]


@pytest.mark.parametrize(
    ("file", "spoil", "message"),
    [
        (LABELS, line(9, "1 9 1"), "line 9: it has 3 fields: image, attribute, present, certainty and time"),
        (LABELS, line(9, "1 9 1 3 0 0 0 1.5"), "line 9: it has 8 fields"),
        (LABELS, line(9, "1 9 1 3 x 1.5"), "line 9: a field before the time is 'x', not a whole number"),
        (LABELS, line(9, "1 9 1 3 soon"), "line 9: '1 9 1 3 soon' is no image, attribute"),
        (LABELS, line(9, "1 9 2 3 1.5"), "line 9: is_present is 2, not 0 or 1"),
        (LABELS, line(9, "1 9 1 5 1.5"), "line 9: certainty is 5, not 1 to 4"),
        (LABELS, line(9, "1 313 1 3 1.5"), "line 9: attribute is 313, outside of 1 to 312"),
        (LABELS, line(9, "25 9 1 3 1.5"), "line 9: image is 25, which images.txt does not have"),
        (LABELS, line(9, "one 9 1 3 1.5"), "line 9: image is 'one', not a whole number"),
        (LABELS, line(9, "1 8 1 3 1.5"), "line 9: image 1 has attribute 8 a second time"),
        (LABELS, line(9, ""), "line 9: it has 0 fields"),
        (
            LABELS,
            without(400),
            "has no line for image 2 and attribute 88, and lacks 1 of 7,488: every image has exactly",
        ),
        ("images.txt", line(3, "3 2 x.jpg"), "line 3: it has 3 fields, not an id and a name"),
        ("images.txt", line(3, "2 x.jpg"), "line 3: id 2 comes a second time"),
        ("images.txt", line(3, "0 x.jpg"), "line 3: id is 0, and ids begin at 1"),
        ("images.txt", line(3, f"3 {small.name(2)}"), "names '003.Bird_3/Bird_3_0002.jpg' twice, as id 2 and 3"),
        ("images.txt", line(3, "3 004.Bird_4/no.jpg"), "has no '004.Bird_4/no.jpg', and lacks 1 of 24 images"),
        ("train_test_split.txt", without(5), "has no line for id 5 of images.txt"),
        ("train_test_split.txt", more("99 1"), "has lines for id 99, which images.txt does not have"),
        ("train_test_split.txt", line(4, "4 2"), "image 4 has '2', not 1 .train. or 0 .test."),
        ("image_class_labels.txt", line(4, "4 3"), "line 4: image 4 lies in '001.Bird_1' and is of class 3, but other"),
        ("image_class_labels.txt", without(24), "has no line for id 24 of images.txt"),
        ("../attributes.txt", without(312), "has no line for id 312 of the 312 attributes"),
        ("../attributes.txt", line(2, "2 has_part::kind_1"), "names the attribute 'has_part::kind_1' twice"),
        (
            "attributes/certainties.txt",
            line(1, "1 definitely"),
            "must list 1 not visible, 2 guessing, 3 probably, 4 def",
        ),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_file_and_line(
    root: Path, file: str, spoil: Callable[[Lines], Lines], message: str
) -> None:
    path = root / file
    small.write(path, spoil(path.read_text().splitlines()))
    with pytest.raises(DataError, match=message) as caught:
        task(root).labels("train")
    assert "\n" not in str(caught.value)
    assert Path(file).name in str(caught.value) or "images'" in str(caught.value)


@pytest.mark.parametrize("file", [LABELS, "images.txt", "image_class_labels.txt", "../attributes.txt"])
def test_a_file_that_is_not_there_is_named(root: Path, file: str) -> None:
    t = task(root)
    (root / file).unlink()
    with pytest.raises(
        DataError, match=f"cannot read '.*{re.escape(Path(file).name)}'.*is root the folder CUB_200_2011"
    ):
        t.labels("train")


def test_parameters_that_mean_nothing_are_refused(root: Path) -> None:
    with pytest.raises(SpecError, match="'certainty' is 5, above the most allowed, 4"):
        task(root, ",certainty=5")
    with pytest.raises(SpecError, match=r"'cub200' needs root"):
        resolve("task", "cub200")
    with pytest.raises(DataError, match="cub200 has no split 'val': it has train and test"):
        task(root).ids("val")
