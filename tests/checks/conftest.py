"""Real data with real labels: scikit-learn's handwritten digits, and an ordinary multilabel task made from them."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from benchkit.interfaces import Problem


@pytest.fixture(scope="session")
def digits():
    """Pixel features [1797, 64] and the digit in each image, in the data set's own order."""
    data = load_digits()
    return data.data.astype(np.float32), data.target.astype(np.int64)


@pytest.fixture(scope="session")
def ten_digits():
    return Problem("multiclass", 10, tuple("0123456789"))


@pytest.fixture(scope="session")
def multilabel(digits):
    """Each digit is a label, and each image whose neighbour in the file is even has that neighbour's label too."""
    _, y = digits
    labels = np.eye(10, dtype=np.uint8)[y]
    also = np.roll(y, 1)
    labels[also % 2 == 0, also[also % 2 == 0]] = 1
    return labels
