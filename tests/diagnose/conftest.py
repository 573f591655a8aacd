"""Bird-MAE fixtures with something planted in their weights, and a diagnosis of them on real recordings."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from benchkit.catalog.resolve import resolve
from benchkit.diagnose.run import Looked, diagnose
from benchkit.progress import Silent

Weights = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hsn(shared: Path) -> str:
    """A spec: real recordings."""
    return f"hsn,repo={shared / 'data' / 'birdset_mini'}"


@pytest.fixture
def planted(shared: Path, tmp_path: Path) -> Callable[..., str]:
    """The spec of the tiny fixture (or the other one) with changed weights."""
    made = 0

    def plant(change: Callable[[Weights], None], of: str = "bird_mae_tiny") -> str:
        nonlocal made
        made += 1
        folder = tmp_path / f"planted{made}"
        folder.mkdir()
        source = shared / "fixtures" / of
        (folder / "config.json").write_bytes((source / "config.json").read_bytes())
        weights = {k: v.copy() for k, v in load_file(source / "model.safetensors").items()}
        change(weights)
        save_file(weights, folder / "model.safetensors")
        return f"bird-mae,path={folder}"

    return plant


@pytest.fixture
def look(hsn: str) -> Callable[..., Looked]:
    """A diagnosis of a model spec."""

    def make(model: str, task: str | None = None, **given: Any) -> Looked:
        given = {"examples": 2, "progress": Silent()} | given
        return diagnose(resolve("model", model), resolve("task", task or hsn), **given)

    return make
