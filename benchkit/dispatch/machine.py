"""What of a machine each process gets: one GPU, where there are any, and a share of the processors."""

import os
from pathlib import Path

from benchkit.machine import cpus


def gpus(device: str) -> list[str]:
    """What CUDA_VISIBLE_DEVICES may hold for one worker each. device: as --device has it; one that is named is one."""
    if device not in ("auto", "cuda"):
        return []
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [v.strip() for v in visible.split(",") if v.strip() and v.strip() != "-1"]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(cards.iterdir())))] if cards.is_dir() else []


def default_jobs(device: str) -> int:
    """One worker for each GPU, and one where there is none."""
    return max(1, len(gpus(device)))


def environment(worker: int, workers: int, device: str) -> dict[str, str]:
    """The environment of worker number `worker` (from 0) of `workers`: set before any framework starts."""
    own = cpus.limited(max(1, cpus.available() // workers)) | {"PYTHONUNBUFFERED": "1"}
    if cards := gpus(device):
        own["CUDA_VISIBLE_DEVICES"] = cards[worker % len(cards)]
    return own


def node_environment() -> dict[str, str]:
    """The environment of a job that a scheduler has given a share of a node's processors."""
    share = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE")
    return cpus.limited(int(share)) if share else dict(os.environ)
