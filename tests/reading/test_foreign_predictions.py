"""Predictions that match their checksum and are not what benchkit writes: one line, no abort, no memory."""

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchkit.errors import StoreError
from benchkit.progress import Silent
from benchkit.reading.pages import pages
from benchkit.reading.results import Results, read_predictions
from benchkit.records.predictions import as_parquet
from benchkit.records.report import Artifact, Cell, Report
from benchkit.store import open_store
from benchkit.store.check import check
from benchkit.store.insert import insert

CHANGES = int(os.environ.get("BENCHKIT_CHANGES", "300"))
"""How many are tried: BENCHKIT_CHANGES=7000 for a thorough look."""
N = 40
CLASSES = ["a", "b", "c"]


def honest(multilabel: bool = False) -> bytes:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (N, 3)).astype("u1") if multilabel else rng.integers(0, 3, N)
    scores = rng.random((N, 3), np.float32)
    return as_parquet([f"clip {i}" for i in range(N)], np.zeros(N, int), labels, scores, CLASSES, "r")


def parquet(
    n: int = 50, classes: Any = CLASSES, leave_out: str = "", options: dict[str, Any] | None = None, **columns: Any
) -> bytes:
    """Plausible predictions, but for what is given."""
    made = {
        "id": pa.array(["x"]).take(pa.array(np.zeros(n, np.int32))),
        "fold": pa.array(np.zeros(n, np.int32)),
        "label": pa.array(np.zeros(n, np.int64)),
        "scores": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(3 * n, np.float32)), 3),
    } | columns
    made.pop(leave_out, None)
    sink = io.BytesIO()
    table = pa.table(made).replace_schema_metadata({"classes": json.dumps(classes)})
    pq.write_table(table, sink, **({"compression": "zstd"} | (options or {})))
    return sink.getvalue()


def many() -> bytes:
    """A few kilobytes that are a hundred million rows, all equal."""
    return parquet(20_000_000)


def lying() -> bytes:
    """A page of 80 MB zeros in a file whose footer tells of 50 rows."""
    n = 20_000_000
    data = parquet(n, options={"use_dictionary": False, "data_page_size": 1 << 30, "row_group_size": n})

    def varint(number: int, size: int) -> bytes:
        """Zigzag, as long as asked for."""
        number <<= 1
        return bytes((number >> 7 * i & 0x7F) | (0x80 if i < size - 1 else 0) for i in range(size))

    end = len(data) - 8
    start = end - int.from_bytes(data[end : end + 4], "little")
    footer = data[start:].replace(varint(n, 4), varint(50, 4)).replace(varint(3 * n, 4), varint(150, 4))
    assert footer != data[start:]
    return data[:start] + footer


def one_long_name() -> bytes:
    """Which a million rows have, so that it is a terabyte as text."""
    name = pa.array(["x" * 1_000_000])
    return parquet(1_000, id=pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000, np.int32)), name))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "no Parquet": lambda: b"scores",
    "empty": lambda: b"",
    "magic alone": lambda: b"PAR1" + b"\0" * 8 + b"PAR1",
    "a footer longer than the file": lambda: honest()[:-8] + b"\xff\xff\xff\x7fPAR1",
    "cut in the middle": lambda: honest()[:400] + honest()[-900:],
    "no scores": lambda: parquet(leave_out="scores"),
    "one column more": lambda: parquet(more=pa.array(np.zeros(50))),
    "ids are numbers": lambda: parquet(id=pa.array(range(50))),
    "ids are missing": lambda: parquet(id=pa.array([None] * 50, pa.string())),
    "labels of no class": lambda: parquet(label=pa.array([7] * 50)),
    "labels are text": lambda: parquet(label=pa.array(["a"] * 50)),
    "labels of no class in lists": lambda: parquet(label=pa.array([[-1]] * 50, pa.list_(pa.int32()))),
    "labels are lists of text": lambda: parquet(label=pa.array([["a"]] * 50)),
    "labels are lists of nothing": lambda: parquet(label=pa.array([[None]] * 50, pa.list_(pa.int32()))),
    "folds are text": lambda: parquet(fold=pa.array(["x"] * 50)),
    "scores of other classes": lambda: parquet(classes=["a", "b"]),
    "scores are text": lambda: parquet(scores=pa.FixedSizeListArray.from_arrays(pa.array(["x"] * 150), 3)),
    "classes are numbers": lambda: parquet(classes=[1, 2, 3]),
    "classes are no list": lambda: parquet(classes=7),
    "rows without end": many,
    "a page that the footer does not tell of": lying,
}


@pytest.fixture
def keep(tmp_path: Path, make_report: Callable[..., Report]) -> Callable[..., Path]:
    """A registry with a run of two models for each file of predictions."""

    def make(*files: bytes) -> Path:
        with open_store(tmp_path / "r.sqlite") as store:
            (store.side / "predictions").mkdir(parents=True)
            for i, data in enumerate(files):
                name = f"{i:032x}"
                artifact = Artifact(
                    "predictions", f"predictions/{name}.parquet", hashlib.sha256(data).hexdigest(), len(data)
                )
                (store.side / artifact.path).write_bytes(data)
                cell = Cell("digits", f"m{i}", "linear", -1, 0)
                with store.write():
                    insert(store, replace(make_report(uuid=name, artifacts=[artifact]), cell=cell))
        return tmp_path / "r.sqlite"

    return make


LIMITED = """
import resource, sys
from benchkit.reading.results import Results
import pyarrow.parquet
from benchkit.errors import BenchkitError
from benchkit.reading.compare import paired
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Results(sys.argv[1]) as results:
    for number in range(2, int(sys.argv[2]) + 1):
        for ask in (lambda: results.predictions(number), lambda: paired(results, 1, number)):
            try:
                ask()
                print(number, "taken")
            except BenchkitError as e:
                print(number, str(e))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_malformed_predictions_and_bombs_are_one_line_and_take_no_memory(keep: Callable[..., Path]) -> None:
    made = {name: make() for name, make in HOSTILE.items()}
    assert max(map(len, made.values())) < 1_000_000
    db = keep(honest(), *made.values())
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", LIMITED, str(db), str(len(made) + 1)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *said, megabytes = done.stdout.splitlines()
    assert len(said) == 2 * len(made), said
    for line in said:
        number, _, words = line.partition(" ")
        name = list(made)[int(number) - 2]
        assert re.search(r"the predictions of run \d+ in '.*' cannot be read: ", words), (name, words)
    assert int(megabytes) < 100, "none of it was made"
    with open_store(db) as store:
        assert check(store, Silent()) == [], "the files are those that the runs have left"


def test_compare_says_in_one_line_which_file_it_is(keep: Callable[..., Path]) -> None:
    db = keep(honest(), parquet(label=pa.array([7] * 50)), honest(multilabel=True))
    for other, words in (("2", "cannot be read: these are no predictions"), ("3", "labels of their test examples")):
        command = [sys.executable, "-m", "benchkit", "compare", "1", other, "--db", str(db)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert words in done.stderr


def test_a_long_name_that_every_row_has_is_held_once() -> None:
    data = one_long_name()
    assert len(data) < 10_000
    found = read_predictions(data).ids
    assert len(found) == 1_000
    assert len({id(name) for name in found}) == 1


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_classifier_that_says_the_same_of_all_is_no_bomb(multilabel: bool) -> None:
    n, c = 5_000, 1_000
    labels = np.eye(1, c, dtype="u1").repeat(n, 0) if multilabel else np.zeros(n, int)
    scores = np.zeros((n, c), np.float32)
    data = as_parquet([f"clip {i}" for i in range(n)], np.zeros(n, int), labels, scores, [*map(str, range(c))], "r")
    assert scores.nbytes > 300 * len(data)
    np.testing.assert_array_equal(read_predictions(data).scores, scores)


@pytest.mark.parametrize("multilabel", [False, True])
def test_bytes_changed_at_random_are_predictions_or_one_line(multilabel: bool) -> None:
    whole, rng, lines = honest(multilabel), random.Random(multilabel), list[str]()
    for _ in range(CHANGES // 2):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = read_predictions(bytes(data))
        except StoreError as e:
            lines.append(str(e))
        else:
            assert found.scores.shape == (len(found.ids), len(found.classes))
    assert lines
    assert not [line for line in lines if "\n" in line]


def test_a_footer_that_tells_of_numbers_without_end_ends_at_once() -> None:
    for kind in (1, 3, 5, 7, 8, 9, 12):
        footer = bytes([0x59, 0xF0 | kind]) + b"\xff" * 8 + b"\x01"  # a list of 2**63 of them
        with pytest.raises(StoreError, match="these are no predictions"):
            read_predictions(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def test_pages_are_what_pyarrow_has_written() -> None:
    data = parquet(1_000)
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    for j in range(4):
        column = group.column(j)
        first = min(n for n in (column.dictionary_page_offset, column.data_page_offset) if n is not None)
        found = list(pages(data, first, first + column.total_compressed_size))
        assert found[-1].values == column.num_values
        headers = column.total_uncompressed_size - sum(p.uncompressed for p in found)
        assert 0 < headers < 100 * len(found), "the footer counts the headers too"


def test_what_a_file_that_is_read_holds_is_what_results_say(keep: Callable[..., Path]) -> None:
    with Results(keep(honest(multilabel=True))) as results:
        assert results.predictions(1).labels.shape == (N, 3)
