"""digits: the handwritten digits that come with scikit-learn, so that a fresh machine has real data."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from benchkit import DataError, Example, Image, Task, fingerprint, param

SCALE = 16
"""Pixels are counts of 0 to 16 dots: the 32 x 32 originals in blocks of 4 x 4."""
TENTH_FORM = 1157
"""The row where the tenth form begins; a form begins with the ten digits in order, three times."""


@dataclass(frozen=True)
class DigitsParams:
    split: Literal["mixed", "forms"] = param("mixed", help="mixed: every hand in train and test; forms: others in test")


class Digits(Task):
    """The test set of "Optical Recognition of Handwritten Digits" in the UCI repository (Alpaydin and Kaynak 1998), as
    `sklearn.datasets.load_digits` gives it: 1,797 images. Pixels become bytes, `round(255 * dots / 16)`, which keeps
    all 17 levels apart.

    The rows are 14 filled-in forms of about 130 digits by 13 people, one form after the other. Both splits follow from
    the order of the rows alone, so they are the same everywhere:

    split=mixed  of each class, in the order of the rows, every third example is in test: 1,201 in train, 596 in test,
                 each class in proportion, each form in both. It asks for new digits by known hands.
    split=forms  the first nine forms (1,157 rows) are train, the last five (640 rows) test: it asks for hands that the
                 probe has not seen (save one person who may have filled in a form on either side), and is harder.

    An example's id is its row in the data: `digits-0000` to `digits-1796`.
    """

    Params = DigitsParams
    params: DigitsParams
    kind = "multiclass"
    modality = "image"
    metrics = ("top1", "balanced_accuracy", "macro_f1")
    classes = tuple("0123456789")

    def ids(self, split: str) -> Sequence[str]:
        return [f"digits-{row:04d}" for row in self._rows(split)]

    def labels(self, split: str) -> Int64[np.ndarray, " N"]:
        return self._data[1][self._rows(split)]

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        rows, images = self._rows(split), self._data[0]
        for i in indices:
            yield Example(int(i), f"digits-{rows[i]:04d}", Image(images[rows[i]]))

    def fingerprint(self) -> str:
        return fingerprint([hashlib.sha256(array.tobytes()).hexdigest() for array in self._data])

    def _rows(self, split: str) -> Int64[np.ndarray, " N"]:
        if split not in ("train", "test"):
            raise DataError(f"digits has no split '{split}': it has train and test")
        labels = self._data[1]
        test = np.arange(len(labels)) >= TENTH_FORM if self.params.split == "forms" else every_third(labels)
        return np.flatnonzero(test == (split == "test"))

    @cached_property
    def _data(self) -> tuple[UInt8[np.ndarray, "N 8 8 1"], Int64[np.ndarray, " N"]]:
        """Images and labels, in the order of the rows."""
        from sklearn.datasets import load_digits

        data = load_digits()
        images = np.rint(data.images * (255 / SCALE)).astype(np.uint8)[:, :, :, None]
        return images, data.target.astype(np.int64)


def every_third(labels: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """True for the third, sixth, ninth ... example of each class."""
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[2::3]] = True
    return chosen
