"""Recordings to extract features from, and ways to do it in other processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from feature_samples import Recordings

LIB = Path(__file__).parent / "lib"
sys.path.insert(0, str(LIB))


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 recordings of 0.4 to 1.2 s, wav and ogg, 8 and 11.025 kHz, mono and stereo."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for i in range(60):
        rate = (8000, 11025)[i % 2]
        wave = rng.uniform(-0.5, 0.5, (int(rate * rng.uniform(0.4, 1.2)), 1 + i % 3 // 2))
        soundfile.write(folder / f"{i:03d}.{('wav', 'ogg')[i % 4 // 3]}", wave, rate)
    return folder


@pytest.fixture
def task(recordings: Path) -> "Recordings":
    from feature_samples import FolderParams, Recordings

    return Recordings(FolderParams(str(recordings)))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts an extraction in a process of its own (see lib/extract_once.py)."""
    running: list[subprocess.Popen[str]] = []

    def start(**given: Any) -> "subprocess.Popen[str]":
        running.append(
            subprocess.Popen(
                [sys.executable, str(LIB / "extract_once.py"), json.dumps(given, default=str)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        )  # fmt: skip
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.communicate(timeout=60)
