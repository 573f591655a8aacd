"""Fine-tuning: the whole backbone and a linear head, trained end to end."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from benchkit.classifiers.params import FinetuneParams
from benchkit.classifiers.subsets import OneByOne, split_of
from benchkit.errors import FitError, require
from benchkit.interfaces import Backbone, Fitted, Labels, Problem, Subset

if TYPE_CHECKING:
    from benchkit.classifiers.tuner import Tuner


class Finetune(OneByOne):
    """AdamW with a learning rate that falls from block to block towards the input. Dropout and the like stay off.

    One copy of the backbone is on the device, whatever the number of fits: each starts from the pretrained weights and
    leaves its own in a scratch file, from which they come back when it scores.
    """

    Params = FinetuneParams
    version = 2
    params: FinetuneParams
    needs = "raw"

    def __init__(self, params: FinetuneParams | None = None) -> None:
        super().__init__(params)
        self._tuner: Tuner | None = None

    def bind(self, backbone: Backbone) -> None:
        require("torch", "benchkit-core[probes]")
        from benchkit.classifiers.tuner import Tuner

        super().bind(backbone)
        self._tuner = Tuner(
            backbone.trainable(), backbone.dim, self.params, lambda batch: backbone.encode(batch).pooled
        )

    def fit_subset(
        self, features: Shaped[np.ndarray, "N ..."], labels: Labels, problem: Problem, subset: Subset
    ) -> Fitted:
        """On the backbone's device. `features` is read a minibatch at a time: it may be a memory map."""
        if self._tuner is None:
            raise FitError("finetune trains a backbone, and was given none: call bind(backbone) first")
        split = split_of(self.name, self.params.val, subset, labels, problem)
        return self._tuner.fit(features, labels, problem, split, subset.seed)
