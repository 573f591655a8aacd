"""A recording of real clips by the small Bird-MAE."""

from pathlib import Path

import pytest

from benchkit.activations import Recording, record

POINTS = ("blocks.1.norm2", "blocks.2.resid_post", "tokens")


@pytest.fixture(scope="session")
def task(shared: Path) -> str:
    return f"esc50,root={shared / 'data' / 'esc10'}"


@pytest.fixture(scope="session")
def model(shared: Path) -> str:
    return f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"


@pytest.fixture(scope="session")
def recording(task: str, model: str, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """12 clips, 5 a shard."""
    to = tmp_path_factory.mktemp("recording") / "here"
    return record(task, model, POINTS, to, split="clips", limit=12, workers=0, shard_bytes=5 * 257 * 64 * 4)
