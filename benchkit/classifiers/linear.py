"""The linear probe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Shaped

from benchkit.catalog.spec import param
from benchkit.classifiers.data import Split
from benchkit.classifiers.normalise import NormParams
from benchkit.classifiers.params import TrainParams
from benchkit.classifiers.trained import TrainedProbe
from benchkit.interfaces import Labels

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net
    from benchkit.classifiers.prepare import Prepared


@dataclass(frozen=True)
class LinearParams(TrainParams, NormParams):
    """PRESETS["bird-mae"]: arXiv 2504.12880, section 4 and the configurations in DBD-research-group/Bird-MAE."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bird-mae": {
            "loss": "asymmetric",
            "gamma_neg": 4.0,
            "gamma_pos": 1.0,
            "clip": 0.05,
            "lr": 4e-4,
            "weight_decay": 3e-4,
            "beta2": 0.95,
            "epochs": 30,
            "min_steps": 0,
            "batch": 64,
            "schedule": "cosine",
            "warmup": 0.067,
            "grad_clip": 2.0,
            "norm": "layer",
        }
    }

    init_std: float = param(0.01, help="standard deviation of the first weights", low=0)


class PooledProbe(TrainedProbe):
    """A probe trained on pooled features."""

    def prepare(
        self, features: Shaped[np.ndarray, "N D"], labels: Labels, splits: Sequence[Split], net: "Net", device: str
    ) -> "Prepared":
        from benchkit.classifiers.prepare import prepare_pooled

        return prepare_pooled(features, labels, splits, self.params, device)


class Linear(PooledProbe):
    """LayerNorm, standardisation and one linear layer, trained with AdamW."""

    Params = LinearParams
    version = 2

    def net(self, shape: tuple[int, ...], n_classes: int) -> "Net":
        from benchkit.classifiers.nets import LinearNet

        return LinearNet(shape[0], n_classes, self.params.init_std)
