"""A folder of images whose traits can be seen in a patch, and one of real recordings."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TRAITS = ("red", "striped", "bright", "never")
SIZE = 32


def draw(rng: np.random.Generator, red: int, striped: int, bright: int) -> np.ndarray:
    """Noise; a red square, a striped one, or a bright one somewhere."""
    pixels = rng.integers(60, 120, (SIZE, SIZE, 3)).astype(np.uint8)
    places = rng.permutation(16)[:3]
    for place, there, what in zip(places, (red, striped, bright), range(3), strict=True):
        y, x = 8 * np.array(divmod(int(place), 4))
        square = pixels[y : y + 8, x : x + 8]
        if there and what == 0:
            square[:] = (230, 10, 10)
        elif there and what == 1:
            square[::2] = 0
            square[1::2] = 255
        elif there:
            square[:] = 250
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images to train on and 24 to test on; nothing in test is `never`."""
    root, rng = tmp_path / "squares", np.random.default_rng(0)
    root.mkdir()
    with (root / "traits.csv").open("w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["path", "split", *TRAITS])
        for i in range(64):
            red, striped, bright = (int(v) for v in rng.random(3) < (0.3, 0.4, 0.15))
            Image.fromarray(draw(rng, red, striped, bright)).save(root / f"{i:02}.png")
            split = "test" if i % 8 in (2, 5, 7) else "train"
            writer.writerow([f"{i:02}.png", split, red, striped, bright, int(i in (3, 11))])
    return root


@pytest.fixture
def sounds(tmp_path: Path, shared: Path) -> Path:
    """ESC-10's first two folds, with traits of its classes: one to train on, one to test on."""
    source, root = shared / "data" / "esc10", tmp_path / "sounds"
    traits = {
        "animal": ("dog_bark", "rooster"),
        "water": ("rain", "sea_waves"),
        "impulsive": ("dog_bark", "person_sneeze", "clock_tick"),
        "machine": ("chainsaw", "helicopter"),
    }
    root.mkdir()
    (root / "audio").symlink_to(source / "audio")
    with (source / "meta" / "esc50.csv").open() as f, (root / "traits.csv").open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "split", *traits])
        for row in csv.DictReader(f):
            if row["fold"] in "12":
                split = "train" if row["fold"] == "1" else "test"
                has = [int(row["category"] in names) for names in traits.values()]
                writer.writerow([f"audio/{row['filename']}", split, *has])
    return root


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """A folder in the layout of CUB-200-2011: 48 images to train on and 32 to test on, and 312 attributes that each say
    one of three things that can be seen in a patch."""
    root, rng = tmp_path / "CUB_200_2011", np.random.default_rng(1)
    (root / "attributes").mkdir(parents=True)
    ids = range(1, 81)
    names = {i: f"{i % 4 + 1:03}.Bird/{i}.png" if i % 4 else f"001.Bird/{i}.png" for i in ids}
    answers = []
    for i in ids:
        seen = [int(v) for v in rng.random(3) < (0.2, 0.15, 0.1)]
        path = root / "images" / names[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(rng, *seen)).save(path)
        for a in range(1, 313):
            answers.append(f"{i} {a} {seen[a % 3]} {rng.choice([1, 3, 4], p=[0.1, 0.2, 0.7])} 1.5")
    for name, lines in {
        "images.txt": [f"{i} {names[i]}" for i in ids],
        "train_test_split.txt": [f"{i} {int(i % 5 < 3)}" for i in ids],
        "image_class_labels.txt": [f"{i} {int(names[i][:3])}" for i in ids],
        "attributes.txt": [f"{a} has_part::kind_{a}" for a in range(1, 313)],
        "attributes/certainties.txt": ["1 not visible", "2 guessing", "3 probably", "4 definitely"],
        "attributes/image_attribute_labels.txt": answers,
    }.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root
