"""Windows of a long recording from one pass over its file: each sample is decoded once, and only what windows that
overlap share is in memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchkit.errors import MediaError
from benchkit.media.channels import Channel
from benchkit.media.decode import Audio
from benchkit.media.recording import OpenAudio
from benchkit.media.samples import Samples

GAP = 10.0
"""Seconds between two windows from which on what lies between them is jumped over, where the format allows that."""


def cut(
    source: Path | bytes, starts: Sequence[float], width: float, channel: Channel = "mix", *, pad: bool = False
) -> Iterator[Audio]:
    """The windows that begin at `starts`, in seconds, in that order; each is `width` seconds long.

    They are to the sample what `Audio(source, start, width)` is. Fastest where `starts` ascends: each run of ascending
    starts is one pass over the file. pad: with zeros, where the recording ends before the window. What does not decode
    is given as such an `Audio`, which fails when its turn comes, and no other window with it.
    """
    at = 0
    while at < len(starts):
        end = at + 1
        while end < len(starts) and 0 <= starts[end] - starts[end - 1] <= width + GAP:
            end += 1
        yield from _run(source, starts[at:end], width, channel, pad)
        at = end


def _run(source: Path | bytes, starts: Sequence[float], width: float, channel: Channel, pad: bool) -> Iterator[Audio]:
    done = 0
    try:
        with OpenAudio(source) as recording:
            for samples in _cut(recording, starts, width, channel, pad):
                done += 1
                yield Audio(samples, 0.0, width, channel)
    except MediaError:
        for start in starts[done:]:
            yield Audio(source, start, width, channel)


def _cut(recording: OpenAudio, starts: Sequence[float], width: float, channel: Channel, pad: bool) -> Iterator[Samples]:
    rate, frames = recording.rate, round(width * recording.rate)
    first = [round(start * rate) for start in starts]
    size = max(frames, min(rate * 10, 1 << 20))
    blocks = recording.blocks(first[0], first[-1] + frames - first[0], size=size)
    held: list[np.ndarray] = []
    begin = end = first[0]
    for start, seconds in zip(first, starts, strict=True):
        while end < start + frames and (block := next(blocks, None)) is not None:
            held.append(block)
            end += len(block)
        while held and begin + len(held[0]) <= start:
            begin += len(held.pop(0))
        if len(held) != 1:
            held = [np.concatenate([np.empty((0, recording.channels), np.float32), *held])]
            held, begin = [held[0][start - begin :]], max(begin, start)  # what no later window reaches is let go
        (near,) = held
        window = near[start - begin : start - begin + frames]
        name = f"{recording.name} from {seconds:g} s"
        if not len(window):
            raise MediaError(f"{name} holds no audio")
        if pad and len(window) < frames:
            window = np.concatenate([window, np.zeros((frames - len(window), window.shape[1]), np.float32)])
        yield Samples(np.array(window), rate, name, recording.verified)
