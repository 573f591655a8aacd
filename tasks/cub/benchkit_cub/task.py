"""cub200: the attributes of CUB-200-2011 (Wah et al. 2011, CNS-TR-2011-001) as traits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from benchkit import DataError, Example, Image, Task, fingerprint, fingerprint_path, param
from benchkit_cub.attributes import Answers, read_answers
from benchkit_cub.layout import Layout, attributes_path, inside, read_layout

TABLES = (
    "images.txt",
    "train_test_split.txt",
    "image_class_labels.txt",
    "attributes/certainties.txt",
    "attributes/image_attribute_labels.txt",
)
MEDIA = ("images/*/*",)
SPLITS = ("train", "test")


@dataclass(frozen=True)
class CUB200Params:
    root: Path = param(place=(*TABLES, *MEDIA), help="the folder CUB_200_2011, or the one it was unpacked in")
    certainty: int = param(
        3,
        low=1,
        high=4,
        help="a positive is present with at least: 1 (not visible), 2 guessing, 3 probably, 4 definitely",
    )
    partial: bool = param(False, help="take other numbers of images and classes than the published ones")

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", inside(self.root))


class CUB200(Task):
    """11,788 images of 200 species, 5,994 to train on and 5,794 to test on, with 312 binary attributes each.

    An attribute is positive where a worker says that it is present, and at least `certainty` sure. By default that is
    probably or definitely: what is not visible cannot be found in the image, and a guess is none. All else is
    negative. Every split lists its images by ascending id; an example's id is its file's name under images/.

    `published` is empty: the numbers known for this protocol do not say of which backbone they are. See docs/traits.md.
    """

    Params = CUB200Params
    version = 2
    params: CUB200Params
    kind = "traits"
    modality = "image"
    metrics = ("cmap", "ap_q05", "ap_q95")

    @property
    def classes(self) -> tuple[str, ...]:
        return self._layout.attributes

    def ids(self, split: str) -> Sequence[str]:
        return [self._layout.images[i] for i in self._of(split)]

    def labels(self, split: str) -> UInt8[np.ndarray, "N A"]:
        row_of = {key: row for row, key in enumerate(sorted(self._layout.images))}
        rows = [row_of[i] for i in self._of(split)]
        sure = self.answers.certainty[rows] >= self.params.certainty
        return self.answers.present[rows] * sure.astype(np.uint8)

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        images = self._of(split)
        for i in indices:
            name = self._layout.images[images[i]]
            yield Example(int(i), name, Image(self.params.root / "images" / name))

    def fingerprint(self) -> str:
        root = self.params.root
        return fingerprint([fingerprint_path(root, TABLES), self._media, fingerprint_path(attributes_path(root))])

    def media_key(self, split: str) -> str:
        """How sure a positive must be changes no image."""
        return f"cub200@{self.version}/{split}/{self._media}/{fingerprint(self.ids(split))}"

    @cached_property
    def answers(self) -> Answers:
        """Of all images, by ascending id. Raises DataError."""
        return read_answers(self.params.root / "attributes" / "image_attribute_labels.txt", self._layout.images)

    @cached_property
    def _layout(self) -> Layout:
        return read_layout(self.params.root, partial=self.params.partial)

    @cached_property
    def _media(self) -> str:
        return fingerprint_path(self.params.root, MEDIA)

    def _of(self, split: str) -> list[int]:
        if split not in SPLITS:
            raise DataError(f"cub200 has no split '{split}': it has {' and '.join(SPLITS)}")
        return self._layout.split(split)
