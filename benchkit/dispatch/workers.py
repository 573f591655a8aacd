"""Worker processes on this machine: each runs one job file, and ends with it or with its launcher."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchkit.dispatch import LOG
from benchkit.dispatch.events import Relay
from benchkit.jobs.job import Job
from benchkit.machine import files
from benchkit.machine.interpreter import BENCHKIT
from benchkit.progress import Progress

JOB = "job.json"
GRACE = 10.0
"""Seconds that a worker has to clean up once it was told to end."""


@dataclass
class Worker:
    """A running job. Its launcher's end of `stdin` closes when the launcher dies, however it dies."""

    number: int
    job: Job
    folder: Path
    process: "subprocess.Popen[bytes]"
    relay: Relay
    attempt: int = 1

    @property
    def cells_left(self) -> list[Any]:
        """Those that it said nothing of."""
        said = {o.cell for o in self.relay.outcomes}
        return [c.cell for c in self.job.cells if c.cell not in said]


@dataclass
class Workers:
    """The processes, and one queue of all that they say: (worker, event), and (worker, None) when one has ended."""

    progress: Progress
    inherited: Sequence[int] = ()
    """File descriptors that stay open as long as a worker lives."""
    running: dict[int, Worker] = field(default_factory=dict)
    _heard: "queue.SimpleQueue[tuple[Worker, dict[str, Any] | None]]" = field(default_factory=queue.SimpleQueue)

    def start(self, number: int, job: Job, folder: Path, environment: Mapping[str, str], attempt: int = 1) -> Worker:
        """Starts a process on `job`, whose file, log and list of finished cells lie in `folder`."""
        files.write_atomic(folder / JOB, job.to_json().encode(), folder.parent)
        theirs, ours = None, None
        try:
            ours, theirs = os.pipe()
            with files.adding(folder / LOG, folder.parent) as log:
                process = subprocess.Popen(
                    [*BENCHKIT, "job", str(folder / JOB), "--events", str(theirs)],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, env=dict(environment),
                    pass_fds=(theirs, *self.inherited), start_new_session=True,
                )  # fmt: skip
        except BaseException:
            if ours is not None:
                os.close(ours)
            raise
        finally:
            if theirs is not None:
                os.close(theirs)
        worker = Worker(number, job, folder, process, Relay(f"[{number + 1}] {job.task} {job.model}:", self.progress))
        worker.attempt = attempt
        self.running[number] = worker
        threading.Thread(target=self._listen, args=(worker, ours), daemon=True).start()
        return worker

    def next_event(self, timeout: float) -> Worker | None:
        """Passes one event on to its worker's relay; returns the worker where it has ended."""
        try:
            worker, event = self._heard.get(timeout=timeout)
        except queue.Empty:
            return None
        if event is not None:
            worker.relay.hear(event)
            return None
        worker.relay.close()
        del self.running[worker.number]
        return worker

    def stop(self) -> None:
        """Ends all workers: asks first, then kills."""
        for worker in self.running.values():
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        for worker in self.running.values():
            try:
                worker.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
            worker.relay.close()
        self.running.clear()

    def _listen(self, worker: Worker, descriptor: int) -> None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.endswith("\n"):  # a killed worker's last line may be half a line
                    self._heard.put((worker, json.loads(line)))
        worker.process.wait()
        if worker.process.stdin:
            worker.process.stdin.close()
        self._heard.put((worker, None))


def end_with_launcher() -> None:
    """In a worker: once the launcher is gone, ends this process as Ctrl-C would, and at the latest after GRACE."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(GRACE)
        os._exit(130)

    threading.Thread(target=watch, daemon=True, name="benchkit-launcher-watch").start()
