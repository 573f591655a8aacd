"""Resampling clip by clip with filters kept by rate pair, beside the other ways to do it, in one run.

    uv run python bench/resample.py    5 s from 44.1, 48 and 22.05 kHz to 32 kHz

The baseline is libsoxr as people call it, with new filters for every clip (`soxr.resample`, which librosa calls as
well). A batch is several clips as channels of one call to libsoxr. All run on one core, as in a decoding worker.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import soxr

from benchkit.media.resample import resample

TO = 32_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a clip")
    parser.add_argument("--repeats", type=int, default=15, help="of each, in turns; medians count")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {args.clips} clips of {args.seconds:g} s")
    for source in (44_100, 48_000, 22_050):
        clips = np.random.default_rng(0).standard_normal((args.clips, int(args.seconds * source)), np.float32)
        as_channels = np.ascontiguousarray(clips.T)
        ways: dict[str, Callable[[], Any]] = {
            "soxr.resample, clip by clip": lambda c=clips, s=source: [soxr.resample(one, s, TO) for one in c],
            "benchkit, clip by clip": lambda c=clips, s=source: [resample(one, s, TO) for one in c],
            "a batch, as soxr's channels": lambda c=as_channels, s=source: soxr.resample(c, s, TO),
        }
        seconds = in_turns(list(ways.values()), args.repeats)
        print(f"\n{source} to {TO} Hz")
        for name, took in zip(ways, seconds, strict=True):
            print(
                f"  {name:30}{1000 * took / args.clips:7.2f} ms a clip, {seconds[0] / took:.2f}x the first one's speed"
            )


def in_turns(ways: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median seconds of processor time."""
    taken: list[list[float]] = [[] for _ in ways]
    for _ in range(repeats):
        for way, times in zip(ways, taken, strict=True):
            began = time.process_time()
            way()
            times.append(time.process_time() - began)
    return [statistics.median(times) for times in taken]


if __name__ == "__main__":
    main()
