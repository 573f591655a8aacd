"""The linear probe."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped

from benchkit.classifiers.data import Split
from benchkit.classifiers.params import LinearParams
from benchkit.classifiers.trained import TrainedProbe
from benchkit.interfaces import Labels

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net
    from benchkit.classifiers.prepare import Prepared


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

        return LinearNet(shape[0], n_classes, self.params.init_std, self.params.init == "torch")
