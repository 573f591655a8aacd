"""What decoding finds out about a medium beside its samples: bits that go with its hash, for the check `media`."""

import numpy as np
from jaxtyping import UInt64

SILENT = 1
"""Nothing is heard: the waveform stays within one step of 16 bits."""
CLIPPED = 2
"""More than a thousandth of the samples are at full scale."""
CANCELS = 4
"""The mix of the channels is 30 dB or more below one of them: they are in antiphase."""
UNVERIFIED = 8
"""The file does not say how long it is, so what may be missing at its end cannot be known."""
NOTE_BITS = 8
"""Of a medium's 64: its hash has the others."""


def with_notes(media_hash: int, notes: int) -> int:
    """One number of both, as the feature cache keeps it."""
    return media_hash | notes


def hashes_and_notes(media: UInt64[np.ndarray, " N"]) -> tuple[UInt64[np.ndarray, " N"], UInt64[np.ndarray, " N"]]:
    """The two again."""
    mask = np.uint64((1 << NOTE_BITS) - 1)
    return media & ~mask, media & mask
