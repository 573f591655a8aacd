"""What the backbone is shown: a task's training examples, or noise of the same kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Shaped

from benchkit.errors import BenchkitError, DataError, MediaError
from benchkit.interfaces import Backbone, Image, Task
from benchkit.progress import Progress

NOISE = 2
"""Examples of noise: enough to see which dimensions are large whatever comes in."""


@dataclass(frozen=True)
class Inputs:
    """Preprocessed examples. labels: their rows of the task's labels; None for noise. skipped: why others do not
    decode, by id."""

    name: str
    values: Shaped[np.ndarray, "B ..."]
    labels: np.ndarray | None
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def differ(self) -> bool:
        """Whether not all are the same."""
        return bool((self.values != self.values[:1]).any())

    @property
    def left_out(self) -> str:
        """Those that do not decode, in a line; nothing where all do."""
        if not self.skipped:
            return ""
        (name, why), n = next(iter(self.skipped.items())), len(self.skipped)
        of = f"{n} of {n + len(self.values)} examples of {self.name}"
        return (
            f"{of} {'does' if n == 1 else 'do'} not decode and {'is' if n == 1 else 'are'} left out, as '{name}': {why}"
        )


def of_task(task: Task, name: str, backbone: Backbone, n: int, progress: Progress) -> Inputs:
    """`n` examples of the first fold's training split (all, where it has fewer), drawn with a fixed seed.

    Examples that do not decode are left out. Raises DataError where none does.
    """
    from benchkit.features.worker import prepare

    fold = task.folds()[0]
    split, rows = fold.train_split, np.sort(np.random.default_rng(0).permutation(fold.train)[:n])
    arrays, kept = [], []
    skipped: dict[str, str] = {}
    with progress.step(f"read {name}/{split}", len(rows), "examples") as step:
        for example in task.examples(split, rows.tolist()):
            try:
                array, _ = prepare(backbone, example.id, example.media)
            except MediaError as e:
                skipped[example.id] = str(e)
            else:
                arrays.append(array)
                kept.append(example.index)
            step.advance()
    if not arrays:
        first = next((f": '{name}': {why}" for name, why in skipped.items()), "")
        raise DataError(f"none of {len(rows)} examples of {name}/{split} decodes{first}")
    return Inputs(f"{name}/{split}", np.stack(arrays), np.asarray(task.labels(split))[kept], skipped)


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
    return Inputs("white noise", np.stack([backbone.preprocess(raw) for raw in raws]), None)


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
