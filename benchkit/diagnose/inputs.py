"""What the backbone is shown: a task's training examples, or noise of the same kind."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from benchkit.errors import BenchkitError, DataError, MediaError
from benchkit.interfaces import Backbone, Image, Task
from benchkit.progress import Progress

NOISE = 2
"""Examples of noise: enough to see which dimensions are large whatever comes in."""


@dataclass(frozen=True)
class Inputs:
    """Preprocessed examples. labels: their rows of the task's labels; None for noise."""

    name: str
    values: Shaped[np.ndarray, "B ..."]
    labels: np.ndarray | None
    n_skipped: int = 0

    @property
    def differ(self) -> bool:
        """Whether not all are the same."""
        return bool((self.values != self.values[:1]).any())


def of_task(task: Task, name: str, backbone: Backbone, n: int, progress: Progress) -> Inputs:
    """`n` examples of the first fold's training split (all, where it has fewer), drawn with a fixed seed.

    Examples that do not decode are left out. Raises DataError where none does.
    """
    from benchkit.features.worker import prepare

    fold = task.folds()[0]
    split, rows = fold.train_split, np.sort(np.random.default_rng(0).permutation(fold.train)[:n])
    arrays, kept, skipped = [], [], 0
    with progress.step(f"read {name}/{split}", len(rows), "examples") as step:
        for example in task.examples(split, rows.tolist()):
            try:
                array, _ = prepare(backbone, example.id, example.media)
            except MediaError as e:
                skipped += 1
                progress.note(f"'{example.id}' is left out: {e}")
            else:
                arrays.append(array)
                kept.append(example.index)
            step.advance()
    if not arrays:
        raise DataError(f"none of {len(rows)} examples of {name}/{split} decodes")
    return Inputs(f"{name}/{split}", np.stack(arrays), np.asarray(task.labels(split))[kept], skipped)


def noise(task: Task, backbone: Backbone) -> Inputs:
    """White noise: Gaussian at an RMS of 0.1 for 5 seconds, or uniform pixels of the first training image's size."""
    rng = np.random.default_rng(0)
    raws: list[np.ndarray]
    if task.modality == "audio":
        if not backbone.sample_rate:
            raise BenchkitError(f"{type(backbone).__name__} takes audio and names no sample rate")
        raws = [rng.normal(0, 0.1, 5 * backbone.sample_rate).astype(np.float32) for _ in range(NOISE)]
    else:
        fold = task.folds()[0]
        example = next(iter(task.examples(fold.train_split, [int(fold.train[0])])))
        assert isinstance(example.media, Image)
        shape = example.media.load().shape
        raws = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(NOISE)]
    return Inputs("white noise", np.stack([backbone.preprocess(raw) for raw in raws]), None)
