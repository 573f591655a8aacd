"""Slurm, through submitit: jobs are submitted as arrays, run `benchkit job` on a node, and are judged by what the
scheduler says of them and what they sealed.

settings.py: what to ask the scheduler for. submit.py: cells to jobs. task.py: what runs on the node. scheduler.py: what
has become of jobs. settle.py: what that means for their cells. wait.py: a launcher that stays.
"""

from benchkit.dispatch.slurm.settings import SlurmSettings, slurm_settings
from benchkit.dispatch.slurm.settle import settle

__all__ = ["SlurmSettings", "settle", "slurm_settings"]
