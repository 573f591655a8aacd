"""Fitted scorers as files: safetensors, with the record of the fit in the metadata under `benchkit` (JSON)."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import param
from benchkit.errors import FitError, StoreError, require
from benchkit.interfaces import Scorer
from benchkit.machine.files import write_atomic
from benchkit.machine.times import now

FORMAT = 1
KEY = "benchkit"


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Whole or not at all. Raises StoreError."""
    require("safetensors", "benchkit-core[probes]")
    from safetensors.numpy import save

    plain = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **record}, sort_keys=True)
    write_atomic(path, save(plain, metadata={KEY: text}))


def read_record(path: Path, kind: str) -> dict[str, Any]:
    """The record alone. kind: "scorer" or "sae". Raises StoreError where the file is absent, damaged or another."""
    require("safetensors", "benchkit-core[probes]")
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as f:
            record: Any = json.loads((f.metadata() or {})[KEY])
    except OSError as e:
        raise StoreError(f"cannot read '{path}': {e.strerror or e}") from e
    except (SafetensorError, KeyError, ValueError, RecursionError) as e:
        raise StoreError(f"'{path}' is no file of benchkit's, or damaged: {e}") from e
    if not isinstance(record, dict):
        raise StoreError(f"'{path}' is no file of benchkit's, or damaged: its record is no table")
    if record.get("format") != FORMAT or record.get("kind") != kind:
        raise StoreError(
            f"'{path}' holds a {record.get('kind')} of format {record.get('format')}, not a {kind} of {FORMAT}"
        )
    found: dict[str, Any] = record
    return found


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Raises StoreError where the file cannot be read."""
    require("safetensors", "benchkit-core[probes]")
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as e:
        raise StoreError(f"cannot read '{path}': {e}") from e


def save_scorer(path: Path, scorer: Scorer, spec: str, fit: Mapping[str, Any]) -> None:
    """spec: canonical. fit: what it was fitted on and how, as JSON takes it."""
    record = {"kind": "scorer", "scorer": spec, "fitted_at": now(), **fit}
    write_tensors(path, scorer.tensors(), record)


def load_scorer(path: Path) -> Scorer:
    """The scorer that was saved, ready to score. Raises StoreError, SpecError, FitError."""
    record = read_record(path, "scorer")
    scorer: Scorer = resolve("scorer", record["scorer"]).build()
    scorer.restore(read_tensors(path))
    return scorer


@dataclass(frozen=True)
class SavedParams:
    checkpoint: Path = param(help="a file that `benchkit activations fit` wrote")


class Loaded(Scorer):
    """A scorer that comes fitted, from a file."""


class Saved(Loaded):
    """The scorer in a file, as it is: `fit` changes nothing."""

    Params = SavedParams
    params: SavedParams
    seeded = False

    def __init__(self, params: SavedParams) -> None:
        super().__init__(params)

    @cached_property
    def scorer(self) -> Scorer:
        return load_scorer(self.params.checkpoint)

    @property
    def n_prototypes(self) -> int:
        return self.scorer.n_prototypes

    @cached_property
    def record(self) -> dict[str, Any]:
        """Of its fit."""
        return read_record(self.params.checkpoint, "scorer")

    @property
    def point(self) -> str | None:
        return as_point(self.record["point"])

    def fit(self, activations: Iterator[Float32[np.ndarray, "B D"]], *, seed: int = 0, device: str = "cpu") -> None:
        check_fits(self, activations)

    def __call__(self, activations: Float32[np.ndarray, "B D"]) -> Float32[np.ndarray, "B K"]:
        return self.scorer(activations)

    def tensors(self) -> Mapping[str, np.ndarray]:
        return self.scorer.tensors()

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.scorer.restore(tensors)


def as_point(name: str | None) -> str | None:
    """A recorded point as scorers name it: None is the backbone's own tokens."""
    return None if name == "tokens" else name


def check_fits(scorer: Scorer, activations: Iterator[Float32[np.ndarray, "B D"]]) -> None:
    """Raises FitError where vectors of the stream are none that the scorer, fitted already, can score."""
    first = next(iter(activations), None)
    if first is None:
        raise FitError("there are no activations")
    scorer(first[:1])
