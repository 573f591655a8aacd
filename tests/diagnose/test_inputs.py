"""What `benchkit diagnose` shows a backbone: files of any kind, those that do not decode, more than there are."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
