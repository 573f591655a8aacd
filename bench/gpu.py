"""What a GPU makes of Bird-MAE and the probes, in one run of less than ten minutes: rates, and the same numbers.

    python bench/gpu.py                              Bird-MAE base and large with random weights, float32 and bfloat16
    python bench/gpu.py --model bird-mae:base --n 2000

Rates: the bare forward pass (the model's own module on spectrograms that are on the device already), `encode` (from
waveforms in memory, spectrogram and copies included), and `extract` end to end (decoding, resampling, cache), each
after a warm-up; shares are of the pass before it. Decoding is measured alone too, since the slowest stage bounds the
whole. Differences: features on the GPU against this machine's CPU in float32, and bfloat16 against float32, relative to
the features' norm. Probes: fitted on the same features on both devices, seconds and the largest difference of a score.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extraction import Files, FilesParams, made_up, prepare_alone

from benchkit.catalog.resolve import resolve
from benchkit.features import Options, extract
from benchkit.interfaces import Backbone, Problem, Subset
from benchkit.media.decode import Audio
from benchkit.progress import Silent

PROBES = ("centroid", "knn", "linear", "mlp", "logreg")
TOKEN_PROBES = ("attentive", "prototypical")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=["bird-mae:base,init=random", "bird-mae:large,init=random"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--n", type=int, default=4000, help="clips to extract")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--skip-probes", action="store_true")
    args = parser.parse_args()
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    print(f"{name}, torch {torch.__version__}, {len(os.sched_getaffinity(0))} cores, batches of {args.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        task = Files(FilesParams(tuple(made_up(Path(folder))), args.n))
        for model in args.model:
            rates(model, task, args)
    if not args.skip_probes:
        probes(args.device)


def rates(model: str, task: Files, args: argparse.Namespace) -> None:
    reference: Backbone = resolve("model", model).build()
    reference.setup("cpu")
    few = waves(reference, task, 8)
    expected = reference.encode(few).pooled
    exact = None
    for dtype in ("float32", "bfloat16"):
        backbone: Backbone = resolve("model", f"{model},dtype={dtype}").build()
        backbone.setup(args.device)
        batch = waves(backbone, task, args.batch_size)
        pooled = backbone.encode(batch).pooled
        bare = rate(bare_pass(backbone, batch), args.batch_size, args.device)
        encode = rate(lambda b=backbone, x=batch: b.encode(x), args.batch_size, args.device)
        prepare = prepare_alone(task, backbone, args)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            options = Options(Path(cache), args.device, args.batch_size, args.workers)
            extract(task, backbone, "test", np.arange(args.n), {}, options, Silent())
        whole = args.n / (time.perf_counter() - began)
        print(
            f"{model} {dtype}: bare {bare:,.0f}/s, encode {encode:,.0f}/s ({encode / bare:.2f}), decoding alone "
            f"{prepare:,.0f}/s, end to end {whole:,.0f}/s ({whole / min(encode, prepare):.2f} of the slowest stage)"
        )
        print(
            f"  features against the CPU's in float32: {difference(backbone.encode(few).pooled, expected):.1e}", end=""
        )
        print(f"; against float32 here: {difference(pooled, exact):.1e}" if exact is not None else "")
        exact = pooled if exact is None else exact
        if args.device.startswith("cuda"):
            print(f"  peak memory of the device {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
            torch.cuda.reset_peak_memory_stats()


def waves(backbone: Backbone, task: Files, n: int) -> np.ndarray:
    assert backbone.sample_rate is not None
    media = [e.media for e in task.examples("test", range(n))]
    return np.stack([backbone.preprocess(m.load(backbone.sample_rate)) for m in media if isinstance(m, Audio)])


def bare_pass(backbone: Any, batch: np.ndarray) -> Callable[[], Any]:
    """The model's own module on spectrograms that are on the device already, as `encode` calls it."""
    from benchkit_bird_mae.spectrogram import spectrogram

    device = next(backbone.module.parameters()).device
    levels = spectrogram(torch.from_numpy(batch).to(device), backbone.recipe())

    def run() -> Any:
        with torch.inference_mode():
            return backbone.module(levels)

    return run


def rate(work: Callable[[], Any], n: int, device: str, seconds: float = 4.0) -> float:
    """Examples a second."""
    for _ in range(3):
        work()
    sync(device)
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        work()
        sync(device)
        times += 1
    return n * times / (time.perf_counter() - began)


def sync(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def probes(device: str) -> None:
    """4,000 examples of 21 classes, 768 features; 1,000 of 64 tokens x 192 for the probes on tokens."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 21, 4000)
    pooled = (rng.standard_normal((21, 768))[labels] + 4 * rng.standard_normal((4000, 768))).astype(np.float32)
    tokens = rng.standard_normal((1000, 64, 192)).astype(np.float32)
    tokens[:, ::7] += rng.standard_normal((21, 192))[labels[:1000], None].astype(np.float32)
    problem = Problem("multiclass", 21, tuple(map(str, range(21))))
    for name, x in [(p, pooled) for p in PROBES] + [(p, tokens) for p in TOKEN_PROBES]:
        y = labels[: len(x)]
        subsets = [Subset(np.arange(len(x)), 0)]
        found = {}
        for where in ("cpu", device):
            probe = resolve("classifier", name).build()
            began = time.perf_counter()
            (fitted,) = probe.fit_many(x, y, problem, subsets, device=where)
            scores = fitted.scores(x[:500])
            found[where] = time.perf_counter() - began, scores
        (slow, a), (fast, b) = found["cpu"], found[device]
        agree = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
        print(
            f"{name}: {slow:.1f} s on the CPU, {fast:.1f} s on the GPU ({slow / fast:.1f}x); largest difference of a "
            f"score {np.abs(a - b).max():.1e} of {np.abs(a).max():.1f}, same class {agree:.3f}"
        )


if __name__ == "__main__":
    main()
