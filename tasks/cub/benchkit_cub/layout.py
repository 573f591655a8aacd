"""The folder CUB_200_2011: images, split and classes, read by their ids and checked against each other."""

from dataclasses import dataclass
from pathlib import Path

from benchkit import DataError, on_disk
from benchkit_cub.lines import at, fields, numbered, same_ids, some, whole

IMAGES, TRAIN, TEST, CLASSES, ATTRIBUTES = 11_788, 5_994, 5_794, 200, 312
"""As published (Wah, Branson, Welinder, Perona and Belongie 2011, CNS-TR-2011-001)."""
CERTAINTIES = {1: "not visible", 2: "guessing", 3: "probably", 4: "definitely"}


@dataclass(frozen=True)
class Layout:
    """images: name by id. train: whether an image is to train on. attributes: their names, that of id 1 first."""

    images: dict[int, str]
    train: dict[int, bool]
    attributes: tuple[str, ...]

    def split(self, name: str) -> list[int]:
        """The ids of a split's images, ascending."""
        return [i for i in sorted(self.images) if self.train[i] == (name == "train")]


def inside(root: Path) -> Path:
    """The folder CUB_200_2011: root itself, or in it, as the archive unpacks."""
    below = root / "CUB_200_2011"
    return below if (below / "images.txt").is_file() and not (root / "images.txt").is_file() else root


def read_layout(root: Path, *, partial: bool) -> Layout:
    """Raises DataError, in one line that names file and line, where files are malformed or contradict each other, and
    unless `partial`, where the numbers of images, classes and of each split are not the published ones."""
    names = numbered(root / "images.txt", "a name")
    by_name: dict[str, int] = {}
    for key, name in names.items():
        if by_name.setdefault(name, key) != key:
            raise DataError(f"'{root / 'images.txt'}' names '{name}' twice, as id {by_name[name]} and {key}")
    split = numbered(root / "train_test_split.txt", "0 or 1")
    same_ids(split, names, root / "train_test_split.txt", "images.txt")
    for key, value in split.items():
        if value not in ("0", "1"):
            raise DataError(f"'{root / 'train_test_split.txt'}': image {key} has '{value}', not 1 (train) or 0 (test)")
    train = {key: value == "1" for key, value in split.items()}
    classes = _classes(root, names)
    _check_counts(root, names, train, classes, partial)
    _check_files(root, names)
    return Layout(names, train, read_attributes(root))


def attributes_path(root: Path) -> Path:
    """Where the names of the attributes are: in attributes/, as the README says, or beside the folder CUB_200_2011, as
    the archive has it."""
    places = (
        root / "attributes" / "attributes.txt",
        root / "attributes.txt",
        root.absolute().parent / "attributes.txt",
    )
    return next((p for p in places if p.is_file()), places[0])


def read_attributes(root: Path) -> tuple[str, ...]:
    path = attributes_path(root)
    names = numbered(path, "a name")
    same_ids(names, range(1, ATTRIBUTES + 1), path, f"the {ATTRIBUTES} attributes")
    if len(set(names.values())) < ATTRIBUTES:
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise DataError(f"'{path}' names the attribute '{twice}' twice")
    certainties = root / "attributes" / "certainties.txt"
    found = numbered(certainties, "a certainty", words=True)
    if found != CERTAINTIES:
        expected = ", ".join(f"{key} {name}" for key, name in CERTAINTIES.items())
        raise DataError(f"'{certainties}' must list {expected}: what is a positive depends on it")
    return tuple(names[key] for key in range(1, ATTRIBUTES + 1))


def _classes(root: Path, names: dict[int, str]) -> set[int]:
    """The classes. Every one has a folder of its own, which catches a file whose lines are of other images."""
    path = root / "image_class_labels.txt"
    found: dict[int, int] = {}
    folders: dict[str, int] = {}
    owners: dict[int, str] = {}
    for number, parts in fields(path):
        if len(parts) != 2:
            raise DataError(f"{at(path, number)} it has {len(parts)} fields, not an image's id and a class's")
        key, label = (whole(p, what, path, number) for p, what in zip(parts, ("image", "class"), strict=True))
        if key in found:
            raise DataError(f"{at(path, number)} id {key} comes a second time")
        found[key] = label
        folder = names.get(key, "").partition("/")[0]
        if key in names and (folders.setdefault(folder, label), owners.setdefault(label, folder)) != (label, folder):
            raise DataError(
                f"{at(path, number)} image {key} lies in '{folder}' and is of class {label}, but other lines give that "
                f"folder class {folders[folder]} and that class the folder '{owners[label]}'"
            )
    same_ids(found, names, path, "images.txt")
    return set(found.values())


def _check_counts(root: Path, names: dict[int, str], train: dict[int, bool], classes: set[int], partial: bool) -> None:
    n_train = sum(train.values())
    counts = (
        ("images", len(names), IMAGES),
        ("images to train on", n_train, TRAIN),
        ("images to test on", len(names) - n_train, TEST),
        ("classes", len(classes), CLASSES),
    )
    for what, found, published in counts:
        if not found:
            raise DataError(f"'{root}' has no {what}")
        if found != published and not partial:
            raise DataError(
                f"'{root}' has {found:,} {what}, and CUB-200-2011 has {published:,}: it is not complete (partial=true "
                "takes a part of it, under a name of its own)"
            )
    if not partial:
        for what, ids, n in (("images", set(names), IMAGES), ("classes", classes, CLASSES)):
            if outside := sorted(ids - set(range(1, n + 1))):
                raise DataError(f"'{root}': {what} are numbered 1 to {n:,}, and there is {some(outside)}")


def _check_files(root: Path, names: dict[int, str]) -> None:
    folder = root / "images"
    try:
        there = {f"{d.name}/{f.name}" for d in folder.iterdir() if d.is_dir() for f in d.iterdir()}
    except OSError as e:
        raise DataError(f"cannot read '{e.filename or folder}': {e.strerror}") from e
    missing = [name for _, name in sorted(names.items()) if name not in there and not on_disk(folder / name).is_file()]
    if missing:
        raise DataError(f"'{folder}' has no '{missing[0]}', and lacks {len(missing):,} of {len(names):,} images")
