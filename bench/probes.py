"""What a grid of probes costs, trained together, beside one fit: `python bench/probes.py [--quick]`.

The grid is 4 training sizes x 3 seeds x 5 learning rates, 60 heads. It is compared, in this one run on this machine,
with one fit on the largest size by benchkit itself, and with one fit written the way people write it today: a PyTorch
module, a DataLoader, AdamW and a schedule, at the number of threads that suits it best. Features are random, which
changes no time. By operations alone the grid is 15 fits on the largest size and 45 on a few examples.
"""

import argparse
import dataclasses
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command does: for the baseline too
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchkit.classifiers.attentive import Attentive, AttentiveParams
from benchkit.classifiers.data import Split
from benchkit.classifiers.linear import Linear, LinearParams
from benchkit.classifiers.mlp import MLP, MLPParams
from benchkit.classifiers.params import PrototypicalParams
from benchkit.classifiers.prototypical import Prototypical
from benchkit.classifiers.streams import Stream
from benchkit.classifiers.trained import TrainedProbe, fit_grid
from benchkit.interfaces import Problem, Subset

RATES = (0.1, 0.3, 1.0, 3.0, 10.0)
SHOTS = (1, 5, 20, -1)
SEEDS = (0, 1, 2)


class Cost(NamedTuple):
    """Seconds on the clock, which other work on the machine lengthens, and of all processors, which it does little."""

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} ({self.cpu:.2f}) s"


def cost(work: Callable[[], Any], rounds: int) -> Cost:
    """The least of so many runs (of one, where it takes long)."""
    found: list[Cost] = []
    while len(found) < rounds and sum(c.wall for c in found) < 30:
        start = Cost(time.perf_counter(), time.process_time())
        work()
        found.append(Cost(time.perf_counter() - start.wall, time.process_time() - start.cpu))
    return least(found)


def least(found: Sequence[Cost]) -> Cost:
    return Cost(min(c.wall for c in found), min(c.cpu for c in found))


def ratio(a: Cost, b: Cost) -> str:
    return f"{a.wall / b.wall:.1f} ({a.cpu / b.cpu:.1f})"


def grid_of(probe: TrainedProbe, labels: np.ndarray) -> list[tuple[TrainedProbe, Subset]]:
    settings = [type(probe)(dataclasses.replace(probe.params, lr=rate * probe.params.lr)) for rate in RATES]
    return [(p, Subset(rows(labels, k, seed), seed)) for p in settings for k in SHOTS for seed in SEEDS]


def rows(labels: np.ndarray, shots: int, seed: int) -> np.ndarray:
    if shots < 0:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    classes = range(int(labels.max()) + 1)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:shots] for c in classes]))


def at_best(work: Callable[[], Any], rounds: int) -> Cost:
    """With all threads or with one, whichever is less."""
    threads = torch.get_num_threads()
    found = [cost(work, rounds)]
    torch.set_num_threads(1)
    found.append(cost(work, rounds))
    torch.set_num_threads(threads)
    return least(found)


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


@dataclasses.dataclass(frozen=True)
class Case:
    """A probe, how it is written today, and how many examples, tokens and features it is measured on."""

    probe: TrainedProbe
    today: Callable[[], nn.Module]
    n: int
    shape: tuple[int, ...]


def cases(n: int, d: int, c: int, full: bool, shape: tuple[int, int] = (64, 64)) -> dict[str, Case]:
    """shape: tokens of an example, and their features."""
    few: dict[str, Any] = {} if full else {"epochs": 10, "min_steps": 100}
    tokens: dict[str, Any] = {"epochs": 4, "min_steps": 8}
    return {
        "linear": Case(
            Linear(LinearParams(**few)),
            lambda: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, c)),
            n,
            (d,),
        ),
        "mlp": Case(
            MLP(MLPParams(epochs=10, min_steps=100)),
            lambda: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 512), nn.GELU(), nn.Linear(512, c)),
            n,
            (d,),
        ),
        "prototypical": Case(
            Prototypical(PrototypicalParams(**tokens)), lambda: PlainPrototypical(shape[1], c, 20), 640, shape
        ),
        "attentive,depth=1": Case(
            Attentive(AttentiveParams(depth=1, **tokens)),
            lambda: PlainAttentive(shape[1], c, max(1, min(16, shape[1] // 16))),
            640,
            shape,
        ),
    }


class PlainPrototypical(nn.Module):
    def __init__(self, d: int, c: int, j: int) -> None:
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(c, j, d))
        self.connections, self.bias = nn.Parameter(torch.ones(c, j)), nn.Parameter(torch.full((c,), -2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        unit, x = nn.functional.normalize(self.prototypes, dim=-1), nn.functional.normalize(x, dim=-1)
        nearest = torch.einsum("btd,cjd->bcjt", x, unit).amax(dim=3).relu()
        return (nearest * self.connections.relu()).sum(dim=2) + self.bias


class PlainAttentive(nn.Module):
    def __init__(self, d: int, c: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, d))
        self.norm, self.attention = nn.LayerNorm(d), nn.MultiheadAttention(d, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.head = nn.Linear(d, c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, query = self.norm(x), self.query.expand(len(x), -1, -1)
        pooled = query + self.attention(query, x, x, need_weights=False)[0]
        return self.head(pooled + self.mlp(pooled))[:, 0]


def operations(grid: list[tuple[TrainedProbe, Subset]], case: Case, c: int) -> float:
    """Of all steps of all heads."""
    net = case.probe.net(case.shape, c)
    streams = [Stream(Split(s.rows, s.rows[:0]), s.seed, (p.params,)) for p, s in grid]
    return sum(stream.steps * net.operations(stream.batch) for stream in streams)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer epochs of linear: ratios are about the same")
    parser.add_argument("--probe", nargs="+", help="only these")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--tokens", type=int, default=64, help="of an example, for the probes that take tokens")
    parser.add_argument("--width", type=int, default=64, help="features of a token")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; the least counts")
    args = parser.parse_args()
    c = args.classes
    problem = Problem("multiclass", c)
    threads = torch.get_num_threads()
    load = os.getloadavg()[0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}, torch {torch.__version__}, {threads} threads"
    )
    print(f"grid: {len(SHOTS)} sizes x {len(SEEDS)} seeds x {len(RATES)} learning rates; {c} classes")
    print("in brackets: processor time, which the load changes little; one fit uses one processor, a grid all\n")
    print("| probe | features | steps of one | plain PyTorch, one fit | one fit | 12 heads | 60 heads", end="")
    print(" | 12 / one | 60 / one | 60 / one by operations | 60 / plain one |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, case in cases(args.examples, args.dim, c, not args.quick, (args.tokens, args.width)).items():
        if args.probe and name not in args.probe:
            continue
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((case.n, *case.shape), np.float32), rng.integers(0, c, case.n)
        probe, grid = case.probe, grid_of(case.probe, y)
        alone = [(probe, Subset(np.arange(case.n), 0))]
        middle = [member for member in grid if member[0].params.lr == probe.params.lr]
        plain = at_best(lambda case=case, x=x, y=y: today(case.today(), x, y, case.probe.params), args.rounds)
        one, twelve, sixty = (
            cost(lambda g=g, x=x, y=y: list(fit_grid(g, x, y, problem)), args.rounds) for g in (alone, middle, grid)
        )
        steps = Stream(Split(alone[0][1].rows, np.arange(0)), 0, (probe.params,)).steps
        limit = operations(grid, case, c) / operations(alone, case, c)
        size = " x ".join(f"{s:,}" for s in x.shape)
        print(
            f"| {name} | {size} | {steps} | {plain} | {one} | {twelve} | {sixty} "
            f"| {ratio(twelve, one)} | {ratio(sixty, one)} | {limit:.1f} | {ratio(sixty, plain)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
