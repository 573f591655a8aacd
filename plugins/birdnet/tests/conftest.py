"""The tiny models of fixtures/make_tiny.py, and what they compute, in plain numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parent / "fixtures"

Reference = Callable[[np.ndarray, int, int], np.ndarray]


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The folder of the models."""
    return FIXTURES


@pytest.fixture(scope="session")
def reference() -> Reference:
    """The embeddings [N, dim] of windows [N, samples], by the same formula as the models."""

    def embeddings(windows: np.ndarray, bins: int, dim: int) -> np.ndarray:
        i = np.arange(dim)
        envelope = np.abs(windows).reshape(len(windows), bins, -1).mean(axis=2)
        return np.tanh(np.pad(envelope, [(0, 0), (0, dim - bins)]) * (1 + i % 7) + 0.1 * np.sin(i))

    return embeddings


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's models, proxies or offline mode."""
    from birdnet.utils import local_data

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(local_data, "APP_DIR", tmp_path / "birdnet")


@pytest.fixture(scope="session", autouse=True)
def _package_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`birdnet` makes its folder when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIRDNET_APP_DATA", str(tmp_path_factory.mktemp("birdnet")))
        import birdnet  # noqa: F401
