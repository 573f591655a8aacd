"""What the probes on tokens share."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Shaped

from benchkit.classifiers.data import Split
from benchkit.classifiers.trained import TrainedProbe
from benchkit.errors import FitError
from benchkit.interfaces import Labels, Needs

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net
    from benchkit.classifiers.prepare import Prepared


class TokenProbe(TrainedProbe):
    """A probe trained on the tokens of each example, which may be a memory map: they are read a minibatch at a time."""

    needs: ClassVar[Needs] = "tokens"

    def prepare(
        self, features: Shaped[np.ndarray, "N T D"], labels: Labels, splits: Sequence[Split], net: "Net", device: str
    ) -> "Prepared":
        from benchkit.classifiers.nets import TokenNet
        from benchkit.classifiers.token_table import prepare_tokens

        assert isinstance(net, TokenNet)
        return prepare_tokens(features, labels, splits, self.params, net, device)


def check_tokens(who: str, shape: tuple[int, ...]) -> None:
    """Raises FitError where features of this shape, of one example, are no tokens."""
    if len(shape) != 2 or 0 in shape:
        raise FitError(f"{who} needs tokens, [T, D] for each example, and was given features of shape {list(shape)}")
