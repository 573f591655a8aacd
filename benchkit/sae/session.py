"""Autoencoders side by side on one stream of vectors: their steps, checkpoints and results."""

import json
import math
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchkit.errors import BenchkitError, FitError, StoreError
from benchkit.machine import files
from benchkit.machine.files import writing
from benchkit.machine.times import now
from benchkit.sae.config import SAEConfig, TrainConfig
from benchkit.sae.held_out import Parts, training_statistics
from benchkit.sae.measure import Measured
from benchkit.sae.normalise import covariance_about, error_of_x, fit_normalisation, normalised
from benchkit.sae.outcome import Folder, group_of
from benchkit.sae.run import Run
from benchkit.sae.source import Source
from benchkit.scorers.saved import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

EVALUATED = 1 << 16
"""Vectors that a result is measured on, and that the threshold of batchtopk is taken from, at most: the same for every
autoencoder of a training."""
EVALUATING, CALIBRATING = 1, 2
"""Orders of the vectors beside that of training."""
COVARIANCE = 1 << 20
"""Vectors that whitening takes its covariance from, at most."""


class Session:
    """The autoencoders under training, which all began at one step, and where they are."""

    def __init__(
        self, source: Source, parts: Parts, folder: Folder, shared: TrainConfig, start: int, steps: int, device: str,
        log_every: int,
    ) -> None:  # fmt: skip
        self.source, self.parts, self.folder, self.shared = source, parts, folder, shared
        self.start_step, self.steps, self.device, self.log_every = start, steps, device, log_every
        self.step, self.wall_s, self.began, self.started_at = start, 0.0, time.perf_counter(), now()
        self.runs: list[Run] = []
        self.tensors: dict[tuple[str, int], dict[str, np.ndarray]] = {}
        self._on_device: dict[tuple[str, int], dict[str, Tensor]] = {}
        self._group: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------------------ beginning

    def normalise(self, wanted: set[Any], counted: Any) -> None:
        """Makes what each normalisation needs, of the input and, of a transcoder, of its target."""
        import torch

        for side, data in enumerate(self.source.sides):
            mean, variance, covariance = np.zeros(data.dim), np.ones(data.dim), None
            if wanted & {"dimension", "whiten"}:
                mean, variance = training_statistics(
                    data, self.parts, patches=self.shared.patches, progressed=counted.advance
                )
            if "whiten" in wanted:
                covariance = covariance_about(self._some(side, counted), mean)
            for how in sorted(wanted):
                made = fit_normalisation(how, mean, variance, covariance)
                self.tensors[how, side] = made
                self._on_device[how, side] = {k: torch.from_numpy(v).to(self.device) for k, v in made.items()}

    def _some(self, side: int, counted: Any) -> Iterator[np.ndarray]:
        with closing(self._batches(0, epochs=1)) as batches:
            for i, batch in enumerate(batches):
                if i * self.shared.batch_size >= COVARIANCE:
                    return
                yield self.source.split(batch)[side]
                counted.advance(len(batch))

    def begin(self, configs: Sequence[SAEConfig]) -> None:
        """From the checkpoint, if there is one; else, where they were trained for a while, from where that ended."""
        self._group = group_of(configs, self.start_step, self.steps)
        with closing(self._batches(0)) as batches:
            first = next(batches)
        self.runs = []
        for c in configs:
            z, target = self._z(first, c)
            self.runs.append(Run.start(c, z, self.device, uuid.uuid4().hex, target if self.source.paired else None))
        path = self.folder.to / "checkpoint.pt"
        if path.exists():
            with _readable(path, "remove it to train anew") as state:
                self.step, self.wall_s, self.started_at = state["step"], state["wall_s"], state["started_at"]
                for run, its in zip(self.runs, state["runs"], strict=True):
                    run.restore(its)
        elif self.start_step:
            for run in self.runs:
                path = self.folder.state(run.config.name)
                with _readable(path, "choose another folder") as state:
                    new = run.uuid
                    run.restore(state)
                    run.uuid = new  # what it becomes is another autoencoder than what it was

    # ------------------------------------------------------------------------------------------------------- training

    def run(self, shown: Any, checkpoint_s: float, asked: Callable[[], bool]) -> None:
        """asked: whether to stop; between two steps, where every autoencoder has seen the same."""
        shown.advance(self.step - self.start_step)
        saved = time.monotonic()
        with closing(self._batches(self.step)) as batches:
            while self.step < self.steps:
                x = next(batches)
                z: dict[str, tuple[Tensor, Tensor]] = {}
                log = (self.step + 1) % self.log_every == 0 or self.step + 1 == self.steps
                for run in self.runs:
                    if run.failed is None:
                        how = run.config.normalise
                        if how not in z:
                            z[how] = self._z(x, run.config)
                        target = z[how][1] if self.source.paired else None
                        run.step(z[how][0], self.step, self.steps, self.shared, log=log, target=target)
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
        wall = self.wall_s + time.perf_counter() - self.began
        state = {
            "group": json.dumps(self._group, sort_keys=True), "step": self.step, "wall_s": wall,
            "started_at": self.started_at, "runs": [run.state() for run in self.runs],
        }  # fmt: skip
        _save(self.folder.to / "checkpoint.pt", state)

    # --------------------------------------------------------------------------------------------------------- results

    def finish(self, shown: Any) -> None:
        """Measures and writes each result; then the checkpoint may go. shown: counts vectors."""
        done: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            name = run.config.name
            try:
                if run.failed is not None:
                    raise FitError(run.failed)
                self._write(run, shown)
                done[name] = {"steps": self.steps, "history": run.history}
            except FitError as e:
                done[name] = {"steps": self.steps, "failed": str(e)}
        wall = self.wall_s + time.perf_counter() - self.began
        self.folder.done |= {name: {**its, "wall_s": wall} for name, its in done.items()}
        self.folder.write()
        files.remove(self.folder.to / "checkpoint.pt")

    def _write(self, run: Run, shown: Any) -> None:
        """Raises FitError where its last step made it useless."""
        if run.config.activation in ("batchtopk", "matryoshka"):
            vectors = self.source.vectors_of(self.parts.train, patches=self.shared.patches)
            with closing(self._batches(0, epochs=1, use=CALIBRATING)) as batches:
                some = (self._z(batch, run.config)[0] for batch in batches)
                run.model.calibrate(some, min(EVALUATED, vectors))
        measured = self._evaluate(run, self.parts.train, shown, pairs=True)
        found = measured.found()
        if not math.isfinite(found["mse"]):
            raise FitError("its reconstructions are not numbers after the last step: try a lower --lr, or --clip 1")
        found |= measured.pairs(run.model.w_dec.detach())
        found |= run.of_itself(self.shared)
        held_out = 0
        if len(self.parts.held_out):
            other = self._evaluate(run, self.parts.held_out, shown, pairs=False)
            found |= {f"held_out_{name}": value for name, value in other.found().items()}
            held_out = other.n
        run.history = [row for row in run.history if row[0] < self.steps]
        run.note(self.steps, found)
        record = {
            "kind": "sae", "uuid": run.uuid, **self.source.record(), "autoencoder": asdict(run.config),
            "training": self.shared.to_record(), "dim": self.source.sides[0].dim, "steps": self.steps,
            "metrics": {k: v for k, v in found.items() if math.isfinite(v)}, "measured_on": measured.n,
            "held_out_examples": len(self.parts.held_out), "held_out_measured_on": held_out,
            "started_at": self.started_at, "finished_at": now(),
        }  # fmt: skip
        tensors = {name: tensor.cpu().numpy() for name, tensor in run.model.tensors.items()}
        tensors["frequency"] = measured.frequency.cpu().numpy()
        for side, prefix in zip(range(len(self.source.sides)), ("normalise.", "target."), strict=False):
            tensors |= {f"{prefix}{k}": v for k, v in self.tensors[run.config.normalise, side].items()}
        state = self.folder.state(run.config.name)
        files.make_folder(state.parent, state.parent.parent)
        _save(state, run.state())
        write_tensors(self.folder.to / f"{run.config.name}.safetensors", tensors, record)

    def _evaluate(self, run: Run, examples: np.ndarray, shown: Any, *, pairs: bool) -> Measured:
        """The result as a scorer uses it, on vectors of these examples in an order of their own."""
        import torch

        how, side = run.config.normalise, len(self.source.sides) - 1
        n = min(EVALUATED, self.source.vectors_of(examples, patches=self.shared.patches))
        measured = Measured(run.config.width, self.device, pairs=pairs)
        with torch.no_grad(), closing(self._batches(0, epochs=1, examples=examples, use=EVALUATING)) as batches:
            while measured.n < n:
                batch = next(batches)[: n - measured.n]
                z, target = self._z(batch, run.config)
                f = run.model.active(run.model.pre_activations(z), training=False)
                z_hat = run.model.decode(f)
                x = torch.from_numpy(self.source.split(batch)[-1]).to(self.device)
                error = error_of_x(target - z_hat, x, how, self._on_device[how, side])
                measured.add(target, z_hat, f, x, error)
                shown.advance(len(batch))
        return measured

    def _batches(
        self, skip: int, *, epochs: int | None = None, examples: np.ndarray | None = None, use: int = 0
    ) -> Any:
        """Of the examples to train on, where no others are given."""
        return self.source.batches(
            self.shared.batch_size, seed=self.shared.seed, epochs=epochs, patches=self.shared.patches, skip=skip,
            examples=self.parts.train if examples is None else examples, use=use,
        )  # fmt: skip

    def _z(self, batch: np.ndarray, config: SAEConfig) -> "tuple[Tensor, Tensor]":
        """What goes in, and what is to be reconstructed: the same, but for a transcoder."""
        import torch

        how = config.normalise
        made = tuple(
            normalised(torch.from_numpy(x).to(self.device), how, self._on_device[how, side])
            for side, x in enumerate(self.source.split(batch))
        )
        return made[0], made[-1]


def group_in(path: Path) -> dict[str, Any] | None:
    """What a checkpoint is of; None where there is none. Raises StoreError for a damaged one."""
    if not path.exists():
        return None
    with _readable(path, "remove it to train anew") as state:
        group: dict[str, Any] = json.loads(state["group"])
        return group


def _save(path: Path, state: dict[str, Any]) -> None:
    import torch

    with writing(path) as file:
        try:
            torch.save(state, file)
        except RuntimeError as e:  # how torch ends where the disk is full
            if isinstance(e.__context__, OSError):
                raise e.__context__ from None
            raise


@contextmanager
def _readable(path: Path, otherwise: str) -> Iterator[dict[str, Any]]:
    """What is in a file of torch's. Raises StoreError for what cannot be read or used. otherwise: the way out."""
    import torch

    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except BenchkitError:
        raise
    except Exception as e:  # what torch raises for a damaged file has no common class
        raise StoreError(f"'{path}' is damaged ({str(e).splitlines()[0]}): {otherwise}") from e


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
