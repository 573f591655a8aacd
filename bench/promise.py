"""The whole promise: a table of 36 cells against one cold cell, and one more classifier against the same, in one run.

    python bench/promise.py --task hsn,repo=FOLDER --model bird-mae,init=random
    python bench/promise.py --task digits --model pixels --n-train 1 5 10 -1

Everything is `benchkit run` as a user types it, each in a process of its own, start-up included. Cold: an empty
registry and an empty feature cache, one cell that trains on all examples. The table: 3 classifiers x 4 training sizes x
3 seeds, its registry and cache empty too. One more: a classifier that the table does not have, on the features that the
table left. The baseline is one cold cell; the usual way, a script that extracts, fits and evaluates for each cell, pays
that 36 times, and the line says what that would be.

Wall time is what a user waits for, and suffers from whatever else the machine does meanwhile; processor time does not.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

CLASSIFIERS = ("linear", "mlp", "knn")
FURTHER = "centroid"
SIZES = (1, 5, 10, -1)
SEEDS = (0, 1, 2)
AT_MOST, AT_LEAST = 1.5, 20


@dataclass(frozen=True)
class Cost:
    """Seconds, of the process and its children."""

    wall: float
    processor: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.wall + other.wall, self.processor + other.processor)

    def __truediv__(self, other: "Cost") -> "Cost":
        return Cost(self.wall / other.wall, self.processor / other.processor)

    def __str__(self) -> str:
        return f"wall {self.wall:8.2f}, processor {self.processor:8.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, help="a task whose data is here")
    parser.add_argument("--model", required=True)
    parser.add_argument("--classifier", nargs=3, default=CLASSIFIERS)
    parser.add_argument("--further", default=FURTHER, help="the classifier that is added to the table")
    parser.add_argument("--n-train", nargs=4, default=SIZES, type=int)
    parser.add_argument("--rounds", type=int, default=1, help="medians of so many; where cold is long, one will do")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--once",
        action="store_true",
        help="extract once: the table is the cold cell and then the others in a second command; no less than the truth",
    )
    parser.add_argument("--show", action="store_true", help="what benchkit prints")
    args = parser.parse_args()
    print(f"{args.task}, {args.model}; {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    cold, table, further = ([], [], [])
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
            folder = Path(first if args.once else second)
            cold.append(run(args, Path(first), args.classifier[:1], (-1,), SEEDS[:1]))
            rest = run(args, folder, args.classifier, args.n_train, SEEDS)
            table.append(cold[-1] + rest if args.once else rest)
            further.append(run(args, folder, [args.further], (-1,), SEEDS[:1]))
    one, all_, more = median(cold), median(table), median(further)
    n = len(args.classifier) * len(args.n_train) * len(SEEDS)
    print(f"{'one cold cell':30}{one} s")
    print(f"{f'{n} cells, cold':30}{all_} s  (one cold cell for each: {n * one.wall:,.0f} s)")
    print(f"{'one more classifier, cached':30}{more} s")
    print(f"{f'{n} cells to one':30}{all_ / one}      at most {AT_MOST}")
    print(f"{'cold to one more':30}{one / more}      at least {AT_LEAST}")


def run(
    args: argparse.Namespace, folder: Path, classifiers: list[str], sizes: tuple[int, ...], seeds: tuple[int, ...]
) -> Cost:
    """`benchkit run` of this grid with the registry and the cache in `folder`."""
    given = [("classifier", classifiers), ("n-train", sizes), ("seed", seeds)]
    words = ["--task", args.task, "--model", args.model, "--device", args.device, "--db", str(folder / "r.sqlite")]
    words += itertools.chain.from_iterable((f"--{name}", str(value)) for name, values in given for value in values)
    out = None if args.show else subprocess.PIPE
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchkit", "run", *words],
            env=os.environ | {"BENCHKIT_CACHE": str(folder / "cache")},
            stdout=out and said,
            stderr=out and said,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(said.read().decode() or f"benchkit ended with {process.returncode}")
    return Cost(wall, usage.ru_utime + usage.ru_stime)


def median(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.processor for c in costs))


if __name__ == "__main__":
    main()
