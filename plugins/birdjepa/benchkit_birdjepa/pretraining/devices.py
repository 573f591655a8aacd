"""One process with one or several devices, or several processes that each have some: batches are cut over all of them,
parameters are on each."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchkit import BenchkitError

PORT = 12_000
"""Of the first process, plus a number that the Slurm job's own gives; below what systems hand out by themselves."""


@dataclass(frozen=True)
class Coordinator:
    """Where the processes of one training meet. Given explicitly: what jax guesses under Slurm has ended jobs at their
    heartbeat's time limit."""

    address: str
    processes: int
    rank: int

    @staticmethod
    def found(env: Mapping[str, str]) -> "Coordinator | None":
        """What torchrun, submitit's TorchDistributedEnvironment or Slurm's srun say; None for a process alone, which
        must not wait for others. Raises BenchkitError where it is half said."""
        if int(env.get("WORLD_SIZE", "1")) > 1:
            missing = [n for n in ("MASTER_ADDR", "MASTER_PORT", "RANK") if n not in env]
            if missing:
                raise BenchkitError(f"WORLD_SIZE={env['WORLD_SIZE']}, and {', '.join(missing)} is not given")
            address = f"{env['MASTER_ADDR']}:{env['MASTER_PORT']}"
            return Coordinator(address, int(env["WORLD_SIZE"]), int(env["RANK"]))
        if "SLURM_STEP_ID" in env and int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", "1"))) > 1:
            nodes = env.get("SLURM_STEP_NODELIST") or env["SLURM_JOB_NODELIST"]
            port = PORT + int(env["SLURM_JOB_ID"]) % 4096
            number = int(env.get("SLURM_STEP_NUM_TASKS", env.get("SLURM_NTASKS", "1")))
            return Coordinator(f"{first_host(nodes)}:{port}", number, int(env["SLURM_PROCID"]))
        return None


def first_host(nodes: str) -> str:
    """Of Slurm's way to write several: `gpu[003-010,12],login` is gpu003."""
    name, bracket, rest = nodes.partition("[")
    if not bracket or "," in name:
        return nodes.partition(",")[0]
    first = rest.partition("]")[0].partition(",")[0].partition("-")[0]
    return f"{name}{first}"


def join_others() -> None:
    """Meets the other processes, where there are some. Before any array is made."""
    if (found := Coordinator.found(os.environ)) and not jax.distributed.is_initialized():
        jax.distributed.initialize(found.address, found.processes, found.rank)


class Devices:
    """A mesh of one axis over all devices of all processes."""

    def __init__(self, batch: int) -> None:
        """Raises BenchkitError where a batch of this size cannot be cut evenly."""
        self.all = jax.devices()
        if batch % len(self.all):
            raise BenchkitError(f"data.batch={batch} must be a multiple of the number of devices, {len(self.all)}")
        mesh = Mesh(np.array(self.all), ("data",))
        self.everywhere = NamedSharding(mesh, PartitionSpec())
        self.cut = NamedSharding(mesh, PartitionSpec("data"))
        self.first = jax.process_index() == 0
        """Whether this process writes checkpoints, logs and the registry."""
        own = batch // jax.process_count()
        self.share = (jax.process_index() * own, own)
        """First and number of the examples of a batch that this process makes."""

    def spread(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """This process's examples of a batch as arrays of the whole one."""
        if jax.process_count() == 1:
            return {k: jax.device_put(v, self.cut) for k, v in arrays.items()}
        return {k: jax.make_array_from_process_local_data(self.cut, v) for k, v in arrays.items()}

    def replicate(self, tree: Any) -> Any:
        """The same on every device. Values of arrays on the host are taken as they are: none is averaged or scaled."""
        if jax.process_count() == 1:
            return jax.device_put(tree, self.everywhere)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self.everywhere, np.asarray(x)), tree)

    def agreed(self, flag: bool) -> bool:
        """Whether any process says so; each learns the same, at the same step."""
        if jax.process_count() == 1:
            return flag
        from jax.experimental import multihost_utils

        return bool(np.asarray(multihost_utils.process_allgather(np.array([flag]))).any())

    def described(self) -> dict[str, Any]:
        """What bits depend on beside the program and its data."""
        from benchkit import available_cpus

        return {
            "platform": self.all[0].platform, "kind": self.all[0].device_kind, "devices": len(self.all),
            "processes": jax.process_count(), "cores": available_cpus(), "jax": jax.__version__,
            "numpy": np.__version__,
        }  # fmt: skip
