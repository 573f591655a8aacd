"""What runs on a node: `benchkit job FILE` in a process of its own, watched by one that survives its death.

submitit pickles a JobFile by the name of its class and calls it on the node. When the scheduler says that the time
limit is near, or that the node is wanted for others, submitit calls `checkpoint`, has the job queued again, and later
calls the same JobFile once more: the job skips the cells it has sealed and finds the features it has extracted in the
cache.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchkit.dispatch import LOG
from benchkit.dispatch.machine import node_environment
from benchkit.dispatch.slurm.folder import await_verdict, fate_file, job_file, log_name, write_fate
from benchkit.machine import files
from benchkit.machine.cluster import slurm_job
from benchkit.machine.interpreter import BENCHKIT

_running: "list[subprocess.Popen[bytes]]" = []
"""The job's process: here and not in the JobFile, which is pickled."""


class JobFile:
    def __init__(self, folder: str, index: int) -> None:
        self.folder, self.index = folder, index

    def __call__(self) -> None:
        from submitit.core.utils import UncompletedJobError

        try:
            code = self._run()
        except UncompletedJobError as e:  # out of submitit's signal handler: no more attempts are left
            write_fate(Path(self.folder), self.index, reason="time limit", error=str(e))
            raise
        finally:
            _stop()
        if code:
            sys.exit(128 - code if code < 0 else code)

    def _run(self) -> int:
        """The exit code of the job's process."""
        folder = Path(self.folder)
        files.remove(fate_file(folder, self.index), folder)  # an earlier attempt's
        if await_verdict(folder) == "void":
            return 0  # nobody waits for this job: its launcher ended before the registry knew of it
        file = job_file(folder, self.index)
        _link_log(file.with_name(LOG), folder)
        process = subprocess.Popen([*BENCHKIT, "job", str(file)], env=node_environment(), preexec_fn=_ignore_warning)
        _running.append(process)
        code = process.wait()
        write_fate(folder, self.index, exit=code)
        return code

    def checkpoint(self) -> Any:
        """Called by submitit's signal handler, while `__call__` waits: what to call when the job runs again."""
        from submitit.helpers import DelayedSubmission

        for process in _running:
            process.kill()  # waiting for its end would wait for a lock that `__call__` holds
        return DelayedSubmission(JobFile(self.folder, self.index))


def _link_log(link: Path, folder: Path) -> None:
    """A failure takes the end of the log from beside the job's file."""
    files.point(link, folder / log_name(slurm_job() or ""), folder)


def _stop() -> None:
    """A job may be killed at any instant: what it has sealed and cached is whole."""
    while _running:
        process = _running.pop()
        process.kill()
        process.wait()


def _ignore_warning() -> None:
    """In the job's process and all that it starts: the scheduler signals all processes, but this is for submitit."""
    name = "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2")
    signal.signal(getattr(signal, name, signal.SIGUSR2), signal.SIG_IGN)
