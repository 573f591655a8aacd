"""Toy plugins to name in specs."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

from benchkit.catalog.discovery import Catalog, Plugin
from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import Spec, param
from benchkit.errors import SpecError
from benchkit.hookspecs import Entry
from benchkit.interfaces import Backbone, Encoded, NoParams


@dataclass(frozen=True)
class Everything:
    """One parameter of each type that there is."""

    checkpoint: Literal["base", "large"] = "base"
    flag: bool = False
    k: int = param(5, low=1, high=100)
    lr: float = param(1e-3, low=0.0)
    name: str = "plain"
    pool: Literal["mean", "cls"] | None = None
    layer: int | None = None
    sizes: tuple[int, ...] = (8, 8)
    words: tuple[str, ...] = ()
    box: tuple[int, float] = (1, 0.5)


@dataclass(frozen=True)
class Places:
    root: Path
    weights: str = param("ORG/NAME", place=("*.npz", "**/*.json"))


@dataclass(frozen=True)
class Hub:
    checkpoint: str = param(place=("*.safetensors",), help="a repository of the hub, or a folder")


@dataclass(frozen=True)
class Even:
    n: int = 2

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError(f"n={self.n} is odd\nand has two lines")


class Toy(Backbone):
    modalities = ("image",)
    Params: ClassVar[type] = NoParams

    @property
    def dim(self) -> int:
        return 1

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return raw

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(np.zeros((len(batch), 1), np.float32))

    def fingerprint(self) -> str:
        return "toy"


class ToyEverything(Toy):
    Params = Everything


class ToyPlaces(Toy):
    Params = Places


class ToyHub(Toy):
    Params = Hub


class ToyEven(Toy):
    Params = Even


class ToyFixed(Toy):
    version = 2


CLASSES = {
    "bare": Toy, "every": ToyEverything, "places": ToyPlaces, "hf": ToyHub, "even": ToyEven, "fixed": ToyFixed,
}  # fmt: skip
MODELS = {name: Entry("a toy", f"{__name__}:{cls.__name__}") for name, cls in CLASSES.items()}
CATALOG = Catalog((Plugin("toys", "toys", "1.0", "toys", {"model": MODELS}),))
TWO = Catalog((*CATALOG.plugins, Plugin("more", "More_Toys", "0.3", "more", {"model": {"bare": MODELS["bare"]}})))


def model(text: str, catalog: Catalog = CATALOG) -> Spec:
    return resolve("model", text, catalog)


def canonical(text: str) -> str:
    return model(text).canonical


def error(text: str, catalog: Catalog = CATALOG) -> str:
    """The one line that a user reads."""
    with pytest.raises(SpecError) as caught:
        model(text, catalog)
    line = str(caught.value)
    assert line.isprintable(), line
    assert line
    return line
