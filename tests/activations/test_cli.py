"""benchkit activations, as a user types it."""

import subprocess
import sys
from pathlib import Path

import numpy as np


def benchkit(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "benchkit", *map(str, words)], capture_output=True, text=True)


def test_record_and_list(task: str, model: str, tmp_path: Path) -> None:
    to = tmp_path / "r"
    words = ("activations", "record", "--task", task, "--model", model, "--split", "clips", "--limit", 3, "--to", to,
             "--point", "blocks.0.norm2", "--point", "tokens", "--workers", 0)  # fmt: skip
    ran = benchkit(*words)
    assert ran.returncode == 0, ran.stderr
    listed = benchkit("activations", "ls", to, "--verify")
    assert (listed.returncode, "2 points, every file as it was written" in listed.stderr) == (0, True)
    row = next(line for line in listed.stdout.splitlines() if line.startswith("blocks.0.norm2")).split()
    x = np.load(to / "blocks.0.norm2" / "00000.npy")
    assert row[1:5] == ["3", "257", "64", "float32"]
    assert f"{x.min():.4g}" in row
    assert f"{x.max():.4g}" in row
    with open(to / "tokens" / "00000.npy", "r+b") as f:
        f.seek(1000)
        f.write(b"other")
    broken = benchkit("activations", "ls", to, "--verify")
    assert broken.returncode == 1
    assert "checksum does not match" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_what_is_no_recording_is_one_line(tmp_path: Path) -> None:
    ran = benchkit("activations", "ls", tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: ")
    assert "is no recording" in ran.stderr
