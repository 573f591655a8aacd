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
from benchkit.features import Options, extract, set_up
from benchkit.interfaces import Backbone, Problem, Subset
from benchkit.media.decode import Audio
from benchkit.progress import Silent

PROBES = ("linear", "mlp")
TOKEN_PROBES = ("attentive,epochs=5,min_steps=0", "prototypical,epochs=5,min_steps=0")
SEEDS = 12


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
        began = time.perf_counter()
        set_up(backbone, args.device)
        ready = time.perf_counter() - began
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
            f"{model} {dtype}: set up in {ready:.1f} s, bare {bare:,.0f}/s, "
            f"encode {encode:,.0f}/s ({encode / bare:.2f}), decoding alone {prepare:,.0f}/s, "
            f"end to end {whole:,.0f}/s ({whole / min(encode, prepare):.2f} of the slowest stage)"
        )
        print(f"  features against the CPU's in float32: {difference(backbone.encode(few).pooled, expected):.1e}")
        if exact is not None:
            print(f"  features against float32 on this device: {difference(pooled, exact):.1e}")
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
    """One fit, and fits of 12 seeds on half of the examples each, trained together; on 4,000 examples of 21 classes,
    768 features, and for probes on tokens on 1,000 of 64 tokens x 192."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 21, 4000)
    pooled = (rng.standard_normal((21, 768))[labels] + 4 * rng.standard_normal((4000, 768))).astype(np.float32)
    tokens = rng.standard_normal((1000, 64, 192)).astype(np.float32)
    tokens[:, ::7] += rng.standard_normal((21, 192))[labels[:1000], None].astype(np.float32)
    for name, x in [(p, pooled) for p in PROBES] + [(p, tokens) for p in TOKEN_PROBES]:
        y = labels[: len(x)]
        one = [Subset(np.arange(len(x)), 0)]
        many = [Subset(np.sort(np.random.default_rng(s).permutation(len(x))[: len(x) // 2]), s) for s in range(SEEDS)]
        (slow, a), (fast, b) = fits(name, x, y, one, "cpu"), fits(name, x, y, one, device)
        all_slow, all_fast = fits(name, x, y, many, "cpu")[0], fits(name, x, y, many, device)[0]
        same = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
        print(
            f"{name}: one {slow:.1f} s on the CPU, {fast:.1f} s on the GPU ({slow / fast:.1f}x); {SEEDS} seeds "
            f"{all_slow:.1f} and {all_fast:.1f} s ({all_slow / all_fast:.1f}x); scores differ by "
            f"{np.abs(a - b).max():.1e} of {np.abs(a).max():.1f}, same class {same:.3f}"
        )


def fits(name: str, x: np.ndarray, y: np.ndarray, subsets: list[Subset], device: str) -> tuple[float, np.ndarray]:
    """Seconds, and the first fit's scores of the first 500 examples."""
    problem = Problem("multiclass", 21, tuple(map(str, range(21))))
    began = time.perf_counter()
    scores = [
        f.scores(x[:500]) for f in resolve("classifier", name).build().fit_many(x, y, problem, subsets, device=device)
    ]
    return time.perf_counter() - began, scores[0]


if __name__ == "__main__":
    main()
