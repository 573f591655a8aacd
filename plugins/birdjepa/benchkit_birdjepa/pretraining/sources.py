"""Where examples come from: the training rows of tasks, a folder, CIFAR-100. An example is a number, a name and a
medium that decodes when asked to."""

import io
import pickle
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from benchkit import Audio, BenchkitError, DataError, Image, Modality, OpenAudio, fingerprint, fingerprint_path, resolve

AUDIO = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
Part = Literal["train", "test"]


class Source(ABC):
    """Examples by number, from 0. labels: the class of each [n], or 0 and 1 for each class [n, C]; None: there are
    none."""

    name: str
    modality: Modality
    classes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def labels(self) -> np.ndarray | None: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def media(self, rows: Sequence[int]) -> list[tuple[str, Audio | Image]]:
        """Names and media of these rows, in their order. Decodes nothing."""

    @abstractmethod
    def fingerprint(self) -> str: ...


class OfTask(Source):
    """The rows that a task trains on (its first fold's), or those that it tests on."""

    def __init__(self, spec: str, part: Part) -> None:
        found = resolve("task", spec)
        self._task = found.build()
        self.name, self.modality, self._part = found.canonical, self._task.modality, part
        if self._task.kind not in ("multiclass", "multilabel"):
            self.classes = ()
        else:
            self.classes = tuple(self._task.classes)

    @cached_property
    def _rows(self) -> tuple[str, np.ndarray]:
        fold = self._task.folds()[0]
        return (fold.train_split, fold.train) if self._part == "train" else (fold.test_split, fold.test)

    @cached_property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        if not self.classes:
            return None
        split, rows = self._rows
        return np.asarray(self._task.labels(split)[rows])

    def __len__(self) -> int:
        return len(self._rows[1])

    def media(self, rows: Sequence[int]) -> list[tuple[str, Audio | Image]]:
        split, all_rows = self._rows
        wanted = all_rows[np.asarray(rows, int)]
        order = np.argsort(wanted, kind="stable")  # a split in files is fastest read in ascending order
        found: list[Any] = [None] * len(wanted)
        for at, example in zip(order, self._task.examples(split, wanted[order].tolist()), strict=True):
            found[at] = (example.id, example.media)
        return found

    def fingerprint(self) -> str:
        return fingerprint([self.name, self._task.fingerprint(), self._part])


class OfFolder(Source):
    """Every sound, or every image, below a folder, by name. Where all lie in folders of their own, those are the
    classes."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"'{root}' is no folder")
        files = sorted(p for p in root.rglob("*") if p.is_file())
        sounds = [p for p in files if p.suffix.lower() in AUDIO]
        images = [p for p in files if p.suffix.lower() in IMAGES]
        if bool(sounds) == bool(images):
            what = (
                "both sounds and images"
                if sounds
                else f"no sound ({' '.join(AUDIO)}) and no image ({' '.join(IMAGES)})"
            )
            raise DataError(f"'{root}' holds {what}")
        self.name, self.modality, self._root = f"folder:{root}", "audio" if sounds else "image", root
        self._files = sounds or images
        inner = [p.relative_to(root).parts for p in self._files]
        self.classes = tuple(sorted({parts[0] for parts in inner})) if all(len(p) > 1 for p in inner) else ()

    @cached_property
    def labels(self) -> np.ndarray | None:  # type: ignore[override]
        number = {name: i for i, name in enumerate(self.classes)}
        if not number:
            return None
        return np.array([number[p.relative_to(self._root).parts[0]] for p in self._files], np.int64)

    def __len__(self) -> int:
        return len(self._files)

    def media(self, rows: Sequence[int]) -> list[tuple[str, Audio | Image]]:
        kind = Audio if self.modality == "audio" else Image
        return [(str(self._files[r].relative_to(self._root)), kind(self._files[r])) for r in rows]

    def fingerprint(self) -> str:
        return fingerprint_path(self._root, tuple(f"**/*{p}" for p in sorted({p.suffix for p in self._files})))


class OfCifar100(Source):
    """CIFAR-100 as published, "python version" (files train, test and meta) or "binary version" (train.bin, test.bin):
    50,000 and 10,000 images of 32 x 32 pixels in 100 fine classes.

    The python version is pickled. What is read from it may make arrays and plain values, and nothing else.
    """

    modality: Modality = "image"

    def __init__(self, root: Path, part: Part) -> None:
        inside = next((p for p in (root, root / "cifar-100-python", root / "cifar-100-binary") if _cifar(p)), None)
        if inside is None:
            raise DataError(f"'{root}' holds neither train, test and meta (python version) nor train.bin and test.bin")
        self.name, self._root = f"cifar100:{root}", inside
        self._file = inside / (part if (inside / "train").is_file() else f"{part}.bin")
        self.classes = tuple(f"{i:02d}" for i in range(100))

    @cached_property
    def _data(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            raw = self._file.read_bytes()
        except OSError as e:
            raise DataError(f"cannot read '{self._file}': {e.strerror}") from None
        if self._file.suffix == ".bin":
            rows = np.frombuffer(raw, np.uint8)
            if not len(rows) or len(rows) % 3074:
                raise DataError(f"'{self._file}' is no CIFAR-100: its size is no multiple of 3,074 bytes")
            rows = rows.reshape(-1, 3074)
            pixels, labels = rows[:, 2:], rows[:, 1].astype(np.int64)
        else:
            try:
                table = _Plain(io.BytesIO(raw), encoding="bytes").load()
                pixels, labels = np.asarray(table[b"data"]), np.asarray(table[b"fine_labels"], np.int64)
            except (pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError, AttributeError) as e:
                raise DataError(f"'{self._file}' is no CIFAR-100 as published: {e}") from None
        if pixels.ndim != 2 or pixels.shape[1] != 3072 or len(labels) != len(pixels) or pixels.dtype != np.uint8:
            raise DataError(f"'{self._file}' holds no images of 3 x 32 x 32 bytes with a label each")
        if len(labels) and not 0 <= labels.min() <= labels.max() < 100:
            raise DataError(f"'{self._file}' has labels beyond 0 to 99")
        return np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels

    @property
    def labels(self) -> np.ndarray | None:
        return self._data[1]

    def __len__(self) -> int:
        return len(self._data[1])

    def media(self, rows: Sequence[int]) -> list[tuple[str, Audio | Image]]:
        return [(f"{self._file.name}-{r:05d}", Image(self._data[0][r])) for r in rows]

    def fingerprint(self) -> str:
        return fingerprint_path(self._root, (self._file.name,))


class _Plain(pickle.Unpickler):
    """Arrays and plain values alone: a pickle is a program, and this one is somebody else's."""

    _KNOWN: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        if name == "_reconstruct":
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        return getattr(np, name)


def _cifar(folder: Path) -> bool:
    return (folder / "train.bin").is_file() or ((folder / "train").is_file() and (folder / "test").is_file())


@dataclass(frozen=True)
class Joined:
    """Sources one behind the other, as one. Labels count where every source has the same classes."""

    sources: tuple[Source, ...]

    @property
    def modality(self) -> Modality:
        return self.sources[0].modality

    @cached_property
    def starts(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum([len(s) for s in self.sources])])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        first = self.sources[0].classes
        return first if all(s.classes == first for s in self.sources) else ()

    @cached_property
    def labels(self) -> np.ndarray | None:
        if not self.classes:
            return None
        found = [s.labels for s in self.sources]
        return None if any(x is None or x.ndim != found[0].ndim for x in found) else np.concatenate(found)  # type: ignore[union-attr,arg-type]

    def media(self, rows: Sequence[int]) -> list[tuple[str, Audio | Image]]:
        rows = np.asarray(rows, int)
        of = np.searchsorted(self.starts, rows, side="right") - 1
        found: list[Any] = [None] * len(rows)
        for i in np.unique(of):
            where = np.flatnonzero(of == i)
            for at, one in zip(where, self.sources[i].media((rows[where] - self.starts[i]).tolist()), strict=True):
                found[at] = one
        return found

    def fingerprint(self) -> str:
        return fingerprint([s.fingerprint() for s in self.sources])


def open_sources(names: Sequence[str], part: Part = "train") -> Joined:
    """Raises BenchkitError for what is not there, and where sounds and images are mixed."""
    sources: list[Source] = []
    for name in names:
        scheme, _, rest = name.partition(":")
        if scheme == "folder":
            sources.append(OfFolder(Path(rest).expanduser()))
        elif scheme == "cifar100":
            sources.append(OfCifar100(Path(rest).expanduser(), part))
        else:
            sources.append(OfTask(name, part))
    if not sources:
        raise BenchkitError("data.train is empty: name a task, 'folder:DIR' or 'cifar100:DIR'")
    if len({s.modality for s in sources}) > 1:
        raise BenchkitError(f"data.train mixes sounds and images: {', '.join(s.name for s in sources)}")
    for source in sources:
        if not len(source):
            raise DataError(f"{source.name} has no examples")
    return Joined(tuple(sources))


def testable(names: Sequence[str]) -> list[str]:
    """Those that have test rows: tasks and CIFAR-100."""
    return [name for name in names if not name.startswith("folder:")]


@dataclass(frozen=True)
class RandomCrop(Audio):
    """`seconds` of a recording, or of the part of it that a task names, from anywhere in it; all of a shorter one.

    at: from 0, at its beginning, to 1. whole: of the whole recording. No more than these seconds are decoded.
    """

    at: float = 0.0
    seconds: float = 5.0
    whole: bool = True
    inner: Audio | None = None

    def part(self, recording: OpenAudio) -> tuple[float, float | None]:
        assert self.inner is not None
        begin, duration = (0.0, None) if self.whole else self.inner.part(recording)
        end = recording.seconds if duration is None else min(begin + duration, recording.seconds)
        latest = max(begin, end - self.seconds)
        return begin + self.at * (latest - begin), min(self.seconds, end - begin)

    @staticmethod
    def of(medium: Audio, at: float, seconds: float, whole: bool) -> "RandomCrop":
        return RandomCrop(medium.source, channel=medium.channel, at=at, seconds=seconds, whole=whole, inner=medium)
