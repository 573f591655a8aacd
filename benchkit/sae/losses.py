"""What an autoencoder is trained to make small, by activation, and the auxiliary loss of dead units.

Everything is a sum over dimensions and a mean over vectors, so that the weights of l1 and l0 mean the same for every
dimension. SAELens' losses are the same functions (tests/sae/test_reference.py).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float

from benchkit.sae.config import TrainConfig, nested_widths
from benchkit.sae.model import Autoencoder, step

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pass:
    """Forward through an autoencoder. pre, f: [B, K]; z_hat, error = target - z_hat: [B, E]; loss: without the
    auxiliary one."""

    pre: "Tensor"
    f: "Tensor"
    z_hat: "Tensor"
    error: "Tensor"
    loss: "Tensor"


def forward(
    model: Autoencoder,
    z: "Float[Tensor, 'B D']",
    target: "Float[Tensor, 'B E']",
    shared: TrainConfig,
    sparsity: float = 1.0,
    bandwidth: float | None = None,
) -> Pass:
    """sparsity: share of the weight of l1 or l0, while it warms up. bandwidth: of jumprelu, in units of z; None is the
    one of `shared`, which is that where z has variance 1."""
    config = model.config
    pre = model.pre_activations(z)
    bandwidth = shared.bandwidth if bandwidth is None else bandwidth
    f = model.active(pre, training=True, bandwidth=bandwidth)
    z_hat = model.decode(f).to(target.dtype)
    error = target - z_hat
    loss = squares(error)
    if config.activation == "matryoshka":
        loss = loss + _inner(model, f, target, nested_widths(config.width, shared.nested)[:-1])
    elif config.activation == "jumprelu":
        active = step(pre, model.threshold, bandwidth).sum(dim=1)
        loss = loss + (config.l0 or 0.0) * sparsity * active.mean()
    elif config.activation == "gated":
        gate = pre.relu()
        lengths = model.w_dec.norm(dim=1)
        loss = loss + (config.l1 or 0.0) * sparsity * (gate * lengths).sum(dim=1).mean()
        loss = loss + squares(target - model.decode(gate).to(target.dtype))
    elif config.l1:
        loss = loss + config.l1 * sparsity * f.abs().sum(dim=1).mean()
    return Pass(pre, f, z_hat, error, loss)


def squares(error: "Float[Tensor, 'B E']") -> "Tensor":
    return error.square().sum(dim=1).mean()


def _inner(
    model: Autoencoder, f: "Float[Tensor, 'B K']", target: "Float[Tensor, 'B E']", ends: tuple[int, ...]
) -> "Tensor":
    """The sum over matryoshka's inner autoencoders of their errors: each decodes with the units before its end."""
    made, begin = model.b_dec, 0
    total = target.new_zeros(())
    for end in ends:
        made = made + f[:, begin:end] @ model.w_dec[begin:end]
        total = total + squares(target - made.to(target.dtype))
        begin = end
    return total


def auxiliary_loss(
    pre: "Float[Tensor, 'B K']",
    w_dec: "Float[Tensor, 'K E']",
    error: "Float[Tensor, 'B E']",
    dead: "Tensor",
    aux_k: int,
    *,
    rectified: bool = True,
) -> "Tensor":
    """E |e - e_hat|^2 / Var(e), e_hat from the aux_k largest activations of dead units; Var(e) = E |e - mean(e)|^2.

    error: e, without its gradient. dead: [K], which units are. rectified: max(pre, 0) are their activations, else pre.
    Of fewer than aux_k dead units all are used, and the loss counts in proportion. 0 where e does not vary.
    """
    numbers = dead.nonzero()[:, 0]
    used = min(aux_k, len(numbers))
    of = pre[:, numbers]
    kept = (of.relu() if rectified else of).topk(used, dim=1, sorted=False)
    f = kept.values.new_zeros(len(pre), len(numbers)).scatter(1, kept.indices, kept.values)
    e = error.detach()
    variance = (e - e.mean(dim=0)).square().sum(dim=1).mean()
    if not bool(variance > 0):
        return e.new_zeros(())
    return squares(e - (f @ w_dec[numbers]).to(e.dtype)) / variance * (used / aux_k)
