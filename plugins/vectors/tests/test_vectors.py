"""Vectors of other programs in each form, found by id or by file and start, and every way in which they are wrong."""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchkit import Audio, BenchkitError, Example, MediaError
from benchkit_vectors.table import read_table

IDS = ["a", "b/c", "ö d"]
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4) / 7


def parquet(folder: Path, columns: Mapping[str, Any]) -> Path:
    path = folder / "v.parquet"
    pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), path)
    return path


def npz(folder: Path, columns: Mapping[str, Any]) -> Path:
    np.savez(folder / "v.npz", **{"filename" if k == "file" else k: np.asarray(v) for k, v in columns.items()})
    return folder / "v.npz"


def hdf5(folder: Path, columns: Mapping[str, Any]) -> Path:
    with h5py.File(folder / "v.h5", "w") as file:
        for name, values in columns.items():
            file[name] = np.asarray(values, dtype=h5py.string_dtype() if name in ("id", "file", "split") else None)
    return folder / "v.h5"


def npy(folder: Path, columns: Mapping[str, Any]) -> Path:
    for name, vector in zip(columns["id"], columns["vector"], strict=True):
        (folder / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / "v" / f"{name}.npy", vector)
    return folder / "v"


def example(name: str, source: Path | bytes = b"", start: float = 0.0) -> Example:
    return Example(0, name, Audio(source, start))


@pytest.mark.parametrize("form", [parquet, npz, hdf5, npy])
def test_every_form_gives_each_example_its_own(form: Callable[..., Path], tmp_path: Path) -> None:
    table = read_table(form(tmp_path, {"id": IDS, "vector": VECTORS}))
    for name, vector in zip(IDS, VECTORS, strict=True):
        np.testing.assert_array_equal(table.vector("train", example(name)), vector)
    with pytest.raises(MediaError, match="no vector of it"):
        table.vector("train", example("e"))


@pytest.mark.parametrize("form", [parquet, npz, hdf5])
def test_windows_are_found_by_file_and_start(form: Callable[..., Path], tmp_path: Path) -> None:
    files, starts = ["x/1.wav", "x/1.wav", "y/2.wav"], [0.0, 0.1 + 0.2, 0.0]
    table = read_table(form(tmp_path, {"file": files, "start": starts, "vector": VECTORS}))
    for file, start, vector in zip(("z/1.wav", "z/1.wav", "y/2.wav"), (0.0, 0.3, 0.0), VECTORS, strict=True):
        np.testing.assert_array_equal(table.vector("train", example("?", Path(file), start)), vector)
    with pytest.raises(MediaError):
        table.vector("train", example("?", Path("x/1.wav"), 0.6))


def test_of_two_files_of_one_name_only_whole_paths_count(tmp_path: Path) -> None:
    table = read_table(parquet(tmp_path, {"file": ["x/1.wav", "y/1.wav", "2.wav"], "vector": VECTORS}))
    np.testing.assert_array_equal(table.vector("train", example("?", Path("y/1.wav"))), VECTORS[1])
    with pytest.raises(MediaError):
        table.vector("train", example("?", Path("z/1.wav")))


def test_splits_that_share_names_are_told_apart(tmp_path: Path) -> None:
    columns = {"id": ["a", "a", "b"], "split": ["train", "test", "test"], "vector": VECTORS}
    table = read_table(parquet(tmp_path, columns))
    np.testing.assert_array_equal(table.vector("train", example("a")), VECTORS[0])
    np.testing.assert_array_equal(table.vector("test", example("a")), VECTORS[1])
    with pytest.raises(MediaError):
        table.vector("train", example("b"))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["a", "a", "b"], "vector": VECTORS}, "two vectors of id 'a', in rows 1 and 2; .* column 'split'"),
        ({"file": ["a", "b", "a"], "vector": VECTORS}, "two vectors of file 'a' from 0 s, in rows 1 and 3"),
        ({"id": IDS, "vector": [[1.0], [1.0, 2.0], [1.0]]}, "1 to 2 dimensions"),
        ({"id": IDS, "vector": ["x", "y", "z"]}, "'vector' of .* must be a list of numbers"),
        ({"id": ["a", None, "b"], "vector": VECTORS}, "leaves 'id' empty in row 2"),
        ({"vector": VECTORS}, "needs a column 'id', or 'file'"),
        ({"id": IDS, "embedding": VECTORS}, "no column 'vector', but id, embedding"),
        ({"id": [], "vector": []}, r"vector"),
    ],
)
def test_what_is_wrong_with_a_table_is_one_line(columns: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BenchkitError, match=said) as caught:
        read_table(parquet(tmp_path, columns))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["v.parquet", "v.npz", "v.h5"])
def test_what_is_damaged_or_no_table_is_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04 no such thing")
    with pytest.raises(BenchkitError, match="cannot read vectors from") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BenchkitError, match=r"none of what vectors: takes: a \.parquet"):
        read_table(path.rename(tmp_path / "v.csv"))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", id=np.array(["a"], object), vector=VECTORS[:1])
    with pytest.raises(BenchkitError, match="cannot read vectors from"):
        read_table(tmp_path / "v.npz")


@pytest.mark.slow
def test_features_that_were_exported_give_the_cell_that_was_computed_directly(tmp_path: Path) -> None:
    def benchkit(*words: str) -> None:
        subprocess.run([sys.executable, "-m", "benchkit", *words], check=True, capture_output=True)

    db = str(tmp_path / "r.sqlite")
    benchkit("features", "export", "--task", "digits", "--model", "pixels", "--to", str(tmp_path / "p.parquet"))
    shutil.copy(tmp_path / "p.parquet", tmp_path / "moved.parquet")
    benchkit("run", "--db", db, "--task", "digits", "--model", "pixels", "--model",
             f"vectors:{tmp_path / 'moved.parquet'}", "--classifier", "knn", "--classifier", "centroid")  # fmt: skip
    with sqlite3.connect(db) as connection:
        rows = connection.execute(
            "SELECT classifier, model, value, low, high, marks FROM runs ORDER BY 1, 2"
        ).fetchall()
    assert len(rows) == 4
    for direct, looked_up in (rows[:2], rows[2:]):
        assert looked_up[1].startswith("vectors:") or "vectors" in looked_up[1]
        assert direct[2:5] == looked_up[2:5]
    frame = pq.read_table(tmp_path / "p.parquet").to_pandas()
    assert list(frame.columns) == ["split", "id", "file", "start", "end", "label", "vector"]
    assert len(frame) == 1797
