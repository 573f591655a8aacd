"""A table of files and labels; annotated recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import benchkit
from benchkit import DataError
from benchkit.api import Settings
from benchkit.testing import check_task
from benchkit_own.table import Table


def table(path: Path, **params) -> Table:
    return Table(Table.Params(path=path, **params))


@pytest.fixture
def labels(tmp_path, esc10, place):
    """Writes a table beside the recordings: labels(text), with `{}` the rows FILE,CATEGORY,FOLD."""
    for row in esc10:
        place(row, row["filename"])

    def write(text: str, name: str = "labels.csv", **encode) -> Path:
        path = tmp_path / "data" / name
        path.write_bytes(text.encode(**encode) if encode else text.encode())
        return path

    return write


@pytest.fixture
def soundscapes(tmp_path, esc10):
    """Four soundscapes of 20 s, each of four clips of 5 s with known times; and those times."""
    folder, events = tmp_path / "scapes", []
    folder.mkdir()
    for k in range(4):
        parts = []
        for j, row in enumerate(esc10[k::8][:4]):
            wave, rate = soundfile.read(row["path"], dtype="float32")
            parts.append(np.resize(wave, 5 * rate))
            events.append((f"s{k}.flac", 5.0 * j, 5.0 * j + 4.0, row["category"]))
        soundfile.write(folder / f"s{k}.flac", np.concatenate(parts), rate)
    return folder, events


def run(task: str, tmp_path: Path):
    return benchkit.run(
        task=task, model="mfcc", classifier="centroid",
        settings=Settings(db=tmp_path / "r.sqlite", cache=tmp_path / "c", replicates=5, workers=0),
    )  # fmt: skip


def test_a_table_of_files_and_labels(labels, esc10, tmp_path):
    rows = "".join(f"{r['filename']};{r['category']};{i % 3}\r\n" for i, r in enumerate(esc10))
    path = labels("\ufefffile;label;fold\r\n" + rows)
    task = table(path)
    assert (task.kind, task.modality, len(task.classes)) == ("multiclass", "audio", 4)
    assert len(task.folds()) == 3
    check_task(task)
    assert run(f"table,path={path}", tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.filterwarnings("ignore:.*is no UTF-8")
def test_a_table_is_read_in_whatever_its_program_wrote(labels, esc10, encoding):
    a, b, c = (r["filename"] for r in esc10[:3])
    path = labels(f"file\tlabel\n{a}\tNA\n{b}\tKäuzchen \n{c}\t01\n", "t.tsv", encoding=encoding)
    assert table(path).classes == ("01", "Käuzchen", "NA")


def test_several_labels_in_a_cell_in_columns_in_lists_and_over_rows(labels, esc10):
    a, b, c = (r["filename"] for r in esc10[:3])
    wanted = [[1, 0], [1, 1], [0, 0]]
    for text, params in (
        (f"file,label\n{a},owl\n{b},owl;wren\n{c},\n", {"sep": "semicolon"}),
        (f"file,owl,wren\n{a},1,0\n{b},1,1\n{c},0,0\n", {}),
        (f"file,owl,wren\n{a},0.9,0\n{b},1,0.5\n{c},0,0.1\n", {"threshold": 0.5}),
        (f"file,label\n{a},['owl']\n{b},\"['owl', 'wren']\"\n{c},[]\n", {}),
        (f"file,label\n{a},owl\n{b},owl\n{b},wren\n{c},\n", {"kind": "multilabel"}),
    ):
        task = table(labels(text), **params)
        assert task.kind == "multilabel"
        assert task.labels("rows").tolist() == wanted


def test_parquet_is_a_table_too(labels, esc10, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = labels("", "t.parquet")
    pq.write_table(pa.table({"file": [r["filename"] for r in esc10], "label": [r["category"] for r in esc10]}), path)
    assert len(table(path).ids("rows")) == len(esc10)


@pytest.mark.parametrize(
    ("text", "params", "words"),
    [
        ("file,label\nno.ogg,x\n", {}, "line 2: 'no.ogg' is not in"),
        ("file,label\n../A,x\n", {}, "line 2: '../A' would leave"),
        ("file,label\nA,x\nA,y\n", {}, "line 3: 'A' is 'y', and line 2 says 'x'"),
        ("file,label\nA,\n", {}, "line 2: it has no label"),
        ("file,label\nA,x,y\n", {}, "line 2: it has 3 cells, and the header names 2 columns"),
        ("name,label\nA,x\n", {}, "has no column that is the file"),
        ("file,kind\nA,x\n", {}, "has no column that is the label"),
        ("file,file\nA,x\n", {}, "two columns are called 'file'"),
        ("file,label\nA,x\n", {"label": "lable"}, "did you mean 'label'?"),
        ("file,label,split\nA,x,tset\n", {}, "line 2: split is 'tset'"),
        ("file,label,split\nA,x,train\n", {}, "no row of column 'split' says test"),
        ("file,label,split,group\nA,x,train,g\nB,x,test,g\n", {}, "line 3: group 'g' is in test, and in train"),
        ("file,owl,wren\nA,0.5,1\n", {}, "line 2: 'owl' is 0.5, neither 0 nor 1"),
        ("file,label,start,end\nA,x,1,0.5\n", {}, "line 2: the event ends (0.5 s) before it starts (1 s)"),
        ("file,label,start,end\nA,x,1000,2000\n", {}, "line 2: an event from 1000 to 2000 s does not lie in 'A'"),
        ("file,label,start,end\nA,x,one,2\n", {}, "line 2: the start is 'one', not a number of seconds"),
        ("file,label,start\nA,x,1\n", {}, "has a start and no end"),
        ("", {}, "is empty"),
        ("file,label\n", {}, "has no rows"),
    ],
)  # fmt: skip
def test_every_mistake_is_one_line_that_names_the_row(labels, esc10, text, params, words):
    a, b = (r["filename"] for r in esc10[:2])
    path = labels(text.replace("A", a).replace("B", b))
    task = table(path, **params)
    with pytest.raises(DataError) as caught:
        _ = task.kind, task.classes, task.ids("rows"), task.folds()
    assert words.replace("A", a) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_are_found_from_windows_and_from_another_machine(tmp_path, esc10, place):
    place(esc10[0], "site/a.OGG")
    place(esc10[1], "site/b.ogg")
    path = tmp_path / "data" / "t.csv"
    path.write_text("file,label\nC:\\rec\\site\\a.ogg,x\n/home/me/rec/site/b.ogg,y\n")
    assert table(path).ids("rows") == ["site/a.OGG", "site/b.ogg"]


def test_a_raven_selection_table_is_a_detection(soundscapes, tmp_path):
    folder, events = soundscapes
    columns = ("Selection", "View", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "Begin Path", "File Offset (s)")
    lines = ["\t".join((*columns, "Species"))]
    for n, (file, start, end, name) in enumerate(events):
        there = 20.0 * int(file[1])
        for view, low in (("Waveform 1", ""), ("Spectrogram 1", "500")):
            cells = (n, view, start + there, end + there, low, f"D:\\rec\\scapes\\{file}", start, name)
            lines.append("\t".join(map(str, cells)))
    path = folder / "all.Table.1.selections.txt"
    path.write_text("\n".join(lines))
    task = table(path, width=2.5, root=tmp_path, val=0.25, test=0.25)
    assert (task.kind, len(task.ids("rows")), task.groups("rows")[0]) == ("detection", 32, "scapes/s0.flac")
    assert task.ids("rows")[1] == "scapes/s0.flac@2.5-5s"
    assert (task.labels("rows").sum(axis=1) == 1).all()
    check_task(task)
    assert run(f"table,path={path},root={tmp_path},width=2.5,test=0.25,val=0.25", tmp_path)


def test_audacity_labels_one_file_a_recording(soundscapes, tmp_path):
    folder, events = soundscapes
    for k in range(4):
        mine = [e for e in events if e[0] == f"s{k}.flac"]
        text = "".join(f"{s:.6f}\t{e:.6f}\t{name}\n\\\t100.0\t900.0\n" for _, s, e, name in mine)
        (folder / f"s{k}.txt").write_text(text)
    task = table(folder, width=5.0, test=0.25, val=0.25)
    assert task.labels("rows").tolist() == [[i == j for i in range(4)] for _ in range(4) for j in range(4)]
    assert run(f"table,path={folder},width=5,test=0.25,val=0.25", tmp_path)


def test_the_annotated_recording_has_the_windows_that_were_counted_by_hand(shared):
    path = shared / "data" / "spinetail" / "spinetail.txt"
    task = table(path, width=1.0, shift=0.5)
    counts = dict(zip(task.classes, task.labels("rows").sum(axis=0).tolist(), strict=True))
    assert (len(task.ids("rows")), counts) == (38, {"SP": 27, "CRER": 25})
    assert table(path, width=1.0, shift=0.5, rule="any").labels("rows").sum() == 29 + 28


def test_what_nobody_named_is_left_out_and_an_empty_table_is_all_negative(soundscapes):
    folder, _ = soundscapes
    path = folder / "t.csv"
    path.write_text("file,start,end,label\ns0.flac,0,4,owl\ns0.flac,5,6,\ns1.flac,,,\n")
    task = table(path)
    with pytest.warns(UserWarning, match="1 windows are left out: an event without a label"):
        assert len(task.ids("rows")) == 7
    assert task.labels("rows").sum() == 1


def test_rows_with_a_start_and_an_end_can_be_the_examples(soundscapes):
    folder, events = soundscapes
    path = folder / "t.csv"
    path.write_text("file,start,duration,label\n" + "".join(f"{f},{s},{e - s},{n}\n" for f, s, e, n in events))
    task = table(path, kind="segments", test=0.25, val=0.25)
    assert (task.kind, len(task.ids("rows"))) == ("multiclass", 16)
    assert next(task.examples("rows", [1])).media.load(16_000).shape == (64_000,)
    json.dumps(task.ids("rows"))
