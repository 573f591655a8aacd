"""What the backbone is shown: a task's training examples, or noise of the same kind."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped

from benchkit.errors import BenchkitError, DataError, MediaError
from benchkit.interfaces import Backbone, Image, Task
from benchkit.media.fingerprint import cache_dir
from benchkit.progress import Silent

NOISE = 2
"""Examples of noise: enough to see which dimensions are large whatever comes in."""
MOST_KEPT = 512
"""Examples of which more is kept than sums, for they are kept at every place: of a ViT-B 0.2 MB each time."""


class Shown(NamedTuple):
    """Some preprocessed examples. kept: which of them are among the MOST_KEPT."""

    values: Shaped[np.ndarray, "B ..."]
    kept: Bool[np.ndarray, " B"]


@dataclass
class Inputs:
    """Preprocessed examples that go past once, however many they are. n: of them, those that do not decode included.

    Filled as they go past: skipped: why examples do not decode, by id. labels: those of the kept examples; None for
    noise. differ: whether not all are the same.
    """

    name: str
    n: int
    source: Generator[Shown, None, None]
    skipped: dict[str, str] = field(default_factory=dict)
    labels: np.ndarray | None = None
    differ: bool = False

    @staticmethod
    def of(name: str, values: Shaped[np.ndarray, "N ..."]) -> "Inputs":
        """Examples that are there."""
        kept = np.arange(len(values)) < MOST_KEPT
        return Inputs(name, len(values), (shown for shown in (Shown(values, kept),)))

    def batches(self) -> Generator[Shown, None, None]:
        first: np.ndarray | None = None
        with closing(self.source) as source:  # which ends decoding workers
            for shown in source:
                if first is None:
                    first = shown.values[:1].copy()
                self.differ = self.differ or bool((shown.values != first).any())
                yield shown

    def notes(self, asked: int) -> list[str]:
        """What there is to say of the number of examples, a line each. asked: as many were wanted."""
        notes = []
        if asked > self.n:
            notes.append(f"{self.name} has {self.n:,} examples to train on, fewer than --examples {asked:,}: "
                         "all of them were taken")  # fmt: skip
        if self.skipped:
            (name, why), n = next(iter(self.skipped.items())), len(self.skipped)
            do, are = ("does", "is") if n == 1 else ("do", "are")
            notes.append(f"{n:,} of {self.n:,} examples of {self.name} {do} not decode and {are} left out, as "
                         f"'{name}': {why}")  # fmt: skip
        return notes


def of_task(task: Task, name: str, backbone: Backbone, n: int, device: str) -> Inputs:
    """`n` examples of the first fold's training split (all, where it has fewer), drawn with a fixed seed.

    backbone: set up on the device. Examples that do not decode are left out; DataError is raised where none does.
    """
    from benchkit.features.pipeline import Options, Run

    fold = task.folds()[0]
    split, drawn = fold.train_split, np.random.default_rng(0).permutation(fold.train)[:n]
    options = Options(cache_dir() / "features", device, skip_bad=len(drawn))

    def source() -> Generator[Shown, None, None]:
        kept: list[np.ndarray] = []
        run = Run(task, backbone, split, options, Silent(), name)
        with closing(run.batches(np.sort(drawn))) as batches:
            for batch in batches:
                inputs.skipped |= {one.id: one.error or "" for one in batch.bad}
                if batch.array is not None:
                    among = np.isin(batch.rows, drawn[:MOST_KEPT])
                    among[0] |= not kept  # so that one is, even where none of those decodes
                    kept.append(batch.rows[among])
                    yield Shown(batch.array, among)
        if len(inputs.skipped) == len(drawn):
            first = next((f": '{name}': {why}" for name, why in inputs.skipped.items()), "")
            raise DataError(f"none of {len(drawn):,} examples of {inputs.name} decodes{first}")
        inputs.labels = np.asarray(task.labels(split))[np.concatenate(kept)]

    inputs = Inputs(f"{name}/{split}", len(drawn), source())
    return inputs


def noise(task: Task, backbone: Backbone) -> Inputs:
    """White noise: Gaussian at an RMS of 0.1 for 5 seconds, or uniform pixels of the first training image's size, of
    those that decode."""
    rng = np.random.default_rng(0)
    raws: list[np.ndarray]
    if task.modality == "audio":
        if not backbone.sample_rate:
            raise BenchkitError(f"{type(backbone).__name__} takes audio and names no sample rate")
        raws = [rng.normal(0, 0.1, 5 * backbone.sample_rate).astype(np.float32) for _ in range(NOISE)]
    else:
        raws = [rng.integers(0, 256, _first_shape(task), dtype=np.uint8) for _ in range(NOISE)]
    return Inputs.of("white noise", np.stack([backbone.preprocess(raw) for raw in raws]))


def _first_shape(task: Task) -> tuple[int, ...]:
    """Of the first training image that decodes."""
    fold = task.folds()[0]
    for row in fold.train.tolist():
        for example in task.examples(fold.train_split, [row]):
            assert isinstance(example.media, Image)
            try:
                return example.media.load().shape
            except MediaError:
                continue  # whether that is worth a word, those that are looked at say
    raise DataError(f"none of {len(fold.train)} images to train on decodes")
