"""Reports to fill a store with, and disks that are soon full."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchkit.records.report import Artifact, Cell, Check, ClassMetric, Environment, Metric, Report


@pytest.fixture
def make_report() -> Callable[..., Report]:
    """A plausible report; any field can be given."""

    def make(**given: Any) -> Report:
        name = given.get("uuid") or uuid.uuid4().hex
        environment = Environment(
            benchkit_version="0.1.0", git_commit="c0ffee", git_dirty=False, argv=["benchkit", "run"],
            versions={"numpy": "2.4.6"}, host="node1", device="cpu: test", wall_s=1.5, cpu_s=2.5,
            peak_rss_bytes=10**8,
        )  # fmt: skip
        fields: dict[str, Any] = {
            "uuid": name,
            "cell": Cell("digits", "pixels", "linear", -1, 0),
            "params": {"task": {}, "model": {}, "classifier": {"lr": 0.001}},
            "providers": {"task": "benchkit-digits 0.1.0"},
            "primary": "top1",
            "metrics": [Metric("macro_f1", 0.8), Metric("top1", 0.9, 0.85, 0.95)],
            "chance": 0.1,
            "n_train_used": 1200,
            "n_test": 597,
            "n_skipped": 0,
            "n_classes": 10,
            "task_fingerprint": "d1",
            "model_fingerprint": "m1",
            "started_at": "2026-01-01T00:00:00.000000+00:00",
            "finished_at": "2026-01-01T00:00:02.000000+00:00",
            "environment": environment,
            "class_metrics": [ClassMetric("0", "recall", 0.9, 120, 60), ClassMetric("1", "recall", None, 120, 0)],
            "checks": [Check("chance", "ok", "0.9 against 0.1", {"chance": 0.1})],
            "artifacts": [Artifact("predictions", f"predictions/{name}.parquet", "00ff" * 16, 1234)],
            "record": {"epochs": 3},
        }
        return Report(**(fields | given))

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a disk of a size, as in "2m"; called again it changes the size. Where no disk can be mounted a
    developer's machine leaves the test out, and CI fails: it must not go unseen that nobody runs it."""
    place = tmp_path / "disk"
    place.mkdir()
    become = [] if os.getuid() == 0 else ["sudo", "-n"]
    mounted = False

    def mount(size: str) -> Path:
        nonlocal mounted
        options = f"remount,size={size}" if mounted else f"size={size}"
        if (why := _cannot([*become, "mount", "-t", "tmpfs", "-o", options, "none", str(place)])) is not None:
            message = f"a small disk cannot be mounted: {why}"
            (pytest.fail if os.environ.get("CI") and sys.platform == "linux" else pytest.skip)(message)
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run([*become, "umount", "-l", str(place)], check=True, timeout=30)


def _cannot(command: list[str]) -> str | None:
    """Why a command fails; None where it does not."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]} here"
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    return (done.stderr.strip() or f"code {done.returncode}") if done.returncode else None


@pytest.fixture(scope="session")
def uv() -> str:
    """The program `uv`."""
    return os.environ.get("UV") or shutil.which("uv") or pytest.fail("this test needs uv: pip install uv")


@pytest.fixture(scope="session")
def wheelhouse(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of each distribution of this checkout, as it is now."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    command = [
        uv,
        "build",
        "--all-packages",
        "--wheel",
        "--offline",
        "--no-build-isolation",
        "--python",
        sys.executable,
    ]
    done = subprocess.run(
        [*command, "--out-dir", folder], cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder
