"""traits on folders of images and of recordings, and what it refuses."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from benchkit import BenchkitError, DataError, SpecError, Task, resolve
from benchkit.planning.plan import Grid, make_plan
from benchkit.testing import check_task

Row = dict[str, str]
HEADER = ["path", "split", "striped", "blue"]


def write(table: Path, rows: list[Row], header: list[str] | None = None) -> None:
    with table.open("w", newline="") as f:
        writer = csv.DictWriter(f, header or HEADER)
        writer.writeheader()
        writer.writerows([{name: row[name] for name in header or HEADER} for row in rows])


def read(table: Path) -> list[Row]:
    with table.open(newline="") as f:
        return list(csv.DictReader(f))


def rows(suffix: str) -> list[Row]:
    return [
        {"path": f"{'ab'[i % 2]}/{i:02}.{suffix}", "split": "test" if i % 4 == 3 else "train",
         "striped": str(int(i % 3 == 0)), "blue": str(int(i > 8)), "id": f"example {i}", "species": f"s{i}"}
        for i in range(16)
    ]  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root, rng = tmp_path / "photos", np.random.default_rng(0)
    for row in rows("png"):
        path = root / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)).save(path)
    write(root / "traits.csv", rows("png"))
    return root


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    root, rng = tmp_path / "clips", np.random.default_rng(0)
    for row in rows("wav"):
        path = root / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(800), 8000)
    write(root / "traits.csv", rows("wav"))
    return root


def task(root: Path, more: str = "") -> Task:
    return resolve("task", f"traits,root={root}{more}").build()


def test_a_folder_of_images_conforms(images: Path) -> None:
    check_task(f"traits,root={images}")


def test_a_folder_of_recordings_conforms(recordings: Path) -> None:
    check_task(f"traits,root={recordings}")


def test_examples_labels_and_names_are_those_of_the_table(images: Path) -> None:
    t, table = task(images), rows("png")
    assert t.classes == ("striped", "blue")
    for split in ("train", "test"):
        own = [row for row in table if row["split"] == split]
        assert list(t.ids(split)) == [row["path"] for row in own]
        assert t.labels(split).tolist() == [[int(row["striped"]), int(row["blue"])] for row in own]
        for example in t.examples(split, [2, 0]):
            pixels = np.asarray(Image.open(images / own[example.index]["path"]))
            np.testing.assert_array_equal(example.media.load(), pixels)


def test_the_files_decide_which_backbones_fit(images: Path, recordings: Path) -> None:
    assert (task(images).modality, task(recordings).modality) == ("image", "audio")
    make_plan([Grid((f"traits,root={images}",), ("random-vit",), ("random,k=4",))], None)
    make_plan([Grid((f"traits,root={recordings}",), ("logmel",), ("random,k=4",))], None)
    with pytest.raises(BenchkitError, match="model 'pixels' takes image, and task 'traits' gives audio"):
        make_plan([Grid((f"traits,root={recordings}",), ("pixels",), ("random,k=4",))], None)
    with pytest.raises(
        BenchkitError, match=r"'traits' is a trait task, which takes a scorer .--scorer random., not 'linear'"
    ):
        make_plan([Grid((f"traits,root={images}",), ("random-vit",))], None)


def test_columns_can_be_left_out_and_examples_named(images: Path) -> None:
    write(images / "traits.csv", rows("png"), ["id", *HEADER, "species"])
    with pytest.raises(DataError, match=r"line 2: trait 'species' is 's0', not 0 or 1 \(ignore=species leaves"):
        task(images).ids("train")
    t = task(images, ",ignore=species")
    assert t.classes == ("striped", "blue")
    assert t.ids("test")[0] == "example 3"
    assert task(images, ",ignore=species+blue").classes == ("striped",)
    assert task(images, ",ignore=species+blue").media_key("test") == t.media_key("test")
    with pytest.raises(DataError, match=r"ignore=specie: .* has no such column of a trait; did you mean 'species'"):
        task(images, ",ignore=specie").ids("train")


def test_a_table_may_lie_elsewhere(images: Path, tmp_path: Path) -> None:
    write(tmp_path / "other.csv", rows("png"), ["path", "split", "blue"])
    t = task(images, f",table={tmp_path / 'other.csv'}")
    assert t.classes == ("blue",)
    assert list(t.ids("train")) == list(task(images).ids("train"))
    names = {resolve("task", f"traits,root={images}{more}").canonical for more in ("", f",table={tmp_path}/other.csv")}
    assert len(names) == 2


def test_the_only_table_of_a_folder_needs_no_name(images: Path) -> None:
    before = task(images).classes, task(images).ids("test")
    (images / "traits.csv").rename(images / "labels.csv")
    t = task(images)
    assert (t.classes, t.ids("test")) == before
    named = resolve("task", f"traits,root={images},table={images / 'labels.csv'}").canonical
    assert resolve("task", f"traits,root={images}").canonical == named
    write(images / "more.csv", rows("png"))
    with pytest.raises(DataError, match=r"there is no '.*traits.csv', but 2 others: say which, with table=FILE"):
        task(images)


def test_the_id_is_the_path_where_there_is_no_other(images: Path) -> None:
    lines = (images / "traits.csv").read_text().splitlines()
    (images / "traits.csv").write_text("\n".join([lines[0].replace("path", "id"), *lines[1:]]))
    assert task(images).ids("test")[0] == "b/03.png"
    check_task(f"traits,root={images}")


def test_the_identity_is_of_files_and_table_wherever_they_lie(images: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(images, tmp_path / "elsewhere")
    (moved / "notes.txt").write_text("more than the data set")
    names = [resolve("task", f"traits,root={root}").canonical for root in (images, moved)]
    assert names[0] == names[1]
    assert task(images).fingerprint() == task(moved).fingerprint()
    assert task(images).media_key("test") == task(moved).media_key("test")
    write(moved / "traits.csv", [row | {"blue": "1"} for row in rows("png")])
    assert resolve("task", f"traits,root={moved}").canonical != names[0]
    assert task(images).media_key("test") == task(moved).media_key("test")


def changed(line: int, **values: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [row | values if i == line else row for i, row in enumerate(rows, 2)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed(5, blue="yes"), "line 5: trait 'blue' is 'yes', not 0 or 1"),
        (changed(5, blue=""), "line 5: trait 'blue' is '', not 0 or 1"),
        (changed(5, split="val"), "line 5: split is 'val', not train or test"),
        (changed(5, path="a/99.png"), "line 5: there is no file 'a/99.png' in '.*photos'"),
        (changed(5, path="a/00.png"), "line 5: path 'a/00.png' is in line 2 already"),
        (changed(5, path="./a/00.png"), "line 5: path 'a/00.png' is in line 2 already"),
        (changed(5, path="/a/00.png"), "line 5: path is '/a/00.png': it must be relative to '.*photos', inside of it"),
        (changed(5, path="../photos/a/00.png"), "line 5: path is '../photos/a/00.png': it must be relative"),
        (changed(5, path=".a/00.png"), "line 5: path is '.a/00.png': it must be relative .* and not hidden"),
        (changed(5, path=""), "line 5: id is '': it must be text on one line"),
        (changed(5, path="a/00.doc"), r"line 5: 'a/00.doc' is neither an image \(jpg, .*\) nor a recording \(wav"),
        (changed(5, path="a/00.wav"), "mixes images and recordings: 'a/00.png' in line 2, 'a/00.wav' in line 5"),
        (lambda rows: [r for r in rows if r["split"] == "train"], "has no line whose split is test"),
        (lambda rows: [r | ({"striped": "0", "blue": "0"} if r["split"] == "test" else {}) for r in rows],
         "nothing in test has any of the 2 traits"),
        (lambda rows: [], "names no files"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_right_is_refused_with_its_line(
    images: Path, spoil: Callable[[list[Row]], list[Row]], message: str
) -> None:
    write(images / "traits.csv", spoil(read(images / "traits.csv")))
    with pytest.raises(DataError, match=message) as caught:
        task(images).labels("train")
    assert "\n" not in str(caught.value)
    assert str(images / "traits.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,split,blue\na/00.png,train,1\n", "has no column path"),
        ("path,split\na/00.png,train\n", "has no column of a trait beside path, split"),
        ("path,split,blue,blue\na/00.png,train,1,1\n", "has two columns 'blue'"),
        ("path,split,\na/00.png,train,1\n", "column 3 has no name"),
        ("path,split,blue\na/00.png,train\n", "line 2: it has 2 values, and the header 3 columns"),
        ("", "has no column path"),
        ("path,split,blue\n\xff", "is no table of comma-separated values"),
    ],
)
def test_a_table_of_another_shape_is_refused(images: Path, text: str, message: str) -> None:
    (images / "traits.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        task(images).ids("train")


def test_a_folder_without_a_table_is_refused_when_it_is_named(images: Path) -> None:
    (images / "traits.csv").unlink()
    with pytest.raises(
        DataError, match=r"there is no '.*photos/traits.csv', nor another table: write one with the columns path"
    ):
        task(images)
    with pytest.raises(DataError, match=r"root='.*00.png' is no folder"):
        task(images / "a" / "00.png")
    with pytest.raises(SpecError, match="there is no such file or folder"):
        task(images / "nowhere")
