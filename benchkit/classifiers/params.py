"""The hyperparameters that all probes trained by gradient descent share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from benchkit.spec import param


@dataclass(frozen=True)
class TrainParams:
    """AdamW with a cosine schedule. loss_of_several: what loss=auto is for several labels."""

    loss_of_several: ClassVar[Literal["bce", "asymmetric"]] = "bce"

    lr: float = param(3e-3, help="peak learning rate", low=0)
    weight_decay: float = param(1e-2, help="decoupled weight decay of AdamW", low=0)
    epochs: int = param(50, help="passes over the training examples", low=1)
    min_steps: int = param(500, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    batch: int = param(64, help="examples a step (all of them, where there are fewer)", low=1)
    schedule: Literal["cosine", "constant"] = param("cosine", help="of the learning rate: falls to 0, or stays")
    warmup: float = param(0.0, help="part of the steps in which the learning rate rises from 0", low=0, high=1)
    grad_clip: float = param(0.0, help="largest norm of a step's gradient; 0 does not clip", low=0)
    beta1: float = param(0.9, help="AdamW's decay of the gradient's mean", low=0, high=1)
    beta2: float = param(0.999, help="AdamW's decay of the gradient's square", low=0, high=1)
    eps: float = param(1e-8, help="AdamW's epsilon", low=0)
    loss: Literal["auto", "cross-entropy", "bce", "asymmetric"] = param(
        "auto", help="auto: cross-entropy for one label, bce for several"
    )
    gamma_neg: float = param(4.0, help="asymmetric loss: focusing of negatives", low=0)
    gamma_pos: float = param(1.0, help="asymmetric loss: focusing of positives", low=0)
    clip: float = param(
        0.05, help="asymmetric loss: negatives with a probability below this count nothing", low=0, high=1
    )
    val: float = param(0.0, help="part of the training examples held out for early stopping", low=0, high=0.9)
    patience: int = param(10, help="epochs without a better validation loss before it stops (where val > 0)", low=1)
