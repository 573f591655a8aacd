"""What `benchkit diagnose` shows a backbone: files of any kind, those that do not decode, more than there are."""

import inspect
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchkit.catalog.resolve import resolve
from benchkit.cli import with_commands
from benchkit.diagnose.gather import gather
from benchkit.diagnose.inputs import MOST_KEPT, Inputs, Shown, of_task
from benchkit.diagnose.places import Place
from benchkit.errors import OutOfMemory
from benchkit.interfaces import Backbone, Encoded
from benchkit.progress import Silent
from benchkit_baselines.random_vit import RandomViT

Ran = subprocess.CompletedProcess[str]
N = 12


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of traits: 12 images to train on, 4 to test on."""
    root, rng = tmp_path / "images", np.random.default_rng(0)
    root.mkdir()
    lines = ["path,split,dark,even"]
    for i in range(N + 4):
        Image.fromarray(rng.integers(0, 256, (32, 24, 3), dtype=np.uint8)).save(root / f"{i:02}.png")
        lines.append(f"{i:02}.png,{'train' if i < N else 'test'},{int(i % 3 == 0)},{int(i % 2 == 0)}")
    (root / "traits.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def command(tmp_path: Path, images: Path) -> Callable[..., Ran]:
    def run(*words: Any) -> Ran:
        return subprocess.run(
            [sys.executable, "-m", "benchkit", "diagnose", "--db", str(tmp_path / "r.sqlite"), "--task",
             f"traits,root={images}", *map(str, words)],
            capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


def test_a_task_whose_files_say_what_they_are_is_shown_to_what_takes_them(command: Callable[..., Ran]) -> None:
    done = command("--model", "random-vit,depth=1", "--examples", 4)
    assert done.returncode == 0, done.stderr
    assert "traits/train: 4 examples" in done.stdout
    other = command("--model", "logmel")
    assert other.stderr == "error: model 'logmel' takes audio, and task 'traits' gives image\n"


def damage(folder: Path, *numbers: int) -> None:
    for i in numbers:
        path = folder / f"{i:02}.png"
        path.write_bytes(path.read_bytes()[:60])


def test_examples_that_do_not_decode_are_left_out_in_one_line_the_first_image_too(
    command: Callable[..., Ran], images: Path
) -> None:
    damage(images, 0, 1, 5)
    done = command("--model", "random-vit,depth=1", "--against", "random-vit,depth=2")
    assert done.returncode == 0, done.stderr
    assert "traits/train: 9 examples" in done.stdout
    lines = [line.strip() for line in done.stdout.splitlines() if "decode" in line]
    assert lines == 2 * [
        "note: 3 of 12 examples of traits/train do not decode and are left out, as '00.png': "
        f"'{images / '00.png'}' does not decode as an image: image file is truncated"
    ]
    assert "decode" not in done.stderr


def test_where_nothing_decodes_that_is_an_error_of_one_line(command: Callable[..., Ran], images: Path) -> None:
    damage(images, *range(N))
    done = command("--model", "random-vit,depth=1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: none of 12 examples of traits/train decodes: '00.png': ")


def test_where_there_are_fewer_examples_than_asked_for_all_are_taken_and_counted(command: Callable[..., Ran]) -> None:
    done = command("--model", "random-vit,depth=1", "--examples", 10**9)
    assert done.returncode == 0, done.stderr
    assert f"traits/train: {N} examples" in done.stdout
    note = (
        f"note: traits/train has {N} examples to train on, fewer than --examples 1,000,000,000: all of them were taken"
    )
    assert note in done.stdout
    assert "fewer than" not in command("--model", "random-vit,depth=1", "--examples", N).stdout


def test_examples_are_read_as_they_are_looked_at() -> None:
    task = resolve("task", "digits").build()
    backbone = resolve("model", "random-vit,depth=1").build()
    backbone.setup("cpu")
    inputs = of_task(task, "digits", backbone, 10**9, "cpu")
    with closing(inputs.batches()) as batches:
        assert len(next(batches).values) == 32
    assert inputs.n == 1201
    assert inspect.getgeneratorstate(inputs.source) == inspect.GEN_CLOSED, "nothing goes on decoding"


class Halves(Backbone):
    """Two tokens of two dimensions: means over the halves of an example, and those tenfold."""

    def setup(self, device: str) -> None: ...

    def fingerprint(self) -> str:
        return "halves"

    @property
    def dim(self) -> int:
        return 2

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return raw

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(batch.reshape(len(batch), 2, -1).mean(2))

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> dict[str, np.ndarray]:
        means = self.encode(batch).pooled
        return {point: np.stack([means, 10 * means], axis=1) for point in points}


def test_memory_does_not_grow_with_the_examples_and_every_one_counts() -> None:
    """600 examples of 2^18 bytes, 150 MB together; details are kept of 512."""
    n, each, rng = 600, 1 << 16, np.random.default_rng(0)
    means = rng.normal(0, 1, (n, 2)).astype(np.float32)
    means[-1, 1] = 500  # of an example that is not among the kept ones

    def source() -> Generator[Shown, None, None]:
        for i in range(0, n, 8):
            values = np.repeat(means[i : i + 8], each // 2, axis=1)
            yield Shown(values, np.arange(i, i + len(values)) < MOST_KEPT)

    tracemalloc.start()
    (stats,) = gather(Halves(), [Place.of("blocks.0.resid_post")], Inputs("halves", n, source()), Silent())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20
    assert (stats.n_examples, len(stats.peak_ed), len(stats.pooled_ed)) == (n, MOST_KEPT, MOST_KEPT)
    x = np.stack([means, 10 * means], axis=1)
    np.testing.assert_allclose(stats.rms_d, np.sqrt((x.astype(float) ** 2).mean((0, 1))), rtol=1e-5)
    np.testing.assert_allclose(stats.pooled_ed, x.mean(1)[:MOST_KEPT], rtol=1e-5)
    assert stats.peak_d[1] > 10 * stats.peak_ed[:, 1].max()


def test_memory_that_does_not_suffice_is_one_line(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RandomViT, "activations", lambda *_: torch.empty(1 << 55))
    words = ["diagnose", "--task", f"traits,root={images}", "--model", "random-vit,depth=1", "--device", "cpu", "--db"]
    done = CliRunner().invoke(with_commands(), [*words, str(tmp_path / "r.sqlite")])
    assert isinstance(done.exception, OutOfMemory)
    assert "\n" not in str(done.exception)
    assert str(done.exception).endswith(": --pooled needs less")
    assert not (tmp_path / "r.sqlite").exists()
