"""Seeding k-means: k-means++ that measures distances from many centres at once against one centre after another.

    python bench/kmeans.py                   8,192 centres among 24,576 vectors of 768 dimensions: kmeans,k=8192
    python bench/kmeans.py --k 1024          fewer, for a quick look

Both are exact k-means++ (Arthur and Vassilvitskii 2007): the same chances, other draws. The vectors are a mixture of
1,000 groups of unequal size, with variances that fall along the dimensions as those of activations do. The potential is
the mean squared distance from the nearest centre, of the vectors and of 5,000 others: lower is better. Processor time,
beside wall time, says what both would be on a machine that does nothing else.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from benchkit.scorers.kmeans import assign, plus_plus

GROUPS, OTHERS = 1000, 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=8192)
    parser.add_argument("--n", type=int, help="vectors (default: as many as the scorer seeds on)")
    parser.add_argument("--dim", type=int, default=768)
    args = parser.parse_args()
    n = args.n or max(3 * args.k, 10_000)
    x = mixture(n + OTHERS, args.dim)
    x -= x.mean(0)
    x, others = x[:n], x[n:]
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(f"{args.k:,} centres among {n:,} vectors of {args.dim} dimensions")
    print(f"{'':22}{'wall':>10}{'processor':>11}{'potential':>11}{'of others':>11}")
    spent = []
    for name, seeds in (("one after another", one_after_another), ("benchkit", plus_plus)):
        centres, wall, processor = timed(seeds, x, args.k)
        potentials = (float(assign(v, centres)[1].mean()) for v in (x, others))
        print(f"{name:22}{wall:>8.1f} s{processor:>9.1f} s" + "".join(f"{p:>11.4f}" for p in potentials), flush=True)
        spent.append((wall, processor))
    (wall, processor), (ours, own) = spent
    print(f"{'ratio':22}{wall / ours:>9.1f}x{processor / own:>10.1f}x")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


def mixture(n: int, dim: int) -> torch.Tensor:
    """[n, dim]"""
    rng = np.random.default_rng(0)
    spread = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    groups = 2 * spread * rng.standard_normal((GROUPS, dim), np.float32)
    of = rng.choice(GROUPS, n, p=rng.dirichlet(np.full(GROUPS, 0.5)))
    x = groups[of] + spread * rng.standard_normal((n, dim), np.float32)
    return torch.from_numpy(x * rng.lognormal(0, 0.3, (n, 1)).astype(np.float32))


def timed(
    seeds: Callable[[torch.Tensor, int, torch.Generator], torch.Tensor], x: torch.Tensor, k: int
) -> tuple[torch.Tensor, float, float]:
    generator, wall, processor = torch.Generator().manual_seed(0), time.perf_counter(), time.process_time()
    centres = seeds(x, k, generator)
    return centres, time.perf_counter() - wall, time.process_time() - processor


def one_after_another(x: torch.Tensor, k: int, generator: torch.Generator) -> torch.Tensor:
    """As the algorithm is written down: a pass over the vectors for each centre."""
    norms = (x * x).sum(dim=1)
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    nearest = torch.full_like(norms, torch.inf)
    for _ in range(k - 1):
        last = chosen[-1]
        nearest = torch.minimum(nearest, (norms - 2 * (x @ x[last]) + norms[last]).clamp_min(0))
        nearest[last] = 0
        chosen.append(int(torch.multinomial(nearest.double(), 1, generator=generator)))
    return x[chosen]


if __name__ == "__main__":
    main()
