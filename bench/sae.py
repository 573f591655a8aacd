"""Training sparse autoencoders: speed and memory beside SAELens' own trainer and a plain torch loop, in one run; and
what rounding products to TF32 or bfloat16 changes.

    python bench/sae.py --saelens PYTHON      PYTHON: of an environment with sae-lens, numpy and torch
    python bench/sae.py --precision           on a GPU; on a CPU without TF32

Each contender trains the same vectors in a process of its own, one after the other; memory is what the process had at
most, less what it had before the first step. Rates are of the median step.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def vectors(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Sums of a few directions, so that there is something to learn."""
    rng = np.random.default_rng([26, seed])
    directions = rng.standard_normal((4 * dim, dim)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = np.zeros((n, dim), np.float32)
    for _ in range(16):
        x += rng.uniform(1, 2, (n, 1)).astype(np.float32) * directions[rng.integers(0, len(directions), n)]
    return x


def clock() -> float:
    """Seconds, of the wall; of the processor where other work is on the machine (--processor)."""
    return time.process_time() if "--processor" in sys.argv else time.perf_counter()


def resident() -> float:
    """GB at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def told(name: str, seconds: list[float], batch: int, before: float, **more: float) -> None:
    rate = batch / float(np.median(seconds[1:] or seconds))
    print(json.dumps({"name": name, "rate": rate, "memory": resident() - before} | more))


def benchkit(args: argparse.Namespace) -> None:
    import torch

    from benchkit.machine.float32 import fast_float32
    from benchkit.sae import SAEConfig, TrainConfig
    from benchkit.sae.measure import Measured
    from benchkit.sae.run import Run

    batches = [torch.from_numpy(x) for x in np.array_split(vectors(args.batch * 2, args.dim), 2)]
    before = resident()
    config = SAEConfig(args.activation, args.width, "none", k=args.k)
    run, seconds = Run.start(config, batches[0], "cpu", "x"), []
    with fast_float32("cpu"):
        for i in range(args.steps):
            began = clock()
            run.step(batches[i % 2], i, args.steps, TrainConfig(dead_after=10**7), log=False)
            seconds.append(clock() - began)
        trained = resident() - before
        began = clock()
        measured = Measured(args.width, "cpu")
        with torch.no_grad():
            for i in range(args.measured // args.batch):
                z = batches[i % 2]
                f = run.model.active(run.model.pre_activations(z), training=False)
                z_hat = run.model.decode(f)
                measured.add(z, z_hat, f, z, (z - z_hat).double())
            measured.found()
            measured.pairs(run.model.w_dec.detach())
    told(
        "benchkit",
        seconds,
        args.batch,
        before,
        end=clock() - began,
        memory=trained,
        peak=resident() - before,
    )


def loop(args: argparse.Namespace) -> None:
    """As short as it can be: TopK, Adam, rows of length 1. No dead units, no metrics."""
    import torch

    batches = [torch.from_numpy(x) for x in np.array_split(vectors(args.batch * 2, args.dim), 2)]
    before = resident()
    w_dec = torch.nn.functional.normalize(torch.randn(args.width, args.dim), dim=1).requires_grad_()
    w_enc, b_enc = w_dec.detach().T.clone().requires_grad_(), torch.zeros(args.width, requires_grad=True)
    b_dec = batches[0].mean(0).clone().requires_grad_()
    optimiser, seconds = torch.optim.Adam([w_enc, b_enc, w_dec, b_dec], lr=3e-4), []
    for i in range(args.steps):
        began = clock()
        z = batches[i % 2]
        pre = ((z - b_dec) @ w_enc + b_enc).relu()
        if args.activation == "topk":
            kept = pre.topk(args.k, dim=1, sorted=False)
            f = torch.zeros_like(pre).scatter(1, kept.indices, kept.values)
        else:
            flat = pre.flatten()
            kept = flat.topk(args.k * len(z), sorted=False)
            f = torch.zeros_like(flat).scatter(0, kept.indices, kept.values).view_as(pre)
        loss = (z - (f @ w_dec + b_dec)).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            w_dec /= w_dec.norm(dim=1, keepdim=True)
        seconds.append(clock() - began)
    told("plain torch loop", seconds, args.batch, before)


def saelens(args: argparse.Namespace) -> None:
    import itertools

    import torch
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    batches = [torch.from_numpy(x) for x in np.array_split(vectors(args.batch * 2, args.dim), 2)]
    before, seconds = resident(), []

    def stream():
        last = clock()
        for batch in itertools.cycle(batches):
            now = clock()
            seconds.append(now - last)
            last = now
            yield batch

    kinds = {"topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
             "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig)}  # fmt: skip
    cls, config = kinds[args.activation]
    sae = cls(config(d_in=args.dim, d_sae=args.width, k=args.k, device="cpu"))
    total = args.batch * (args.steps + 1)
    SAETrainer(SAETrainerConfig(total, args.batch, device="cpu"), sae, stream()).fit()
    told("SAELens", seconds[1:], args.batch, before)


def precision(args: argparse.Namespace) -> None:
    import torch

    from benchkit.activations.recorder import _conclude
    from benchkit.activations.shards import FORMAT, Identity, ShardWriter
    from benchkit.sae import SAEConfig, TrainConfig, train

    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"device: {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}")
    x = vectors(args.vectors, args.dim)
    names = ("held_out_explained_variance_x", "explained_variance_x", "l0", "dead")
    with tempfile.TemporaryDirectory() as folder:
        on = Path(folder) / "on"
        on.mkdir()
        identity = Identity(FORMAT, "t", "m", "train", "r", len(x), "d", "w", "float32")
        identity.claim(on)
        with ShardWriter(on, "tokens", "float32", [str(i) for i in range(len(x))], 0) as writer:
            for rows in np.array_split(np.arange(len(x)), 8):
                writer.write(rows, x[rows][:, None])
            writer.close()
            _conclude(on, "tokens", identity, writer.shards, {}, 0)
        for kind in ("topk", "batchtopk"):
            for how in ("float32", "tf32", "bfloat16"):
                if how == "tf32" and device == "cpu":
                    continue
                for attempt in range(2):  # the first one warms up
                    shared = TrainConfig(epochs=args.epochs, precision=how, batch_size=args.batch)
                    began = clock()
                    (t,) = train(
                        on, Path(folder) / f"{kind}-{how}-{attempt}",
                        [SAEConfig(kind, args.width, "dimension", k=args.k, lr=1e-3)], shared, device=device,
                    ).trained  # fmt: skip
                    took = clock() - began
                m = t.record["metrics"]
                figures = ", ".join(f"{name} {m[name]:.4f}" for name in names)
                print(f"{kind:10} {how:9} {took:6.1f} s in all   {figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--width", type=int, default=12_288)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--measured", type=int, default=65_536, help="vectors that the result is measured on")
    parser.add_argument("--activation", choices=("topk", "batchtopk"), default="topk")
    parser.add_argument("--saelens", default=None)
    parser.add_argument("--precision", action="store_true")
    parser.add_argument("--processor", action="store_true", help="rates by processor time")
    parser.add_argument("--only", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    contenders = {"benchkit": benchkit, "loop": loop, "saelens": saelens}
    if args.precision:
        precision(args)
        return
    if args.only:
        contenders[args.only](args)
        return
    words = [w for name in ("dim", "width", "k", "batch", "steps", "activation", "measured")
             for w in (f"--{name}", str(getattr(args, name)))]  # fmt: skip
    words += ["--processor"] * args.processor
    for name in ("benchkit", "loop", "saelens"):
        if name == "saelens" and not args.saelens:
            continue
        python = args.saelens if name == "saelens" else sys.executable
        made = subprocess.run([python, __file__, "--only", name, *words], capture_output=True, text=True)
        if made.returncode:
            raise SystemExit(f"{name}: {made.stderr.strip().splitlines()[-1]}")
        m = json.loads(made.stdout.strip().splitlines()[-1])
        end = f"   measuring {m['end']:.0f} s, at most {m['peak']:.1f} GB" if "end" in m else ""
        print(f"{m['name']:17} {m['rate']:8,.0f} vectors/s   {m['memory']:5.2f} GB while training{end}", flush=True)


if __name__ == "__main__":
    main()
