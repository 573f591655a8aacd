"""The folder of one submission, beside the registry, which the launcher and the jobs on the nodes talk through:

    submission.json   which cluster it went to, who submitted it, under which name
    verdict           `go` or `void`, written once by whoever is first
    0/job.json        the first job, what it has done, its log; an array's task i runs i/job.json
    0/fate            how it ended, as far as it could still say so itself
    *.out, *.sh ...   logs and submitit's own files

A launcher may die while it submits: then jobs exist that the registry knows nothing of, and their cells are free for
others. Such a job must not run. So a job first waits for the verdict: the launcher says `go` once the registry knows
the jobs, a job that has waited in vain says `void`, and what is written first holds for all.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from benchkit.errors import StoreError
from benchkit.machine import files
from benchkit.records.gate import SMALL_BYTES, SUBMISSION_NAME, USER, strict_json

Verdict = Literal["go", "void"]

VERDICT_WAIT = 300.0
"""Seconds that a job waits for the verdict: a launcher needs about one."""


@dataclass(frozen=True)
class Submission:
    """cluster: its name. user: who the jobs belong to. name: what all of them are called in the queue."""

    cluster: str
    user: str
    name: str

    def write(self, folder: Path) -> None:
        files.write_atomic(folder / "submission.json", json.dumps(asdict(self)).encode(), _side(folder))

    @staticmethod
    def read(folder: Path) -> "Submission":
        """Raises StoreError where it is missing or damaged."""
        path = folder / "submission.json"
        try:
            made = Submission(**strict_json(files.read(path, SMALL_BYTES, _side(folder)).decode()))
            if not (USER(made.user) and SUBMISSION_NAME(made.name) and type(made.cluster) is str):
                raise ValueError("it is none that benchkit has written")
        except (OSError, ValueError, TypeError) as e:
            raise StoreError(f"'{path}' cannot be read: {e}") from e
        return made


def _side(folder: Path) -> Path:
    """The folder beside the registry, below which no link is followed."""
    return folder.parent.parent


def decide(folder: Path, verdict: Verdict) -> Verdict:
    """Says `verdict`, unless somebody has spoken before; what holds. On any file system: a link is made once."""
    mine = folder / f".verdict-{token_hex(16)}"
    files.write_atomic(mine, verdict.encode(), _side(folder))
    with suppress(FileExistsError):
        files.link(mine, folder / "verdict", _side(folder), _side(folder))
    files.remove(mine, _side(folder))
    held = verdict_of(folder)
    assert held is not None, f"{folder} has lost its verdict"
    return held


def verdict_of(folder: Path) -> Verdict | None:
    """What was said, if anything."""
    try:
        said = files.read(folder / "verdict", SMALL_BYTES, _side(folder))
    except FileNotFoundError:
        return None
    return "go" if said == b"go" else "void"


def await_verdict(folder: Path, wait_s: float = VERDICT_WAIT, sleep: Callable[[float], None] = time.sleep) -> Verdict:
    """For a job: what was said; `void` where nobody says anything in time."""
    deadline = time.monotonic() + wait_s
    while (said := verdict_of(folder)) is None:
        if time.monotonic() > deadline:
            return decide(folder, "void")
        sleep(0.5)
    return said


def job_file(folder: Path, index: int) -> Path:
    return folder / str(index) / "job.json"


def fate_file(folder: Path, index: int) -> Path:
    return folder / str(index) / "fate"


def write_fate(folder: Path, index: int, **fate: Any) -> None:
    files.write_atomic(fate_file(folder, index), json.dumps(fate).encode(), _side(folder))


def read_fate(folder: Path, index: int) -> dict[str, Any]:
    """What the job wrote as it ended: `exit`, its exit code, or `reason`; nothing where it could not write."""
    try:
        found = strict_json(files.read(fate_file(folder, index), SMALL_BYTES, _side(folder)).decode())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def log_name(job: str) -> str:
    """What submitit has the scheduler write the output of a job to."""
    return f"{job}_0_log.out"
