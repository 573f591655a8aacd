"""esc50: environmental sounds of 5 s in five predefined folds (Piczak, ACM Multimedia 2015)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64

from benchkit import Audio, Channel, DataError, Example, Fold, Task, fingerprint_path, param
from benchkit_esc50.layout import FOLDS, Clip, read

PLACE = ("meta/esc50.csv", "audio/*")
SPLIT = "clips"


@dataclass(frozen=True)
class ESC50Params:
    root: Path = param(place=PLACE, help="folder with meta/esc50.csv and audio/")
    fold: int = param(0, low=0, high=5, help="the fold held out for testing, 1 to 5; 0: each in turn, as one result")
    subset: Literal["all", "esc10"] = param("all", help="esc10: only the ten classes of ESC-10")
    channel: Channel = param("mix", help="what is heard of several channels: their mean, the first, the second, ...")


class ESC50(Task):
    """ESC-50 (2,000 clips, 50 classes), ESC-10 (400 clips, 10 classes), or any folder in that layout.

    By default a result is the five-fold cross-validation that the data set prescribes: every clip is tested once, by a
    probe trained on the other four folds. `n_train` examples a class are drawn from each of these training sets.

    Classes are sorted by their number in the table. There is one split, `clips`, that holds every clip in the order of
    the table; an example's id is its file name without the suffix. `published` is empty: the 72.7 % on ESC-10 and
    44.3 % on ESC-50 of the paper (doi 10.1145/2733373.2806390) are of a random forest, which is none of our probes.
    """

    Params = ESC50Params
    params: ESC50Params
    kind = "multiclass"
    modality = "audio"
    metrics = ("top1", "balanced_accuracy", "macro_f1")

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict(sorted((clip.target, clip.category) for clip in self._clips)).values())

    def ids(self, split: str) -> Sequence[str]:
        return [clip.id for clip in self._of(split)]

    def labels(self, split: str) -> Int64[np.ndarray, " N"]:
        number = {name: i for i, name in enumerate(self.classes)}
        return np.array([number[clip.category] for clip in self._of(split)], np.int64)

    def groups(self, split: str) -> Sequence[str]:
        """The source recording: several clips may be cut from one."""
        return [clip.source for clip in self._of(split)]

    def examples(self, split: str, indices: Sequence[int]) -> Iterator[Example]:
        clips = self._of(split)
        for i in indices:
            yield Example(int(i), clips[i].id, self._medium(clips[i]))

    def fingerprint(self) -> str:
        return fingerprint_path(self.params.root, PLACE)

    @property
    def _heard(self) -> str:
        """What another channel than the mix adds to the media's name."""
        return "" if self.params.channel == "mix" else f",channel={self.params.channel}"

    def media_key(self, split: str) -> str:
        return f"esc50 {self.fingerprint()} {self.params.subset} {split}{self._heard}"

    def _medium(self, clip: Clip) -> Audio:
        return Audio(self.params.root / "audio" / clip.filename, channel=self.params.channel)

    def folds(self) -> tuple[Fold, ...]:
        held_out = FOLDS if self.params.fold == 0 else (self.params.fold,)
        fold_n = np.array([clip.fold for clip in self._clips])
        for fold in FOLDS:
            if fold not in fold_n:
                raise DataError(f"'{self.params.root / PLACE[0]}' names no clip in fold {fold}")
        return tuple(Fold(SPLIT, np.flatnonzero(fold_n != f), SPLIT, np.flatnonzero(fold_n == f)) for f in held_out)

    def _of(self, split: str) -> tuple[Clip, ...]:
        if split != SPLIT:
            raise DataError(f"esc50 has no split '{split}': it has one, '{SPLIT}', and folds over it")
        return self._clips

    @cached_property
    def _clips(self) -> tuple[Clip, ...]:
        clips = read(self.params.root)
        if self.params.subset == "all":
            return clips
        table = self.params.root / PLACE[0]
        if clips[0].esc10 is None:
            raise DataError(f"'{table}' has no column esc10, which subset=esc10 needs")
        chosen = tuple(clip for clip in clips if clip.esc10)
        if not chosen:
            raise DataError(f"'{table}' marks no clip as esc10, so subset=esc10 is empty")
        return chosen
