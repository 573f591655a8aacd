"""Start-up: `benchkit --help`, `plugins` and `ls` against importing the four libraries that they stand on.

    python bench/startup.py            ratios of the medians, interleaved, in one run
    python bench/startup.py --list     and for each command, what its imports cost (-X importtime); bench/startup.txt

The baseline: `python -c "import typer, rich.table, peewee, pluggy"`. A ratio of 1.5 is the limit.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchkit.records.report import Cell, Environment, Metric, Report
from benchkit.store import open_store
from benchkit.store.insert import insert

BASELINE = ["-c", "import typer, rich.table, peewee, pluggy"]
LIMIT = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--list", action="store_true", help="the imports of each command and their cost")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder) / "registry.sqlite"
        fill(db)
        programs = {
            "baseline": BASELINE,
            "benchkit --help": ["-m", "benchkit", "--help"],
            "benchkit plugins": ["-m", "benchkit", "plugins"],
            "benchkit ls": ["-m", "benchkit", "ls", "--db", str(db)],
        }
        compare(programs, args.rounds)
        if args.list:
            for name, words in programs.items():
                print(f"\n{name}\n{imports(words)}")


def fill(db: Path, n: int = 100) -> None:
    """A registry with n runs, so that `ls` has something to list."""
    environment = Environment("0.1.0", None, None, [], {}, "host", "cpu", 1.0, 1.0, 1)
    with open_store(db) as store, store.write():
        for i in range(n):
            when = f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}.000000+00:00"
            report = Report(
                uuid=f"{i:032x}", cell=Cell("digits", "pixels", "linear", -1, i), params={}, providers={},
                primary="top1", metrics=[Metric("top1", 0.9, 0.8, 1.0)], chance=0.1, n_train_used=1, n_test=1,
                n_skipped=0, n_classes=10, task_fingerprint="t", model_fingerprint="m", started_at=when,
                finished_at=when, environment=environment,
            )  # fmt: skip
            insert(store, report)


def compare(programs: dict[str, list[str]], rounds: int) -> None:
    """Each program once a round, so that what slows one slows all. The first round, which warms caches, is left out."""
    wall: dict[str, list[float]] = {name: [] for name in programs}
    processor: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(rounds + 1):
        for name, words in programs.items():
            seconds, cpu = once(words)
            if i:
                wall[name].append(seconds)
                processor[name].append(cpu)
    print(f"medians of {rounds} interleaved runs, Python {sys.version.split()[0]}; a ratio may be {LIMIT}")
    for name in programs:
        ours, theirs = statistics.median(wall[name]), statistics.median(wall["baseline"])
        cpu, cpu_theirs = statistics.median(processor[name]), statistics.median(processor["baseline"])
        print(f"{name:18} wall {ours * 1000:5.0f} ms, ratio {ours / theirs:.2f}   "
              f"processor {cpu * 1000:5.0f} ms, ratio {cpu / cpu_theirs:.2f}")  # fmt: skip


def once(words: list[str]) -> tuple[float, float]:
    """Seconds of wall and processor time of one Python."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return seconds, usage.ru_utime + usage.ru_stime


def imports(words: list[str], top: int = 25, runs: int = 7) -> str:
    """The costliest imports, their own time and with what they import, in milliseconds: the least of several runs, for
    -X importtime goes by the clock."""
    least: dict[str, tuple[int, int]] = {}
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True, check=True)
        for own, whole, _, name in re.findall(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)", done.stderr):
            known = least.get(name, (int(own), int(whole)))
            least[name] = min(known[0], int(own)), min(known[1], int(whole))
    rows = sorted(((own, whole, name) for name, (own, whole) in least.items()), reverse=True)
    total = sum(own for own, _, _ in rows) / 1000
    lines = [f"  {own / 1000:7.1f} {whole / 1000:7.1f}  {name}" for own, whole, name in rows[:top]]
    return "\n".join([f"  {len(rows)} modules, {total:.0f} ms; own and with what it imports:", *lines])


if __name__ == "__main__":
    main()
