"""An image's score is the maximum over its patches: scored a few images at a time, and only the maximum is kept."""

import numpy as np
from jaxtyping import Float32

from benchkit.catalog.contract import checked_patch_scores
from benchkit.errors import FitError
from benchkit.interfaces import Scorer

SCORES = 1 << 26
"""Patch scores that are held at a time: 256 MB."""


def image_scores(
    scorer: Scorer, tokens: Float32[np.ndarray, "B T D"], *, at_once: int = SCORES
) -> Float32[np.ndarray, "B K"]:
    """The scorer's maximum over the patches of each image, but those that are padding (rows of NaN). tokens: may be a
    memory map, of which a part is read at a time. Raises FitError where a score is not a number."""
    n, patches, dim = tokens.shape
    k = scorer.n_prototypes
    out = np.empty((n, k), np.float32)
    step = max(1, at_once // max(1, patches * k))
    for start in range(0, n, step):
        part = np.ascontiguousarray(tokens[start : start + step], np.float32)
        vectors, real = part.reshape(-1, dim), ~np.isnan(part[..., 0]).reshape(-1)
        if real.all():
            scores = checked_patch_scores(scorer, vectors, k)
        else:
            scores = np.full((len(vectors), k), -np.inf, np.float32)
            scores[real] = checked_patch_scores(scorer, vectors[real], k)
        np.max(scores.reshape(len(part), patches, k), axis=1, out=out[start : start + step])
    if np.isnan(out).any():
        raise FitError(
            f"{type(scorer).__name__} gives scores that are not numbers: its activations or its fit went wrong before"
        )
    return out
