"""A dimension far from 0, or next to it, is kept or named: float16 cannot hold it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchkit.activations import Recording, record
from benchkit.activations.recorder import _conclude
from benchkit.activations.rounding import Rounding
from benchkit.activations.shards import FORMAT, Identity, ShardWriter


def planted(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """[N, T, D]: dimension 5 at 3,000, where two groups lie 0.8 apart; dimension 9 below what float16 can hold; 12
    never changes. And the groups."""
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 2, (n, 1))
    x = rng.standard_normal((n, 1, 16))
    x[..., 5] = 3000 + 0.8 * groups + 0.05 * rng.standard_normal((n, 1))
    x[..., 9] *= 1e-9
    x[..., 12] = 2500.3
    return x.astype(np.float32), groups[:, 0]


def write(x: np.ndarray, to: Path, dtype: str, parts: int = 3) -> Recording:
    to.mkdir()
    identity = Identity(FORMAT, "t", "m", "train", "r", len(x), "d", "w", dtype)
    identity.claim(to)
    size = len(x) // 2 * x.shape[1] * x.shape[2] * np.dtype(dtype).itemsize
    with ShardWriter(to, "tokens", dtype, [str(i) for i in range(len(x))], 0, size) as writer:
        for rows in np.array_split(np.arange(len(x)), parts):
            writer.write(rows, x[rows])
        writer.close()
        _conclude(to, "tokens", identity, writer.shards, {}, 0)
    return Recording.open(to)


def test_float16_names_what_it_loses(tmp_path: Path) -> None:
    x, _ = planted()
    point = write(x, tmp_path / "r", "float16").only
    assert len(np.unique(np.concatenate(point.shards)[..., 5])) < 4, "the groups are gone"
    assert point.lost is not None
    assert set(point.lost) == {5, 9}
    assert point.lost[9] == 1, "the whole of its variance"
    assert point.lost[5] > 0.5
    assert 12 not in point.lost, "what never changes has nothing to lose"


def test_float32_keeps_the_groups(tmp_path: Path) -> None:
    x, groups = planted()
    point = write(x, tmp_path / "r", "float32").only
    assert point.lost == {}
    stored = np.concatenate(list(point.batches(64, seed=0)))[:, 5]
    assert abs(np.corrcoef(np.sort(stored), np.sort(x[:, 0, 5]))[0, 1]) > 0.9999
    kept = np.concatenate(point.shards)[:, 0, 5]
    assert abs(np.corrcoef(kept, groups)[0, 1]) > 0.98


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=5), st.integers(0, 99))
def test_what_is_lost_does_not_depend_on_how_the_stream_is_cut(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((300, 4)) * [1, 1, 1e-8, 0] + [0, 2000, 0, 77.7]).astype(np.float32)
    y = x.astype(np.float16)
    total = Rounding(*np.zeros((4, 4)))
    for part in np.array_split(np.arange(300), sorted(cuts)) if cuts else [np.arange(300)]:
        total = total + Rounding.of(x[part], y[part])
    wide = x.astype(np.float64)
    expected = np.minimum(((wide - y) ** 2).mean(0)[:3] / wide.var(0)[:3], 1)
    np.testing.assert_allclose(total.share[:3], expected, rtol=1e-6)
    again = Rounding.from_record(json.loads(json.dumps(total.to_record())))
    np.testing.assert_array_equal(again.share, total.share)


def test_a_planted_outlier_of_a_model_can_be_told_from_its_neighbours(shared: Path, task: str, tmp_path: Path) -> None:
    """As the model computed it: by default nothing of it is lost, and float16 says that it does."""
    model = f"bird-mae,path={shared / 'fixtures' / 'bird_mae_outlier'}"
    dim = json.loads((shared / "fixtures" / "bird_mae_outlier" / "config.json").read_text())["outlier_dim"]
    made = {"points": ["blocks.1.resid_post"], "split": "clips", "limit": 3, "workers": 0}
    full, half = (
        record(task, model, to=tmp_path / dtype, dtype=dtype, **made).only for dtype in ("float32", "float16")
    )
    ratio = full.patch_statistics.std[dim] / np.median(full.patch_statistics.std)
    assert abs(full.patch_statistics.mean[dim]) > 100 * np.abs(np.delete(full.patch_statistics.mean, dim)).max()
    a, b = (np.concatenate(p.shards)[:, 1:, dim].ravel().astype(np.float64) for p in (full, half))
    assert len(np.unique(a)) > 10 * len(np.unique(b)), f"its deviation is {ratio:.2f} times the median one"
    assert (full.lost, dim in (half.lost or {})) == ({}, True)


def test_a_recording_of_an_earlier_format_is_read_and_says_that_it_does_not_know(tmp_path: Path) -> None:
    to = tmp_path / "r"
    write(planted(40)[0], to, "float16")
    path = to / "tokens" / "metadata.json"
    metadata = json.loads(path.read_text()) | {"format": 1}
    del metadata["rounding"], metadata["lost"]
    path.write_text(json.dumps(metadata))
    point = Recording.open(to).only
    assert point.lost is None
    assert sum(len(b) for b in point.batches(16)) == 40


@pytest.mark.parametrize("how", ["altered", "swapped"])
def test_damaged_and_swapped_shards_are_refused_by_whoever_reads(how: str, tmp_path: Path) -> None:
    """The length is as it was: only the checksum knows."""
    from benchkit.activations import fit
    from benchkit.errors import StoreError

    to = tmp_path / "r"
    write(np.random.default_rng(0).standard_normal((64, 2, 8)).astype(np.float32), to, "float32")
    one, other = (to / "tokens" / f"0000{i}.npy" for i in (0, 1))
    if how == "swapped":
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    else:
        x = np.load(one)
        x.reshape(-1)[::7] = 0
        np.save(one, x)
    named = r"0000[01].npy' is not as it was written: its checksum does not match"
    with pytest.raises(StoreError, match=named):
        list(Recording.open(to).only.batches(16))
    with pytest.raises(StoreError, match=named):
        fit("kmeans,k=4", to, tmp_path / "k.safetensors")
    with pytest.raises(StoreError, match=named):
        list(Recording.open(to).only.views(np.arange(64)))


def test_a_shard_is_read_for_its_checksum_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchkit.activations import recording

    write(np.random.default_rng(0).standard_normal((64, 2, 8)).astype(np.float32), tmp_path / "r", "float32")
    seen: list[str] = []
    before = recording.sha256_of
    monkeypatch.setattr(recording, "sha256_of", lambda path: (seen.append(path.name), before(path))[1])
    point = Recording.open(tmp_path / "r").only
    assert sum(len(b) for b in point.batches(16, epochs=3)) == 3 * 128
    assert sum(len(b) for b in point.batches(16, examples=np.arange(5))) == 10
    assert sorted(seen) == ["00000.npy", "00001.npy"]
