"""The real recordings of birdset_mini, as a folder and on a hub of our own."""

import pytest

from benchkit.media import hub as remote
from benchkit.testing.hub import FakeHub
from benchkit_birdset import task as tasks


@pytest.fixture
def mini(shared):
    return shared / "data" / "birdset_mini"


@pytest.fixture
def hsn(mini):
    """Builds `hsn` on the local folder: hsn(clip="first")."""
    return lambda **params: tasks.HSN(tasks.HSN.Params(repo=str(mini), **params))


@pytest.fixture
def hub(mini, tmp_path, monkeypatch):
    """birdset_mini at the default name, on the loopback interface."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    remote.reach.cache_clear()
    with FakeHub(mini, tasks.REPO) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server
