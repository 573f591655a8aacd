"""Cells of benchkit on checkpoints while a training goes on: `benchkit run` in processes of their own, one after the
other, so that downstream scores stand in the registry beside the loss. A cell that is done is not done again, so that
after a kill whatever is missing is computed."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from benchkit import append_file
from benchkit_birdjepa.pretraining.checkpoint import Checkpoints
from benchkit_birdjepa.pretraining.settings import EvaluateConfig

LOG_TAIL = 300


def metric_name(e: EvaluateConfig) -> str:
    """As it stands in training_metrics: `digits knn`, with what differs from the usual behind."""
    more = "".join(f" {n}={v}" for n, v, usual in (("n_train", e.n_train, -1), ("seed", e.seed, 0)) if v != usual)
    return f"evaluate {e.task} {e.classifier}{' patches' if e.pool == 'patches' else ''}{more}"


@dataclass
class Cells:
    """told: a line for the user. found: takes (step, name of the metric, value); called in this object's thread."""

    wanted: tuple[EvaluateConfig, ...]
    checkpoints: Checkpoints
    db: Path
    log: Path
    told: Callable[[str], None]
    found: Callable[[int, str, float], None]
    done: set[tuple[int, str]] = field(default_factory=set)
    _queue: SimpleQueue[tuple[int, EvaluateConfig] | None] = field(default_factory=SimpleQueue)
    _thread: threading.Thread | None = None

    def due(self, step: int, last: bool) -> list[EvaluateConfig]:
        return [e for e in self.wanted if (last or step % e.every == 0) and (step, metric_name(e)) not in self.done]

    def queue(self, step: int, last: bool = False) -> None:
        """What is due at this checkpoint, which is kept until it is evaluated."""
        for e in self.due(step, last):
            self.done.add((step, metric_name(e)))
            self.checkpoints.held.add(step)
            self._queue.put((step, e))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="benchkit-cells", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Until all that was queued is computed."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            step, e = job
            self._compute(step, e)

    def _compute(self, step: int, e: EvaluateConfig) -> None:
        folder = self.checkpoints.path(step).absolute()
        model = f"birdjepa:{folder}" + (",pool=patches" if e.pool == "patches" else "")
        words = [
            sys.executable, "-m", "benchkit", "run", "--task", e.task, "--model", model, "--classifier", e.classifier,
            "--n-train", str(e.n_train), "--seed", str(e.seed), "--db", str(self.db.absolute()), "--device", "cpu",
            "--skip-bad", "100",
        ]  # fmt: skip
        env = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
        ran = subprocess.run(words, capture_output=True, text=True, env=env, check=False, start_new_session=True)
        with append_file(self.log) as f:
            f.write(f"step {step}: {' '.join(words[2:])}\n{ran.stdout}{ran.stderr}\n".encode())
        if ran.returncode:
            self.told(f"{metric_name(e)} at step {step} failed: {ran.stderr.strip()[-LOG_TAIL:]} (see {self.log})")
            return
        value = _value(words, env)
        if value is not None:
            self.told(f"{metric_name(e)} at step {step}: {value:.4f}")
            self.found(step, metric_name(e), value)


_ASK = """
import sys, benchkit
task, model, classifier, n, seed, db = sys.argv[1:]
found = benchkit.run(task=task, model=model, classifier=classifier, n_train=int(n), seed=int(seed), db=db)
report = found[0]
print(next(m.value for m in report.metrics if m.name == report.primary))
"""


def _value(words: list[str], env: dict[str, str]) -> float | None:
    """Of a cell that is done: read from its report."""
    given = dict(zip(words[4::2], words[5::2], strict=False))
    order = [given[f"--{k}"] for k in ("task", "model", "classifier", "n-train", "seed", "db")]
    ran = subprocess.run([sys.executable, "-c", _ASK, *order], capture_output=True, text=True, env=env, check=False)
    return float(ran.stdout.split()[-1]) if ran.returncode == 0 and ran.stdout.strip() else None
