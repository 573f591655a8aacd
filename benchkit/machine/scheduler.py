"""What has become of jobs: `squeue`, which knows a job while it lives and some minutes longer, then `sacct`, if the
cluster keeps accounts. What the two print is read by pure functions.

squeue comes first: of a job that was queued again, sacct shows how its last attempt ended.
"""

import getpass
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from benchkit.errors import BenchkitError

PATIENCE = 60.0
"""Seconds that one question to the scheduler may take."""

SQUEUE = "%F|%K|%A|%T|%r|%j"
"""Number of the array, index in it, number of the job, state, reason, name (last: it may hold anything)."""
SACCT = "JobID,State,ExitCode,JobName"

ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)  # fmt: skip
"""States that a job does not leave. (One that is queued again shows as PENDING or COMPLETING.)"""


class Unreachable(BenchkitError):
    """The scheduler does not answer: nothing is known of any job."""


@dataclass(frozen=True)
class Seen:
    """What the scheduler says of a job. detail: its reason, or `exit 1:0`, the exit code and the signal it died of."""

    state: str
    detail: str | None = None


@dataclass(frozen=True)
class Cluster:
    name: str
    max_array: int
    """How many jobs an array may have."""


def ask(jobs: Mapping[str, str], users: Iterable[str]) -> dict[str, Seen]:
    """What is known of each of `jobs`, the names of jobs by their numbers (`12`, or `12_3` for task 3 of array 12); one
    that is not among the answers is not known (any more). users: who they belong to. Raises Unreachable."""
    shown = _call(["squeue", "-h", "-r", "-t", "all", "-u", ",".join(sorted(set(users))), "-o", SQUEUE])
    found = _named(parse_squeue(shown), jobs)
    missing = {job: name for job, name in jobs.items() if job not in found}
    return _accounts(missing) | found if missing else found


def _accounts(jobs: Mapping[str, str]) -> dict[str, Seen]:
    numbers = ",".join(sorted({job.partition("_")[0] for job in jobs}, key=int))
    if shutil.which("sacct") is None:
        return {}
    try:
        return _named(parse_sacct(_call(["sacct", "-X", "-n", "-P", "-j", numbers, "-o", SACCT])), jobs)
    except Unreachable as e:
        if "accounting storage is disabled" in str(e):
            return {}
        raise


def _named(found: Mapping[str, tuple[str, Seen]], jobs: Mapping[str, str]) -> dict[str, Seen]:
    """Those of `jobs`: a job of another name has its number by chance, on another cluster or after a reset."""
    return {job: seen for job, (name, seen) in found.items() if jobs.get(job) == name}


def parse_squeue(text: str) -> dict[str, tuple[str, Seen]]:
    """Name and state by number, from lines in the format SQUEUE."""
    found = {}
    for line in text.splitlines():
        array, index, number, state, reason, name = line.strip().split("|", 5)
        job = number if index == "N/A" else f"{array}_{index}"
        found[job] = (name, Seen(state, None if reason in ("None", "") else reason))
    return found


def parse_sacct(text: str) -> dict[str, tuple[str, Seen]]:
    """Likewise from lines in the format SACCT (with -X -n -P). A line of its own counts before a range."""
    single: dict[str, tuple[str, Seen]] = {}
    ranges: dict[str, tuple[str, Seen]] = {}
    for line in text.splitlines():
        job, state, code, name = line.strip().split("|", 3)
        seen = Seen(state.split(" ")[0], state if " " in state else f"exit {code}" if code != "0:0" else None)
        if match := re.fullmatch(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]", job):
            for index in _indices(match[2]):
                ranges[f"{match[1]}_{index}"] = (name, seen)
        else:
            single[job] = (name, seen)
    return ranges | single


def _indices(text: str) -> list[int]:
    """`0-2,5,8-12:2` as numbers."""
    found: list[int] = []
    for part in text.split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def parse_config(text: str) -> Cluster:
    """What `scontrol show config` prints."""
    values = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))
    return Cluster(values.get("ClusterName", ""), int(values.get("MaxArraySize", 1001)))


@cache
def cluster() -> Cluster:
    """The cluster that this host belongs to. Raises Unreachable, also where there is no Slurm here."""
    return parse_config(_call(["scontrol", "show", "config"]))


def cancel(name: str) -> None:
    """Asks for the end of all jobs of this name; that there is none is no error. Raises Unreachable."""
    _call(["scancel", "--name", name])


def job_ended(number: str, host: str) -> bool:
    """Whether the scheduler knows the job `number` that ran on `host`, and knows that it has ended."""
    if shutil.which("squeue") is None:
        return False
    try:
        shown = _call(["squeue", "-h", "-t", "all", "-j", number, "-o", "%T|%B"])
    except Unreachable:
        return False
    lines = [line.strip().split("|") for line in shown.splitlines()]
    return any(state in ENDED and node.partition(".")[0] == host.partition(".")[0] for state, node in lines)


def user() -> str:
    """This user's name, or number, where it has none: the scheduler takes either."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _call(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except FileNotFoundError:
        raise Unreachable(f"there is no Slurm on this machine: '{command[0]}' is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"the scheduler does not answer: {command[0]} took more than {PATIENCE:.0f} s") from None
    said = " ".join(done.stderr.split())
    if done.returncode:
        raise Unreachable(f"the scheduler does not answer: {said or f'{command[0]} exited with {done.returncode}'}")
    return done.stdout
