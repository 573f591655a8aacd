"""Fitting a scorer on a recording."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

from benchkit.activations.recording import Recording
from benchkit.catalog.contract import checked_tensors
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, SpecError, StoreError
from benchkit.features.batches import memory_suffices
from benchkit.interfaces import Scorer
from benchkit.progress import Progress, Silent
from benchkit.scorers.saved import Loaded, as_point, save_scorer

BATCH = 8192


def fit(
    scorer: str,
    on: Path,
    to: Path,
    *,
    point: str | None = None,
    patches: bool = True,
    epochs: int = 1,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = BATCH,
    progress: Progress | None = None,
) -> Scorer:
    """Fits the scorer on vectors of a recording in random order, and saves it with the record of the fit.

    point: of the recording; None is the one that the scorer's spec names, or the only one that there is. patches: leave
    class tokens and registers out. Raises StoreError where no file can be written there, BenchkitError where the
    scorer's spec names another point.
    """
    progress = progress or Silent()
    spec = resolve("scorer", scorer)
    made: Scorer = spec.build()
    if isinstance(made, Loaded):
        raise BenchkitError(f"scorer '{spec.name}' is fitted already: it comes from a file")
    recording = Recording.open(on)
    wanted = point or made.point
    chosen = recording[wanted] if wanted else recording.only
    if hasattr(spec.params, "point"):
        if made.point is None and chosen.point != "tokens":  # the scorer is of the point that it was fitted on
            spec = resolve("scorer", f"{scorer},point={chosen.point}")
            made = spec.build()
        if as_point(made.point) != as_point(chosen.point):
            raise SpecError(f"scorer '{scorer}' is of point '{made.point}', and --point names '{chosen.point}'")
    elif made.point is not None and as_point(made.point) != as_point(chosen.point):
        raise SpecError(f"scorer '{scorer}' is of point '{made.point}', and --point names '{chosen.point}'")
    statistics = chosen.patch_statistics if patches else chosen.statistics
    statistics.require_finite(f"point '{chosen.point}' of '{on}'")
    _check_place(to)  # now, and not after the fit
    stream = chosen.batches(batch_size, seed=seed, epochs=epochs, patches=patches)
    total = epochs * chosen.vectors_of(patches=patches)
    with progress.step(f"fit {spec.canonical}", total, "vectors") as step, closing(stream) as batches:

        def counted() -> Any:
            for batch in batches:
                yield batch
                step.advance(len(batch))

        with memory_suffices(device, "give fewer prototypes, or a smaller --batch-size"):
            made.fit(counted(), seed=seed, device=device)
    checked_tensors(made)
    save_scorer(
        to,
        made,
        spec.canonical,
        {
            "task": chosen.task, "split": chosen.split, "model": chosen.model, "point": chosen.point,
            "data_fingerprint": chosen.metadata["data_fingerprint"],
            "model_fingerprint": chosen.metadata["model_fingerprint"], "recording": chosen.fingerprint,
            "patches": patches, "epochs": epochs, "seed": seed, "batch_size": batch_size,
            "vectors": chosen.vectors_of(patches=patches), "params": spec.describe(),
        },
    )  # fmt: skip
    return made


def _check_place(to: Path) -> None:
    """Raises StoreError where no file can be written there. Its folder is not made: a folder that is not there is more
    often a slip of the pen than one that is wanted."""
    if to.is_dir():
        raise StoreError(f"--to '{to}' is a folder: name the file to write, as in '{to / 'scorer.safetensors'}'")
    if not to.absolute().parent.is_dir():
        raise StoreError(f"cannot write '{to}': there is no folder '{to.parent}'")
    if not os.access(to.absolute().parent, os.W_OK):
        raise StoreError(f"cannot write '{to}': the folder '{to.parent}' is read-only")
