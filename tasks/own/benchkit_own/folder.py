"""folder: recordings or images, a folder a class."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from benchkit import (
    Audio,
    Channel,
    DataError,
    Example,
    Fold,
    Image,
    Modality,
    Task,
    file_digests,
    fingerprint_path,
    param,
)
from benchkit_own.names import (
    MEDIA,
    MODALITY,
    SPLITS,
    checked,
    clean,
    media_below,
    modality_of,
    one_modality,
    tell_twins,
)
from benchkit_own.split import SIDES, drawn_folds, fold_of, united

SPLIT = "files"


@dataclass(frozen=True)
class FolderParams:
    root: Path = param(place=MEDIA, help="folder with a folder a class, or with train/, val/ and test/ of such folders")
    split: Literal["auto", "folders", "random"] = param(
        "auto", help="by the folders train/, val/ and test/, drawn with split_seed, or whichever it is"
    )
    test: float = param(0.2, above=0, below=1, help="share of the files to test on, where the split is drawn")
    val: float = param(0.2, low=0, below=1, help="share of the files to choose by, where the split is drawn")
    folds: int = param(1, low=1, high=100, help="more than 1: a cross-validation of so many folds instead")
    split_seed: int = param(0, low=0, help="of the drawn split")
    group: str = param(
        "", help="what must not be on both sides: folder (the folder below the class), or a pattern of the file's name"
    )
    modality: Literal["auto", "audio", "image"] = param("auto", help="where a folder holds both")
    channel: Channel = param("mix", help="what is heard of several channels: their mean, the first, the second, ...")

    def __post_init__(self) -> None:
        if self.test + self.val >= 1:
            raise ValueError(f"test={self.test:g} and val={self.val:g} leave nothing to train on")


@dataclass(frozen=True)
class File:
    """name: relative to the root, as on disk. side: in SIDES, None where no folder says."""

    name: str
    label: str
    side: str | None

    @property
    def id(self) -> str:
        return clean(self.name)


class Folder(Task):
    """A class is the first folder below the root, or below train/, val/ and test/; how files lie within it does not
    matter. Classes are sorted, over all splits; an example's id is its file's name relative to the root.

    Where no such folders say, the split is drawn: stratified, with whole groups on one side, copies of one file too.
    """

    Params = FolderParams
    params: FolderParams
    kind = "multiclass"
    metrics = ("top1", "balanced_accuracy", "macro_f1")
    group = "group"

    @property
    def modality(self) -> Modality:  # type: ignore[override]
        return self._listing[0]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        found = tuple(sorted({file.label for file in self._files}))
        tell_twins(found, f"'{self.params.root}'")
        return found

    def ids(self, split: str) -> Sequence[str]:
        return [file.id for file in self._of(split)]

    def labels(self, split: str) -> Int64[np.ndarray, " N"]:
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[file.label] for file in self._of(split)], np.int64)

    def groups(self, split: str) -> Sequence[str] | None:
        self._of(split)
        return self._groups if self.params.group else None

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        files = self._of(split)
        for i in indices:
            path = self.params.root / files[i].name
            media = Audio(path, channel=self.params.channel) if self.modality == "audio" else Image(path)
            yield Example(int(i), files[i].id, media)

    def fingerprint(self) -> str:
        return fingerprint_path(self.params.root, MEDIA)

    def media_key(self, split: str) -> str:
        heard = f",channel={self.params.channel}" if self.modality == "audio" and self.params.channel != "mix" else ""
        return f"folder {self.fingerprint()} {self.modality}{heard}"

    def folds(self) -> tuple[Fold, ...]:
        p, files = self.params, self._files
        digests = file_digests(p.root, MEDIA)
        copies = [digests.get(file.name, file.name) for file in files]
        self._check_copies(copies)
        if files[0].side is not None:
            self._check_groups()
            return (fold_of(SPLIT, np.array([SIDES.index(file.side or "") for file in files])),)
        labels = [[int(c)] for c in self.labels(SPLIT)]
        return drawn_folds(SPLIT, labels, united(self._groups, copies), p.test, p.val, p.folds, p.split_seed)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _of(self, split: str) -> tuple[File, ...]:
        if split != SPLIT:
            raise DataError(f"folder has no split '{split}': it has one, '{SPLIT}', and folds over it")
        return self._files

    @property
    def _files(self) -> tuple[File, ...]:
        return self._listing[1]

    @cached_property
    def _groups(self) -> list[str]:
        """The group of each file; where none is asked for, each file is one."""
        rule = self.params.group
        if not rule:
            return [file.id for file in self._files]
        if rule == "folder":
            found = [file.id.split("/")[(1 if file.side is None else 2) : -1] for file in self._files]
            for file, parts in zip(self._files, found, strict=True):
                if not parts:
                    raise DataError(f"group=folder: '{file.id}' lies in its class's folder itself, in none below that")
            return ["/".join(parts) for parts in found]
        try:
            pattern = re.compile(rule)
        except re.error as e:
            raise DataError(f"group={rule} is no pattern ({e}): give folder, or a regular expression") from e
        groups = []
        for file in self._files:
            match = pattern.search(file.id)
            group = match and (match[1] if pattern.groups else match[0])
            if not group:
                raise DataError(f"group={rule} finds nothing in '{file.id}': every file must have a group")
            groups.append(group)
        return groups

    def _check_copies(self, copies: Sequence[str]) -> None:
        first: dict[str, File] = {}
        for file, copy in zip(self._files, copies, strict=True):
            other = first.setdefault(copy, file)
            if other.label != file.label:
                raise DataError(f"'{self.params.root}': '{other.id}' and '{file.id}' are one file in two classes")
            if other.side != file.side:
                raise DataError(f"'{self.params.root}': '{other.id}' and '{file.id}' are one file in two splits")

    def _check_groups(self) -> None:
        if not self.params.group:
            return
        first: dict[str, File] = {}
        for file, group in zip(self._files, self._groups, strict=True):
            other = first.setdefault(group, file)
            if other.side != file.side:
                raise DataError(
                    f"'{self.params.root}': group '{group}' is in {other.side} ('{other.id}') and in {file.side} "
                    f"('{file.id}')"
                )

    @cached_property
    def _listing(self) -> tuple[Modality, tuple[File, ...]]:
        root, where = self.params.root, f"'{self.params.root}'"
        if not root.is_dir():
            raise DataError(f"{where} is no folder (table,path={root.name} reads a table of labels)")
        media, others, there, empty = [], Counter[str](), {}, []
        for parts in media_below(root):
            kind = modality_of(parts[-1])
            if kind is None:
                (empty.append("/".join(parts[:-1])) if not parts[-1] else others.update([Path(parts[-1]).suffix]))
            elif self.params.modality in ("auto", kind):
                media.append(parts)
                there.setdefault(kind, "/".join(parts))
        if not media:
            odd = f"; it has {sum(others.values())} other files ({', '.join(sorted(others))[:60]})" if others else ""
            raise DataError(f"{where} holds no recordings and no images that can be read ({' '.join(MODALITY)}){odd}")
        modality = one_modality(there, self.params.modality, where)
        split = self._by_folders({parts[0] for parts in media if len(parts) > 1}, where)
        depth = 2 if split else 1
        files = []
        for parts in media:
            if len(parts) <= depth:
                rest = "/".join((*parts[:-1], "CLASS", parts[-1]))
                raise DataError(f"{where}: '{'/'.join(parts)}' is in no class's folder, as '{rest}' would be")
            label = checked(clean(parts[depth - 1]), f"{where}: the folder")
            checked(clean("/".join(parts)), f"{where}: the file")
            files.append(File("/".join(parts), label, SPLITS[parts[0].casefold()] if split else None))
        for folder in empty:
            if folder.count("/") == depth - 1:
                warnings.warn(f"{where}: '{folder}' is empty, and no class", stacklevel=2)
        files.sort(key=lambda file: file.id)
        for a, b in pairwise(files):
            if a.id == b.id:
                raise DataError(f"{where} holds two files whose names look alike: '{a.id}'")
        return modality, tuple(files)

    def _by_folders(self, tops: set[str], where: str) -> bool:
        """Whether the folders below the root are splits."""
        splits = {top for top in tops if top.casefold() in SPLITS}
        if self.params.split == "random" or (self.params.split == "auto" and not splits):
            return False
        if others := sorted(tops - splits):
            raise DataError(
                f"{where} has {', '.join(sorted(splits)) or 'no train'}/ and, beside it, {others[0]}/: put the classes "
                "into train/, val/ and test/, or draw the split with split=random"
            )
        meant = Counter(SPLITS[s.casefold()] for s in splits)
        if twice := [name for name, n in meant.items() if n > 1]:
            both = sorted(s for s in splits if SPLITS[s.casefold()] == twice[0])
            raise DataError(f"{where} has two folders for {twice[0]}: {', '.join(both)}")
        if missing := [name for name in ("train", "test") if name not in meant]:
            raise DataError(f"{where} has {', '.join(sorted(splits))}/ and no {missing[0]}/ with files in it")
        return True
