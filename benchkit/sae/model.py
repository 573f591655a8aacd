"""The sparse autoencoder: f = act((z - b) W_enc + c), z_hat = f W_dec + b, where every row of W_dec has length 1.

relu        act(p) = max(p, 0); trained with an L1 penalty on f.
topk        of each vector's max(p, 0) the k largest (Gao et al. 2024, "Scaling and evaluating sparse autoencoders",
            arXiv 2406.04093, section 2.3).
batchtopk   while training, of a whole batch's max(p, 0) the k largest a vector on average; afterwards those above one
            threshold, the mean over batches of the smallest one kept (Bussmann et al. 2024, arXiv 2412.06410).

What comes from where. Gao et al. is the paper; "their code" is openai/sparse_autoencoder, which they published with it.

unit norm     Every row of W_dec has length 1 at the start and is scaled back to it after each step; before the step its
              gradient loses the part along it, because of Adam (Gao et al., appendix A, after Bricken et al. 2023).
start         Random directions, the encoder parallel to the decoder (A.1). Two things of A.1 are not done: b starts as
              the mean of the first batch and not as its geometric median, and the encoder's length is 1 and not fitted
              to the inputs' (which they found to have no effect or a weakly negative one).
AuxK          The k_aux largest activations max(p, 0) of dead units reconstruct what the others left, e = z - z_hat
              without its gradient: e_hat = f_aux W_dec (A.2). k_aux is half the dimension (B.1: a power of two near),
              the weight 1/32, and a unit is dead that did not fire for 10 million vectors (A.2); recordings are often
              smaller, so it is a fifth of all vectors here where that is less. To fire is f > 1e-8 (their code: 1e-3).
its unit      They normalise E|e - e_hat|^2 anew all the time, since the scale of e changes while training goes on, and
              E|z - z_hat|^2 once: their code by Var(e) of the batch, and by one Var(z) from the start. Here the
              second is left as it is, so that l1 keeps its meaning, and the first is multiplied by that constant: the
              same loss, times Var(z). Where Var(e) is 0 there is no auxiliary loss (their code: a NaN counts as 0).
optimiser     Adam with torch's defaults. Theirs has an epsilon of 6.25e-10 (for gradients of means over dimensions,
              which are smaller than these of sums) and may average the weights over steps, which is not done here.
few are dead  With fewer than k_aux dead units all are used, and the loss counts in proportion. That is neither in the
              paper nor in their code: EleutherAI/sparsify does it.
relu          A dead unit of a relu autoencoder has p < 0 everywhere, and max(p, 0) gives it no gradient; so there p
              itself is taken. That is ours.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jaxtyping import Float

from benchkit.sae.config import SAEConfig

if TYPE_CHECKING:
    from torch import Tensor


class Autoencoder:
    """Parameters and buffers as plain tensors; `parameters` has those that are trained.

    w_enc [D, K], b_enc [K], w_dec [K, D], b_dec [D]; threshold [] of batchtopk, set by `calibrate`.
    """

    def __init__(self, config: SAEConfig, dim: int, centre: "Float[Tensor, ' D']", device: str) -> None:
        """centre: b_dec at the start, the mean of z. The encoder begins as the decoder's (Gao et al., A.1)."""
        import torch

        generator = torch.Generator().manual_seed(config.seed)
        directions = torch.randn(config.width, dim, generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        self.config = config
        self.w_dec = directions.clone().to(device).requires_grad_()
        self.w_enc = directions.T.contiguous().to(device).requires_grad_()
        self.b_enc = torch.zeros(config.width, device=device, requires_grad=True)
        self.b_dec = centre.detach().clone().to(device).requires_grad_()
        self.threshold = torch.tensor(0.0, device=device)

    @property
    def parameters(self) -> "dict[str, Tensor]":
        return {"w_enc": self.w_enc, "b_enc": self.b_enc, "w_dec": self.w_dec, "b_dec": self.b_dec}

    @property
    def tensors(self) -> "dict[str, Tensor]":
        """All that describes it."""
        return {**{name: p.detach() for name, p in self.parameters.items()}, "threshold": self.threshold}

    def load(self, tensors: "dict[str, Tensor]") -> None:
        """The inverse of `tensors`."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def pre_activations(self, z: "Float[Tensor, 'B D']") -> "Float[Tensor, 'B K']":
        return (z - self.b_dec) @ self.w_enc + self.b_enc

    def active(self, pre: "Float[Tensor, 'B K']", *, training: bool) -> "Float[Tensor, 'B K']":
        """f from pre-activations. training: batchtopk chooses within the batch, else by its threshold."""
        return activate(pre, self.config, self.threshold, training=training)

    def decode(self, f: "Float[Tensor, 'B K']") -> "Float[Tensor, 'B D']":
        return f @ self.w_dec + self.b_dec

    def calibrate(self, batches: "Iterable[Float[Tensor, 'B D']]") -> None:
        """Sets the threshold of batchtopk: the mean over batches of the smallest activation above 0 that is kept."""
        smallest = []
        for z in batches:
            f = self.active(self.pre_activations(z.detach()), training=True).detach()
            if bool((f > 0).any()):
                smallest.append(float(f[f > 0].min()))
        if smallest:
            self.threshold.fill_(sum(smallest) / len(smallest))

    def remove_parallel_gradient(self) -> None:
        """Takes from each decoder direction's gradient the part along the direction: it would only change its length,
        which stays 1, and Adam would put it into its moments."""
        if self.w_dec.grad is not None:
            along = (self.w_dec.grad * self.w_dec).sum(dim=1, keepdim=True)
            self.w_dec.grad -= along.detach() * self.w_dec.detach()

    def unit_decoder(self) -> None:
        """Brings each decoder direction back to length 1."""
        tensor = self.w_dec.detach()
        tensor /= tensor.norm(dim=1, keepdim=True).clamp_min(1e-12)


def activate(
    pre: "Float[Tensor, 'B K']", config: SAEConfig, threshold: "Float[Tensor, '']", *, training: bool
) -> "Float[Tensor, 'B K']":
    """f from pre-activations. training: batchtopk chooses within the batch, else by the threshold."""
    import torch

    positive = pre.relu()
    if config.k is None:
        return positive
    if config.activation == "topk":
        kept = positive.topk(config.k, dim=1, sorted=False)
        return torch.zeros_like(positive).scatter(1, kept.indices, kept.values)
    if not training:
        return torch.where(positive > threshold, positive, 0.0)
    flat = positive.flatten()
    kept = flat.topk(config.k * len(positive), sorted=False)
    return torch.zeros_like(flat).scatter(0, kept.indices, kept.values).view_as(positive)


def auxiliary_loss(
    pre: "Float[Tensor, 'B K']",
    w_dec: "Float[Tensor, 'K D']",
    error: "Float[Tensor, 'B D']",
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
    return (e - f @ w_dec[numbers]).square().sum(dim=1).mean() / variance * (used / aux_k)
