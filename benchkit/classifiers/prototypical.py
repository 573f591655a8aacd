"""Prototypical probing (Bird-MAE, arXiv 2504.12880; after ProtoPNet, arXiv 1806.10574, and AudioProtoPNet, arXiv
2404.10420)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from benchkit.classifiers.tokens import TokenParams, TokenProbe, check_tokens
from benchkit.errors import FitError
from benchkit.spec import param

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net


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


class Prototypical(TokenProbe):
    """The largest cosine similarity of each prototype to any token, and a non-negative layer from a class's prototypes
    to the class."""

    Params = PrototypicalParams
    per_head = ("lr", "weight_decay", "prototype_lr", "last_weight_decay")

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
            rows, (grid[0], grid[1]), dim, n_classes, p.prototypes, p.orthogonality, p.connection, p.bias
        )
