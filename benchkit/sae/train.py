"""Training autoencoders side by side, on one pass over recorded activations.

<to>/training.json          what is trained on what; and, at the end, that it is done
<to>/checkpoint.pt          everything needed to go on; written now and then and at Ctrl-C, removed at the end
<to>/<name>.safetensors     one a configuration, when all is done
"""

import json
import math
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchkit.activations.recording import RecordedPoint, Recording
from benchkit.activations.shards import sha256_of
from benchkit.errors import DataError, FitError, StoreError, require
from benchkit.features.batches import memory_suffices
from benchkit.features.lock import holder, try_lock
from benchkit.machine.files import write_atomic, writing
from benchkit.machine.float32 import fast_float32
from benchkit.machine.times import now
from benchkit.progress import Progress, Silent
from benchkit.sae.config import SAEConfig, TrainConfig
from benchkit.sae.held_out import Parts, divide, training_statistics
from benchkit.sae.normalise import covariance_about, fit_normalisation, normalised
from benchkit.sae.outcome import Outcome, Trained, again, claim, done_before, some_trained
from benchkit.sae.run import Run
from benchkit.scorers.saved import read_record, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 2
"""Of training.json and the checkpoint; and of what is trained: other losses are another number."""
LOGS = 50
"""Times that metrics are logged, where the user says nothing."""
CHECKPOINT_S = 300.0
EVALUATED = 1 << 16
"""Vectors that the result is measured on, at most..."""
HELD = 1 << 28
"""...and at most so many unit activations (but 4,096 vectors at least, where there are as many)."""
CALIBRATION = 64
"""Batches that the threshold of batchtopk is taken from, at most."""
COVARIANCE = 1 << 20
"""Vectors that whitening takes its covariance from, at most."""


def train(
    on: Path,
    to: Path,
    configs: Sequence[SAEConfig],
    shared: TrainConfig,
    *,
    point: str | None = None,
    device: str = "cpu",
    log_every: int | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    progress: Progress | None = None,
) -> Outcome:
    """Trains all of `configs` on the same batches, in the same order, and writes one file for each.

    point: of the recording; None is its only one. log_every: steps between two logs of the metrics. The same call goes
    on from the last checkpoint, and gives what it would have given without a stop. Raises StoreError where `to` is of
    another training, DataError for activations that are not finite, FitError where every one went wrong.
    """
    require("torch", "benchkit[probes]")
    require("safetensors", "benchkit[probes]")
    progress = progress or Silent()
    recording = Recording.open(on)
    data = recording[point] if point else recording.only
    statistics = data.patch_statistics if shared.patches else data.statistics
    statistics.require_finite(f"point '{data.point}' of '{on}'")
    parts = divide(data.n_examples, shared.held_out, shared.seed)
    each = data.vectors_of(patches=shared.patches) // data.n_examples
    total = len(parts.train) * each
    if not total:
        raise DataError(
            f"point '{data.point}' of '{on}' has no patches, only class tokens or registers: --all-tokens trains on "
            "them"
        )
    steps = shared.epochs * -(-total // shared.batch_size)
    steps = min(steps, shared.steps) if shared.steps else steps
    shared = replace(
        shared,
        held_out=parts.share,
        dead_after=shared.dead_after or max(1, min(10_000_000, steps * min(shared.batch_size, total) // 5)),
    )
    identity = {
        "format": FORMAT, "recording": data.fingerprint, "point": data.point, "shared": shared.to_record(),
        "autoencoders": [asdict(c) for c in configs],
    }  # fmt: skip
    if done := done_before(to, identity):
        return again(to, done)
    lock = try_lock(to)
    if lock is None:
        raise StoreError(f"'{to}' is being trained by {holder(to)}: wait for it, or choose another folder")
    with lock:
        if done := claim(to, identity):
            return again(to, done)
        with memory_suffices(device, "train fewer side by side, or with a smaller --width or --batch-size"):
            return _trained(
                data, parts, to, configs, shared, steps, device, identity, log_every, checkpoint_s, progress
            )


def _trained(
    data: RecordedPoint, parts: Parts, to: Path, configs: Sequence[SAEConfig], shared: TrainConfig, steps: int,
    device: str, identity: dict[str, Any], log_every: int | None, checkpoint_s: float, progress: Progress,
) -> Outcome:  # fmt: skip
    session = _Session(data, parts, to, shared, steps, device, identity, log_every or max(1, steps // LOGS))
    with progress.step("normalise", None, "vectors") as counted:
        session.normalise({c.normalise for c in configs}, counted)
    session.start(configs)
    with fast_float32(device):
        with progress.step(f"train {len(configs)} on {data.point}", steps, "steps") as shown, held_back() as asked:
            session.run(shown, checkpoint_s, asked)
        return session.finish()


class _Session:
    """The autoencoders under training, and where they are."""

    def __init__(
        self, data: RecordedPoint, parts: Parts, to: Path, shared: TrainConfig, steps: int, device: str,
        identity: dict[str, Any], log_every: int,
    ) -> None:  # fmt: skip
        self.data, self.parts, self.to, self.shared = data, parts, to, shared
        self.steps, self.device = steps, device
        self.identity, self.log_every = identity, log_every
        self.step, self.wall_s, self.began, self.started_at = 0, 0.0, time.perf_counter(), now()
        self.runs: list[Run] = []
        self.tensors: dict[str, dict[str, np.ndarray]] = {}
        self._on_device: dict[str, dict[str, Tensor]] = {}

    def normalise(self, wanted: set[Any], counted: Any) -> None:
        import torch

        mean, variance, covariance = np.zeros(self.data.dim), np.ones(self.data.dim), None
        if wanted & {"dimension", "whiten"}:
            mean, variance = training_statistics(
                self.data, self.parts, patches=self.shared.patches, progressed=counted.advance
            )
        if "whiten" in wanted:

            def some() -> Any:
                with closing(self._batches(0, epochs=1)) as batches:
                    for i, batch in enumerate(batches):
                        if i * self.shared.batch_size >= COVARIANCE:
                            return
                        yield batch
                        counted.advance(len(batch))

            covariance = covariance_about(some(), mean)
        for how in sorted(wanted):
            self.tensors[how] = fit_normalisation(how, mean, variance, covariance)
            self._on_device[how] = {k: torch.from_numpy(v).to(self.device) for k, v in self.tensors[how].items()}

    def start(self, configs: Sequence[SAEConfig]) -> None:
        """From the checkpoint, if there is one."""
        with closing(self._batches(0)) as batches:
            first = next(batches)
        self.runs = [Run.start(c, self._z(first, c), self.device, uuid.uuid4().hex) for c in configs]
        path = self.to / "checkpoint.pt"
        if not path.exists():
            return
        import torch

        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["identity"] != json.dumps(self.identity, sort_keys=True):
                raise StoreError(f"'{path}' is of another training: choose another folder, or remove this one")
            self.step, self.wall_s, self.started_at = state["step"], state["wall_s"], state["started_at"]
            for run, its in zip(self.runs, state["runs"], strict=True):
                run.restore(its)
        except StoreError:
            raise
        except Exception as e:  # what torch raises for a damaged file has no common class
            raise StoreError(f"'{path}' is damaged ({str(e).splitlines()[0]}): remove it to train anew") from e

    def run(self, shown: Any, checkpoint_s: float, asked: Callable[[], bool]) -> None:
        """asked: whether to stop; between two steps, where every autoencoder has seen the same."""
        shown.advance(self.step)
        saved = time.monotonic()
        with closing(self._batches(self.step)) as batches:
            while self.step < self.steps:
                x = next(batches)
                z: dict[str, Tensor] = {}
                log = (self.step + 1) % self.log_every == 0 or self.step + 1 == self.steps
                for run in self.runs:
                    if run.failed is None:
                        if run.config.normalise not in z:
                            z[run.config.normalise] = self._z(x, run.config)
                        run.step(z[run.config.normalise], self.step, self.steps, self.shared, log=log)
                self.step += 1
                shown.advance()
                if log:
                    more = f"; and {len(self.runs) - 3} more" if len(self.runs) > 3 else ""
                    shown.tell("; ".join(run.figures() for run in self.runs[:3]) + more)
                stop = asked()
                if stop or self.step == self.steps or time.monotonic() - saved > checkpoint_s:
                    self.checkpoint()
                    saved = time.monotonic()
                if stop:
                    raise KeyboardInterrupt

    def checkpoint(self) -> None:
        import torch

        wall = self.wall_s + time.perf_counter() - self.began
        state = {
            "identity": json.dumps(self.identity, sort_keys=True), "step": self.step, "wall_s": wall,
            "started_at": self.started_at, "runs": [run.state() for run in self.runs],
        }  # fmt: skip
        with writing(self.to / "checkpoint.pt") as file:
            try:
                torch.save(state, file)
            except RuntimeError as e:  # how torch ends where the disk is full
                if isinstance(e.__context__, OSError):
                    raise e.__context__ from None
                raise

    def finish(self) -> Outcome:
        """Measures and writes each result; then the checkpoint may go."""
        trained: list[Trained] = []
        failed: dict[str, str] = {}
        for run in self.runs:
            if run.failed is not None:
                failed[run.config.name] = run.failed
                continue
            try:
                trained.append(self._write(run))
            except FitError as e:
                failed[run.config.name] = str(e)
        wall = self.wall_s + time.perf_counter() - self.began
        done = {
            "autoencoders": [t.path.name for t in trained], "failed": failed, "wall_s": wall,
            "history": {t.path.name: t.history for t in trained},
        }  # fmt: skip
        write_atomic(self.to / "training.json", json.dumps({**self.identity, "done": done}).encode())
        (self.to / "checkpoint.pt").unlink(missing_ok=True)
        return some_trained(Outcome(trained, failed, wall, True))

    def _write(self, run: Run) -> Trained:
        """Raises FitError where its last step made it useless."""
        if run.config.activation == "batchtopk":
            with closing(self._batches(0, seed=self.shared.seed + 2)) as batches:
                some = (self._z(next(batches), run.config) for _ in range(min(CALIBRATION, self.steps)))
                run.model.calibrate(some)
        found, vectors = self._evaluate(run, self.parts.train, run.measure)
        if not math.isfinite(found["mse"]):
            raise FitError("its reconstructions are not numbers after the last step: try a lower --lr, or --clip 1")
        held_out = 0
        if len(self.parts.held_out):
            more, held_out = self._evaluate(run, self.parts.held_out, run.measure_held_out)
            found |= more
        run.history = [row for row in run.history if row[0] < self.steps]
        run.note(self.steps, found)
        metadata = self.data.metadata
        record = {
            "kind": "sae", "uuid": run.uuid, "task": self.data.task, "split": self.data.split,
            "model": self.data.model, "point": self.data.point, "data_fingerprint": metadata["data_fingerprint"],
            "model_fingerprint": metadata["model_fingerprint"], "recording": self.data.fingerprint,
            "autoencoder": asdict(run.config), "training": self.shared.to_record(), "dim": self.data.dim,
            "steps": self.steps, "metrics": {k: v for k, v in found.items() if math.isfinite(v)},
            "measured_on": vectors, "held_out_examples": len(self.parts.held_out), "held_out_measured_on": held_out,
            "started_at": self.started_at, "finished_at": now(),
        }  # fmt: skip
        tensors = {name: tensor.cpu().numpy() for name, tensor in run.model.tensors.items()}
        tensors |= {f"normalise.{k}": v for k, v in self.tensors[run.config.normalise].items()}
        path = self.to / f"{run.config.name}.safetensors"
        write_tensors(path, tensors, record)
        return Trained(path, sha256_of(path), read_record(path, "sae"), run.history)

    def _evaluate(
        self, run: Run, examples: np.ndarray, measure: Callable[..., dict[str, float]]
    ) -> tuple[dict[str, float], int]:
        """Metrics of the result as a scorer uses it, on vectors of these examples in an order of their own; and on how
        many vectors."""
        import torch

        each = self.data.vectors_of(patches=self.shared.patches) // self.data.n_examples
        n = min(max(4096, min(EVALUATED, HELD // run.config.width)), len(examples) * each)
        z = torch.empty(n, self.data.dim, device=self.device)
        f = torch.empty(n, run.config.width, device=self.device)
        at = 0
        with (
            torch.no_grad(),
            closing(self._batches(0, seed=self.shared.seed + 1, epochs=1, examples=examples)) as batches,
        ):
            while at < n:
                part = self._z(next(batches), run.config)[: n - at]
                z[at : at + len(part)] = part
                f[at : at + len(part)] = run.model.active(run.model.pre_activations(part), training=False)
                at += len(part)
            return measure(z, f, run.model.decode(f)), n

    def _batches(
        self, skip: int, *, seed: int | None = None, epochs: int | None = None, examples: np.ndarray | None = None
    ) -> Any:
        """Of the examples to train on, where no others are given."""
        return self.data.batches(
            self.shared.batch_size, seed=self.shared.seed if seed is None else seed, epochs=epochs,
            patches=self.shared.patches, skip=skip, examples=self.parts.train if examples is None else examples,
        )  # fmt: skip

    def _z(self, x: np.ndarray, config: SAEConfig) -> "Tensor":
        import torch

        return normalised(torch.from_numpy(x).to(self.device), config.normalise, self._on_device[config.normalise])


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM only make what it gives say True, so that a step is never left in the middle; a second one
    ends at once, and the checkpoint before counts. In a thread other than the main one, where there are no signals, it
    does nothing."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
