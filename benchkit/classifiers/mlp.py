"""A multilayer perceptron on pooled features."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from benchkit.catalog.spec import param
from benchkit.classifiers.linear import PooledProbe
from benchkit.classifiers.normalise import NormParams
from benchkit.classifiers.params import GridParams, TrainParams

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net


@dataclass(frozen=True)
class MLPParams(GridParams, TrainParams, NormParams):
    lr: float = param(1e-3, help="peak learning rate", low=0)
    hidden: tuple[int, ...] = param((512,), help="width of each hidden layer, as in 512 or 512+256", low=1)
    activation: Literal["gelu", "relu"] = param("gelu", help="between the layers")


class MLP(PooledProbe):
    """LayerNorm, standardisation and a multilayer perceptron, trained with AdamW."""

    Params = MLPParams
    version = 2

    def net(self, shape: tuple[int, ...], n_classes: int) -> "Net":
        from benchkit.classifiers.nets import MLPNet

        return MLPNet((shape[0], *self.params.hidden, n_classes), self.params.activation)
