"""The hyperparameters that all probes trained by gradient descent share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from benchkit.catalog.spec import param
from benchkit.classifiers.normalise import NormParams


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


@dataclass(frozen=True)
class TokenParams(TrainParams, NormParams):
    """Each token is normalised as pooled features are."""

    norm_examples: int = param(
        512, help="training examples, evenly spaced, whose tokens the standardisation is measured on", low=1
    )


@dataclass(frozen=True)
class PrototypicalParams(TokenParams):
    """The recipe of DBD-research-group/Bird-MAE, but for how many steps few examples get and what is done to tokens.

    PRESETS["bird-mae"] is what its code does (configs/module/network/vit_base_16.yaml, models/vit/vit.py), with a model
    of tokens=focal: patch tokens less the class token, normalised no further, as 8 rows of 32 that are interpolated to
    16 of 64. Its tokens are numbered by time first, so that time runs along neither.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bird-mae": {"norm": "none", "upsample": 2, "token_rows": 8, "min_steps": 0}
    }
    loss_of_several: ClassVar[Literal["bce", "asymmetric"]] = "asymmetric"

    prototypes: int = param(20, help="learnable prototypes of each class", low=1)
    orthogonality: float = param(1.0, help="weight of the loss that keeps a class's prototypes apart", low=0)
    upsample: int = param(1, help="tokens are interpolated to so many times as many rows and columns", low=1)
    token_rows: int = param(1, help="rows of the grid of tokens that are interpolated, with as many in each", low=1)
    lr: float = param(4e-4, help="peak learning rate of the last layer", low=0)
    prototype_lr: float = param(0.04, help="peak learning rate of the prototypes", low=0)
    weight_decay: float = param(3e-4, help="decoupled weight decay of the prototypes", low=0)
    last_weight_decay: float = param(1e-4, help="decoupled weight decay of the last layer", low=0)
    connection: float = param(1.0, help="first weight of each prototype for its class", low=0)
    bias: float = param(-2.0, help="first bias of each class")
    epochs: int = param(30, help="passes over the training examples", low=1)
    min_steps: int = param(300, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    warmup: float = param(0.067, help="part of the steps in which the learning rate rises from 0", low=0, high=1)
    grad_clip: float = param(2.0, help="largest norm of a step's gradient; 0 does not clip", low=0)
    beta2: float = param(0.95, help="AdamW's decay of the gradient's square", low=0, high=1)
    loss: Literal["auto", "cross-entropy", "bce", "asymmetric"] = param(
        "auto", help="auto: cross-entropy for one label, asymmetric for several"
    )


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
