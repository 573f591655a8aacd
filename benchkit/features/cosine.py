"""Rows of unit length."""

import numpy as np
from jaxtyping import Float32


def unit_rows(x: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N D"]:
    """Each row divided by its norm; a row of zeros stays as it is."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, np.float32(1))
