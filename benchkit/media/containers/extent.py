"""What a container says of its length, beside what lies in the file."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Extent:
    """stated: how much sound the container says that it holds, in `unit`; None: it says nothing, and sound goes on to
    the end of the file. held: how much of that is there. why: what else is wrong with it, as part of a sentence, or "".
    mend: bytes of the header, by their place, without which libsndfile does not read to the end.
    """

    stated: int | None
    held: int
    unit: Literal["bytes", "frames"] = "bytes"
    why: str = ""
    mend: tuple[int, bytes] | None = None

    @property
    def verified(self) -> bool:
        """Whether it can be known that nothing is missing."""
        return self.stated is not None

    @property
    def whole(self) -> bool:
        return not self.why and (self.stated is None or self.held >= self.stated)


UNKNOWN = Extent(None, 0)
"""Of a format that states no length."""
