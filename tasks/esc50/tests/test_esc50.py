"""esc50 on small folders in the real layout, with real audio files, and on ESC-10 itself."""

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import benchkit
from benchkit import BenchkitError, DataError, SpecError, Task, resolve
from benchkit.api import Settings
from benchkit.records.report import Check
from benchkit.testing import check_task

HEADER = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
CLASSES = {0: ("dog", True), 3: ("cow", False), 40: ("helicopter", True)}
Row = dict[str, str]


def table(root: Path) -> list[Row]:
    with (root / "meta" / "esc50.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def write(root: Path, rows: list[Row], header: list[str] | None = None) -> None:
    (root / "meta").mkdir(exist_ok=True)
    with (root / "meta" / "esc50.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, header or HEADER, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes (with gaps in their numbers, as ESC-10 has them), five folds, two clips of each in each fold."""
    root, rng = tmp_path / "ESC-50-master", np.random.default_rng(0)
    (root / "audio").mkdir(parents=True)
    rows = []
    for fold in range(1, 6):
        for target, (category, esc10) in sorted(CLASSES.items(), reverse=True):
            source = f"{fold}00{target}"
            for take in "AB":
                name = f"{fold}-{source}-{take}-{target}.wav"
                soundfile.write(root / "audio" / name, 0.1 * rng.standard_normal(800), 8000)
                row = (name, fold, target, category, esc10, source, take)
                rows.append({key: str(value) for key, value in zip(HEADER, row, strict=True)})
    write(root, rows)
    return root


def task(root: Path, more: str = "") -> Task:
    return resolve("task", f"esc50,root={root}{more}").build()


@pytest.mark.parametrize("more", ["", ",fold=3", ",subset=esc10"])
def test_it_conforms(root: Path, more: str) -> None:
    check_task(f"esc50,root={root}{more}")


def test_examples_are_the_rows_of_the_table_with_classes_sorted_by_their_number(root: Path) -> None:
    t, rows = task(root), table(root)
    assert t.classes == ("dog", "cow", "helicopter")
    assert t.ids("clips") == [row["filename"].removesuffix(".wav") for row in rows]
    assert [t.classes[label] for label in t.labels("clips")] == [row["category"] for row in rows]
    for example in t.examples("clips", [7, 2]):
        expected, _ = soundfile.read(root / "audio" / rows[example.index]["filename"], dtype="float32")
        np.testing.assert_array_equal(example.media.load(8000), expected)
        assert example.id == t.ids("clips")[example.index]


def test_by_default_each_fold_is_held_out_once_and_every_clip_is_tested_once(root: Path) -> None:
    folds = task(root).folds()
    number = np.array([int(row["fold"]) for row in table(root)])
    assert len(folds) == 5
    for held_out, fold in enumerate(folds, start=1):
        assert (number[fold.test] == held_out).all()
        assert (number[fold.train] != held_out).all()
        assert sorted([*fold.train, *fold.test]) == list(range(30))
    assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(30))


def test_one_fold_can_be_held_out(root: Path) -> None:
    (only,), all_folds = task(root, ",fold=3").folds(), task(root).folds()
    np.testing.assert_array_equal(only.test, all_folds[2].test)
    np.testing.assert_array_equal(only.train, all_folds[2].train)


def test_the_subset_esc10_renumbers_its_classes(root: Path) -> None:
    t = task(root, ",subset=esc10")
    assert t.classes == ("dog", "helicopter")
    assert len(t.ids("clips")) == 20
    assert sorted(set(t.labels("clips").tolist())) == [0, 1]
    assert [t.classes[label] for label in t.labels("clips")] == [
        row["category"] for row in table(root) if row["esc10"] == "True"
    ]


def test_the_identity_is_of_the_data_wherever_it_lies(root: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    (moved / "README.md").write_text("more than the data set")
    (moved / "meta" / "esc50-human.xlsx").write_bytes(b"likewise")
    names = [resolve("task", f"esc50,root={place}").canonical for place in (root, moved)]
    assert names[0] == names[1]
    assert task(root).fingerprint() == task(moved).fingerprint()
    write(moved, table(moved)[:-1])
    assert resolve("task", f"esc50,root={moved}").canonical != names[0]
    assert task(root).fingerprint() != task(moved).fingerprint()


def test_features_are_shared_between_folds_but_not_between_subsets(root: Path) -> None:
    keys = [task(root, more).media_key("clips") for more in ("", ",fold=1", ",fold=5", ",subset=esc10")]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def changed(line: int, **values: str) -> Callable[[list[Row]], Iterator[Row]]:
    return lambda rows: (row | values if i == line else row for i, row in enumerate(rows, start=2))


# Line 2 is 1-10040-A-40.wav (helicopter), line 4 the first cow, line 8 the first clip of fold 2.
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (changed(5, filename="1-1-A-1.wav"), r"line 5: names '1-1-A-1.wav', which is not in '.*audio'"),
        (changed(5, filename="../audio/x.wav"), "line 5: names '../audio/x.wav', which is not in"),
        (changed(5, fold="6"), "line 5: fold is 6, not one of 1 to 5"),
        (changed(5, fold="one"), "line 5: fold is 'one', not a whole number"),
        (changed(5, target="-1"), "line 5: target is '-1', not a whole number"),
        (changed(5, esc10="yes"), "line 5: esc10 is 'yes', not True or False"),
        (changed(5, category=" "), "line 5: category is empty"),
        (changed(5, target="41"), "line 5: gives category 'cow' the target '41', but line 4 gives it '3'"),
        (changed(5, category="ox"), "line 5: gives class '3' the category 'ox', but line 4 gives it 'cow'"),
        (changed(8, src_file="10040"), "line 8: gives src_file '10040' the fold '2', but line 2 gives it '1'"),
        (changed(3, filename="1-10040-A-40.wav"), "line 3: gives clip '1-10040-A-40' the line '3', but line 2"),
        (lambda rows: [r for r in rows if r["fold"] != "4"], "names no clip in fold 4"),
        (lambda rows: [], "names no clips"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_with_its_line(
    root: Path, spoil: Callable[[list[Row]], list[Row]], message: str
) -> None:
    write(root, list(spoil(table(root))))
    with pytest.raises(DataError, match=message) as caught:
        task(root).folds()
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


@pytest.mark.parametrize("column", ["filename", "fold", "target", "category", "src_file"])
def test_a_missing_column_is_named(root: Path, column: str) -> None:
    write(root, table(root), [name for name in HEADER if name != column])
    with pytest.raises(DataError, match=f"has no column {column}: it is no ESC-50 table"):
        task(root).ids("clips")


def test_the_column_esc10_is_needed_for_the_subset_alone(root: Path) -> None:
    write(root, table(root), [name for name in HEADER if name != "esc10"])
    assert len(task(root).ids("clips")) == 30
    with pytest.raises(DataError, match="has no column esc10, which subset=esc10 needs"):
        task(root, ",subset=esc10").ids("clips")


def test_a_subset_without_clips_is_refused(root: Path) -> None:
    write(root, [row | {"esc10": "False"} for row in table(root)])
    with pytest.raises(DataError, match="marks no clip as esc10"):
        task(root, ",subset=esc10").ids("clips")


def test_a_torn_line_is_named(root: Path) -> None:
    path = root / "meta" / "esc50.csv"
    path.write_text("\n".join([*path.read_text().splitlines()[:4], "1-10040-A-40.wav,1"]))
    with pytest.raises(DataError, match="line 5: it has more or fewer values than the header has columns"):
        task(root).ids("clips")


@pytest.mark.parametrize("missing", ["meta", "audio"])
def test_a_folder_in_another_layout_is_refused(root: Path, missing: str) -> None:
    shutil.rmtree(root / missing)
    with pytest.raises(DataError, match=r"is no ESC-50 folder: cannot read '.*" + missing):
        task(root).ids("clips")


def test_a_table_that_is_no_text_is_refused(root: Path) -> None:
    (root / "meta" / "esc50.csv").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    with pytest.raises(DataError, match="is no table of comma-separated values"):
        task(root).ids("clips")


def test_parameters_that_mean_nothing_are_refused(root: Path) -> None:
    with pytest.raises(SpecError, match="'fold' is 6, above the most allowed, 5"):
        task(root, ",fold=6")
    with pytest.raises(SpecError, match="there is no such file or folder"):
        task(root / "nowhere")
    with pytest.raises(SpecError, match=r"'esc50' needs root, as in 'esc50,root=\.\.\.'"):
        resolve("task", "esc50")
    with pytest.raises(DataError, match="esc50 has no split 'train': it has one, 'clips'"):
        task(root).ids("train")


def test_esc10_opens_as_it_is_published(shared: Path) -> None:
    t = task(shared / "data" / "esc10")
    assert len(t.classes) == 10
    assert np.bincount(t.labels("clips")).tolist() == [40] * 10
    assert [(len(fold.train), len(fold.test)) for fold in t.folds()] == [(320, 80)] * 5
    (example,) = t.examples("clips", [0])
    assert example.id == "1-100032-A-0"
    wave = example.media.load(44_100)
    assert 4.9 < len(wave) / 44_100 < 5.1
    assert 0.01 < np.abs(wave).max() <= 1.5  # Vorbis may overshoot full scale


def media_check(root: Path, folder: Path, more: str = "") -> Check:
    """Of a run."""
    (report,) = benchkit.run(
        task=f"esc50,root={root}{more}", model="logmel", classifier="centroid", db=folder / "r.sqlite"
    )
    return next(c for c in report.checks if c.name == "media")


def test_channels_that_cancel_are_named_and_channel_is_the_way_out(root: Path, tmp_path: Path) -> None:
    for clip in ("1-1000-A-0", "3-3003-B-3"):
        wave, rate = soundfile.read(root / "audio" / f"{clip}.wav")
        soundfile.write(root / "audio" / f"{clip}.wav", np.stack([wave, -wave], 1), rate)
    found = media_check(root, tmp_path)
    assert found.status == "warn"
    assert found.summary.startswith("the channels of 2 of 30 cancel in their mix ('1-1000-A-0', '3-3003-B-3'): choose")
    for channel in ("left", "right", "loudest"):
        assert media_check(root, tmp_path, f",channel={channel}").status == "ok"
    again = media_check(root, tmp_path, ",subset=esc10")
    assert again.details["cancel"] == {"n": 1, "examples": ["1-1000-A-0"]}


def test_what_was_noticed_is_kept_with_the_features(root: Path, tmp_path: Path) -> None:
    wave, rate = soundfile.read(root / "audio" / "1-1000-A-0.wav")
    soundfile.write(root / "audio" / "1-1000-A-0.wav", 0 * wave, rate)
    before = media_check(root, tmp_path)
    (report,) = benchkit.run(task=f"esc50,root={root}", model="logmel", classifier="knn", db=tmp_path / "r.sqlite")
    (after,) = (c for c in report.checks if c.name == "media")
    assert before.summary == after.summary == "1 of 30 silent ('1-1000-A-0')"
    assert before.status == "warn"


def test_one_clip_that_was_cut_stops_the_run_with_its_name_and_can_be_left_out(root: Path, tmp_path: Path) -> None:
    clip = root / "audio" / "2-2000-B-0.wav"
    clip.write_bytes(clip.read_bytes()[:1_000])
    with pytest.raises(BenchkitError, match=r"2-2000-B-0.wav' is cut off: it states 0.10 s, and holds 0.06 s"):
        media_check(root, tmp_path)
    (report,) = benchkit.run(
        task=f"esc50,root={root}",
        model="logmel",
        classifier="centroid",
        db=tmp_path / "r.sqlite",
        settings=Settings(skip_bad=1),
    )
    assert (report.n_test, report.n_skipped) == (29, 1)


def test_clips_of_one_source_recording_are_one_group(root: Path) -> None:
    task = resolve("task", f"esc50,root={root}").build()
    assert list(task.groups("clips")) == [row["src_file"] for row in table(root)]
