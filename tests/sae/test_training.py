"""Training: it finds a known dictionary, it stops and goes on, and many at once are as each alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchkit.activations import Recording
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, DataError, FitError, StoreError
from benchkit.sae import SAEConfig, TrainConfig, metrics, train
from benchkit.sae.run import Run

NAMES = {
    "mse", "explained_variance", "l0", "l1", "dead", "correlation", "coherence", "decoder_norm", "gradient_norm",
}  # fmt: skip
AT_THE_END = {"explained_variance_x", "explained_variance_pooled", "dead_in_training", "correlation_error"}


def dictionary(n: int = 8000, dim: int = 16, units: int = 24, active: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Vectors that are sums of a few of the units' directions; and the directions."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((units, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    f = np.zeros((n, units))
    for row in f:
        row[rng.choice(units, active, replace=False)] = rng.uniform(1, 3, active)
    return (f @ directions).astype(np.float32), directions


@pytest.mark.parametrize(
    "config",
    [
        SAEConfig("topk", 48, "none", k=2, lr=5e-3),
        SAEConfig("batchtopk", 48, "none", k=2, lr=5e-3),
        SAEConfig("relu", 48, "none", l1=1.5, lr=5e-3),
    ],
    ids=["topk", "batchtopk", "relu"],
)
def test_it_finds_the_directions_that_the_vectors_are_made_of(config: SAEConfig, as_recording, tmp_path: Path) -> None:
    x, directions = dictionary()
    (trained,) = train(as_recording(x), tmp_path / "t", [config], TrainConfig(batch_size=256, epochs=15)).trained
    decoder = load_file(trained.path)["w_dec"]
    best = (directions @ decoder.T).max(axis=1)
    assert np.median(best) > 0.85
    assert trained.record["metrics"]["explained_variance"] > 0.7
    np.testing.assert_allclose(np.linalg.norm(decoder, axis=1), 1, rtol=1e-5)
    if config.k is not None:
        assert trained.record["metrics"]["l0"] == pytest.approx(2 / 48, rel=0.15)


@pytest.mark.parametrize("activation", ["topk", "batchtopk", "relu"])
def test_the_auxiliary_loss_brings_dead_units_back(activation) -> None:
    """Half of the units are made to be dead at first, and the other half are too few."""
    z = torch.from_numpy(dictionary(4096, 32, 64)[0])
    config = SAEConfig(activation, 64, "none", lr=5e-3, **({"l1": 1.0} if activation == "relu" else {"k": 2}))

    def trained(aux: float) -> tuple[float, float]:
        run = Run.start(config, z, "cpu", "x")
        with torch.no_grad():
            run.model.w_enc[:, :32] *= 1e-3
            run.model.b_enc[:32] = -0.5 if activation == "relu" else 1e-3
        shared = TrainConfig(aux=aux, dead_after=2048, warmup=0.0, decay="constant")
        for i in range(320):
            run.step(z[(i % 16) * 256 :][:256], i, 320, shared, log=False)
        f = run.model.active(run.model.pre_activations(z), training=True).detach()
        return metrics.dead(f[:, :32]), metrics.explained_variance(z, run.model.decode(f).detach())

    (dead_without, without), (dead_with, explained) = trained(0.0), trained(1 / 32)
    assert dead_without == 1
    assert dead_with < 0.4
    assert explained > without + 0.15


def test_real_activations_are_explained_and_every_metric_is_logged(recorded: Path, tmp_path: Path) -> None:
    configs = [
        SAEConfig("topk", 128, "dimension", k=8, lr=3e-3), SAEConfig("batchtopk", 64, "whiten", k=8, lr=3e-3),
        SAEConfig("relu", 64, "layernorm", l1=0.1, lr=3e-3),
    ]  # fmt: skip
    outcome = train(recorded, tmp_path / "t", configs, TrainConfig(batch_size=128, epochs=6), log_every=20)
    point = Recording.open(recorded).only
    for t in outcome.trained:
        steps = t.record["steps"]
        assert steps == 6 * 16
        logged = {(step, name) for step, name, _ in t.history}
        assert logged == {(step, name) for step in (20, 40, 60, 80, steps) for name in NAMES} | {
            (steps, name) for name in AT_THE_END
        }
        of = {step: value for step, name, value in t.history if name == "explained_variance"}
        assert of[steps] > 0.3
        assert of[80] > of[20]
        assert t.record["metrics"]["decoder_norm"] == pytest.approx(1, abs=1e-5)
        assert (t.record["task"], t.record["model"], t.record["point"]) == (point.task, point.model, point.point)
        assert t.record["measured_on"] == point.vectors_of(patches=True)
    assert sorted(e.name for e in (tmp_path / "t").iterdir()) == sorted(
        [*(f"{c.name}.safetensors" for c in configs), "training.json", "lock", "states"]
    )


def test_side_by_side_is_as_each_alone(recorded: Path, tmp_path: Path) -> None:
    configs = [
        SAEConfig("topk", 32, "dimension", k=4), SAEConfig("relu", 64, "whiten", l1=0.2),
        SAEConfig("batchtopk", 32, "dimension", k=4, seed=1),
    ]  # fmt: skip
    shared = TrainConfig(batch_size=256, dead_after=300)
    together = train(recorded, tmp_path / "t", configs, shared).trained
    for config, t in zip(configs, together, strict=True):
        (alone,) = train(recorded, tmp_path / config.name, [config], shared).trained
        a, b = load_file(t.path), load_file(alone.path)
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


TRAIN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from benchkit.sae import SAEConfig, TrainConfig, train
configs = [
    SAEConfig("topk", 32, "whiten", k=4), SAEConfig("batchtopk", 48, "none", k=4), SAEConfig("relu", 16, "none", l1=0.1)
]
shared = TrainConfig(batch_size=64, epochs=int(sys.argv[4]), dead_after=500)
train(Path(sys.argv[1]), Path(sys.argv[2]), configs, shared, checkpoint_s=float(sys.argv[3]), log_every=30)
"""


@pytest.mark.slow
def test_it_goes_on_after_ctrl_c_and_after_a_kill_as_if_nothing_had_been(recorded: Path, tmp_path: Path) -> None:
    to, whole = tmp_path / "stopped", tmp_path / "whole"
    command = [sys.executable, "-c", TRAIN, str(recorded)]
    path = to / "checkpoint.pt"

    def written() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    for sign in (signal.SIGINT, signal.SIGKILL):
        before, deadline = written(), time.monotonic() + 60
        process = subprocess.Popen([*command, str(to), "0.3", "10"], stderr=subprocess.DEVNULL)
        while written() == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(sign)
        assert process.wait() != 0
        assert path.exists()
        assert not list(to.glob("*.safetensors"))
    subprocess.run([*command, str(to), "1000", "10"], check=True)
    subprocess.run([*command, str(whole), "1000", "10"], check=True)
    assert not (to / "checkpoint.pt").exists()
    for path in whole.glob("*.safetensors"):
        a, b = load_file(path), load_file(to / path.name)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    done = [json.loads((folder / "training.json").read_text())["done"] for folder in (to, whole)]
    assert [d["history"] for d in done[0].values()] == [d["history"] for d in done[1].values()]


def test_what_is_done_is_not_trained_again_and_another_training_is_refused(recorded: Path, tmp_path: Path) -> None:
    configs, shared, to = [SAEConfig("topk", 16, "none", k=2)], TrainConfig(batch_size=512), tmp_path / "t"
    first = train(recorded, to, configs, shared)
    (to / "checkpoint.pt").write_bytes(b"left by a kill between the end of the training and its removal")
    stamp = os.stat(first.trained[0].path).st_mtime_ns
    again = train(recorded, to, configs, shared)
    assert (first.fresh, again.fresh) == (True, False)
    assert not (to / "checkpoint.pt").exists()
    assert again.trained[0].record == first.trained[0].record
    assert again.trained[0].history == first.trained[0].history
    assert os.stat(first.trained[0].path).st_mtime_ns == stamp
    with pytest.raises(BenchkitError, match=r"is another training \(of another batch_size, seed\)"):
        train(recorded, to, configs, TrainConfig(batch_size=511, seed=1))
    with pytest.raises(BenchkitError, match=r"trained for \d+ steps, and 1 are fewer"):
        train(recorded, to, configs, TrainConfig(batch_size=512, steps=1))
    first.trained[0].path.unlink()
    with pytest.raises(StoreError, match=r"is gone: remove '.*training.json' to train it anew"):
        train(recorded, to, configs, shared)


def test_one_that_goes_wrong_does_not_stop_the_others(recorded: Path, tmp_path: Path) -> None:
    configs = [SAEConfig("topk", 16, "none", k=2, lr=1e30), SAEConfig("topk", 16, "none", k=2)]
    outcome = train(recorded, tmp_path / "t", configs, TrainConfig(batch_size=128), log_every=2)
    assert [t.path.stem for t in outcome.trained] == [configs[1].name]
    assert "try a lower --lr" in outcome.failed[configs[0].name]
    for _ in range(2):  # and again, when it is known
        with pytest.raises(FitError, match="try a lower --lr"):
            train(recorded, tmp_path / "u", configs[:1], TrainConfig(batch_size=128), log_every=2)


def test_one_that_goes_wrong_at_its_very_last_step_is_none(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(FitError, match="reconstructions are not numbers after the last step"):
        train(recorded, tmp_path / "t", [SAEConfig("topk", 16, "none", k=2, lr=1e30)], TrainConfig(steps=1))
    assert not list((tmp_path / "t").glob("*.safetensors"))


def test_two_processes_do_not_train_into_one_folder(recorded: Path, tmp_path: Path) -> None:
    from benchkit.features.lock import try_lock

    lock = try_lock(tmp_path)
    assert lock is not None
    with lock, pytest.raises(StoreError, match=rf"is being trained by process {os.getpid()} .*choose another folder"):
        train(recorded, tmp_path, [SAEConfig("topk", 16, "none", k=2)], TrainConfig())
    assert [e.name for e in tmp_path.iterdir()] == ["lock"]


def test_what_does_not_fit_into_memory_is_one_line_and_leaves_the_folder_to_another(
    recorded: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        BenchkitError, match=r"^the memory of 'cpu' does not suffice \(.*\): train fewer .*--width"
    ) as e:
        train(recorded, tmp_path, [SAEConfig("topk", 10**13, "none", k=2)], TrainConfig())
    assert "\n" not in str(e.value)
    train(recorded, tmp_path, [SAEConfig("topk", 16, "none", k=2)], TrainConfig(batch_size=512))


def test_what_a_kill_left_half_written_goes(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / ".0123.part").write_bytes(b"half a checkpoint")
    train(recorded, tmp_path, [SAEConfig("topk", 16, "none", k=2)], TrainConfig(batch_size=512))
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_is_one_line_and_the_checkpoint_before_stays(recorded: Path, tmp_path: Path) -> None:
    import resource

    configs, shared, to = [SAEConfig("topk", 64, "none", k=2)], TrainConfig(batch_size=512), tmp_path / "t"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot write '.*checkpoint.pt': File too large"):
            train(recorded, to, configs, shared)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(e.name for e in to.iterdir()) == ["lock", "training.json"]
    assert train(recorded, to, configs, shared).trained


def test_activations_that_are_not_finite_are_refused(as_recording, tmp_path: Path) -> None:
    x = np.ones((10, 4))
    x[3, 2] = np.nan
    with pytest.raises(DataError, match="1 values are NaN"):
        train(as_recording(x), tmp_path / "t", [SAEConfig("topk", 8, "none", k=2)], TrainConfig())


def test_a_damaged_checkpoint_is_named(recorded: Path, tmp_path: Path) -> None:
    to = tmp_path / "t"
    to.mkdir()
    (to / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"checkpoint.pt' is damaged"):
        train(recorded, to, [SAEConfig("topk", 8, "none", k=2)], TrainConfig())


# --------------------------------------------------------------------------------------------------------- as a scorer


@pytest.mark.parametrize("how", ["none", "dimension", "layernorm", "whiten"])
@pytest.mark.parametrize(("activation", "k", "l1"), [("topk", 3, None), ("batchtopk", 3, None), ("relu", None, 0.1)])
def test_scores_are_its_activations(activation, k, l1, how, recorded: Path, tmp_path: Path) -> None:
    config = SAEConfig(activation, 40, how, k, l1)
    (t,) = train(recorded, tmp_path / "t", [config], TrainConfig(batch_size=512)).trained
    scorer = resolve("scorer", f"sae:{t.path}").build()
    assert (scorer.n_prototypes, scorer.point) == (40, "blocks.1.resid_post")
    x = next(Recording.open(recorded).only.batches(50))
    w = {name: tensor.astype(np.float64) for name, tensor in load_file(t.path).items()}
    z = x.astype(np.float64)
    if how == "dimension":
        z = (z - w["normalise.mean"]) / w["normalise.std"]
    elif how == "layernorm":
        z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
    elif how == "whiten":
        z = (z - w["normalise.mean"]) @ w["normalise.whitening"]
    p = np.maximum((z - w["b_dec"]) @ w["w_enc"] + w["b_enc"], 0)
    if activation == "topk":
        p = np.where(p >= np.sort(p, axis=1)[:, -3:-2], p, 0)
    elif activation == "batchtopk":
        assert w["threshold"] > 0
        p = np.where(p > w["threshold"], p, 0)
    np.testing.assert_allclose(scorer(x), p, rtol=1e-3, atol=1e-4)
    with pytest.raises(FitError, match=r"the activations have 5 dimensions, and those of .* had 64"):
        scorer(np.zeros((2, 5), np.float32))
    assert resolve("scorer", f"sae:{t.path}").canonical.startswith("sae:fp-")
