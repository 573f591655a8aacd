"""traits: binary traits of your own images or recordings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from benchkit import Audio, Channel, DataError, Example, Image, Task, fingerprint, fingerprint_path, param
from benchkit_traits.table import IMAGES, RECORDINGS, SPLITS, Part, Table, read

TABLE = "traits.csv"
MEDIA = tuple("**/*." + "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in s) for s in (*IMAGES, *RECORDINGS))
"""The suffixes in capitals or not."""


@dataclass(frozen=True)
class TraitsParams:
    root: Path = param(place=(TABLE, *MEDIA), help="folder of images or recordings")
    table: Path | None = param(
        None, help="CSV with path, split and one column of 0 and 1 a trait (none: traits.csv, or the only one)"
    )
    ignore: tuple[str, ...] = param((), help="columns of the table that are no traits")
    channel: Channel = param("mix", help="what is heard of several channels: their mean, the first, the second, ...")

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise DataError(f"root='{self.root}' is no folder")
        if self.table is None and not (self.root / TABLE).is_file():
            found = sorted(self.root.glob("*.csv"))
            if len(found) != 1:
                none = (
                    "nor another table: write one with the columns path, split (train or test) and one of 0 and 1 "
                    "for each trait, or name one with table=FILE"
                )
                there = f"but {len(found)} others: say which, with table=FILE" if found else none
                raise DataError(f"there is no '{self.root / TABLE}', {there}")
            object.__setattr__(self, "table", found[0])
        elif not self.csv.is_file():
            raise DataError(f"table='{self.csv}' is no file")

    @property
    def csv(self) -> Path:
        return self.table or self.root / TABLE


class Traits(Task):
    """Splits are `train` and `test`, as the table says; classes are the traits, in the order of its columns.

    An example's id is its path in the folder, or what the table's column `id` says. `published` is empty: the data is
    yours.
    """

    Params = TraitsParams
    version = 2
    params: TraitsParams
    kind = "traits"
    metrics = ("cmap", "ap_q05", "ap_q95")

    @property
    def modality(self) -> str:  # of the files
        return self._table.modality

    @property
    def classes(self) -> tuple[str, ...]:
        return self._table.traits

    def ids(self, split: str) -> Sequence[str]:
        return self._part(split).ids

    def labels(self, split: str) -> UInt8[np.ndarray, "N T"]:
        return self._part(split).labels

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        part = self._part(split)
        for i in indices:
            path = self.params.root / part.paths[i]
            medium = Image(path) if self.modality == "image" else Audio(path, channel=self.params.channel)
            yield Example(int(i), part.ids[i], medium)

    def fingerprint(self) -> str:
        return fingerprint([self._media, fingerprint_path(self.params.csv)])

    @property
    def _heard(self) -> str:
        """What another channel than the mix adds to the media's name."""
        return "" if self.params.channel == "mix" else f",channel={self.params.channel}"

    def media_key(self, split: str) -> str:
        """Traits that are left out change no media."""
        paths = fingerprint(self._part(split).paths)
        return f"traits@{self.version}/{split}/{self._media}/{paths}{self._heard}"

    @cached_property
    def _media(self) -> str:
        return fingerprint_path(self.params.root, MEDIA)

    @cached_property
    def _table(self) -> Table:
        return read(self.params.root, self.params.csv, self.params.ignore)

    def _part(self, split: str) -> Part:
        if split not in SPLITS:
            raise DataError(f"traits has no split '{split}': it has {' and '.join(SPLITS)}")
        return self._table.parts[split]
