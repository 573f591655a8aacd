"""Disk and memory of token probes, against what storing the test split's tokens would take, in one run.

    python bench/tokens.py                                       birdset_mini and bird_mae_tiny beside the repository
    python bench/tokens.py --task hsn,repo=DIR --model bird-mae:base --n-train 5 --classifier prototypical

A run of its own process, with a scratch folder and a cache of its own. Its scratch files have no names, so they are
measured through /proc while it runs (Linux only): the largest sum of their sizes, every 20 ms.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

import benchkit
from benchkit.catalog.resolve import resolve

SHARED = Path(__file__).parent.parent.parent / "shared"
TASK = f"hsn,repo={SHARED / 'data' / 'birdset_mini'}"
MODEL = f"bird-mae,path={SHARED / 'fixtures' / 'bird_mae_tiny'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default=TASK)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--classifier", nargs="+", default=["prototypical", "attentive,depth=1"])
    parser.add_argument("--n-train", type=int, nargs="+", default=[5])
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    n_tokens, dim = token_shape(given.task, given.model, given.device)
    n_test = len(resolve("task", given.task).build().ids("test"))
    stored = n_test * n_tokens * dim * 4
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {given.task} with {given.model}")
    print(f"tokens of the test split, stored as float32: {n_test:,} x {n_tokens} x {dim}, {stored / 1e6:.1f} MB")
    for n_train in given.n_train:
        scratch, cache, rss, seconds = run(given, n_train)
        print(
            f"n_train={n_train}, {' and '.join(given.classifier)}: scratch at most {scratch / 1e6:.1f} MB "
            f"({scratch / stored:.2f} of that), feature cache {cache / 1e6:.2f} MB ({cache / stored:.3f} of that), "
            f"memory at most {rss / 1e6:.0f} MB, {seconds:.0f} s"
        )


def token_shape(task: str, model: str, device: str) -> tuple[int, int]:
    """T and D of the model's tokens for one test example of the task."""
    backbone = resolve("model", model).build()
    example = next(iter(resolve("task", task).build().examples("test", [0])))
    raw = example.media.load(backbone.sample_rate) if backbone.sample_rate else example.media.load()
    backbone.setup(device)
    tokens = backbone.encode(np.stack([backbone.preprocess(raw)]), tokens=True).tokens
    assert tokens is not None
    return tokens.shape[1], tokens.shape[2]


def run(given: argparse.Namespace, n_train: int) -> tuple[int, int, int, float]:
    """Peak bytes of scratch files, bytes of the feature cache, peak resident memory, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        scratch, cache, db = (Path(folder) / name for name in ("scratch", "cache", "r.sqlite"))
        scratch.mkdir()
        command = [sys.executable, "-m", "benchkit", "run", "--task", given.task, "--model", given.model]
        command += [word for c in given.classifier for word in ("--classifier", c)]
        command += ["--n-train", str(n_train), "--device", given.device, "--db", str(db)]
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=os.environ | {"TMPDIR": str(scratch), "BENCHKIT_CACHE": str(cache)}, stdout=subprocess.DEVNULL
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, open_files(process.pid, scratch))
            time.sleep(0.02)
        if process.returncode:
            sys.exit(f"the run failed: {' '.join(command)}")
        seconds = time.perf_counter() - began
        with benchkit.open(db) as results:
            rss = max(int(r) for (r,) in results.sql("SELECT peak_rss_bytes FROM runs").itertuples(index=False))
        return peak, sum(f.stat().st_blocks * 512 for f in cache.rglob("*") if f.is_file()), rss, seconds


def open_files(pid: int, folder: Path) -> int:
    """Bytes of the files in `folder`, and of those without a name that a process and its children hold there."""
    seen: dict[tuple[int, int], int] = {}
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        for link in (*Path(f"/proc/{process.pid}/fd").glob("*"), *Path(f"/proc/{process.pid}/map_files").glob("*")):
            try:
                if os.readlink(link).startswith(str(folder)):
                    stat = link.stat()
                    seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
            except OSError:
                continue  # closed meanwhile
    return sum(seen.values())


if __name__ == "__main__":
    main()
