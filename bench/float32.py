"""What a backbone's forward pass on the CPU gains where float32 products go to oneDNN (benchkit/machine/float32.py).

    uv run python bench/float32.py                                 Bird-MAE base with random weights
    uv run python bench/float32.py --model random-vit --batch 32   another backbone

The baseline is the same backbone called as torch is installed, in the same process and in turns. Where the switch does
nothing (see there on which processors it does), both are the same, and it says so.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from benchkit.catalog.resolve import resolve
from benchkit.machine.float32 import fast_float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bird-mae,init=random")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5, help="of each; medians count")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, its threads: "
          f"{torch.get_num_threads()}")  # fmt: skip
    with fast_float32("cpu"):
        changed = torch.get_float32_matmul_precision() != "highest"
    print("the switch changes how this processor multiplies" if changed else "the switch does nothing here")

    rng = np.random.default_rng(0)
    for m, k, n in ((2048, 768, 3072), (64, 768, 512)):
        a, b = (torch.from_numpy(rng.standard_normal(shape, np.float32)) for shape in ((m, k), (n, k)))
        plain, fast, _ = in_turns(lambda a=a, b=b: a @ b.T, args.repeats * 10)
        rate = [2e-9 * m * k * n / t.wall for t in (plain, fast)]
        print(f"{m} x {k} times {k} x {n}: {rate[0]:.0f} and {rate[1]:.0f} GFLOP/s, {ratio(plain, fast)}")

    backbone = resolve("model", args.model).build()
    backbone.setup("cpu")
    samples = 5 * (getattr(backbone, "sample_rate", None) or 32_000)
    clips = np.stack([backbone.preprocess(rng.standard_normal(samples, np.float32)) for _ in range(args.batch)])
    plain, fast, (one, other) = in_turns(lambda: backbone.encode(clips).pooled, args.repeats)
    rates = " and ".join(f"{args.batch / t.wall:.2f}" for t in (plain, fast))
    print(f"{args.model}, batches of {args.batch}: {rates} clips a second, {ratio(plain, fast)}")
    print(f"largest difference of a feature: {np.abs(one - other).max():.1e} (largest feature {np.abs(one).max():.1f})")


class Cost:
    """Seconds on the clock and of all processors, medians."""

    def __init__(self, found: list[tuple[float, float]]) -> None:
        self.wall, self.cpu = (statistics.median(of) for of in zip(*found, strict=True))


def in_turns(work: Callable[[], Any], repeats: int) -> tuple[Cost, Cost, tuple[Any, Any]]:
    """As torch is installed, and with the switch; and what the two gave. The first round is not counted."""
    found: tuple[list[tuple[float, float]], ...] = ([], [])
    made: list[Any] = [None, None]
    for repeat in range(repeats + 1):
        for i, how in enumerate((nullcontext(), fast_float32("cpu"))):
            with how, torch.inference_mode():
                start = time.perf_counter(), time.process_time()
                made[i] = work()
                if repeat:
                    found[i].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return Cost(found[0]), Cost(found[1]), (made[0], made[1])


def ratio(plain: Cost, fast: Cost) -> str:
    return f"{plain.wall / fast.wall:.2f}x (processor {plain.cpu / fast.cpu:.2f}x)"


if __name__ == "__main__":
    main()
