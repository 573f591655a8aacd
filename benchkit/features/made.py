"""What is kept beside features for whoever looks at them later: which code made them, and what the model was given.

    <entry>/made.json     {"sources": [digests of source code], "inputs": {moments of some examples' inputs}}

Neither is in the key. Other code under the same version may compute the same, and usually does: it is told, no more.
"""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchkit.checks.inputs import NOTHING, Measured
from benchkit.errors import PluginError
from benchkit.interfaces import Backbone
from benchkit.machine.files import write_atomic
from benchkit.media.fingerprint import LENGTH

FILE = "made.json"
EXAMPLES = 64
"""Measured of each entry."""


def measure(backbone: Backbone, batch: np.ndarray, before: Measured) -> Measured:
    """`before` and as many examples of a preprocessed batch as are still to be looked at."""
    total = before
    for i in range(min(len(batch), EXAMPLES - before.n)):
        total = total + Measured.of(np.asarray(backbone.model_inputs(batch[i : i + 1])))
    return total


@dataclass(frozen=True)
class Made:
    """sources: digests of the code that made the features. inputs: what the model was given, as far as it was looked
    at."""

    sources: tuple[str, ...] = ()
    inputs: Measured = NOTHING

    @staticmethod
    def read(folder: Path) -> "Made":
        """Nothing, where nothing that makes sense is there."""
        try:
            record = json.loads((folder / FILE).read_bytes())
            sources = tuple(str(s) for s in record["sources"])
            inputs = Measured(**record["inputs"]) if record.get("inputs") else NOTHING
            good = all(isinstance(v, int | float) for v in asdict(inputs).values())
            return Made(sources, inputs if good else NOTHING)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return Made()

    def write(self, folder: Path) -> None:
        record = {"sources": list(self.sources), "inputs": asdict(self.inputs) if self.inputs.count else None}
        write_atomic(folder / FILE, json.dumps(record, indent=1).encode())

    def by(self, source: str) -> "Made":
        return self if source in self.sources else replace(self, sources=(*self.sources, source))


@lru_cache(maxsize=64)
def source_of(cls: type[Backbone]) -> str:
    """A digest of the source of the modules that encode: those of the class and of what it inherits from, with the
    modules beside them in their packages. benchkit's own interface does not count."""
    digest = hashlib.blake2b(digest_size=LENGTH // 2)
    for file in sorted(set(_files(cls))):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _files(cls: type) -> Iterator[Path]:
    for one in cls.__mro__:
        if one in (object, *Backbone.__mro__):
            continue
        try:
            file = Path(inspect.getsourcefile(one) or "")
        except TypeError:  # of a class without a file, as one that was typed in
            continue
        if file.is_file():
            yield from [file] if not (file.parent / "__init__.py").is_file() else file.parent.rglob("*.py")


def checked_feature_key(backbone: Backbone) -> Mapping[str, str]:
    """Raises PluginError for what is no mapping of texts."""
    made: Any = backbone.feature_key()
    if not isinstance(made, Mapping) or not all(isinstance(x, str) for pair in made.items() for x in pair):
        raise PluginError(f"{type(backbone).__name__}.feature_key() gave {made!r:.80}, not texts by name")
    return dict(made)
