"""What a process can tell of the cluster's job that it runs in."""

import os


def slurm_job() -> str | None:
    """The scheduler's number of the Slurm job that this process runs in, `12` or `12_3`; None outside of jobs."""
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '0')}"
    return os.environ.get("SLURM_JOB_ID")
