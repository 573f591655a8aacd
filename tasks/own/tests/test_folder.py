"""A folder a class."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import benchkit
from benchkit import DataError, SpecError
from benchkit.api import Settings
from benchkit.catalog.resolve import resolve
from benchkit.testing import check_task
from benchkit_own.folder import Folder
from benchkit_own.split import sides_of


@pytest.fixture
def root(tmp_path: Path, esc10, place) -> Path:
    for row in esc10:
        place(row, f"{row['category']}/{row['filename']}")
    return tmp_path / "data"


def folder(root: Path, **params) -> Folder:
    return Folder(Folder.Params(root=root, **params))


def test_a_folder_a_class_is_a_task(root):
    task = folder(root)
    assert (task.modality, len(task.ids("files")), len(task.classes)) == ("audio", 32, 4)
    (fold,) = task.folds()
    labels = task.labels("files")
    assert {len(np.unique(labels[rows])) for _, _, rows in fold.parts} == {4}  # stratified
    check_task(task)


def test_it_runs_as_the_readme_says(root, tmp_path):
    reports = benchkit.run(
        task=f"folder,root={root}", model="mfcc", classifier="centroid",
        settings=Settings(db=tmp_path / "r.sqlite", cache=tmp_path / "c", replicates=10, workers=0),
    )  # fmt: skip
    assert reports[0].n_classes == 4


def test_folders_named_train_val_and_test_are_the_split(esc10, place, tmp_path):
    for i, row in enumerate(esc10):
        place(row, f"{('Train', 'valid', 'test')[i % 3]}/{row['category']}/deep/er/{row['filename']}")
    task = folder(tmp_path / "data")
    (fold,) = task.folds()
    assert {task.ids("files")[i].split("/")[0] for i in fold.val} == {"valid"}
    assert len(task.classes) == 4
    check_task(task)


def test_moving_the_folder_changes_nothing_and_a_stray_file_neither(root):
    spec = resolve("task", f"folder,root={root}").canonical
    (root / "Thumbs.db").write_text("x")
    (root / "._a.wav").write_text("x")
    (root / "__MACOSX").mkdir()
    assert resolve("task", f"folder,root={root}").canonical == spec
    moved = root.rename(root.with_name("elsewhere"))
    assert resolve("task", f"folder,root={moved}").canonical == spec
    assert len(folder(moved).classes) == 4


def test_a_group_is_on_one_side(esc10, place, tmp_path):
    for row in esc10:
        place(row, f"{row['category']}/{row['src_file']}_{row['filename']}")
    task = folder(tmp_path / "data", group=r"([0-9]+)_")
    (fold,) = task.folds()
    groups = np.array(task.groups("files"))
    train, test, val = (set(groups[rows]) for _, _, rows in fold.parts)
    assert not train & test
    assert not train & val
    assert not test & val
    check_task(task)


def test_cross_validation_tests_every_file_once(root):
    folds = folder(root, folds=4).folds()
    assert sorted(np.concatenate([f.test for f in folds])) == list(range(32))


@pytest.mark.parametrize(
    ("names", "params", "words"),
    [
        (["a.wav"], {}, "is in no class's folder, as 'CLASS/a.wav' would be"),
        (["train/a.wav", "test/b.wav"], {}, "'test/b.wav' is in no class's folder, as 'test/CLASS/b.wav'"),
        (["train/owl/a.wav", "owl/b.wav"], {}, "beside it, owl/"),
        (["train/owl/a.wav", "val/owl/b.wav"], {}, "and no test/"),
        (["train/o/a.wav", "val/o/b.wav", "valid/o/c.wav", "test/o/d.wav"], {}, "two folders for val: val, valid"),
        (["owl/a.wav", "owl/a.png"], {}, "add modality=audio or modality=image"),
        (["owl/a.m4a", "owl/b.m4a"], {}, "2 other files (.m4a)"),
        ([], {}, "holds no recordings"),
        (["owl/a.wav", "owl/x/b.wav"], {"group": "folder"}, "'owl/a.wav' lies in its class's folder itself"),
        (["owl/a.wav"], {"group": "S[0-9]"}, "finds nothing in 'owl/a.wav'"),
        (["owl/a.wav"], {"group": "("}, "is no pattern"),
        (["owl/a.wav", "owl/b.wav"], {}, "2 groups cannot be on 3 sides"),
        (["train/o/s1/a.wav", "test/o/s1/b.wav"], {"group": "folder"}, "group 's1' is in test"),
        (["o\x07wl/a.wav"], {}, "cannot be printed"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(tmp_path, names, params, words):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    task = folder(tmp_path, **params)
    with pytest.raises(DataError) as caught:
        _ = task.modality, task.classes, task.folds(), task.groups("files")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_file_in_two_classes_or_two_splits_is_an_error(tmp_path):
    for name in ("owl/a.wav", "wren/b.wav", "train/owl/a.wav", "test/owl/b.wav"):
        path = tmp_path / ("split" if name[0] == "t" else "plain") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the same")
    with pytest.raises(DataError, match="are one file in two classes"):
        folder(tmp_path / "plain").folds()
    with pytest.raises(DataError, match="one file in two splits"):
        folder(tmp_path / "split").folds()


def test_classes_are_read_as_people_see_them(tmp_path):
    for i in range(4):
        for name in (unicodedata.normalize("NFD", "Kauz äü"), " wren\u00a0", "Wren"):
            path = tmp_path / name / f"{i}.wav"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{name}{i}")
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match="differ in capitals"), pytest.warns(UserWarning, match="'empty' is empty"):
        assert folder(tmp_path).classes == ("Kauz äü", "Wren", "wren")


def test_a_link_that_goes_round_ends(tmp_path):
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "a.wav").write_text("x")
    (tmp_path / "owl" / "loop").symlink_to(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder(tmp_path).ids("files") == ["owl/a.wav"]


def test_shares_that_leave_nothing_to_train_on_are_refused(tmp_path):
    with pytest.raises(SpecError, match="leave nothing to train on"):
        resolve("task", f"folder,root={tmp_path},test=0.6,val=0.5")


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 4), max_size=3), st.integers(0, 11)), min_size=40, max_size=120),
    st.integers(0, 3),
)
def test_a_grouped_split_never_shares_a_group(rows, seed):
    labels, groups = [sorted(c) for c, _ in rows], [f"g{g}" for _, g in rows]
    if len(set(groups)) < 3:
        return
    side = sides_of(labels, groups, [0.6, 0.2, 0.2], seed)
    assert set(side.tolist()) == {0, 1, 2}
    assert len({(g, s) for g, s in zip(groups, side, strict=True)}) == len(set(groups))
    order = np.random.default_rng(seed).permutation(len(rows))
    again = sides_of([labels[i] for i in order], [groups[i] for i in order], [0.6, 0.2, 0.2], seed)
    np.testing.assert_array_equal(again, side[order])
