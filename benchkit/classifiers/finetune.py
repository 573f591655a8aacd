"""Fine-tuning: the whole backbone and a linear head, trained end to end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Shaped

from benchkit.classifiers.data import Split, check_subsets, hold_out
from benchkit.classifiers.normalise import NormParams
from benchkit.classifiers.params import TrainParams
from benchkit.errors import FitError, require
from benchkit.interfaces import Backbone, Classifier, Fitted, Labels, Problem, Subset
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


class Finetune(Classifier):
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

    def fit(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        *,
        seed: int,
        device: str = "cpu",
    ) -> Fitted:
        (fitted,) = self.fit_many(features, labels, problem, [Subset(np.arange(len(labels)), seed)], device=device)
        return fitted

    def fit_many(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        subsets: Sequence[Subset],
        *,
        device: str = "cpu",
    ) -> Iterator[Fitted]:
        """One Fitted for each subset, in order, one after another on the backbone's device. `features` is read a
        minibatch at a time: it may be a memory map."""
        if self._tuner is None:
            raise FitError("finetune trains a backbone, and was given none: call bind(backbone) first")
        errors = check_subsets("finetune", features, labels, problem, subsets)
        for subset, error in zip(subsets, errors, strict=True):
            if error:
                raise error
            yield self._tuner.fit(features, labels, problem, self._split(subset, labels, problem), subset.seed)

    def _split(self, subset: Subset, labels: Labels, problem: Problem) -> Any:
        rows = subset.rows.astype(np.int64)
        if not self.params.val:
            return Split(rows, rows[:0])
        held = hold_out("finetune", labels[rows], problem, self.params.val, subset.seed)
        return Split(rows[held.train], rows[held.val])
