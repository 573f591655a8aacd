"""A training that was killed goes on as if it had not been: every bit, every line of its log."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchkit import BenchkitError
from benchkit_birdjepa.pretraining.settings import made
from benchkit_birdjepa.pretraining.training import Training

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("BENCHKIT_KILLS", "2"))
"""Of each objective; CI asks for 30."""
CONFIG = """
to = "{to}"
steps = {steps}
log_every = 1
[data]
train = ["digits"]
batch = 8
[augment]
scale = 0.6
mixup = {mixup}
[model]
modality = "image"
input_h = 8
input_w = 8
patch_h = 2
patch_w = 2
embed_dim = 16
depth = 2
n_heads = 2
[objective]
{objective}
[optimiser]
name = "{optimiser}"
ema = 0.9
[schedule]
name = "wsd"
warmup = 3
decay = 8
[checkpoint]
every = {every}
"""
OBJECTIVES = {
    "supervised": 'name = "supervised"',
    "lejepa": 'name = "lejepa"\nviews = 2\nhidden = 16\nout = 4\ndirections = 8',
    "pixio": 'name = "pixio"\nblock = 1\nwidth = 16\ndepth = 1\nheads = 2',
}


def config(folder: Path, objective: str, *, steps: int = 24, every: int = 4, mixup: float = 0.5) -> Path:
    mixup = mixup if objective == "supervised" else 0.0
    optimiser = "adamw" if objective == "supervised" else "muon"
    text = CONFIG.format(
        optimiser=optimiser, to=folder / "out", steps=steps, every=every, objective=OBJECTIVES[objective], mixup=mixup
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(text)
    return folder / "config.toml"


def start(path: Path) -> "subprocess.Popen[str]":
    """Pinned to one core, so that sums are made in one order."""
    core = min(os.sched_getaffinity(0))
    return subprocess.Popen(
        [sys.executable, "-m", "benchkit", "pretrain", str(path), "--db", str(path.parent / "r.sqlite")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip


def finished(path: Path) -> str:
    process = start(path)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return err


def state(folder: Path, step: int = 24) -> dict[str, np.ndarray]:
    return load_file(folder / "out" / "checkpoints" / f"step-{step:08d}" / "state.safetensors")


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


def same(one: Path, other: Path) -> None:
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].tobytes() == b[name].tobytes(), name
    assert lines(one) == lines(other)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_training_killed_at_any_instant_goes_on_to_the_same_bits(objective: str, tmp_path: Path) -> None:
    finished(config(tmp_path / "whole", objective))
    path = config(tmp_path / "killed", objective)
    rng = random.Random(objective)
    log = path.parent / "out" / "metrics.jsonl"
    for _ in range(KILLS):
        process = start(path)
        deadline, wanted = time.monotonic() + 120, rng.randrange(1, 24)
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) >= wanted:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
    finished(path)
    same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_and_leaves_and_the_same_command_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    path = config(tmp_path, "supervised", steps=100_000, every=100_000)
    process = start(path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 3 "):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130, rest
    assert f"{number.name} came: saved at step" in rest
    (saved,) = (tmp_path / "out" / "checkpoints").iterdir()
    step = int(saved.name[5:])
    assert lines(tmp_path)[-1]["step"] == step
    again = start(path)
    assert again.stderr is not None
    assert any(f"goes on from step {step}" in line for line in again.stderr)
    again.kill()
    again.wait()


# ------------------------------------------------------------------------------------------------- within this process


def train(
    tmp_path: Path, name: str, said: list[str] | None = None, objective: str = "supervised", **more: object
) -> Path:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    table = {
        "to": str(folder / "out"), "steps": 6, "log_every": 1,
        "data": {"train": ["digits"], "batch": 8} | more.pop("data", {}),  # type: ignore[operator]
        "model": {"modality": "image", "input_h": 8, "input_w": 8, "patch_h": 4, "patch_w": 4, "embed_dim": 8,
                  "depth": 1, "n_heads": 2},
        "objective": {"name": objective}, "checkpoint": {"every": 3}, **more,
    }  # fmt: skip
    tell = (said if said is not None else []).append
    Training(made(table, "a test"), folder / "r.sqlite", tell).run()
    return folder


def test_the_order_of_examples_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    one = train(tmp_path, "one", data={"workers": 1, "ahead": 1})
    many = train(tmp_path, "many", data={"workers": 5, "ahead": 7})
    a, b = state(one, 6), state(many, 6)
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    said: list[str] = []
    train(tmp_path, "one")
    train(tmp_path, "one", said)
    assert any("done already: 6 steps" in line for line in said)


def test_another_configuration_in_the_same_folder_is_refused_with_what_differs(tmp_path: Path) -> None:
    train(tmp_path, "one")
    with pytest.raises(BenchkitError, match=r"another training \(.*seed.* differ\): give another folder"):
        train(tmp_path, "one", seed=1)


def test_a_checkpoint_whose_arrays_are_not_those_saved_is_refused(tmp_path: Path) -> None:
    folder = train(tmp_path, "one", steps=3)
    place = folder / "out" / "checkpoints" / "step-00000003"
    record = json.loads((place / "training.json").read_text())
    record["norms"]["params/norm.weight"] *= 2**0.5  # as arrays scaled by the square root of two devices would be
    (place / "training.json").write_text(json.dumps(record))
    with pytest.raises(BenchkitError, match=r"params/norm.weight was restored with a norm of"):
        train(tmp_path, "one", steps=3)


def test_a_checkpoint_is_a_model_and_its_last_training_state_is_beside_it(tmp_path: Path) -> None:
    from benchkit import resolve

    folder = train(tmp_path, "one")
    place = folder / "out" / "checkpoints" / "step-00000006"
    assert {p.name for p in place.iterdir()} == {
        "config.json",
        "model.safetensors",
        "state.safetensors",
        "training.json",
    }
    backbone = resolve("model", f"birdjepa:{place}").build()
    backbone.setup("cpu")
    assert backbone.modalities == ("image",)
    saved, model = state(folder, 6), load_file(place / "model.safetensors")
    np.testing.assert_array_equal(model["norm.weight"], saved["params/norm.weight"])
    assert backbone.fingerprint() == json.loads((place / "training.json").read_text())["model_fingerprint"]
