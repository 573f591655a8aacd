"""Whose failure it is: the machine's is tried again and says what to raise, the data's and the code's are not."""

import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from benchkit.errors import OF_ITSELF, DataError, FitError, MissingDependency, StoreError
from benchkit.machine.interpreter import BENCHKIT
from benchkit.machine.trouble import MachineError, ended_by, explained, trouble_of


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "advice"),
    [
        (OSError(errno.EMFILE, "Too many open files", "a.wav"), "machine", "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "machine", "fs.file-max"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory", "ulimit -v"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "machine", "ulimit -u"),
        (PermissionError(errno.EACCES, "Permission denied", "/cache"), "machine", "let this user"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk", "make room"),
        (OSError(errno.EIO, "Input/output error"), "disk", "disk"),
        (RuntimeError("can't start new thread"), "machine", "ulimit -u"),
        (RuntimeError("could not create a primitive"), "out of memory", "ulimit -v"),
        (RuntimeError("CUDA error: no CUDA-capable device is detected"), "machine", "--device"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "out of memory", "ulimit -v"),
        (ImportError("libsndfile.so.1: cannot open shared object file"), "machine", "install"),
        (ModuleNotFoundError("No module named 'torchvision'", name="torchvision"), "machine", "pip install"),
        (MemoryError(), "out of memory", "memory"),
        (raised(ValueError("cannot read"), OSError(errno.EMFILE, "Too many open files")), "machine", "ulimit -n"),
    ],
)
def test_what_the_machine_caused_says_what_to_raise_or_mend(error: BaseException, reason: str, advice: str) -> None:
    found = trouble_of(error)
    assert found
    assert found.reason == reason
    assert found.reason not in OF_ITSELF
    assert advice in str(found)
    assert "the same command tries again" in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("array is too big"), ZeroDivisionError(), KeyError("x"), FileNotFoundError(errno.ENOENT, "no", "a"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"), DataError("no such class"), FitError("diverged"),
        ImportError("cannot import name 'foo' from 'bar'"), RecursionError(), IsADirectoryError(errno.EISDIR, "is"),
    ],
)  # fmt: skip
def test_what_the_data_or_the_code_caused_is_not_the_machines(error: BaseException) -> None:
    assert trouble_of(error) is None


def test_an_error_in_one_line_keeps_its_words_and_gets_what_to_mend() -> None:
    plain = explained(DataError("no such class"))
    assert plain == ("error", "no such class")
    error = raised(
        DataError("cannot read 'a.csv': Permission denied"), PermissionError(errno.EACCES, "Permission denied")
    )
    assert isinstance(error, DataError)
    reason, why = explained(error)
    assert reason == "machine"
    assert why.startswith("cannot read 'a.csv': Permission denied (let this user")
    assert explained(StoreError("full"))[0] == "disk"
    assert explained(MissingDependency("needs x"))[0] == "machine"
    again = pickle.loads(pickle.dumps(MachineError("killed", "killed")))
    assert (str(again), again.reason) == ("killed", "killed")


@pytest.mark.parametrize(
    ("code", "said", "reason", "how"),
    [
        (-9, "", "killed", "was ended by SIGKILL (out of memory, or somebody's kill)"),
        (-15, "", "killed", "was ended by SIGTERM"),
        (-11, "", "crash", "was ended by SIGSEGV"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'", "out of memory", "SIGABRT"),
        (1, "libgomp: Thread creation failed: Resource temporarily unavailable\n", "machine", "ulimit -u"),
        (1, "ImportError: x.so: failed to map segment from shared object\n", "out of memory", "ulimit -v"),
        (3, "", "crash", "ended with code 3"),
    ],
)
def test_how_a_process_ended_tells_whose_failure_it_is(code: int, said: str, reason: str, how: str) -> None:
    found = ended_by(code, said)
    assert found[0] == reason
    assert how in found[1]


def run(folder: Path, *words: str, **more: object) -> "subprocess.CompletedProcess[str]":
    command = [*BENCHKIT, "run", "--task", "digits", "--model", "pixels", "--classifier", "centroid", *words]
    env = os.environ | {"BENCHKIT_CACHE": str(folder / "cache")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300, env=env, **more
    )  # type: ignore[call-overload,no-any-return]


def test_a_job_with_too_few_open_files_is_tried_again_by_the_same_command(tmp_path: Path) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = run(tmp_path, "--workers", "8", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (26, most)))
    assert few.returncode == 1
    assert "Traceback" not in few.stderr
    assert "ulimit -n" in few.stderr
    again = run(tmp_path, "--workers", "2")
    assert again.returncode == 0, again.stderr
    assert "1 computed" in again.stderr


def test_files_beside_the_users_data_are_data(tmp_path: Path) -> None:
    for name in ("pyarrow", "numpy", "benchkit", "submitit", "soundfile", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong file was imported')")
    script = Path(sys.executable).with_name("benchkit")
    command = [str(script), "run", "--task", "digits", "--model", "pixels", "--model", "pixels,size=12"]
    done = subprocess.run(
        [*command, "--classifier", "centroid", "--workers", "1", "--jobs", "2"], cwd=tmp_path, capture_output=True,
        text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 computed" in done.stderr
    shown = subprocess.run(
        [str(script), "sql", "SELECT argv FROM environments"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert '"--jobs", "2"' in shown.stdout, "the user's command, not a worker's"
    assert '"job"' not in shown.stdout
