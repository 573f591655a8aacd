"""Labels as they are counted."""

import numpy as np
from jaxtyping import Int64

from benchkit.errors import DataError
from benchkit.interfaces import Labels


def n_positives(labels: Labels, n_classes: int) -> Int64[np.ndarray, " C"]:
    """The number of examples of each class."""
    if labels.ndim == 2:
        return np.count_nonzero(labels, axis=0).astype(np.int64)
    if len(labels) and not 0 <= labels.min() <= labels.max() < n_classes:
        wrong = labels[(labels < 0) | (labels >= n_classes)]
        raise DataError(f"{len(wrong):,} labels, '{wrong[0]}' for one, are not in 0 to {n_classes - 1}")
    return np.bincount(labels, minlength=n_classes)
