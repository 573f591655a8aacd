"""How a clip maps onto a model's window, and what becomes of its windows: all that BirdNET and Perch have in common.

Both see a window of a fixed length, 3 s or 5 s, and give one vector for it. A clip of `seconds` is covered by windows:

    windows=cover    one every `hop` seconds, and the last ends with the clip: a 5-second clip and a 3-second window
                     make 0-3 s and 2-5 s
    windows=padded   one every `hop` seconds until the clip is covered, the last filled up with zeros: 0-3 s and 3-6 s;
                     BirdNET's own tools do so
    windows=centre   one, in the middle: 1-4 s
    windows=first    one, at the beginning: 0-3 s

The features of a clip are the mean (or the maximum, dimension by dimension) of its windows' embeddings.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float32, UInt8

from benchkit import Backbone, BenchkitError, Encoded, Modality, param

Placement = Literal["cover", "padded", "centre", "first"]
Encoder = Callable[[Float32[np.ndarray, "N samples"]], Float32[np.ndarray, "N D"]]
"""Windows as they enter the model, to their embeddings."""


@dataclass(frozen=True)
class Window:
    """What a model takes and gives: `seconds` at `rate` Hz, float32 in -1 to 1, as `dim` numbers."""

    rate: int
    seconds: float
    dim: int

    @property
    def samples(self) -> int:
        return round(self.seconds * self.rate)


def starts(placement: Placement, clip: int, window: int, hop: int) -> tuple[int, ...]:
    """Where the windows begin, ascending. All lengths in samples; a clip no longer than a window has one."""
    spare = clip - window
    if spare <= 0 or placement == "first":
        return (0,)
    if placement == "centre":
        return (spare // 2,)
    if placement == "cover":
        return (*range(0, spare, hop), spare)
    return tuple(range(0, spare + hop, hop))


@dataclass(frozen=True)
class WindowParams:
    """Parameters that every model of windows has. A subclass adds which model."""

    seconds: float = param(
        5.0, low=0.1, high=3600, help="length of a clip: of a longer recording the beginning, a shorter one and zeros"
    )
    windows: Placement = param(
        "cover",
        help="where windows lie in the clip: cover it, the last ending with it; padded: cover it, the last filled up "
        "with zeros; one at the centre; or one at the beginning",
    )
    hop: float | None = param(
        None,
        low=0.05,
        help="seconds from one window's beginning to the next, of windows=cover and padded; none: a window's length",
    )
    pool: Literal["mean", "max"] = param("mean", help="over the windows of a clip, for each dimension")

    @property
    @abstractmethod
    def window(self) -> Window:
        """Of the model that the parameters name."""

    def check(self) -> None:
        """Raises ValueError for a hop that leaves gaps or has no meaning.

        Then brings the parameters into the form that stands for all with the same windows, so that each has one name.
        """
        if self.hop is not None and self.windows not in ("cover", "padded"):
            raise ValueError(f"hop is of windows=cover and windows=padded, and windows={self.windows} has one window")
        if self.hop is not None and self.hop > self.window.seconds:
            raise ValueError(f"hop is {self.hop:g}, and leaves gaps between windows of {self.window.seconds:g} s")
        same = self.starts()
        forms: tuple[tuple[Placement, float | None], ...] = (
            ("cover", None), ("padded", None), ("centre", None), ("first", None), ("cover", self.hop),
        )  # fmt: skip
        for windows, hop in forms:
            if self._starts(windows, hop) == same:
                object.__setattr__(self, "windows", windows)
                object.__setattr__(self, "hop", hop)
                break
        if len(same) == 1:
            object.__setattr__(self, "pool", "mean")

    @property
    def clip(self) -> int:
        """Length of a clip in samples."""
        return round(self.seconds * self.window.rate)

    def starts(self) -> tuple[int, ...]:
        """Where the windows begin in a clip, in samples."""
        return self._starts(self.windows, self.hop)

    def _starts(self, windows: Placement, hop: float | None) -> tuple[int, ...]:
        step = self.window.samples if hop is None else round(hop * self.window.rate)
        return starts(windows, self.clip, self.window.samples, step)


class WindowBackbone(Backbone):
    """A frozen model of windows. tokens: the embeddings of the windows themselves, [B, windows, D]."""

    modalities: ClassVar[tuple[Modality, ...]] = ("audio",)
    params: Any
    _encoder: Encoder | None = None
    _fingerprint = ""

    @abstractmethod
    def load(self, device: str) -> tuple[Encoder, str]:
        """The model on the device, and its fingerprint. Raises BenchkitError."""

    @property
    def sample_rate(self) -> int:  # type: ignore[override]
        return self.params.window.rate

    @property
    def seconds(self) -> float:  # type: ignore[override]
        window = self.params.window
        return min(self.params.clip, self.params.starts()[-1] + window.samples) / window.rate

    @property
    def dim(self) -> int:
        return self.params.window.dim

    def preprocess(
        self, raw: Float32[np.ndarray, " samples"] | UInt8[np.ndarray, "H W C"]
    ) -> Float32[np.ndarray, "windows samples2"]:
        """The windows of a clip."""
        if raw.ndim != 1:
            raise BenchkitError(f"{type(self).__name__} takes audio, not an image of {'x'.join(map(str, raw.shape))}")
        begins, length = self.params.starts(), self.params.window.samples
        clip = np.zeros(begins[-1] + length, np.float32)
        heard = min(len(raw), self.params.clip, len(clip))
        clip[:heard] = raw[:heard]
        return np.stack([clip[start : start + length] for start in begins])

    def setup(self, device: str) -> None:
        self._encoder, self._fingerprint = self.load(device)

    def encode(self, batch: Float32[np.ndarray, "B windows samples"], *, tokens: bool = False) -> Encoded:
        if self._encoder is None:
            raise BenchkitError(f"{type(self).__name__} has no weights yet: call setup(device) first")
        each_bwd = self._encoder(batch.reshape(-1, batch.shape[-1])).reshape(*batch.shape[:2], self.dim)
        pooled = each_bwd.mean(axis=1) if self.params.pool == "mean" else each_bwd.max(axis=1)
        return Encoded(pooled, each_bwd if tokens else None)

    def fingerprint(self) -> str:
        if not self._fingerprint:
            raise BenchkitError(f"{type(self).__name__} has no weights yet: call setup(device) first")
        return self._fingerprint
