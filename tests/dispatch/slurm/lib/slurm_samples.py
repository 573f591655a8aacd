"""A plugin for jobs on a real cluster: a task that is there at once, a backbone and a probe that tests can hold up, and
that say what they did.

$BENCHKIT_SAMPLES is a folder: `log` gets a line for each batch encoded and each cell fitted; a probe with `gate=NAME`
waits until there is a file NAME.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.catalog.spec import param
from benchkit.classifiers.centroid import Centroid, CentroidParams
from benchkit.hookspecs import Entry, hookimpl
from benchkit.interfaces import Backbone, Encoded, Example, Fitted, Labels, Problem, Subset, Task
from benchkit.media.decode import Image


def say(what: str) -> None:
    with (folder() / "log").open("a") as f:
        f.write(f"{what}\n")


def folder() -> Path:
    return Path(os.environ["BENCHKIT_SAMPLES"])


class Stripes(Task):
    """8 x 8 noise with one bright row, which is the class."""

    kind = "multiclass"
    modality = "image"
    metrics = ("top1",)
    classes = tuple("01234567")

    def ids(self, split: str) -> list[str]:
        return [f"{split}-{i}" for i in range(80)]

    def labels(self, split: str) -> Any:
        return np.arange(80) % 8

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        for i in indices:
            image = np.random.default_rng([i, len(split)]).integers(0, 200, (8, 8, 1), np.uint8)
            image[i % 8] += 55
            yield Example(int(i), f"{split}-{i}", Image(image))

    def fingerprint(self) -> str:
        return "stripes"


@dataclass(frozen=True)
class SeenParams:
    shift: int = param(0, help="added to every pixel, so that there are as many backbones as a test needs")


class Seen(Backbone):
    """Pixels, as features."""

    Params = SeenParams
    modalities = ("image",)
    dim = 64

    def preprocess(self, raw: Any) -> Any:
        return (raw.reshape(-1).astype(np.float32) + self.params.shift) / 255

    def encode(self, batch: Any, *, tokens: bool = False) -> Encoded:
        say(f"encode {self.params.shift}")
        return Encoded(batch)

    def fingerprint(self) -> str:
        return "seen"


@dataclass(frozen=True)
class GatedParams(CentroidParams):
    gate: str = param("", help="a file to wait for")
    megabytes: int = param(0, low=0, help="memory to hold while fitting")


class Gated(Centroid):
    """The centroid probe, held up."""

    version = 1
    Params = GatedParams

    def fit_many(
        self, features: Any, labels: Labels, problem: Problem, subsets: Sequence[Subset], *, device: str = "cpu"
    ) -> Iterator[Fitted]:
        params: Any = self.params
        say(f"fit {params.gate}")
        held = np.ones(params.megabytes << 20, np.uint8)
        while params.gate and not (folder() / params.gate).exists():
            time.sleep(0.05)
        yield from super().fit_many(features, labels, problem, subsets, device=device)
        del held


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {"stripes": Entry("a bright row in noise", "slurm_samples:Stripes")}


@hookimpl
def benchkit_models() -> dict[str, Entry]:
    return {"seen": Entry("pixels", "slurm_samples:Seen")}


@hookimpl
def benchkit_classifiers() -> dict[str, Entry]:
    return {"gated": Entry("the centroid probe, held up", "slurm_samples:Gated")}
