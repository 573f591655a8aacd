"""The sparse autoencoder: f = act((z - b) W_enc + c), z_hat = f W_dec + b, where every row of W_dec has length 1.

relu        act(p) = max(p, 0); trained with an L1 penalty on f.
topk        of each vector's max(p, 0) the k largest (Gao et al. 2024, "Scaling and evaluating sparse autoencoders",
            arXiv 2406.04093, section 2.3).
batchtopk   while training, of a whole batch's max(p, 0) the k largest a vector on average; afterwards those above one
            threshold (Bussmann et al. 2024, arXiv 2412.06410). Theirs is the mean over batches of the smallest one
            kept, which a short last batch bends; ours lets k a vector pass, on average over vectors.
matryoshka  as batchtopk; trained to reconstruct with the first units alone, too, for several numbers of them (Bussmann
            et al. 2025, arXiv 2503.17547).
jumprelu    p where p > t, a threshold for each unit that is trained, with a rectangle of a width as its derivative's
            stand-in (Rajamanoharan et al. 2024, arXiv 2407.14435, section 3). The threshold itself is trained, not its
            logarithm, and kept at 0 or more, as in SAELens.
gated       max(exp(r) q + m, 0) where q + g > 0, q = (z - b) W_enc (Rajamanoharan et al. 2024, arXiv 2404.16014).

What comes from where. Gao et al. is the paper; "their code" is openai/sparse_autoencoder, which they published with it.

unit norm     Every row of W_dec has length 1 at the start and is scaled back to it after each step; before the step its
              gradient loses the part along it, because of Adam (Gao et al., appendix A, after Bricken et al. 2023).
start         Random directions, the encoder parallel to the decoder (A.1). b starts as the mean of the first batch and
              not as its geometric median. Encoders of length 1 suit topk and batchtopk; with relu, gated and jumprelu,
              where half of the units are active at the start, their sum would be K / 2D times the input: there the
              encoder is as long as reconstructs the first batch best.
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
relu          A dead unit of a relu, gated or jumprelu autoencoder has p < 0 everywhere, and max(p, 0) gives it no
              gradient; so there p itself is taken. That is ours.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from benchkit.machine.seeds import Purpose, torch_generator
from benchkit.sae.config import SAEConfig

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 1 << 25
"""Activations that the threshold of batchtopk is chosen among, at most: 128 MB."""
THRESHOLD = 0.01
"""Of jumprelu at the start (as SAELens has it), where z has variance 1."""


class Autoencoder:
    """Parameters and buffers as plain tensors; `parameters` has those that are trained.

    w_enc [D, K], b_enc [K], w_dec [K, E], b_dec [E], E = D but for a transcoder. gated: r_mag, b_mag [K], and b_enc is
    the gate's. threshold: [K] of jumprelu, trained; [] of batchtopk and matryoshka, set by `calibrate`. b_in: [D] of a
    transcoder, whose input is not centred by b_dec.
    """

    def __init__(
        self,
        config: SAEConfig,
        dim: int,
        centre: "Float[Tensor, ' E']",
        device: str,
        b_in: "Float[Tensor, ' D'] | None" = None,
    ) -> None:
        """centre: b_dec at the start, the mean of what is reconstructed. The encoder begins as the decoder's (Gao et
        al., A.1); a transcoder's, where the dimensions differ, has directions of its own. b_in: the mean of a
        transcoder's input; None for an autoencoder."""
        import torch

        generator = torch_generator(config.seed, Purpose.SAE_INIT)

        def directions(n: int) -> "Tensor":
            drawn = torch.randn(config.width, n, generator=generator)
            return drawn / drawn.norm(dim=1, keepdim=True)

        def trained(tensor: "Tensor") -> "Tensor":
            return tensor.to(device).requires_grad_()

        self.config = config
        decoder = directions(len(centre))
        encoder = decoder if dim == len(centre) else directions(dim)
        self.parameters: dict[str, Tensor] = {
            "w_enc": trained(encoder.T.contiguous()), "b_enc": trained(torch.zeros(config.width)),
            "w_dec": trained(decoder.clone()), "b_dec": trained(centre.detach().clone()),
        }  # fmt: skip
        self.buffers: dict[str, Tensor] = {}
        if config.activation == "jumprelu":
            self.parameters["threshold"] = trained(torch.full((config.width,), THRESHOLD))
        else:
            self.buffers["threshold"] = torch.tensor(0.0, device=device)
        if config.activation == "gated":
            self.parameters |= {name: trained(torch.zeros(config.width)) for name in ("r_mag", "b_mag")}
        if b_in is not None:
            self.buffers["b_in"] = b_in.detach().clone().to(device)

    w_enc = property(lambda self: self.parameters["w_enc"])
    b_enc = property(lambda self: self.parameters["b_enc"])
    w_dec = property(lambda self: self.parameters["w_dec"])
    b_dec = property(lambda self: self.parameters["b_dec"])

    @property
    def all(self) -> "dict[str, Tensor]":
        return self.parameters | self.buffers

    @property
    def threshold(self) -> "Tensor":
        return self.all["threshold"]

    @property
    def tensors(self) -> "dict[str, Tensor]":
        """All that describes it."""
        return {name: p.detach() for name, p in self.all.items()}

    def load(self, tensors: "Mapping[str, Tensor]") -> None:
        """The inverse of `tensors`."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def fit_encoder(self, z: "Float[Tensor, 'B D']", target: "Float[Tensor, 'B E']") -> None:
        """Scales the encoder so that these vectors are reconstructed as well as its directions allow."""
        import torch

        with torch.no_grad():
            made = self.pre_activations(z).relu() @ self.w_dec
            wanted = target - self.b_dec
            size = float((made * made).sum())
            scale = float((made * wanted).sum()) / size if size > 0 else 0.0
            if scale > 0:  # a transcoder's random directions may be as far from its target as not
                self.w_enc.mul_(scale)

    def pre_activations(self, z: "Float[Tensor, 'B D']") -> "Float[Tensor, 'B K']":
        return pre_activations(z, self.all)

    def active(self, pre: "Float[Tensor, 'B K']", *, training: bool, bandwidth: float = 1.0) -> "Float[Tensor, 'B K']":
        """f from pre-activations. training: batchtopk chooses within the batch, else by its threshold."""
        return activate(pre, self.config, self.all, training=training, bandwidth=bandwidth)

    def decode(self, f: "Float[Tensor, 'B K']") -> "Float[Tensor, 'B E']":
        return f @ self.w_dec + self.b_dec

    def calibrate(self, batches: "Iterable[Float[Tensor, 'B D']]", vectors: int) -> None:
        """Sets the threshold of batchtopk so that k activations a vector are above it, on average over so many vectors
        of the batches (KEPT / k at most); of ties at that place none is."""
        import torch

        k = self.config.k
        assert k is not None
        n = max(1, min(vectors, KEPT // k))
        wanted = k * n + 1  # the next one, too, which must not pass: the threshold lies half-way
        kept, seen = self.w_dec.new_zeros(0), 0
        with torch.no_grad():
            for z in batches:
                positive = self.pre_activations(z[: n - seen]).relu().flatten()
                seen += min(len(z), n - seen)
                kept = torch.cat([kept, positive[positive > (kept.min() if len(kept) == wanted else 0)]])
                kept = kept.topk(min(wanted, len(kept)), sorted=False).values
                if seen == n:
                    break
            last = kept.topk(2, largest=False).values.mean() if len(kept) == k * seen + 1 else kept.new_zeros(())
            self.buffers["threshold"].copy_(last)

    def remove_parallel_gradient(self) -> None:
        """Takes from each decoder direction's gradient the part along the direction: it would only change its length,
        which stays 1, and Adam would put it into its moments."""
        if self.w_dec.grad is not None:
            along = (self.w_dec.grad * self.w_dec).sum(dim=1, keepdim=True)
            self.w_dec.grad -= along.detach() * self.w_dec.detach()

    def constrain(self) -> None:
        """After a step: each decoder direction back to length 1, thresholds to 0 or more."""
        tensor = self.w_dec.detach()
        tensor /= tensor.norm(dim=1, keepdim=True).clamp_min(1e-12)
        if "threshold" in self.parameters:
            self.parameters["threshold"].detach().clamp_(min=0.0)


def pre_activations(z: "Float[Tensor, 'B D']", tensors: "Mapping[str, Tensor]") -> "Float[Tensor, 'B K']":
    """p, of gated the gate's."""
    centre = tensors["b_in"] if "b_in" in tensors else tensors["b_dec"]
    return (z - centre) @ tensors["w_enc"] + tensors["b_enc"]


def activate(
    pre: "Float[Tensor, 'B K']",
    config: SAEConfig,
    tensors: "Mapping[str, Tensor]",
    *,
    training: bool,
    bandwidth: float = 1.0,
) -> "Float[Tensor, 'B K']":
    """f from pre-activations. training: batchtopk chooses within the batch, else by the threshold. bandwidth: of
    jumprelu, for the gradient."""
    import torch

    if config.activation == "jumprelu":
        return jump(pre, tensors["threshold"], bandwidth)
    if config.activation == "gated":
        magnitude = (pre - tensors["b_enc"]) * tensors["r_mag"].exp() + tensors["b_mag"]
        return (pre > 0).to(pre.dtype) * magnitude.relu()
    positive = pre.relu()
    if config.k is None:
        return positive
    if config.activation == "topk":
        kept = positive.topk(config.k, dim=1, sorted=False)
        return torch.zeros_like(positive).scatter(1, kept.indices, kept.values)
    if not training:
        return torch.where(positive > tensors["threshold"], positive, 0.0)
    flat = positive.flatten()
    kept = flat.topk(config.k * len(positive), sorted=False)
    return torch.zeros_like(flat).scatter(0, kept.indices, kept.values).view_as(positive)


def jump(p: "Float[Tensor, 'B K']", threshold: "Float[Tensor, ' K']", bandwidth: float) -> "Float[Tensor, 'B K']":
    """p where it is above the threshold, else 0. Its derivative by the threshold is -t / w where p is within w / 2 of
    t (arXiv 2407.14435, equation 11)."""
    return _straight_through()[0].apply(p, threshold, bandwidth)


def step(p: "Float[Tensor, 'B K']", threshold: "Float[Tensor, ' K']", bandwidth: float) -> "Float[Tensor, 'B K']":
    """1 where p is above the threshold, else 0. Its derivative by the threshold is -1 / w where p is within w / 2 of t
    (arXiv 2407.14435, equation 12); p gets none."""
    return _straight_through()[1].apply(p, threshold, bandwidth)


def _straight_through() -> tuple[Any, Any]:
    if not _FUNCTIONS:
        import torch

        def near(p: "Tensor", threshold: "Tensor", bandwidth: float) -> "Tensor":
            return ((p - threshold).abs() < bandwidth / 2).to(p.dtype)

        class Jump(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, p: "Tensor", threshold: "Tensor", bandwidth: float) -> "Tensor":
                ctx.save_for_backward(p, threshold)
                ctx.bandwidth = bandwidth
                return p * (p > threshold).to(p.dtype)

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
                p, threshold = ctx.saved_tensors
                (g,) = gradients
                by_threshold = -(threshold / ctx.bandwidth) * (near(p, threshold, ctx.bandwidth) * g).sum(dim=0)
                return g * (p > threshold).to(p.dtype), by_threshold, None

        class Step(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, p: "Tensor", threshold: "Tensor", bandwidth: float) -> "Tensor":
                ctx.save_for_backward(p, threshold)
                ctx.bandwidth = bandwidth
                return (p > threshold).to(p.dtype)

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
                p, threshold = ctx.saved_tensors
                (g,) = gradients
                return None, -(near(p, threshold, ctx.bandwidth) * g).sum(dim=0) / ctx.bandwidth, None

        _FUNCTIONS.extend((Jump, Step))
    return _FUNCTIONS[0], _FUNCTIONS[1]


_FUNCTIONS: list[Any] = []
"""torch's classes, made when torch is first needed."""
