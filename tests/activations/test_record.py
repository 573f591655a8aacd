"""What is recorded is what the backbone shows, and a kill costs one shard."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchkit.activations import Recording, record
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, DataError, StoreError

ONE = 257 * 64 * 4
"""Bytes of an example, float32."""


def shown(task: str, model: str, rows: list[int]) -> dict[str, np.ndarray]:
    """By a plain loop."""
    source, backbone = resolve("task", task).build(), resolve("model", model).build()
    backbone.setup("cpu")
    found: dict[str, list[np.ndarray]] = {"blocks.1.norm2": [], "blocks.2.resid_post": [], "tokens": []}
    for example in source.examples("clips", rows):
        batch = backbone.preprocess(example.media.load(32_000))[None]
        found["tokens"].append(backbone.encode(batch, tokens=True).tokens)
        for point in ("blocks.1.norm2", "blocks.2.resid_post"):
            found[point].append(backbone.activations(batch, [point])[point])
    return {point: np.concatenate(x) for point, x in found.items()}


def test_activations_are_those_of_a_plain_loop(recording: Recording, task: str, model: str) -> None:
    assert list(recording) == ["blocks.1.norm2", "blocks.2.resid_post", "tokens"]
    expected = shown(task, model, recording["tokens"].rows.tolist())
    for name, tokens in (("blocks.1.norm2", 257), ("blocks.2.resid_post", 257), ("tokens", 256)):
        point = recording[name]
        assert [s.shape for s in point.shards] == [(5, tokens, 64), (5, tokens, 64), (2, tokens, 64)]
        assert (point.n_vectors, point.dim, point.dtype, point.prefix_tokens) == (
            12 * tokens,
            64,
            "float32",
            tokens - 256,
        )
        np.testing.assert_allclose(np.concatenate(point.shards), expected[name], atol=1e-4)
        assert not point.shards[0].flags.writeable
    source = resolve("task", task).build()
    assert [source.ids("clips")[row] for row in point.rows] == point.ids
    assert len(set(point.ids)) == 12


def test_statistics_are_those_of_what_is_stored(recording: Recording) -> None:
    point = recording["blocks.2.resid_post"]
    stored = np.concatenate(point.shards).astype(np.float64)
    for statistics, x in ((point.statistics, stored), (point.patch_statistics, stored[:, 1:])):
        flat = x.reshape(-1, 64)
        np.testing.assert_allclose(statistics.mean, flat.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(statistics.variance, flat.var(axis=0), rtol=1e-9)
        np.testing.assert_array_equal(statistics.max, flat.max(axis=0))
        assert statistics.not_finite == 0


def test_metadata_says_what_was_recorded(recording: Recording, task: str, model: str) -> None:
    metadata = json.loads((recording.folder / "tokens" / "metadata.json").read_text())
    assert metadata["task"] == resolve("task", task).canonical
    assert metadata["model"] == resolve("model", model).canonical
    assert metadata["data_fingerprint"] == resolve("task", task).build().fingerprint()
    assert len(metadata["model_fingerprint"]) >= 16
    for shard in metadata["shards"]:
        path = recording.folder / "tokens" / shard["file"]
        assert subprocess.check_output(["sha256sum", path], text=True).split()[0] == shard["sha256"]
        assert len(np.load(path)) == shard["examples"]
    assert sorted(e.name for e in (recording.folder / "tokens").iterdir()) == [
        "00000.npy", "00001.npy", "00002.npy", "metadata.json",
    ]  # fmt: skip


def test_a_draw_is_part_of_a_larger_one(task: str, model: str, recording: Recording, tmp_path: Path) -> None:
    small = record(task, model, ["tokens"], tmp_path / "r", split="clips", limit=4, workers=0)
    assert set(small["tokens"].ids) < set(recording["tokens"].ids)


def test_points_are_added_later_and_nothing_is_recorded_twice(task: str, model: str, tmp_path: Path) -> None:
    to = tmp_path / "r"
    first = record(task, model, ["blocks.0.norm1"], to, split="clips", limit=3, workers=0)
    path = first["blocks.0.norm1"].folder / "00000.npy"
    stamp = path.stat().st_mtime_ns
    both = record(task, model, ["blocks.0.norm1", "blocks.0.mlp_out"], to, split="clips", limit=3, workers=0)
    assert list(both) == ["blocks.0.mlp_out", "blocks.0.norm1"]
    assert path.stat().st_mtime_ns == stamp


def test_another_recording_is_refused(task: str, model: str, recording: Recording, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="another choice of examples"):
        record(task, model, ["tokens"], recording.folder, split="clips", limit=13, workers=0)
    with pytest.raises(StoreError, match="another dtype: 'float32', not 'float16'"):
        record(task, model, ["tokens"], recording.folder, split="clips", limit=12, dtype="float16", workers=0)
    with pytest.raises(StoreError, match="another model"):
        record(task, f"{model},pool=cls", ["tokens"], recording.folder, split="clips", limit=12, workers=0)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(StoreError, match=r"holds 'mine.txt' and is no recording"):
        record(task, model, ["tokens"], tmp_path, split="clips", limit=2, workers=0)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_a_point_that_there_is_not_is_named(task: str, model: str, tmp_path: Path, recording: Recording) -> None:
    with pytest.raises(BenchkitError, match=r"no point 'blocks.1.norm3'; did you mean 'blocks.1.norm"):
        record(task, model, ["blocks.1.norm3"], tmp_path / "r", split="clips", limit=2, workers=0)
    assert not (tmp_path / "r").exists()
    with pytest.raises(BenchkitError, match=r"no point 'token'; did you mean 'tokens'\? \(it has blocks.1.norm2, "):
        recording["token"]


def test_float16_overflow_says_the_way_out(task: str, shared: Path, tmp_path: Path) -> None:
    """With the planted outlier made larger still."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((shared / "fixtures" / "bird_mae_outlier" / "config.json").read_bytes())
    tensors = load_file(shared / "fixtures" / "bird_mae_outlier" / "model.safetensors")
    tensors["blocks.0.mlp.fc2.bias"] = tensors["blocks.0.mlp.fc2.bias"] * 100
    save_file(tensors, folder / "model.safetensors")
    model, point = f"bird-mae,path={folder}", ["blocks.0.resid_post"]
    with pytest.raises(
        DataError, match=r"'blocks.0.resid_post' reach [\d,]+, and float16 ends at 65,504.*--dtype float32"
    ):
        record(task, model, point, tmp_path / "half", split="clips", limit=2, workers=0, dtype="float16")
    assert not list((tmp_path / "half" / point[0]).iterdir())
    found = record(task, model, point, tmp_path / "half", split="clips", limit=2, workers=0, dtype="float32")
    statistics = found[point[0]].statistics
    assert max(statistics.max.max(), -statistics.min.min()) > 65_504


RECORD = """
import sys
from pathlib import Path
from benchkit.activations import record
task, model, to, shard = sys.argv[1:]
record(task, model, ["blocks.0.norm1", "tokens"], Path(to), split="clips", limit=20, workers=0, batch_size=2,
       shard_bytes=int(shard))
"""


@pytest.mark.slow
def test_a_recording_goes_on_after_any_kill(task: str, model: str, tmp_path: Path) -> None:
    to, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", RECORD, task, model]
    for sign, shards in ((signal.SIGKILL, 2), (signal.SIGINT, 4)):
        process = subprocess.Popen([*command, str(to), str(3 * ONE)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(to.glob("tokens/0*.json"))) < shards and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(sign)
        process.wait()
    kept = {path: path.stat().st_mtime_ns for path in to.glob("*/0*.npy")}
    assert len(kept) >= 8
    with pytest.raises(BenchkitError, match=r"point 'tokens' .* is unfinished"):
        Recording.open(to)["tokens"]
    subprocess.run([*command, str(to), str(3 * ONE)], check=True)
    record(task, model, ["blocks.0.norm1", "tokens"], whole, split="clips", limit=20, workers=0, batch_size=2)
    assert sum(path.stat().st_mtime_ns == stamp for path, stamp in kept.items()) >= len(kept) - 2
    resumed, straight = Recording.open(to), Recording.open(whole)
    for point in ("blocks.0.norm1", "tokens"):
        a, b = resumed[point], straight[point]
        assert sorted(a.ids) == sorted(b.ids)
        assert len(set(a.ids)) == 20
        by_row = [np.concatenate(x.shards)[np.argsort(x.rows)] for x in (a, b)]
        np.testing.assert_allclose(*by_row, atol=2e-3)
        np.testing.assert_allclose(a.statistics.variance, b.statistics.variance, rtol=1e-10)
        assert a.verify() == []
        assert not list(a.folder.glob(".*"))


def test_two_processes_do_not_record_into_one_folder(task: str, model: str, tmp_path: Path) -> None:
    from benchkit.features.lock import try_lock

    lock = try_lock(tmp_path)
    assert lock is not None
    with lock, pytest.raises(StoreError, match=rf"is being recorded by process {os.getpid()}"):
        record(task, model, ["tokens"], tmp_path, split="clips", limit=2, workers=0)


def test_examples_that_do_not_decode_are_left_out_when_allowed(shared: Path, model: str, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "esc"
    shutil.copytree(shared / "data" / "esc10", root)
    first = sorted((root / "audio").iterdir())[0]
    first.write_bytes(b"nothing")
    from benchkit.errors import MediaError

    rows = np.arange(6)
    ids = resolve("task", f"esc50,root={root}").build().ids("clips")
    bad = list(ids).index(first.stem)
    chosen = np.unique([*rows, bad])
    task = f"esc50,root={root}"
    with pytest.raises(MediaError, match="1 of "):
        record(task, model, ["tokens"], tmp_path / "r", split="clips", rows=chosen, workers=0)
    found = record(task, model, ["tokens"], tmp_path / "r", split="clips", rows=chosen, workers=0, skip_bad=1)
    assert first.stem not in found["tokens"].ids
    assert found["tokens"].n_examples == len(chosen) - 1
    assert found["tokens"].metadata["skipped"] == {first.stem: bad}


def test_what_one_point_has_it_does_not_skip(
    task: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped where one point's shards are ahead of the other's, by an example that does not decode afterwards."""
    from benchkit.activations import recorder

    given, rows = recorder.stream_points, [3, 5, 8, 9]
    made = {"split": "clips", "rows": np.array(rows), "workers": 0, "batch_size": 1, "shard_bytes": 3 * 256 * 64 * 4}

    def stopped(*args: object) -> Iterator[object]:
        yield from itertools.islice(given(*args), 3)
        raise KeyboardInterrupt

    def without(*args: object) -> Iterator[object]:
        yield from (batch for batch in given(*args) if batch.rows[0] != 8)

    monkeypatch.setattr(recorder, "stream_points", stopped)
    with pytest.raises(KeyboardInterrupt):
        record(task, model, ["blocks.0.norm1", "tokens"], tmp_path / "r", **made)
    monkeypatch.setattr(recorder, "stream_points", without)
    found = record(task, model, ["blocks.0.norm1", "tokens"], tmp_path / "r", **made)
    for point, has in (("tokens", [3, 5, 8, 9]), ("blocks.0.norm1", [3, 5, 9])):
        assert sorted(found[point].rows) == has
        assert sorted(found[point].metadata["skipped"].values()) == sorted(set(rows) - set(has))


@pytest.mark.parametrize("rows", [[-1, 3], [3, 10**6]])
def test_rows_that_the_split_does_not_have_are_refused(rows: list[int], task: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(BenchkitError, match=r"split 'clips' has rows 0 to \d+, and"):
        record(task, model, ["tokens"], tmp_path / "r", split="clips", rows=np.array(rows), workers=0)
    assert not (tmp_path / "r").exists()
