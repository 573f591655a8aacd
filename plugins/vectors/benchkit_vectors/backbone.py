"""vectors:PATH, embeddings that another program computed, found by what they are of.

No media is decoded: what the model does with a recording or an image happened elsewhere, and so did its preprocessing.
The path's contents are the model's identity.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from benchkit import BenchkitError, Example, Precomputed, fingerprint_path, param
from benchkit_vectors.table import Table, read_table


@dataclass(frozen=True)
class VectorsParams:
    checkpoint: Path = param(help="a Parquet, npz or HDF5 file, or a folder of .npy files")


class Vectors(Precomputed):
    """The vectors of a table with a row for each example (docs/vectors.md)."""

    Params = VectorsParams
    params: VectorsParams
    _table: Table | None = None

    @property
    def table(self) -> Table:
        if self._table is None:
            raise BenchkitError("setup() comes before this: the vectors are not read yet")
        return self._table

    @property
    def dim(self) -> int:
        return self.table.vectors.shape[1]

    def setup(self, device: str) -> None:
        """Reads the table. Raises BenchkitError where it cannot be read, or says two things of one example."""
        self._table = read_table(self.params.checkpoint)

    def look_up(self, split: str, example: Example) -> Float32[np.ndarray, " D"]:
        return self.table.vector(split, example)

    def fingerprint(self) -> str:
        return fingerprint_path(self.params.checkpoint)
