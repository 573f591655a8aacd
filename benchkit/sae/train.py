"""Training autoencoders side by side, on one pass over recorded activations (the folder: see outcome.py)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from benchkit.activations.recording import Recording
from benchkit.errors import BenchkitError, DataError, StoreError, require
from benchkit.features.batches import memory_suffices
from benchkit.features.lock import holder, try_lock
from benchkit.machine import files
from benchkit.machine.float32 import fast_float32
from benchkit.progress import Progress, Silent
from benchkit.sae.config import Precision, SAEConfig, TrainConfig
from benchkit.sae.held_out import Parts, divide
from benchkit.sae.outcome import Folder, Outcome
from benchkit.sae.session import EVALUATED, Session, group_in, held_back
from benchkit.sae.source import Source

FORMAT = 3
"""Of training.json and the checkpoint; and of what is trained: other losses are another number."""
LOGS = 50
"""Times that metrics are logged, where the user says nothing."""
CHECKPOINT_S = 300.0
GROWS = ("epochs", "steps")
"""What may be more the next time: what is done goes on from where it ended."""


def train(
    on: Path,
    to: Path,
    configs: Sequence[SAEConfig],
    shared: TrainConfig,
    *,
    point: str | None = None,
    target: str | None = None,
    device: str = "cpu",
    log_every: int | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    progress: Progress | None = None,
) -> Outcome:
    """Trains all of `configs` on the same batches, in the same order, and writes one file for each.

    point: of the recording; None is its only one. target: another one, which transcoders make of the first. log_every:
    steps between two logs of the metrics. The same call goes on from the last checkpoint, and gives what it would have
    given without a stop. What is done is not done again: with other configs, only the new ones are trained; with more
    epochs or steps, all go on from where they ended, at the learning rate that the longer schedule has there. Raises
    StoreError where `to` is of another training, DataError for activations that are not finite, FitError where every
    one went wrong.
    """
    require("torch", "benchkit-core[probes]")
    require("safetensors", "benchkit-core[probes]")
    progress = progress or Silent()
    recording = Recording.open(on)
    data = recording[point] if point else recording.only
    source = Source.of(data, recording[target] if target else None)
    for side in source.sides:
        statistics = side.patch_statistics if shared.patches else side.statistics
        statistics.require_finite(f"point '{side.point}' of '{on}'")
    _check_precision(shared.precision, device)
    parts = divide(source.n_examples, shared.held_out, shared.seed)
    total = source.vectors_of(parts.train, patches=shared.patches)
    if not total:
        raise DataError(
            f"point '{data.point}' of '{on}' has no patches, only class tokens or registers: --all-tokens trains on "
            "them"
        )
    steps = shared.epochs * -(-total // shared.batch_size)
    steps = min(steps, shared.steps) if shared.steps else steps
    asked = {k: v for k, v in shared.to_record().items() if k not in GROWS}
    identity = {"format": FORMAT, **source.identity(), "shared": asked}
    shared = replace(
        shared,
        held_out=parts.share,
        dead_after=shared.dead_after or max(1, min(10_000_000, steps * min(shared.batch_size, total) // 5)),
    )
    folder = Folder.open(to, identity)
    if not folder.left(configs, steps):
        files.remove(to / "checkpoint.pt")  # where a kill came between the end and that
        return folder.outcome(configs, fresh=False)
    lock = try_lock(to)
    if lock is None:
        raise StoreError(f"'{to}' is being trained by {holder(to)}: wait for it, or choose another folder")
    with lock:
        folder = Folder.open(to, identity)
        folder.claim()
        every = log_every or max(1, steps // LOGS)
        for start, group in _groups(folder, configs, steps):
            with memory_suffices(device, "train fewer side by side, or with a smaller --width or --batch-size"):
                session = Session(source, parts, folder, shared, start, steps, device, every)
                _train(session, group, checkpoint_s, progress)
    return folder.outcome(configs, fresh=True)


def _groups(folder: Folder, configs: Sequence[SAEConfig], steps: int) -> Iterator[tuple[int, list[SAEConfig]]]:
    """What is trained side by side, one group after the other: first what a checkpoint is of. Raises BenchkitError for
    a checkpoint of what is not asked for."""
    path = folder.to / "checkpoint.pt"
    if (under_way := group_in(path)) is not None:
        left = folder.left(configs, steps).get(under_way["start"], [])
        group = [c for c in left if asdict(c) in under_way["autoencoders"]]
        if not left and under_way["steps"] == steps:
            files.remove(path)  # a kill came between the end and that
        elif len(group) < len(under_way["autoencoders"]) or under_way["steps"] != steps:
            raise BenchkitError(
                f"'{folder.to}' holds another training that is not done (of {len(under_way['autoencoders'])} "
                f"autoencoders for {under_way['steps']:,} steps): finish it with the command that began it, or remove "
                f"'{path}' to give it up"
            )
        else:
            yield under_way["start"], group
    while rest := folder.left(configs, steps):
        yield next(iter(rest.items()))


def _train(session: Session, group: Sequence[SAEConfig], checkpoint_s: float, progress: Progress) -> None:
    shared, device = session.shared, session.device
    with progress.step("normalise", None, "vectors") as counted:
        session.normalise({c.normalise for c in group}, counted)
    session.begin(group)
    with fast_float32(device), precise(shared.precision, device):
        more = session.steps - session.start_step
        name = f"train {len(group)} on {session.source.name}"
        with progress.step(name, more, "steps") as shown, held_back() as asked:
            session.run(shown, checkpoint_s, asked)
    with fast_float32(device), progress.step(f"measure {len(group)}", _measured(session, len(group)), "vectors") as at:
        session.finish(at)


def _measured(session: Session, n: int) -> int:
    parts: Parts = session.parts
    patches = session.shared.patches
    each = (session.source.vectors_of(part, patches=patches) for part in (parts.train, parts.held_out))
    return n * sum(min(EVALUATED, vectors) for vectors in each)


def _check_precision(precision: Precision, device: str) -> None:
    if precision == "tf32" and not device.startswith("cuda"):
        raise BenchkitError(f"--precision tf32 is of NVIDIA's GPUs, and the device is '{device}': give float32")


@contextmanager
def precise(precision: Precision, device: str) -> Iterator[None]:
    """Inside it, float32 matrix products on a GPU may be rounded to TF32's 10 bits, where that was asked for."""
    import torch

    if precision != "tf32" or not device.startswith("cuda"):
        yield
        return
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
