"""Problems that the probes' tests share."""

from typing import NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchkit.interfaces import Labels, Problem


class Data(NamedTuple):
    x: np.ndarray
    y: Labels
    x_test: np.ndarray
    y_test: Labels

    @property
    def problem(self) -> Problem:
        if self.y.ndim == 1:
            n = int(self.y.max()) + 1
            return Problem("multiclass", n, tuple(f"class {c}" for c in range(n)))
        return Problem("multilabel", self.y.shape[1], tuple(f"label {c}" for c in range(self.y.shape[1])))


@pytest.fixture(scope="session")
def digits() -> Data:
    """Real handwritten digits, 8 x 8 pixels in 0 to 1: every third one is for testing."""
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target.astype(np.int64)
    test = np.arange(len(x)) % 3 == 0
    return Data(x[~test], y[~test], x[test], y[test])


@pytest.fixture(scope="session")
def several() -> Data:
    """Six labels, each a noisy linear function of 24 features; the last is never positive in training."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 24)).astype(np.float32)
    y = (x @ rng.normal(size=(24, 6)) + rng.normal(size=(400, 6)) > 4).astype(np.uint8)
    y[:300, 5] = 0
    return Data(x[:300], y[:300], x[300:], y[300:])
