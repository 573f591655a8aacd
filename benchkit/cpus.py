"""How many processors this process may use."""

import os

VARIABLE = "BENCHKIT_CPUS"
"""Set for a worker process: its share of the machine."""


def available() -> int:
    """BENCHKIT_CPUS, else the processors that the system allows this process."""
    share = os.environ.get(VARIABLE, "")
    if share.isascii() and share.isdigit() and int(share):
        return int(share)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
