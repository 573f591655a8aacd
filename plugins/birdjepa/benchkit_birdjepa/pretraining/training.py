"""A training from its first step, or from where it was left, to its last."""

import dataclasses
import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchkit import (
    BenchkitError,
    DataError,
    Progress,
    did_you_mean,
    keep_training,
    make_folder,
    now,
    resolve,
    training_claimed,
)
from benchkit_birdjepa.config import WEIGHTS
from benchkit_birdjepa.objectives.context import Context
from benchkit_birdjepa.optimisers import make
from benchkit_birdjepa.parameters import digest
from benchkit_birdjepa.pretraining.cells import Cells
from benchkit_birdjepa.pretraining.checkpoint import Checkpoints, Saved, read_checkpoint
from benchkit_birdjepa.pretraining.culprit import first_wrong
from benchkit_birdjepa.pretraining.devices import Devices, join_others
from benchkit_birdjepa.pretraining.loader import Batch, Loader, Maker, Undecodable
from benchkit_birdjepa.pretraining.log import Log
from benchkit_birdjepa.pretraining.order import entropy, expected_entropy
from benchkit_birdjepa.pretraining.probe import Probe
from benchkit_birdjepa.pretraining.settings import Settings
from benchkit_birdjepa.pretraining.signals import listening
from benchkit_birdjepa.pretraining.sources import Joined, open_sources, testable
from benchkit_birdjepa.pretraining.step import State, Step, exported
from benchkit_birdjepa.pretraining.tree import copied, named, restored

ENTROPY_BATCHES = 20
"""Batches whose labels' entropy is averaged before a shuffle is called poor."""


class Training:
    """settings: of it. tell: shows a line to the user. db: the registry; None: the usual one."""

    def __init__(self, settings: Settings, db: Path | None = None, tell: Callable[[str], None] = print) -> None:
        join_others()
        self.settings, self.db, self.tell = settings, db, tell
        self.folder = Path(settings.to).expanduser()
        self.devices = Devices(settings.data.batch)
        if not self.devices.first:
            self.tell = lambda line: None
        self.source = open_sources(settings.data.train)
        if self.source.modality != settings.model.modality:
            raise BenchkitError(
                f"data.train is {self.source.modality}, and model.modality is {settings.model.modality}: set "
                f"model.modality = '{self.source.modality}'"
            )
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints", settings.checkpoint.keep, settings.checkpoint.keep_every
        )
        self.log = Log(self.folder / "metrics.jsonl")
        self.undecodable = Undecodable(settings.data.max_bad)
        self.uuid, self.started_at, self.wall_s = uuid.uuid4().hex, now(), 0.0

    # --------------------------------------------------------------------------------------------------------- building

    @property
    def labels_used(self) -> bool:
        return self.settings.data.labels and self.source.labels is not None

    @property
    def kind(self) -> str | None:
        if not self.labels_used:
            return None
        assert self.source.labels is not None
        return "single" if self.source.labels.ndim == 1 else "multi"

    @cached_property
    def objective(self) -> Any:
        made = resolve("objective", self.settings.objective_spec).build()
        if made.labels != "none" and not self.labels_used:
            why = "data.labels is false" if self.source.labels is not None else "the data has none"
            raise BenchkitError(f"objective '{self.settings.objective['name']}' reads labels, and {why}")
        if made.labels == "single" and self.kind == "multi":
            raise BenchkitError(
                f"objective '{self.settings.objective['name']}' reads one class an example, and "
                f"{', '.join(self.settings.data.train)} has several: give its labels = 'multi'"
            )
        return made

    @cached_property
    def step(self) -> Step:
        s = self.settings
        p = s.precision
        dtype = jax.numpy.bfloat16 if p.dtype == "bfloat16" else jax.numpy.float32
        n = len(self.source.classes) if self.labels_used else 0
        how, config = s.parameterisation, s.encoder
        context = Context(
            config, n, scan=p.scan, remat=p.remat, dtype=dtype, drop_path=s.drop_path, readout=how.readout(config),
            read_std=how.read_std(config),
        )  # fmt: skip
        probe = Probe(s.probe, s.model.embed_dim, n, self.kind) if s.probe.on and self.kind else None
        return Step(s, self.objective, context, make(s.optimiser, s.schedule, s.steps, config, how), probe, self.kind)

    def _maker(self, share: tuple[int, int] | None = None) -> Maker:
        s = self.settings
        return Maker(self.source, s.data, s.augment, s.model, self.objective.views, s.seed, share)

    def first_state(self) -> State:
        return self.step.first(first_weights(self.settings))

    # --------------------------------------------------------------------------------------------------------- running

    def run(self) -> State:
        """To the last step; returns its state. Raises KeyboardInterrupt where a signal asked it to leave: it has saved;
        BenchkitError where it cannot go on."""
        with ExitStack() as stack:
            if self.devices.first:
                make_folder(self.folder)
                stack.enter_context(training_claimed(self.db, self.settings.identity(), self.settings.seed))
            asked = stack.enter_context(listening())
            if self.settings.precision.matmul != "default":
                stack.enter_context(jax.default_matmul_precision(self.settings.precision.matmul))
            return self._run(asked)

    def _run(self, asked: Any) -> State:
        s = self.settings
        like = self.first_state()
        at, state = self._resumed(like)
        self.log.rewind(at) if self.devices.first else None
        if at >= s.steps:
            self.tell(f"done already: {s.steps:,} steps, {self.checkpoints.path(at)}")
        elif at:
            self.tell(f"goes on from step {at:,} of {s.steps:,}")
        self._shuffled = self._expected_entropy()
        compiled = jax.jit(self.step, donate_argnums=0)
        cells = self._cells()
        for step in self.checkpoints.steps():
            cells.queue(step, step == s.steps)
        began = time.perf_counter()
        entropies = self._entropies_before(at)
        waited = 0.0
        pending: tuple[int, Batch, dict[str, Any]] | None = None
        saved = at
        with Loader(self._maker(self.devices.share), at, s.steps, s.data.workers, s.data.ahead) as loader:
            batches = iter(loader)
            for step in range(at, s.steps):
                before = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - before
                for name in self.undecodable.add(batch, s.data.batch):
                    self.tell(f"warning: {name} does not decode and is left out: {self.undecodable.names[name]}")
                if batch.entropy is not None:
                    entropies.append(batch.entropy)
                state, figures = compiled(state, self.devices.spread(batch.arrays))
                if pending is not None:
                    self._judge(*pending)
                pending = (step, batch, figures)
                done = step + 1
                if done % s.log_every == 0 or done == s.steps:
                    seconds = time.perf_counter() - began
                    share = waited / max(1e-9, seconds)
                    self._note(done, figures, entropies, {"epoch": (done * s.data.batch) / len(self.source)}, share)
                if s.test_every and done % s.test_every == 0:
                    self._test(state, done)
                leaving = self.devices.agreed(bool(asked))
                if done % s.checkpoint.every == 0 or done == s.steps or leaving:
                    self._judge(*pending)
                    pending = None
                    if done == s.steps:
                        self._test(state, done)
                    self._save(done, state, began, cells, leaving)
                    saved = done
                if leaving:
                    self.checkpoints.wait()
                    self._report(saved, "stopped", began)
                    self.tell(f"{asked.name or 'a signal'} came: saved at step {done:,}; the same command goes on")
                    raise KeyboardInterrupt
        self.checkpoints.wait()
        cells.finish()
        self._report(s.steps, "finished", began)
        return state

    def _resumed(self, like: State) -> tuple[int, State]:
        """The step and the state to go on from: the last checkpoint's, another training's where `start` says so, or
        the first."""
        last, s = self.checkpoints.last(), self.settings
        if last is None and s.start is None:
            return 0, self.devices.replicate(like)
        if last is None:
            assert s.start is not None
            where, own = Path(s.start).expanduser(), False
            saved = read_checkpoint(where)
            step = int(saved.record["step"])
        else:
            (step, saved), own = last, True
            where = self.checkpoints.path(step)
            self._check_settings(saved, where)
        state = self.devices.replicate(restored(like, saved.arrays, f"'{where}'"))
        saved.check({n: np.asarray(x.addressable_data(0)) for n, x in named(state).items()}, where)
        if own:
            self._remember(saved)
        return step, state

    def _check_settings(self, saved: Saved, where: Path) -> None:
        theirs, ours = saved.record["settings"], self.settings
        if theirs.get("identity") != ours.identity():
            differing = [k for k, v in _flat(plain(ours)).items() if _flat(theirs["all"]).get(k, v) != v]
            what = f"{', '.join(sorted(differing)[:3])} differ" if differing else "another version made it"
            raise BenchkitError(
                f"'{where}' is of another training ({what}): give another folder (to=...), or what it was begun with"
            )
        if saved.record["data_fingerprint"] != self.source.fingerprint():
            raise BenchkitError(f"'{where}' is of other data: what {', '.join(ours.data.train)} holds has changed")
        here = self.devices.described()
        if changed := [k for k, v in here.items() if saved.record["devices"].get(k) != v]:
            said = ", ".join(f"{k} {saved.record['devices'].get(k)} -> {here[k]}" for k in changed)
            self.tell(f"warning: not the same machine as before ({said}): the numbers go on alike, not to the bit")

    def _remember(self, saved: Saved) -> None:
        record = saved.record
        self.uuid, self.started_at, self.wall_s = record["uuid"], record["started_at"], record["wall_s"]
        self.undecodable.names, self.undecodable.seen = dict(record["undecodable"]), int(record["seen"])

    # ----------------------------------------------------------------------------------------------------- on the way

    def _judge(self, step: int, batch: Batch, figures: dict[str, Any]) -> None:
        """Raises BenchkitError where a step went wrong and the training is to stop."""
        finite, spike, g = bool(figures["finite"]), bool(figures["spike"]), self.settings.guard
        self._skipped = 0 if finite and not spike else getattr(self, "_skipped", 0) + 1
        if finite and not spike:
            return
        what = "a loss or gradient that is not finite" if not finite else f"a spike of the loss ({figures['loss']:.4g})"
        stops = (g.nan if not finite else g.on_spike) == "stop"
        if not stops and self._skipped <= g.most_skipped:
            self.tell(f"warning: step {step + 1:,} had {what} and was skipped")
            return
        why = self._culprit(step, batch)
        last = self.checkpoints.steps()
        kept = (
            f"the last good checkpoint is {self.checkpoints.path(last[-1])}" if last else "there is no checkpoint yet"
        )
        again = f" ({self._skipped} steps in a row)" if self._skipped > 1 else ""
        raise BenchkitError(f"step {step + 1:,} had {what}{again}: {why}; {kept}")

    def _culprit(self, step: int, batch: Batch) -> str:
        """Makes the steps again from the last checkpoint, as they were, and looks into the one that went wrong."""
        self.checkpoints.wait()
        if jax.process_count() > 1:
            return "run it as one process to see where it began"
        at, state = self._resumed(self.first_state())
        plain_step, maker = jax.jit(self.step), self._maker()
        for i in range(at, step):
            state, _ = plain_step(state, self.devices.spread(maker.batch(i).arrays))
        return first_wrong(self.step, state, batch.arrays)

    def _note(
        self, done: int, figures: dict[str, Any], entropies: list[float], more: dict[str, float], waited: float
    ) -> None:
        values = {k: float(v) for k, v in figures.items() if k not in ("finite", "spike")} | more
        values["finite"], values["spike"] = float(figures["finite"]), float(figures["spike"])
        if entropies and self._shuffled:
            values["label_entropy"] = float(np.mean(entropies[-ENTROPY_BATCHES:]))
            values["label_entropy_share"] = values["label_entropy"] / self._shuffled
            if len(entropies) >= ENTROPY_BATCHES or done == self.settings.steps:
                self._warn_of_shuffle(values["label_entropy_share"])
            del entropies[:-ENTROPY_BATCHES]
        if self.devices.first:
            self.log.add(done, values)
        probe = f", probe {values['probe_accuracy']:.3f}" if "probe_accuracy" in values else ""
        accuracy = f", accuracy {values['accuracy']:.3f}" if "accuracy" in values else ""
        self.tell(
            f"step {done:,} of {self.settings.steps:,}: loss {values['loss']:.4f}{accuracy}{probe}"
            f" (waited for data {waited:.0%})"
        )

    _warned = False

    def _warn_of_shuffle(self, share: float) -> None:
        if share < self.settings.data.entropy_warning and not self._warned:
            self._warned = True
            self.tell(
                f"warning: the labels of a batch have {share:.0%} of the entropy of a full shuffle: set data.shuffle = "
                "'full', or a wider data.window or data.interleave"
            )

    def _entropies_before(self, at: int) -> list[float]:
        """Of the batches that a resumed run's averages look back on: a batch's labels follow from its step alone."""
        labels, maker = self.source.labels, self._maker()
        if labels is None:
            return []
        before = range(max(0, at - ENTROPY_BATCHES), at)
        return [entropy(labels[np.array([row for _, row in maker.places(step)])]) for step in before]

    def _expected_entropy(self) -> float:
        labels = self.source.labels
        return 0.0 if labels is None else expected_entropy(labels, self.settings.data.batch)

    def _test(self, state: State, done: int) -> dict[str, float]:
        """On the test rows of what has some: logged as `test_...`, the mean over examples."""
        names = testable(self.settings.data.train)
        if not names or not self.labels_used or jax.process_count() > 1:
            return {}
        source = self._test_source
        if source.classes != self.source.classes:
            return {}
        maker = dataclasses.replace(self._maker(), source=source)
        sums: dict[str, float] = {}
        n, size = 0, min(self.settings.data.batch, len(source))
        for batch in self._test_batches(maker, size):
            found = self._tested(state, batch)
            count = len(batch["rows"])
            n += count
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) * count
        found = {f"test_{name}": value / n for name, value in sums.items()}
        self.log.add(done, found)
        self.tell("; ".join(f"{name} {value:.4f}" for name, value in found.items()))
        return found

    def _test_batches(self, maker: Maker, size: int) -> Iterator[dict[str, Any]]:
        for start in range(0, len(maker.source), size):
            rows = range(start, min(start + size, len(maker.source)))
            arrays, _ = maker.plain(rows)
            for key in ("waves", "held", "pixels", "time", "freq"):
                if key in arrays:
                    arrays[key] = np.repeat(arrays[key], self.objective.views, axis=1)
            yield arrays

    @cached_property
    def _test_source(self) -> Joined:
        return open_sources(testable(self.settings.data.train), "test")

    @cached_property
    def _tested(self) -> Any:
        quiet = dataclasses.replace(self.settings.augment, mixup=0.0, time_masks=0, freq_masks=0)
        step = dataclasses.replace(self.step, settings=dataclasses.replace(self.settings, augment=quiet))
        return jax.jit(step.test)

    # ---------------------------------------------------------------------------------------------------------- saving

    def _save(self, done: int, state: State, began: float, cells: Cells, leaving: bool) -> None:
        if not self.devices.first:
            return
        arrays = copied(state)
        model = exported(state, self.settings)
        self._model_fingerprint = digest(self.settings.encoder, model)
        record = {
            "uuid": self.uuid, "started_at": self.started_at, "saved_at": now(),
            "wall_s": self.wall_s + time.perf_counter() - began,
            "settings": {"identity": self.settings.identity(), "all": plain(self.settings)},
            "data_fingerprint": self.source.fingerprint(), "devices": self.devices.described(),
            "undecodable": self.undecodable.names, "seen": self.undecodable.seen,
            "model_fingerprint": self._model_fingerprint,
        }  # fmt: skip
        self.checkpoints.held |= {done} if cells.due(done, done == self.settings.steps) else set()
        self.checkpoints.save(done, arrays, model, self.settings.encoder, record)
        if cells.due(done, done == self.settings.steps) and not leaving:
            self.checkpoints.wait()
            cells.queue(done, done == self.settings.steps)
        self._report(done, "running", began, wait=False)

    def _report(self, done: int, state: str, began: float, wait: bool = True) -> None:
        """To the registry."""
        if not self.devices.first or not self.checkpoints.steps():
            return
        s = self.settings
        at = self.checkpoints.steps()[-1]
        path = self.checkpoints.path(at) / WEIGHTS
        last = self.checkpoints.path(at)
        keep_training(
            self.db, uuid=self.uuid, task=",".join(s.data.train), model=f"birdjepa:{last.absolute()}",
            data_fingerprint=self.source.fingerprint(),
            model_fingerprint=read_checkpoint_record(last)["model_fingerprint"],
            params={"name": s.name, "step": at, "steps": s.steps, "state": state, "identity": s.identity(),
                    "undecodable": sorted(self.undecodable.names), **_flat(plain(s))},
            path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            device="cpu" if self.devices.all[0].platform == "cpu" else "cuda",
            wall_s=self.wall_s + time.perf_counter() - began, started_at=self.started_at, finished_at=now(),
            metrics=[row for row in self.log.rows() if row[0] <= max(at, done)],
        )  # fmt: skip

    def _cells(self) -> Cells:
        from benchkit import store_path

        cells = Cells(
            self.settings.evaluate if self.devices.first else (), self.checkpoints, store_path(self.db),
            self.folder / "evaluate.log", self.tell, lambda step, name, value: self.log.add(step, {name: value}),
        )  # fmt: skip
        cells.done = {(step, name) for step, name, _ in self.log.rows() if name.startswith("evaluate ")}
        return cells


def read_checkpoint_record(folder: Path) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return found


def first_weights(settings: Settings) -> dict[str, np.ndarray]:
    """As the backbone draws them for init=random and the same seed, where the parameterisation says no other."""
    return settings.parameterisation.draw(settings.encoder, settings.seed)


def plain(settings: Settings) -> dict[str, Any]:
    """As JSON holds it."""
    import json

    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
    return found


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


__all__ = ["DataError", "Progress", "Training", "did_you_mean"]
