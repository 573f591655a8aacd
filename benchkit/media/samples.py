"""A part of a recording that is decoded already."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from jaxtyping import Float32

from benchkit.media.channels import Channel, listened


@dataclass(frozen=True, eq=False)
class Samples:
    """A part of a recording that is decoded already (`cut`): what `OpenAudio` is, as far as `Audio` needs it.

    samples: at `rate` Hz, -1 to 1 at full scale. name: of the recording and the part, for errors. verified: as there.
    """

    samples: Float32[np.ndarray, "T channels"]
    rate: int
    name: str
    verified: bool = True

    @property
    def frames(self) -> int:
        return len(self.samples)

    @property
    def channels(self) -> int:
        return self.samples.shape[1]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def blocks(
        self, start: int = 0, frames: int | None = None, size: int | None = None, channel: Channel | None = None
    ) -> Iterator[Float32[np.ndarray, "T channels"]]:
        """The samples, as one block."""
        part = self.samples[start : None if frames is None else start + frames]
        if len(part):
            yield part if channel is None else listened(part, channel)

    def __enter__(self) -> "Samples":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass
