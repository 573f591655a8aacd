"""Prototypical probing (Bird-MAE, arXiv 2504.12880; after ProtoPNet, arXiv 1806.10574, and AudioProtoPNet, arXiv
2404.10420)."""

from typing import TYPE_CHECKING

from benchkit.classifiers.params import PrototypicalParams
from benchkit.classifiers.tokens import TokenProbe, check_tokens
from benchkit.errors import FitError

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net


class Prototypical(TokenProbe):
    """The largest cosine similarity of each prototype to any token, and a non-negative layer from a class's prototypes
    to the class."""

    Params = PrototypicalParams
    version = 2
    per_head = ("lr", "weight_decay", "prototype_lr", "last_weight_decay")
    rates = ("lr", "prototype_lr")

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
            rows,
            (grid[0], grid[1]),
            dim,
            n_classes,
            p.prototypes,
            p.orthogonality,
            p.connection,
            p.bias,
            p.init,
            p.cosine,
        )
