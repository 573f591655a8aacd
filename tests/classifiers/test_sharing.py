"""Training shared out over the cores: nothing of it shows in a head, and Ctrl-C ends it at once."""

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from benchkit.classifiers import trainer
from benchkit.classifiers.data import Split
from benchkit.classifiers.linear import Linear, LinearParams
from benchkit.classifiers.streams import Stream
from benchkit.classifiers.trained import fit_grid
from benchkit.interfaces import Subset

QUICK: dict[str, Any] = {"epochs": 4, "min_steps": 30, "batch": 32}
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@pytest.fixture
def _two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trainer, "SHARED", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("val", [0.0, 0.25])
@pytest.mark.usefixtures("_two_threads")
def test_heads_of_one_stream_that_are_trained_on_several_cores_are_as_they_would_be_alone(
    digits: Any, val: float
) -> None:
    params = LinearParams(val=val, patience=2, **QUICK)
    grid = [(Linear(dataclasses.replace(params, lr=lr)), Subset(np.arange(200), 3)) for lr in RATES]
    for (probe, subset), fitted in zip(grid, fit_grid(grid, digits.x, digits.y, digits.problem), strict=True):
        alone = probe.fit(digits.x[subset.rows], digits.y[subset.rows], digits.problem, seed=subset.seed)
        np.testing.assert_allclose(fitted.scores(digits.x_test), alone.scores(digits.x_test), atol=1e-5, rtol=1e-5)
        assert fitted.record == pytest.approx(alone.record)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(
    ("sizes", "n_heads", "expected"),
    [
        ((320,), 1, [[(0, [0])]]),
        ((320, 320), 1, [[(0, [0])], [(1, [0])]]),
        ((320,), 5, [[(0, [0, 1, 2])], [(0, [3, 4])]]),
        ((640, 320, 320), 5, [[(0, [0, 1, 2, 3, 4])], [(1, [0, 1, 2, 3, 4]), (2, [0, 1, 2, 3, 4])]]),
        ((320, 320, 320), 4, [[(0, [0, 1]), (1, [0, 1]), (2, [0, 1])], [(0, [2, 3]), (1, [2, 3]), (2, [2, 3])]]),
    ],
)
def test_work_is_shared_by_streams_or_by_their_heads_whichever_is_more_even(
    sizes: tuple[int, ...], n_heads: int, expected: Any
) -> None:
    params = LinearParams(epochs=1, min_steps=0, batch=32)
    streams = [Stream(Split(np.arange(n), np.arange(0)), 0, (params,) * n_heads) for n in sizes]
    shares = trainer._shares(Linear(params).net((8,), 3), streams, list(range(len(streams))), 2)
    assert [[(i, list(heads)) for i, heads in share] for share in shares] == expected


def test_ctrl_c_ends_a_training_that_would_take_hours() -> None:
    program = """
import numpy as np, torch
from benchkit.classifiers import trainer
from benchkit.classifiers.linear import Linear, LinearParams
from benchkit.interfaces import Problem, Subset

advance = trainer._Run.advance
def told(run):
    advance(run)
    print("training", flush=True)
trainer._Run.advance, trainer.SHARED = told, 0
torch.set_num_threads(2)
x, y = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32), np.arange(64) % 2
probe = Linear(LinearParams(min_steps=10**8))
list(probe.fit_many(x, y, Problem("multiclass", 2), [Subset(np.arange(64), seed) for seed in range(4)]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "training\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=100)
        finally:
            process.kill()
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert process.returncode == -signal.SIGINT
