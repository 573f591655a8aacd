"""What an autoencoder is worth on a task: known answers for one that is perfect, and one that knows nothing."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchkit.activations import Recording, record
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError
from benchkit.features import Options
from benchkit.jobs.worth import sparse_probes, worth
from benchkit.progress import Silent
from benchkit.sae.apply import Applied
from benchkit.scorers.saved import write_tensors

POINT = "blocks.1.resid_post"


@pytest.fixture(scope="module")
def task(shared: Path) -> str:
    return f"esc50,root={shared / 'data' / 'esc10'}"


@pytest.fixture(scope="module")
def model(shared: Path) -> str:
    return f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"


def by_hand(to: Path, model: str, kind: str, mean: np.ndarray | None = None) -> Path:
    """perfect: units are each dimension's positive and negative part. nothing: they never fire."""
    dim = 64
    both = np.concatenate([np.eye(dim), -np.eye(dim)]).astype(np.float32)
    tensors = {
        "w_enc": both.T.copy(), "b_enc": np.full(2 * dim, 0.0 if kind == "perfect" else -1e9, np.float32),
        "w_dec": both, "b_dec": np.zeros(dim, np.float32) if mean is None else mean.astype(np.float32),
        "threshold": np.zeros((), np.float32),
    }  # fmt: skip
    record_ = {
        "kind": "sae", "uuid": "a" * 32, "task": "", "model": model, "point": POINT,
        "autoencoder": {"activation": "relu", "width": 2 * dim, "normalise": "none"}, "dim": dim, "metrics": {},
        "finished_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    write_tensors(to, tensors, record_)
    return to


def test_a_perfect_one_recovers_everything_and_the_mean_nothing(task: str, model: str, tmp_path: Path) -> None:
    options = Options(tmp_path / "cache", workers=0)
    given = {"examples": 16, "options": options, "progress": Silent()}
    found = worth(Applied.open(by_hand(tmp_path / "p", model, "perfect")), task, model, **given)
    assert found["esc50.features_changed"] == pytest.approx(0, abs=1e-8)
    assert found["esc50.features_recovered"] == pytest.approx(1, abs=1e-8)
    assert found["esc50.probe_spliced"] == found["esc50.probe_clean"]
    if "esc50.loss_recovered" in found:
        assert found["esc50.loss_recovered"] == 1
    assert {f"esc50.sparse_probe_k{k}" for k in (1, 2, 5)} <= found.keys()
    nothing = worth(Applied.open(by_hand(tmp_path / "n", model, "nothing")), task, model, **given)
    assert nothing["esc50.features_changed"] > 0.3
    assert nothing["esc50.features_recovered"] < 0.5


def test_features_of_the_spliced_backbone_are_those_of_a_backbone_with_other_activations(model: str) -> None:
    """At a residual place, adding c is as if the block before had added c."""
    import copy

    import torch

    backbone = resolve("model", model).build()
    backbone.setup("cpu")
    wave = 0.1 * np.random.default_rng([3, 1]).standard_normal((2, 160_000)).astype(np.float32)
    shift = np.linspace(-1, 1, 64).astype(np.float32)
    made = backbone.spliced(wave, "blocks.1.mlp_out", lambda x: x + shift).pooled
    other = copy.deepcopy(backbone)
    with torch.no_grad():
        other.module.blocks[1].mlp.fc2.bias += torch.from_numpy(shift)
    np.testing.assert_allclose(made, other.encode(wave).pooled, atol=1e-5)
    np.testing.assert_allclose(
        backbone.spliced(wave, "blocks.2.norm2", lambda x: x).pooled, backbone.encode(wave).pooled
    )
    with pytest.raises(BenchkitError, match="nothing goes on from 'norm'"):
        backbone.spliced(wave, "norm", lambda x: x)


def test_a_sparse_probe_finds_the_units_that_tell_a_class() -> None:
    rng = np.random.default_rng([3, 2])
    y = rng.integers(0, 2, (400, 2)).astype(np.uint8)
    units = rng.standard_normal((400, 30)).astype(np.float32)
    units[:, 7] += 4 * y[:, 0]
    units[:, 11] += y[:, 1]
    units[:, 12] -= y[:, 1]
    found = sparse_probes(units[:200], units[200:], y[:200], y[200:], (1, 2, 5))
    assert found["sparse_probe_k1"] > 0.85
    assert found["sparse_probe_k2"] > found["sparse_probe_k1"]
    noise = sparse_probes(units[:200, :5], units[200:, :5], y[:200], y[200:], (1,))
    assert abs(noise["sparse_probe_k1"] - 0.5) < 0.1


def test_the_error_over_a_recording_is_of_every_vector(task: str, model: str, tmp_path: Path) -> None:
    recording = record(task, model, [POINT], tmp_path / "r", split="clips", limit=3, workers=0)
    x = np.concatenate(recording.only.shards)[:, 1:].reshape(-1, 64).astype(np.float64)
    mean = x.mean(axis=0)
    found, n = Applied.open(by_hand(tmp_path / "n", model, "nothing", mean)).over(recording.only)
    assert n == len(x) == 3 * 256
    assert found["mse"] == pytest.approx(x.var(axis=0).mean(), rel=1e-5)
    assert found["explained_variance_x"] == pytest.approx(0, abs=1e-5)
    assert found["dead"] == 1


@pytest.mark.slow
def test_what_is_measured_becomes_metrics_of_the_training(task: str, model: str, tmp_path: Path) -> None:
    def benchkit(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "benchkit", *map(str, words)], capture_output=True, text=True)

    record(task, model, [POINT], tmp_path / "r", split="clips", limit=6, workers=0)
    db, to = tmp_path / "r.sqlite", tmp_path / "t"
    ran = benchkit("sae", "train", "--on", tmp_path / "r", "--to", to, "--width", 64, "--k", 4, "--db", db)
    assert ran.returncode == 0, ran.stderr
    (file,) = to.glob("*.safetensors")
    of_task = ("--task", task, "--model", model, "--examples", 12, "--db", db)
    for _ in range(2):
        ran = benchkit("sae", "measure", file, "--on", tmp_path / "r", *of_task)
        assert ran.returncode == 0, ran.stderr
    with sqlite3.connect(db) as store:
        assert store.execute("SELECT count(*) FROM trainings").fetchone() == (1,)
        found = dict(store.execute("SELECT name, value FROM training_metrics WHERE step = (SELECT max(step) FROM "
                                   "training_metrics)").fetchall())  # fmt: skip
    assert {
        "recording.explained_variance_x",
        "esc50.features_recovered",
        "esc50.sparse_probe_k5",
        "mse",
    } <= found.keys()
    shown = benchkit("sae", "show", file)
    assert shown.returncode == 0, shown.stderr
    assert "units by the share of" in shown.stdout
    ran = benchkit("sae", "measure", file, "--db", db)
    assert "nothing to measure on" in ran.stderr
    assert list(Recording.open(tmp_path / "r")) == [POINT]
