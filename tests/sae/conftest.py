"""Recordings to train on: real ones, and vectors with a known dictionary."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchkit.activations import record
from benchkit.activations.recorder import _conclude
from benchkit.activations.shards import Identity, ShardWriter


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """So small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recorded(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real activations of eight clips at one point."""
    to = tmp_path_factory.mktemp("recorded") / "r"
    task, model = f"esc50,root={shared / 'data' / 'esc10'}", f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"
    record(task, model, ["blocks.1.resid_post"], to, split="clips", limit=8, workers=0)
    return to


@pytest.fixture
def as_recording(tmp_path: Path) -> Callable[[np.ndarray], Path]:
    """Vectors [N, D], or [N, T, D] with T an example, as a recording with one point, 'tokens'."""

    def make(vectors: np.ndarray, name: str = "made", prefix: int = 0) -> Path:
        to = tmp_path / name
        to.mkdir()
        n = len(vectors)
        identity = Identity(1, "t", "m", "train", "r", n, "d", "w", "float32")
        identity.claim(to)
        with ShardWriter(to, "tokens", "float32", [str(i) for i in range(n)], prefix) as writer:
            writer.write(np.arange(n), vectors.reshape(n, -1, vectors.shape[-1]).astype(np.float32))
            writer.close()
            _conclude(to, "tokens", identity, writer.shards, {}, prefix)
        return to

    return make
