"""A small folder in the whole layout of CUB-200-2011."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

N, CLASSES, ATTRIBUTES = 24, 4, 312


def answer(image: int, attribute: int) -> tuple[int, int]:
    """is_present and certainty of every pair, by a rule: what a line should say wherever it stands."""
    rng = np.random.default_rng([image, attribute])
    present = int(rng.random() < (0.02 + 0.3 * (attribute % 10) / 10))
    return present, int(rng.choice([1, 2, 3, 4], p=[0.1, 0.07, 0.23, 0.6]))


def name(image: int) -> str:
    label = image % CLASSES + 1
    return f"{label:03}.Bird_{label}/Bird_{label}_{image:04}.jpg"


def lines() -> Iterator[str]:
    for image in range(1, N + 1):
        for attribute in range(1, ATTRIBUTES + 1):
            present, certainty = answer(image, attribute)
            yield f"{image} {attribute} {present} {certainty} {attribute / 7:.4f}"


@pytest.fixture(scope="session")
def answers() -> list[str]:
    return list(lines())


@pytest.fixture
def root(tmp_path: Path, answers: list[str]) -> Path:
    root = tmp_path / "CUB_200_2011"
    (root / "attributes").mkdir(parents=True)
    ids = range(1, N + 1)
    for image in ids:
        path = root / "images" / name(image)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(image).integers(0, 256, (12, 10, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    write(root / "images.txt", [f"{i} {name(i)}" for i in ids])
    write(root / "train_test_split.txt", [f"{i} {int(i % 3 != 0)}" for i in ids])
    write(root / "image_class_labels.txt", [f"{i} {i % CLASSES + 1}" for i in ids])
    write(tmp_path / "attributes.txt", [f"{a} has_part::kind_{a}" for a in range(1, ATTRIBUTES + 1)])
    write(root / "attributes" / "certainties.txt", ["1 not visible", "2 guessing", "3 probably", "4 definitely"])
    write(root / "attributes" / "image_attribute_labels.txt", answers)
    return root


def write(path: Path, text: list[str]) -> None:
    path.write_text("\n".join(text) + "\n")
