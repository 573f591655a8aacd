"""Fine-tuning: the whole backbone and a linear head, trained end to end."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Shaped

from benchkit.classifiers.normalise import NormParams
from benchkit.classifiers.params import TrainParams
from benchkit.classifiers.subsets import OneByOne, split_of
from benchkit.errors import FitError, require
from benchkit.interfaces import Backbone, Fitted, Labels, Problem, Subset
from benchkit.spec import param

if TYPE_CHECKING:
    from benchkit.classifiers.tuner import Tuner


@dataclass(frozen=True)
class FinetuneParams(TrainParams, NormParams):
    """After MAE (arXiv 2111.06377, table 9), whose learning rate is 1e-3 for 256 examples a step. The head sees
    features normalised as the linear probe's are, so training begins where that one would."""

    lr: float = param(2.5e-4, help="peak learning rate of the head and the final norm", low=0)
    layer_decay: float = param(
        0.75, help="a block's learning rate, as a part of that of the block behind it", low=0, high=1
    )
    weight_decay: float = param(0.05, help="decoupled weight decay of AdamW", low=0)
    decay: Literal["matrices", "all"] = param(
        "matrices",
        help="what weight decay is for: weights of linear layers and convolutions, or biases, norms, tokens too",
    )
    epochs: int = param(30, help="passes over the training examples", low=1)
    min_steps: int = param(200, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    warmup: float = param(0.1, help="part of the steps in which the learning rate rises from 0", low=0, high=1)
    grad_clip: float = param(1.0, help="largest norm of a step's gradient; 0 does not clip", low=0)
    precision: Literal["bfloat16", "float32"] = param(
        "bfloat16", help="bfloat16: matrix products in it, weights and the rest in float32 (mixed precision)"
    )
    init_std: float = param(0.01, help="standard deviation of the head's first weights", low=0)


class Finetune(OneByOne):
    """AdamW with a learning rate that falls from block to block towards the input. Dropout and the like stay off.

    One copy of the backbone is on the device, whatever the number of fits: each starts from the pretrained weights and
    leaves its own in a scratch file, from which they come back when it scores.
    """

    Params = FinetuneParams
    params: FinetuneParams
    needs = "raw"

    def __init__(self, params: FinetuneParams | None = None) -> None:
        super().__init__(params)
        self._tuner: Tuner | None = None

    def bind(self, backbone: Backbone) -> None:
        require("torch", "benchkit[probes]")
        from benchkit.classifiers.tuner import Tuner

        super().bind(backbone)
        self._tuner = Tuner(backbone.trainable(), backbone.dim, self.params)

    def fit_subset(
        self, features: Shaped[np.ndarray, "N ..."], labels: Labels, problem: Problem, subset: Subset
    ) -> Fitted:
        """On the backbone's device. `features` is read a minibatch at a time: it may be a memory map."""
        if self._tuner is None:
            raise FitError("finetune trains a backbone, and was given none: call bind(backbone) first")
        split = split_of(self.name, self.params.val, subset, labels, problem)
        return self._tuner.fit(features, labels, problem, split, subset.seed)
