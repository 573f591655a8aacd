"""What is heard of several channels."""

from typing import Literal

import numpy as np
from jaxtyping import Float32

Channel = Literal["mix", "left", "right", "loudest"]
"""Of several channels their mean, the first, the second, or the one with the most energy; of one always that one."""


def listened(block: Float32[np.ndarray, "T C"], channel: Channel) -> Float32[np.ndarray, "T C2"]:
    """What of the channels is listened to: one, or all where the loudest is to be found."""
    if block.shape[1] == 1 or channel == "loudest":
        return block
    if channel == "mix":
        return mix(block)[:, None]
    return block[:, :1] if channel == "left" else block[:, 1:2]


def mix(block: Float32[np.ndarray, "T C"]) -> Float32[np.ndarray, " T"]:
    """The mean of the channels; of two written out, which is equal and takes a fifth of the time."""
    if block.shape[1] != 2:
        return block.mean(axis=1)
    both = block[:, 0] + block[:, 1]
    both *= np.float32(0.5)
    return both
