"""Batches as arrays, a pure function of (seed, step), decoded by threads.

A host batch has, for B examples and V views: of sounds `waves` [B, V, samples] and `held` [B, V] (samples that are the
recording's), of images `pixels` [B, V, H, W, C]; `time` and `freq` [B, V, n, 2], bands to be masked; `partner` and
`share` [B], with which other example of the batch one is mixed and what is left of its own; `rows` [B]; `labels`.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchkit import Audio, BenchkitError, DataError, Image, MediaError
from benchkit_birdjepa.backbone import sized
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.pretraining.order import BATCH, EXAMPLE, SUBSTITUTE, entropy, epoch_order, stream
from benchkit_birdjepa.pretraining.settings import AugmentConfig, DataConfig
from benchkit_birdjepa.pretraining.sources import Joined, RandomCrop
from benchkit_birdjepa.pretraining.spectrogram import FRAME, HOP, RATE

TRIES = 10
"""Substitutes for an example that does not decode, one after the other."""


@dataclass(frozen=True)
class Batch:
    """arrays: see above. bad: names of examples that did not decode, and why. epoch: of its first example. entropy: of
    its labels, in bits."""

    step: int
    arrays: dict[str, np.ndarray]
    epoch: int
    bad: tuple[tuple[str, str], ...] = ()
    entropy: float | None = None


@dataclass(frozen=True)
class Maker:
    """Makes the batch of any step. share_of: of the global batch, (first, number) that this process makes."""

    source: Joined
    data: DataConfig
    augment: AugmentConfig
    encoder: EncoderConfig
    views: int
    seed: int
    share_of: tuple[int, int] | None = None

    @property
    def samples(self) -> int:
        """Of a crop: as many as the encoder's frames need, as the backbone takes them."""
        whole = self.encoder.input_h * HOP // RATE * RATE
        return whole or (self.encoder.input_h - 1) * HOP + FRAME

    def places(self, step: int) -> list[tuple[int, int]]:
        """Epoch and row of each example of the whole batch."""
        n, found = len(self.source), []
        for at in range(step * self.data.batch, (step + 1) * self.data.batch):
            epoch, within = divmod(at, n)
            d = self.data
            order = epoch_order(n, self.seed, epoch, d.shuffle, d.shard, d.interleave, d.window)
            found.append((epoch, int(order[within])))
        return found

    def batch(self, step: int) -> Batch:
        """Raises BenchkitError where an example and all its substitutes do not decode."""
        places = self.places(step)
        first, number = self.share_of or (0, len(places))
        mine = places[first : first + number]
        media = self.source.media([row for _, row in mine])
        made, bad = [], []
        for (epoch, row), (name, medium) in zip(mine, media, strict=True):
            made.append(self._example(epoch, row, name, medium, bad))
        arrays = {key: np.stack([m[key] for m in made]) for key in made[0]}
        partner, share = self._mixed(step, len(places))
        labels = self.source.labels
        if labels is not None and self.data.labels:
            arrays["labels"] = labels[arrays["rows"]]
        arrays["partner"], arrays["share"] = partner[first : first + number], share[first : first + number]
        whole = None if labels is None else entropy(labels[np.array([row for _, row in places])])
        return Batch(step, arrays, places[0][0], tuple(bad), whole)

    def _mixed(self, step: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        rng = stream(self.seed, BATCH, step)
        partner, share = rng.permutation(n), np.ones(n)
        a = self.augment
        if a.mixup:
            drawn = rng.beta(a.mixup_alpha, a.mixup_alpha, n)
            share = np.where(rng.random(n) < a.mixup, np.maximum(drawn, 1 - drawn), 1.0)
        return partner.astype(np.int32), share.astype(np.float32)

    def _example(
        self, epoch: int, row: int, name: str, medium: Audio | Image, bad: list[tuple[str, str]]
    ) -> dict[str, np.ndarray]:
        at = row
        for attempt in range(TRIES):
            try:
                found = self.views_of(medium, epoch, at)
            except MediaError as e:
                bad.append((name, str(e)))
                at = int(stream(self.seed, SUBSTITUTE, epoch, row, attempt).integers(len(self.source)))
                ((name, medium),) = self.source.media([at])
            else:
                return found | {"rows": np.int64(at)}
        raise DataError(f"{bad[-1][0]} and {TRIES - 1} other examples in its place do not decode: {bad[-1][1]}")

    def views_of(self, medium: Audio | Image, epoch: int, row: int) -> dict[str, np.ndarray]:
        """All views of one example. Raises MediaError."""
        made = []
        for view in range(self.views):
            rng = stream(self.seed, EXAMPLE, epoch, row, view)
            made.append(self._sound(medium, rng) if isinstance(medium, Audio) else self._image(medium, rng))
        return {key: np.stack([m[key] for m in made]) for key in made[0]}

    def _sound(self, medium: Audio, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        a, samples = self.augment, self.samples
        at, level, noisy, turn = _draw(rng, 4)
        whole = self.data.crop == "recording"
        raw = RandomCrop.of(medium, at, samples / RATE, whole).load(RATE, samples / RATE)
        held = min(len(raw), samples)
        wave = np.zeros(samples, np.float32)
        wave[:held] = raw[:held]
        if a.shift:
            wave[:held] = np.roll(wave[:held], int(turn * held))
        if rng is not None and a.noise_db is not None and noisy < a.noise:
            loud = float(np.sqrt(np.square(wave[:held]).mean())) * 10 ** (-a.noise_db / 20)
            wave[:held] += loud * rng.standard_normal(held, dtype=np.float32)
        if a.gain_db:
            wave *= np.float32(10 ** ((2 * level - 1) * a.gain_db / 20))
        config = self.encoder
        return {
            "waves": wave,
            "held": np.int32(max(held, FRAME)),
            "time": _bands(rng, a.time_masks, a.time_mask, config.input_h),
            "freq": _bands(rng, a.freq_masks, a.freq_mask, config.input_w),
        }

    def _image(self, medium: Image, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        a, raw, config = self.augment, medium.load(), self.encoder
        area, x, y, flipped = _draw(rng, 4)
        h, w = raw.shape[:2]
        if a.scale < 1:
            side = (a.scale + area * (1 - a.scale)) ** 0.5
            ch, cw = max(1, round(h * side)), max(1, round(w * side))
            top, left = int(y * (h - ch + 1)), int(x * (w - cw + 1))
            raw = np.ascontiguousarray(raw[top : top + ch, left : left + cw])
        pixels = sized(raw, config)
        if a.pad:
            wide = np.pad(pixels, ((a.pad, a.pad), (a.pad, a.pad), (0, 0)))
            top, left = int(y * (2 * a.pad + 1)), int(x * (2 * a.pad + 1))
            pixels = wide[top : top + config.input_h, left : left + config.input_w]
        if a.flip and flipped < 0.5:
            pixels = pixels[:, ::-1]
        return {
            "pixels": np.ascontiguousarray(pixels),
            "time": _bands(rng, a.time_masks, a.time_mask, config.input_h),
            "freq": _bands(rng, a.freq_masks, a.freq_mask, config.input_w),
        }

    def plain(self, rows: Sequence[int]) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
        """One view of each of these rows without any augmentation, the part that the task names from its beginning; and
        those that do not decode, which are left out."""
        quiet = Maker(self.source, DataConfig(train=(), crop="part"), AugmentConfig(), self.encoder, 1, 0)
        made, bad = [], []
        for row, (name, medium) in zip(rows, self.source.media(rows), strict=True):
            try:
                found = quiet._still(medium)
            except MediaError as e:
                bad.append((name, str(e)))
            else:
                made.append({k: v[None] for k, v in found.items()} | {"rows": np.int64(row)})
        if not made:
            raise DataError(f"none of {len(rows)} examples decodes, {bad[0][0]} first: {bad[0][1]}")
        arrays = {key: np.stack([m[key] for m in made]) for key in made[0]}
        n = len(made)
        arrays["partner"], arrays["share"] = np.arange(n, dtype=np.int32), np.ones(n, np.float32)
        labels = self.source.labels
        if labels is not None:
            arrays["labels"] = labels[arrays["rows"]]
        return arrays, bad

    def _still(self, medium: Audio | Image) -> dict[str, np.ndarray]:
        return self._sound(medium, None) if isinstance(medium, Audio) else self._image(medium, None)


def _draw(rng: np.random.Generator | None, n: int) -> list[float]:
    """Numbers from 0 to 1; without a generator, 0."""
    return [0.0] * n if rng is None else rng.random(n).tolist()


def _bands(rng: np.random.Generator | None, n: int, most: int, size: int) -> np.ndarray:
    """First and last + 1, [n, 2]."""
    if not n or rng is None:
        return np.zeros((0, 2), np.int32)
    width = rng.integers(0, min(most, size) + 1, n)
    first = (rng.random(n) * (size - width + 1)).astype(np.int64)
    return np.stack([first, first + width], axis=1).astype(np.int32)


@dataclass
class Loader:
    """Batches from a step on, some of them made ahead. Close it, or leave the `with`, so that its threads end."""

    maker: Maker
    first: int
    last: int
    workers: int
    ahead: int
    _pool: Any = field(default=None, repr=False)

    def __enter__(self) -> "Loader":
        self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="benchkit-loader")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        waiting: deque[Future[Batch]] = deque()
        coming = iter(range(self.first, self.last))
        depth = max(self.ahead, self.workers)
        for step in coming:
            waiting.append(self._pool.submit(self.maker.batch, step))
            if len(waiting) < depth:
                continue
            yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@dataclass
class Undecodable:
    """What did not decode so far, by name, and how many examples were asked for."""

    share: float
    names: dict[str, str] = field(default_factory=dict)
    seen: int = 0

    def add(self, batch: Batch, n: int) -> list[str]:
        """Names that are new. Raises DataError where there are too many."""
        new = [name for name, _ in batch.bad if name not in self.names]
        self.names |= dict(batch.bad)
        self.seen += n
        if len(self.names) > self.share * max(self.seen, 20):
            first, why = next(iter(self.names.items()))
            raise DataError(
                f"{len(self.names)} of {self.seen} examples do not decode, more than data.max_bad={self.share:g}: "
                f"'{first}' first ({why})"
            )
        return new


__all__ = ["Batch", "BenchkitError", "Loader", "Maker", "Undecodable"]
