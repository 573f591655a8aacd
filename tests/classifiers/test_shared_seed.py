"""Data planted with the seed that a probe is fitted with tells the probe nothing."""

import numpy as np
import pytest

from benchkit.catalog.resolve import resolve
from benchkit.interfaces import Problem

CLASSES, DIM = 20, 768


@pytest.mark.parametrize("probe", ["linear,epochs=1,min_steps=1,lr=1e-9", "linear,epochs=1,min_steps=60"])
def test_class_means_drawn_with_the_probes_own_seed_are_not_its_first_weights(probe: str) -> None:
    problem = Problem("multiclass", CLASSES, tuple(map(str, range(CLASSES))))
    found = []
    for planted, fitted in ((0, 0), (0, 1), (0, 2)):
        means = 0.25 * np.random.default_rng(planted).standard_normal((CLASSES, DIM))
        noise = np.random.default_rng(99)
        y = np.arange(CLASSES)
        truth = np.tile(y, 25)
        x = (means + noise.standard_normal((CLASSES, DIM))).astype(np.float32)
        test = (means[truth] + noise.standard_normal((len(truth), DIM))).astype(np.float32)
        scores = resolve("classifier", probe).build().fit(x, y, problem, seed=fitted).scores(test)
        found.append((scores.argmax(axis=1) == truth).mean())
    assert found[0] == pytest.approx(np.mean(found[1:]), abs=0.06)  # 0.93 against 0.30, once
