"""From the channels of a recording to the waveform that is heard of it, and what is to be noticed about that."""

import numpy as np
from jaxtyping import Float32, Float64

from benchkit.errors import MediaError
from benchkit.media.channels import Channel, listened
from benchkit.media.notes import CANCELS, CLIPPED, SILENT, UNVERIFIED
from benchkit.media.recording import OpenAudio
from benchkit.media.samples import Samples

STEP = 2.0**-15
"""One step of 16 bits."""
FULL, OFTEN = 0.999, 1e-3
"""Full scale, and the share of samples there from which on a recording is called clipped."""
CANCELLED = 1e-3
"""30 dB, as a ratio of energies."""
THIN = 7
"""Every so many samples tell whether a closer look at the channels is worth it."""


def listen(
    recording: OpenAudio | Samples, start: int, frames: int | None, channel: Channel, most: int
) -> tuple[Float32[np.ndarray, " T"], int]:
    """The waveform of a part at the recording's own rate, and its notes; empty where the part lies behind the end.

    start, frames: of the part, None to the end. Raises MediaError where that is more than `most` samples and nobody
    said how many, and where samples are no numbers.
    """
    blocks, energies, mixed, n = [], np.zeros(recording.channels), 0.0, 0
    for block in recording.blocks(start, frames):
        some = listened(block, channel)
        if recording.channels > 1 and channel == "mix":
            each, both = _energies(block, some[:, 0])
            energies, mixed = energies + each, mixed + both
        elif recording.channels > 1 and channel == "loudest":
            energies = energies + np.einsum("tc,tc->c", some, some, dtype=np.float64)
        blocks.append(some)
        n += len(block)
        if frames is None and n > most:
            raise too_long(recording)
    if not n:
        return np.empty(0, np.float32), 0
    wave = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    wave = wave[:, int(np.argmax(energies)) if wave.shape[1] > 1 else 0]
    low, high = float(wave.min()), float(wave.max())
    if not np.isfinite(high - low):
        raise MediaError(f"{recording.name} holds samples that are NaN or infinite")
    notes = 0 if recording.verified else UNVERIFIED
    if energies.max() > n * STEP**2 and channel == "mix" and mixed <= CANCELLED * energies.max():
        notes |= CANCELS
    elif high - low < STEP:
        notes |= SILENT
    if (high >= FULL or low <= -FULL) and np.count_nonzero(np.abs(wave) >= FULL) > OFTEN * n:
        notes |= CLIPPED
    return wave, notes


def too_long(recording: OpenAudio | Samples) -> MediaError:
    """What to do with a recording that nobody says how much of is used."""
    long = f"is {recording.seconds:,.0f} s long" if recording.frames is not None else "is very long"
    return MediaError(
        f"{recording.name} {long}, and neither the task nor the backbone says how much of it is used: cut it, give the "
        "task the length of a part (duration), or the backbone its `seconds`"
    )


def _energies(
    block: Float32[np.ndarray, "T C"], mix: Float32[np.ndarray, " T"]
) -> tuple[Float64[np.ndarray, " C"], float]:
    """Sums of squares of the channels and of their mean: of some samples, or of all where they seem to cancel."""
    thin, some = block[::THIN], mix[::THIN]
    each, both = np.einsum("tc,tc->c", thin, thin), float(np.dot(some, some))
    if both > 10 * CANCELLED * each.max():
        return each.astype(np.float64) * THIN, both * THIN
    return np.einsum("tc,tc->c", block, block, dtype=np.float64), float(np.dot(mix, mix))
