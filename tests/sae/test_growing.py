"""A sweep that is finished takes another value, a training more epochs, and one command several places; nothing that is
done is done again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchkit.activations import record
from benchkit.errors import BenchkitError
from benchkit.sae import SAEConfig, TrainConfig, train
from benchkit.sae.sweep import parts


def same(a: Path, b: Path) -> None:
    one, other = load_file(a), load_file(b)
    assert set(one) == set(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture
def x() -> np.ndarray:
    rng = np.random.default_rng([2, 1])
    return rng.standard_normal((300, 6)) @ rng.standard_normal((6, 10))


def test_a_finished_sweep_takes_another_value(x, as_recording, tmp_path: Path) -> None:
    on = as_recording(x)
    old = [SAEConfig("topk", 16, "dimension", k=2), SAEConfig("relu", 16, "none", l1=0.1)]
    new = [SAEConfig("batchtopk", 24, "whiten", k=3), SAEConfig("topk", 32, "dimension", k=2)]
    shared = TrainConfig(batch_size=64, epochs=2)
    first = train(on, tmp_path / "t", old, shared)
    stamps = [os.stat(t.path).st_mtime_ns for t in first.trained]
    both = train(on, tmp_path / "t", [*old, *new], shared)
    assert [t.path.stem for t in both.trained] == [c.name for c in [*old, *new]]
    assert [os.stat(t.path).st_mtime_ns for t in first.trained] == stamps
    whole = train(on, tmp_path / "whole", [*old, *new], shared)
    for a, b in zip(both.trained, whole.trained, strict=True):
        same(a.path, b.path)
        assert a.history == b.history


def test_a_finished_training_goes_on_for_more_epochs(x, as_recording, tmp_path: Path) -> None:
    """With a constant rate and no warm-up it is what it would have been in one go."""
    on = as_recording(x)
    configs = [SAEConfig("topk", 16, "dimension", k=2), SAEConfig("gated", 16, "none", l1=0.1)]
    plain = {"batch_size": 64, "warmup": 0.0, "l1_warmup": 0.0, "decay": "constant", "dead_after": 100}
    short = train(on, tmp_path / "t", configs, TrainConfig(epochs=1, **plain)).trained
    names = [t.record["uuid"] for t in short]
    longer = train(on, tmp_path / "t", configs, TrainConfig(epochs=3, **plain)).trained
    whole = train(on, tmp_path / "whole", configs, TrainConfig(epochs=3, **plain)).trained
    for a, b in zip(longer, whole, strict=True):
        same(a.path, b.path)
        assert a.record["steps"] == b.record["steps"] == 3 * -(-285 // 64)
    assert not set(names) & {t.record["uuid"] for t in longer}
    (tmp_path / "t" / "states" / f"{configs[0].name}.pt").unlink()
    with pytest.raises(BenchkitError, match=r"cannot be trained for more than its 15 steps: .* is gone"):
        train(on, tmp_path / "t", configs, TrainConfig(epochs=4, **plain))


def test_another_command_does_not_take_up_what_is_not_done(x, as_recording, tmp_path: Path, monkeypatch) -> None:
    from benchkit.sae.session import Session

    on, to = as_recording(x), tmp_path / "t"
    configs = [SAEConfig("topk", 16, "none", k=2), SAEConfig("topk", 24, "none", k=2)]

    def killed(self: Session, shown: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(Session, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            train(on, to, configs, TrainConfig(batch_size=64))
    with pytest.raises(BenchkitError, match=r"not done \(of 2 autoencoders for 5 steps\): finish it with the command"):
        train(on, to, configs[:1], TrainConfig(batch_size=64))
    more = [*configs, SAEConfig("topk", 32, "none", k=2)]
    assert len(train(on, to, more, TrainConfig(batch_size=64)).trained) == 3


def test_several_places_have_folders_of_their_own(recorded: Path, task_and_model, tmp_path: Path) -> None:
    two = tmp_path / "two"
    record(
        *task_and_model, ["blocks.0.norm1", "blocks.0.norm2", "blocks.2.norm2"], two, split="clips", limit=4, workers=0
    )
    made = parts([two], ["blocks.*.norm2"], tmp_path / "to")
    assert [p.to.relative_to(tmp_path / "to").as_posix() for p in made] == ["blocks.0.norm2", "blocks.2.norm2"]
    assert [p.to for p in parts([two], ["blocks.0.norm1"], tmp_path / "to")] == [tmp_path / "to"]
    both = parts([two, recorded], ["blocks.0.norm1", "blocks.1.resid_post"], tmp_path / "to")
    assert [p.to.relative_to(tmp_path / "to").as_posix() for p in both] == [
        "two/blocks.0.norm1", f"{recorded.name}/blocks.1.resid_post",
    ]  # fmt: skip
    for points, said in (
        (["blocks.9.*"], "has no point 'blocks.9"),
        (["blocks.0.norm1", "tokenz"], "no point 'tokenz'"),
    ):
        with pytest.raises(BenchkitError, match=said):
            parts([two], points, tmp_path / "to")


@pytest.fixture(scope="session")
def task_and_model(shared: Path) -> tuple[str, str]:
    return f"esc50,root={shared / 'data' / 'esc10'}", f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"


@pytest.mark.slow
def test_a_sweep_over_places_that_is_killed_twice_is_the_undisturbed_one(task_and_model, tmp_path: Path) -> None:
    """6 activations x 3 widths x 2 points in one command."""
    on = tmp_path / "on"
    record(*task_and_model, ["blocks.0.norm2", "blocks.2.norm2"], on, split="clips", limit=3, workers=0)
    words = ["sae", "train", "--on", on, "--point", "blocks.*.norm2", "--k", 4, "--l1", 0.1, "--l0", 0.01,
             "--batch-size", 64, "--epochs", 3, "--log-every", 20, "--checkpoint", 0]  # fmt: skip
    for activation in ("relu", "topk", "batchtopk", "matryoshka", "jumprelu", "gated"):
        words += ["--activation", activation]
    for width in (24, 48, 72):
        words += ["--width", width]

    def command(to: str) -> list[str]:
        return [sys.executable, "-m", "benchkit", *map(str, words), "--to", str(tmp_path / to),
                "--db", str(tmp_path / f"{to}.sqlite")]  # fmt: skip

    for n in range(2):
        place = tmp_path / "killed" / ("blocks.0.norm2", "blocks.2.norm2")[n]
        process = subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while not (place / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (place / "checkpoint.pt").exists(), "it was killed at work"
    for to in ("killed", "whole"):
        subprocess.run(command(to), check=True, capture_output=True)
    files = sorted(p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.safetensors"))
    assert len(files) == 36
    for file in files:
        same(tmp_path / "killed" / file, tmp_path / "whole" / file)
    done = [
        json.loads((tmp_path / to / "blocks.0.norm2" / "training.json").read_text())["done"]
        for to in ("killed", "whole")
    ]
    assert [d["history"] for d in done[0].values()] == [d["history"] for d in done[1].values()]


def test_a_transcoder_makes_one_point_of_another(as_recording, tmp_path: Path) -> None:
    """What the second place is a sparse function of the first: its mean alone explains nothing, the transcoder most."""
    from benchkit.activations import Recording
    from benchkit.activations.recorder import _conclude
    from benchkit.activations.shards import Identity, ShardWriter
    from benchkit.catalog.resolve import resolve

    rng = np.random.default_rng([2, 2])
    x = rng.standard_normal((4000, 1, 10)).astype(np.float32)
    y = (np.maximum(x @ rng.standard_normal((10, 12)), 0) @ rng.standard_normal((12, 7)) + 5).astype(np.float32)
    to = tmp_path / "pair"
    to.mkdir()
    identity = Identity(2, "t", "m", "train", "r", 4000, "d", "w", "float32")
    identity.claim(to)
    for point, of, size in (("a", x, 900), ("b", y, 1300)):  # shards that end at different examples
        with ShardWriter(to, point, "float32", [str(i) for i in range(4000)], 0, size * 4 * of.shape[2]) as writer:
            writer.write(np.arange(4000), of)
            writer.close()
            _conclude(to, point, identity, writer.shards, {}, 0)
    shared = TrainConfig(batch_size=128, epochs=30)
    configs = [SAEConfig("topk", 64, "dimension", k=8, lr=3e-3), SAEConfig("relu", 64, "none", l1=0.01, lr=3e-3)]
    for t in train(to, tmp_path / "t", configs, shared, point="a", target="b").trained:
        assert t.record["target"] == "b"
        assert t.record["metrics"]["held_out_explained_variance_x"] > 0.7
        w = load_file(t.path)
        f = resolve("scorer", f"sae:{t.path}").build()(x[:, 0])
        y_hat = f @ w["w_dec"] + w["b_dec"]
        if "target.std" in w:
            y_hat = y_hat * w["target.std"] + w["target.mean"]
        explained = np.mean(1 - (y[:, 0] - y_hat).var(0) / y[:, 0].var(0))
        assert explained == pytest.approx(t.record["metrics"]["explained_variance_x"], abs=0.02)
    with pytest.raises(BenchkitError, match="is the input itself"):
        train(to, tmp_path / "u", configs, shared, point="a", target="a")
    assert list(Recording.open(to)) == ["a", "b"]
