"""What a grid of probes costs, trained together, beside one fit: `python bench/probes.py [--quick]`.

The grid is 4 training sizes x 3 seeds x 5 learning rates, 60 heads. It is compared, in this one run on this machine,
with one fit on the largest size by benchkit itself, and with one fit written the way people write it today: a PyTorch
module, a DataLoader, AdamW and a schedule, at the number of threads that suits it best. Features are random, which
changes no time. By operations alone the grid is 15 fits on the largest size and 45 on a few examples.
"""

import argparse
import dataclasses
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchkit.classifiers.linear import Linear, LinearParams
from benchkit.classifiers.mlp import MLP, MLPParams
from benchkit.classifiers.trained import TrainedProbe, fit_grid
from benchkit.interfaces import Problem, Subset

RATES = (0.1, 0.3, 1.0, 3.0, 10.0)
SHOTS = (1, 5, 20, -1)
SEEDS = (0, 1, 2)


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """The fastest of some runs: the one that others on the machine disturbed least."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def grid_of(probe: TrainedProbe, labels: np.ndarray) -> list[tuple[TrainedProbe, Subset]]:
    settings = [type(probe)(dataclasses.replace(probe.params, lr=rate * probe.params.lr)) for rate in RATES]
    return [(p, Subset(rows(labels, k, seed), seed)) for p in settings for k in SHOTS for seed in SEEDS]


def rows(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    if shots < 0:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    classes = range(int(labels.max()) + 1)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:shots] for c in classes]))


def at_best(work: Callable[[], Any], repeats: int) -> float:
    """Seconds, with all threads or with one, whichever is faster."""
    threads = torch.get_num_threads()
    found = seconds(work, repeats)
    torch.set_num_threads(1)
    found = min(found, seconds(work, repeats))
    torch.set_num_threads(threads)
    return found


def today(model: nn.Module, x: np.ndarray, y: np.ndarray, params: Any) -> None:
    """One fit as people write it."""
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=params.batch, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs * len(loader))
    loss = nn.CrossEntropyLoss()
    for _ in range(params.epochs):
        for x_b, y_b in loader:
            optimizer.zero_grad()
            loss(model(x_b), y_b).backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer epochs: ratios are about the same")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=21)
    args = parser.parse_args()
    n, d, c = args.examples, args.dim, args.classes
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, d), np.float32), rng.integers(0, c, n)
    problem = Problem("multiclass", c)
    few: dict[str, Any] = {"epochs": 10, "min_steps": 100} if args.quick else {}
    probes: dict[str, tuple[TrainedProbe, Callable[[], nn.Module]]] = {
        "linear": (
            Linear(LinearParams(**few)),
            lambda: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, c)),
        ),
        "mlp": (
            MLP(MLPParams(**(few or {"epochs": 10, "min_steps": 100}))),
            lambda: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 512), nn.GELU(), nn.Linear(512, c)),
        ),
    }
    cores = torch.get_num_threads()
    print(f"{platform.processor() or platform.machine()}, {cores} threads, torch {torch.__version__}, {sys.platform}")
    print(f"{n:,} x {d} features, {c} classes; grid: {len(SHOTS)} sizes x {len(SEEDS)} seeds x {len(RATES)} rates\n")
    print("| probe | epochs | one fit, plain PyTorch | one fit | 12 heads | 60 heads | 60 / one | 60 / plain one |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (probe, model) in probes.items():
        params = probe.params
        grid = grid_of(probe, y)
        middle = [member for member in grid if member[0].params.lr == params.lr]
        repeats = 3 if name == "linear" else 1
        plain = at_best(lambda model=model, params=params: today(model(), x, y, params), repeats)
        one = seconds(lambda probe=probe: probe.fit(x, y, problem, seed=0), repeats)
        twelve = seconds(lambda middle=middle: list(fit_grid(middle, x, y, problem)), repeats)
        sixty = seconds(lambda grid=grid: list(fit_grid(grid, x, y, problem)), repeats)
        print(
            f"| {name} | {params.epochs} | {plain:.2f} s | {one:.2f} s | {twelve:.2f} s | {sixty:.2f} s "
            f"| {sixty / one:.1f} | {sixty / plain:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
