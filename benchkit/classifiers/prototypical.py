"""Prototypical probing (Bird-MAE, arXiv 2504.12880; after ProtoPNet, arXiv 1806.10574, and AudioProtoPNet, arXiv
2404.10420)."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from benchkit.classifiers.data import one_column_a_class
from benchkit.classifiers.params import PrototypicalParams
from benchkit.classifiers.tokens import TokenProbe, check_tokens
from benchkit.errors import FitError
from benchkit.interfaces import Labels, Problem

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net


class Prototypical(TokenProbe):
    """The largest cosine similarity of each prototype to any token, and a non-negative layer from a class's prototypes
    to the class."""

    Params = PrototypicalParams
    version = 3
    per_head = ("lr", "weight_decay", "prototype_lr", "last_weight_decay")
    rates = ("lr", "prototype_lr")

    def prior(self, labels: Labels, problem: Problem) -> Float32[np.ndarray, " C"] | None:
        """Of one label log(K n_c / n), K the classes that have examples, which is 0 where all have as many; of several
        the log odds of each class, less `bias`. A class without examples counts as half a one."""
        from benchkit.classifiers.losses import name_of_loss

        p, n, loss = self.params, len(labels), name_of_loss(self.params, problem)
        if p.prior == "none" or p.weights == "balanced" or loss == "asymmetric":
            return None
        counts = one_column_a_class(labels, problem).sum(axis=0).astype(np.float64)
        if loss == "cross-entropy":
            return np.log(np.maximum(counts, 0.5) * np.count_nonzero(counts) / n).astype(np.float32)
        counts = counts.clip(0.5, n - 0.5)
        return (np.log(counts / (n - counts)) - p.bias).astype(np.float32)

    def net(self, shape: tuple[int, ...], n_classes: int) -> "Net":
        from benchkit.classifiers.prototypical_net import PrototypicalNet

        check_tokens("prototypical", shape)
        n_tokens, dim = shape
        p = self.params
        if n_tokens % p.token_rows:
            raise FitError(f"prototypical cannot put {n_tokens} tokens into token_rows={p.token_rows}: give a divisor")
        rows = (p.token_rows, n_tokens // p.token_rows)
        grid = tuple(n * p.upsample if n > 1 else n for n in rows)
        return PrototypicalNet(
            rows,
            (grid[0], grid[1]),
            dim,
            n_classes,
            p.prototypes,
            p.orthogonality,
            p.connection,
            p.bias,
            p.init,
            p.cosine,
        )
