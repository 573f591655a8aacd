"""Fixtures that every distribution's tests share."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: tests send Ctrl-C to what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no falsified property: what hangs is ended by pytest-timeout.
hypothesis.settings.register_profile("benchkit", deadline=None)
hypothesis.settings.load_profile("benchkit")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository. Absent in a user's clone; CI must have it."""
    path = Path(__file__).parent.parent / "shared"
    if not path.is_dir():
        message = f"the reference data is not there: {path.name}/ beside the repository"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's cache."""
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
