"""The hyperparameters that all probes trained by gradient descent share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from benchkit.catalog.spec import param
from benchkit.classifiers.normalise import NormParams


@dataclass(frozen=True)
class TrainParams:
    """AdamW with a cosine schedule. loss_of_several: what loss=auto is for several labels.

    What only published recipes set (docs/probes.md): min_lr, schedule_at, schedule_of, drop_last, min_delta, choose.
    """

    loss_of_several: ClassVar[Literal["bce", "asymmetric"]] = "bce"

    lr: float = param(3e-3, help="peak learning rate", low=0)
    weight_decay: float = param(1e-2, help="decoupled weight decay of AdamW", low=0)
    epochs: int = param(50, help="passes over the training examples", low=1)
    min_steps: int = param(500, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    batch: int = param(64, help="examples a step (all of them, where there are fewer)", low=1)
    drop_last: bool = param(
        False, help="leave out an epoch's last minibatch where it is a shorter one, if not the only"
    )
    schedule: Literal["cosine", "constant"] = param("cosine", help="of the learning rate: falls to min_lr, or stays")
    min_lr: float = param(0.0, help="learning rate at which the cosine ends", low=0)
    schedule_at: Literal["middle", "begin", "end"] = param(
        "middle",
        help="where in a step the schedule is read: begin (the first step of a warm-up has rate 0), end (the last step"
        " of all has min_lr), or between them",
    )
    schedule_of: Literal["steps", "examples"] = param(
        "steps",
        help="its length: the steps that are made, or epochs x examples / batch, also where drop_last makes less",
    )
    warmup: float = param(0.0, help="part of the steps in which the learning rate rises from 0", low=0, high=1)
    grad_clip: float = param(0.0, help="largest norm of a step's gradient; 0 does not clip", low=0)
    beta1: float = param(0.9, help="AdamW's decay of the gradient's mean", low=0, below=1)
    beta2: float = param(0.999, help="AdamW's decay of the gradient's square", low=0, below=1)
    eps: float = param(1e-8, help="AdamW's epsilon", above=0)
    weights: Literal["none", "balanced"] = param(
        "none", help="balanced: each class (of several labels: its positives and negatives) counts alike, however rare"
    )
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
    min_delta: float = param(0.0, help="by how much it must be better to count for patience", low=0)
    choose: Literal["loss", "accuracy"] = param(
        "loss", help="of the held-out examples: what the best epoch, and the best of a grid, is judged by"
    )


_BIRD_MAE: dict[str, Any] = {
    "loss": "asymmetric", "gamma_neg": 4.0, "gamma_pos": 1.0, "clip": 0.05, "weight_decay": 3e-4, "beta2": 0.95,
    "min_steps": 0, "batch": 64, "drop_last": True, "schedule": "cosine", "schedule_at": "begin", "min_lr": 1e-6,
    "warmup": 0.067, "grad_clip": 2.0, "norm": "layer", "norm_eps": 1e-6, "init_std": 0.02,
}  # fmt: skip
"""What both of Bird-MAE's linear configurations have in common (arXiv 2504.12880; DBD-research-group/Bird-MAE)."""
BIOFOUNDATION: dict[str, Any] = {
    "weight_decay": 5e-4, "min_steps": 0, "batch": 128, "drop_last": True, "schedule_at": "begin",
    "schedule_of": "examples", "warmup": 0.05, "val": 0.2, "norm": "none",
}  # fmt: skip
"""What BioFoundation's configurations have in common (arXiv 2508.01277; DBD-research-group/BioFoundation)."""


@dataclass(frozen=True)
class GridParams:
    """Settings that are chosen on a fifth of the training examples; with the best ones all of them are fitted again."""

    lr_grid: tuple[float, ...] | None = param(None, help="learning rates to choose from, as in 0.001+0.003", low=0)
    decay_grid: tuple[float, ...] | None = param(None, help="weight decays to choose from, each with every rate", low=0)


@dataclass(frozen=True)
class LinearParams(GridParams, TrainParams, NormParams):
    """docs/probes.md says what each preset is, where it is published and what it leaves out."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bird-mae": _BIRD_MAE | {"lr": 4e-4, "epochs": 30},
        "bird-mae-fewshot": _BIRD_MAE | {"lr": 3e-4, "epochs": 50, "decay": "matrices"},
        "biofoundation": BIOFOUNDATION | {"lr": 5e-3, "epochs": 15, "patience": 3, "min_delta": 1e-4, "init": "torch"},
        "biofoundation-beans": BIOFOUNDATION
        | {"lr": 5e-3, "epochs": 50, "patience": 5, "min_delta": 1e-3, "choose": "accuracy", "init": "torch"},
    }

    init: Literal["normal", "torch"] = param("normal", help="first weights: normal, or as torch's nn.Linear has them")
    init_std: float = param(0.01, help="standard deviation of the first weights, where they are normal", low=0)
    decay: Literal["all", "matrices"] = param("all", help="what weight decay is for: the biases too, or not them")


@dataclass(frozen=True)
class TokenParams(GridParams, TrainParams, NormParams):
    """Each token is normalised as pooled features are."""

    norm_examples: int = param(
        512, help="training examples, evenly spaced, whose tokens the standardisation is measured on", low=1
    )


_PPNET: dict[str, Any] = {
    "norm": "none", "upsample": 2, "token_rows": 8, "min_steps": 0, "drop_last": True, "schedule_at": "begin",
    "min_lr": 1e-6, "init": "uniform", "cosine": "ppnet", "prior": "none",
}  # fmt: skip
"""What Bird-MAE's prototypical configurations have in common, beside the defaults."""


@dataclass(frozen=True)
class PrototypicalParams(TokenParams):
    """After Bird-MAE (arXiv 2504.12880, DBD-research-group/Bird-MAE), whose own configurations are the presets: docs/
    probes.md says which is which, and what each leaves out.

    They are for a model of tokens=focal: patch tokens less the class token, normalised no further, as 8 rows of 32 that
    are interpolated to 16 of 64. Its tokens are numbered by time first, so that time runs along neither.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bird-mae": _PPNET | {"lr": 3e-4, "batch": 128},
        "bird-mae-huge": _PPNET | {"lr": 3e-4, "batch": 64},
        "bird-mae-fewshot": _PPNET | {"lr": 4e-4, "batch": 64, "epochs": 50},
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
    connection: float = param(1.0, help="first weight of each prototype for its class", above=0)
    bias: float = param(-2.0, help="first bias of each class")
    prior: Literal["classes", "none"] = param(
        "classes",
        help="classes: the first bias also says how rare its class is in training, so that the many examples without a "
        "rare class do not move its prototypes to say so (not with loss=asymmetric or weights=balanced)",
    )
    init: Literal["sphere", "uniform"] = param(
        "sphere", help="first prototypes: in any direction, or uniform from 0 to 1 in each feature"
    )
    cosine: Literal["exact", "ppnet"] = param(
        "exact", help="similarity; ppnet: lengths with an epsilon of 1e-4, and divided by 1.01, as in AudioProtoPNet"
    )
    epochs: int = param(30, help="passes over the training examples", low=1)
    min_steps: int = param(300, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    warmup: float = param(0.067, help="part of the steps in which the learning rate rises from 0", low=0, high=1)
    grad_clip: float = param(2.0, help="largest norm of a step's gradient; 0 does not clip", low=0)
    beta2: float = param(0.95, help="AdamW's decay of the gradient's square", low=0, below=1)
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
