"""The attentive pooling of AIM (arXiv 2401.08541, section 4), as BioFoundation (arXiv 2508.01277) probes with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from benchkit.catalog.spec import param
from benchkit.classifiers.params import BIOFOUNDATION, TokenParams
from benchkit.classifiers.tokens import TokenProbe, check_tokens

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net

_ATTENTIVE: dict[str, Any] = {"lr": 1.3e-3, "min_delta": 1e-3, "patience": 5}


@dataclass(frozen=True)
class AttentivePoolParams(TokenParams):
    """docs/probes.md says what each preset is, where it is published and what it leaves out."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "biofoundation": BIOFOUNDATION | _ATTENTIVE | {"epochs": 20},
        "biofoundation-beans": BIOFOUNDATION | _ATTENTIVE | {"epochs": 50, "weight_decay": 7e-3, "choose": "accuracy"},
    }

    head_width: int = param(64, help="features of a head; narrower tokens have one head", low=1)
    init_std: float = param(0.02, help="standard deviation of the first query", low=0)
    lr: float = param(1.3e-3, help="peak learning rate", low=0)
    weight_decay: float = param(5e-4, help="decoupled weight decay of AdamW", low=0)
    epochs: int = param(20, help="passes over the training examples", low=1)
    min_steps: int = param(200, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    warmup: float = param(0.05, help="part of the steps in which the learning rate rises from 0", low=0, high=1)


class AttentivePool(TokenProbe):
    """Keys and values of the tokens, a learnt query of each head, and a linear layer: no query projection, no MLP."""

    Params = AttentivePoolParams

    def net(self, shape: tuple[int, ...], n_classes: int) -> "Net":
        from benchkit.classifiers.attentive_pool_net import AttentivePoolNet

        check_tokens("attentive-pool", shape)
        n_tokens, dim = shape
        heads = max(h for h in range(1, max(1, dim // self.params.head_width) + 1) if dim % h == 0)
        return AttentivePoolNet(n_tokens, dim, n_classes, heads, self.params.init_std)
