"""Where and how a report is made: the code's git commit, the versions of what is loaded, the machine, the cost."""

import os
import platform
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchkit.errors import BenchkitError

_LIBRARIES = {
    "numpy": "numpy", "scipy": "scipy", "torch": "torch", "jax": "jax", "flax": "flax", "sklearn": "scikit-learn",
    "soundfile": "soundfile", "soxr": "soxr", "PIL": "pillow", "transformers": "transformers", "pyarrow": "pyarrow",
    "onnxruntime": "onnxruntime", "safetensors": "safetensors", "datasets": "datasets",
}  # fmt: skip


@dataclass
class Meter:
    """Wall and processor time since it was last read. Children that have ended count as well."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=lambda: _cpu_seconds())

    def read(self) -> tuple[float, float]:
        """Seconds (wall, processor) since the last reading; the readings of a job add up to the whole job."""
        wall, cpu = time.perf_counter(), _cpu_seconds()
        passed = wall - self.wall, cpu - self.cpu
        self.wall, self.cpu = wall, cpu
        return passed


def loaded_versions() -> dict[str, str]:
    """Of Python and of the loaded libraries that have a say in a number, by the names of their distributions."""
    loaded = {dist: _version(dist) for module, dist in _LIBRARIES.items() if module in sys.modules}
    return {"python": platform.python_version()} | loaded


def host() -> str:
    return platform.node()


@cache
def git_state() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the repository of the working directory, else of benchkit's own checkout, else None."""
    for folder in (Path.cwd(), Path(__file__).parent):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            status = (*_without_programs(folder), "status", "--porcelain", "--ignore-submodules")
            return commit, bool(_git(folder, *status))
    return None, None


def check_device(wanted: str) -> None:
    """Raises BenchkitError for what is no device, without asking whether this machine has it: another may compute."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", wanted):
        raise BenchkitError(f"there is no device '{wanted}': give auto, cpu, cuda or cuda:N")


def resolve_device(wanted: str) -> str:
    """'auto' as 'cuda' where torch sees a GPU, else 'cpu'; anything else as it is.

    Raises BenchkitError where it is no device, or torch does not see that GPU.
    """
    check_device(wanted)
    if wanted.startswith("cuda"):
        _check_gpu(wanted)
    if wanted != "auto":
        return wanted
    if not Path("/proc/driver/nvidia").exists():  # spares the import of torch where there can be no GPU
        return "cpu"
    try:
        import torch
    except ModuleNotFoundError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_gpu(wanted: str) -> None:
    try:
        import torch
    except ModuleNotFoundError:
        return  # a backbone of another framework may know it
    n = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(wanted.partition(":")[2] or 0) >= n:
        sees = f"it sees {n}, from cuda:0 on" if n else f"it sees none (torch {torch.__version__}; --device cpu)"
        raise BenchkitError(f"torch does not see the GPU '{wanted}' here: {sees}")


def device_name(device: str) -> str:
    """'cpu: AMD EPYC', or 'cuda: NVIDIA H100'."""
    if device.startswith("cuda") and "torch" in sys.modules:
        return f"{device}: {sys.modules['torch'].cuda.get_device_name(device)}"
    return f"{device}: {_cpu_name()}"


@cache
def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _without_programs(folder: Path) -> list[str]:
    """A folder's own git configuration may name programs that `git status` would run (a monitor, filters): whoever made
    the folder did so, and not the user."""
    mine = _git(folder, "config", "--local", "--includes", "--name-only", "--get-regexp", r"^filter\.") or ""
    return [word for name in {"core.fsmonitor", *mine.splitlines()} for word in ("-c", f"{name}=")]


def _git(folder: Path, *args: str) -> str | None:
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=", *args],
            capture_output=True, text=True, errors="replace", timeout=10, check=False, env=os.environ | quiet,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(dist: str) -> str:
    try:
        return version(dist)
    except PackageNotFoundError:
        return "?"


def command() -> list[str]:
    """The command line; of the program its name alone, for a folder of one machine means nothing on another."""
    program = Path(sys.argv[0]).name
    return ["benchkit" if program == "__main__.py" else program, *sys.argv[1:]]


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def peak_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_device(device: str) -> int | None:
    if device.startswith("cuda") and "torch" in sys.modules:
        return int(sys.modules["torch"].cuda.max_memory_allocated(device))
    return None
