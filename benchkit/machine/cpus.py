"""How many processors this process may use."""

import os

VARIABLE = "BENCHKIT_CPUS"
"""Set for a worker process: its share of the machine."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limited(share: int) -> dict[str, str]:
    """The environment of a process that may use so many processors: libraries that would start a thread for each of the
    machine's start no more than that, or fewer where the user has said so.
    """
    wanted = {name: os.environ.get(name, "") for name in _THREADS}
    threads = {name: min(share, int(n)) if n.isdecimal() and int(n) else share for name, n in wanted.items()}
    return os.environ | {name: str(n) for name, n in threads.items()} | {VARIABLE: str(share)}


def available() -> int:
    """BENCHKIT_CPUS, else the processors that the system allows this process."""
    share = os.environ.get(VARIABLE, "")
    if share.isascii() and share.isdigit() and int(share):
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
