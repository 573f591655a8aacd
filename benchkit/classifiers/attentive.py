"""The attentive probe of V-JEPA 2 (arXiv 2506.09985, section 4 and appendix)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from benchkit.catalog.spec import param
from benchkit.classifiers.params import TokenParams
from benchkit.classifiers.tokens import TokenProbe, check_tokens

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net


@dataclass(frozen=True)
class AttentiveParams(TokenParams):
    """PRESETS["vjepa2"]: configs/eval of facebookresearch/vjepa2 (K400, SSv2), as docs/probes.md tells."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "vjepa2": {
            "norm": "none", "init": "fixed", "decay": "all", "warmup": 0.0, "grad_clip": 0.0, "schedule_at": "end",
            "batch": 256, "min_steps": 0, "lr_grid": (1e-4, 3e-4, 1e-3, 3e-3, 5e-3),
            "decay_grid": (0.01, 0.1, 0.4, 0.8), "choose": "accuracy",
        }
    }  # fmt: skip

    depth: int = param(4, help="blocks: the last is cross-attention with a learnt query, 1 is that alone", low=1)
    heads: int = param(16, help="attention heads: as many of them as divide the tokens' width", low=1)
    head_width: int = param(16, help="features of a head at least: narrow tokens have fewer heads", low=1)
    mlp_ratio: float = param(4.0, help="width of the blocks' hidden layers, in that of the tokens", low=0.1)
    init: Literal["by-width", "fixed"] = param(
        "by-width", help="whether init_std is for 1,024 features and larger by the root for fewer, or for any"
    )
    init_std: float = param(0.02, help="standard deviation of the first weights", above=0)
    decay: Literal["matrices", "all"] = param(
        "matrices", help="what weight decay is for: weights of linear layers, or biases, norms and the query too"
    )
    batch: int = param(16, help="examples a step (all of them, where there are fewer)", low=1)
    lr: float = param(1e-3, help="peak learning rate", low=0)
    epochs: int = param(20, help="passes over the training examples", low=1)
    min_steps: int = param(200, help="at least so many steps, in whole epochs: few examples need more passes", low=0)
    warmup: float = param(0.1, help="part of the steps in which the learning rate rises from 0", low=0, high=1)
    grad_clip: float = param(1.0, help="largest norm of a step's gradient; 0 does not clip", low=0)


class Attentive(TokenProbe):
    """Self-attention blocks, one cross-attention block with a learnt query, and a linear layer."""

    Params = AttentiveParams
    version = 2

    def net(self, shape: tuple[int, ...], n_classes: int) -> "Net":
        from benchkit.classifiers.attentive_net import AttentiveNet

        check_tokens("attentive", shape)
        n_tokens, dim = shape
        p = self.params
        heads = max(h for h in range(1, p.heads + 1) if dim % h == 0 and (h == 1 or dim // h >= p.head_width))
        hidden = max(1, round(p.mlp_ratio * dim))
        std = p.init_std * (1024 / dim) ** 0.5 if p.init == "by-width" else p.init_std
        return AttentiveNet(n_tokens, dim, n_classes, p.depth, heads, hidden, std, p.decay == "all")
