"""One autoencoder while it is trained: a step, its metrics, its state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from benchkit.sae import metrics
from benchkit.sae.config import SAEConfig, TrainConfig, l1_scale_at, scale_at
from benchkit.sae.model import Autoencoder, auxiliary_loss

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED = 4096
"""Units that correlation and coherence are taken of while training; of the result, they are of all."""


@dataclass
class Run:
    """since: [K], vectors since each unit fired last. variance: of z, at the start, summed over dimensions: the unit of
    the auxiliary loss. history: rows of (steps done, name, value)."""

    config: SAEConfig
    model: Autoencoder
    optimiser: Any
    since: "Tensor"
    variance: float
    uuid: str
    history: list[tuple[int, str, float]] = field(default_factory=list)
    last_gradient: float = 0.0
    failed: str | None = None

    @staticmethod
    def start(config: SAEConfig, z: "Float[Tensor, 'B D']", device: str, uuid: str) -> "Run":
        """z: the first batch, for its mean and variance."""
        import torch

        model = Autoencoder(config, z.shape[1], z.mean(dim=0), device)
        optimiser = torch.optim.Adam(model.parameters.values(), lr=config.lr)
        since = torch.zeros(config.width, dtype=torch.int64, device=device)
        variance = float((z - z.mean(dim=0)).double().square().sum(dim=1).mean())
        return Run(config, model, optimiser, since, variance, uuid)

    def step(self, z: "Float[Tensor, 'B D']", number: int, steps: int, shared: TrainConfig, *, log: bool) -> None:
        """One update, number from 0. log: metrics of this batch, before the update, go to `history`."""
        import torch

        model, config = self.model, self.config
        pre = model.pre_activations(z)
        f = model.active(pre, training=True)
        z_hat = model.decode(f)
        error = z - z_hat
        loss = error.square().sum(dim=1).mean()
        if config.l1:
            loss = loss + config.l1 * l1_scale_at(number, steps, shared.l1_warmup) * f.abs().sum(dim=1).mean()
        self.since += len(z)
        self.since.masked_fill_((f.detach().abs() > metrics.ACTIVE).any(dim=0), 0)
        dead = self.since >= (shared.dead_after or 0)
        if shared.aux and bool(dead.any()):
            aux_k = shared.aux_k or max(1, z.shape[1] // 2)
            rest = auxiliary_loss(pre, model.w_dec, error, dead, aux_k, rectified=config.activation != "relu")
            loss = loss + shared.aux * self.variance * rest
        self.optimiser.zero_grad()
        loss.backward()
        model.remove_parallel_gradient()
        gradients = [p.grad for p in model.parameters.values() if p.grad is not None]
        last = number + 1 == steps
        if log or last:
            self.last_gradient = metrics.gradient_norm(gradients)
        if log and not torch.isfinite(loss):
            self.failed = f"its loss is {float(loss.detach())} at step {number + 1}: try a lower --lr, or --clip 1"
            return
        if log and not last:
            self.note(number + 1, self.measure(z, f.detach(), z_hat.detach(), sampled=True))
        if shared.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(model.parameters.values()), shared.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * scale_at(number, steps, shared.warmup, shared.decay)
        self.optimiser.step()
        model.unit_decoder()

    def measure(
        self,
        z: "Float[Tensor, 'N D']",
        f: "Float[Tensor, 'N K']",
        z_hat: "Float[Tensor, 'N D']",
        *,
        sampled: bool = False,
    ) -> dict[str, float]:
        """Every metric. sampled: correlation and coherence of every n-th unit, so that there are SAMPLED of them."""
        decoder = self.model.w_dec.detach()
        every = -(-len(decoder) // SAMPLED) if sampled else 1
        return {
            "mse": metrics.mse(z, z_hat),
            "explained_variance": metrics.explained_variance(z, z_hat),
            "l0": metrics.l0(f),
            "l1": metrics.l1(f),
            "dead": metrics.dead(f),
            "correlation": metrics.correlation(f[:, ::every]),
            "coherence": metrics.coherence(decoder[::every]),
            "decoder_norm": metrics.decoder_norm(decoder),
            "gradient_norm": self.last_gradient,
        }

    def measure_held_out(
        self, z: "Float[Tensor, 'N D']", f: "Float[Tensor, 'N K']", z_hat: "Float[Tensor, 'N D']"
    ) -> dict[str, float]:
        """Of vectors that were held out: what depends on them, and not on the decoder alone."""
        return {
            "held_out_mse": metrics.mse(z, z_hat),
            "held_out_explained_variance": metrics.explained_variance(z, z_hat),
            "held_out_l0": metrics.l0(f),
            "held_out_l1": metrics.l1(f),
            "held_out_dead": metrics.dead(f),
        }

    def note(self, step: int, found: Mapping[str, float]) -> None:
        """What is not a number is left out."""
        self.history += [
            (step, name, value) for name, value in found.items() if value == value and abs(value) != float("inf")
        ]

    def figures(self) -> str:
        """The latest metrics in a few words."""
        latest = {name: value for _, name, value in self.history}
        if self.failed or "explained_variance" not in latest:
            return f"{self.config.name}: {'failed' if self.failed else '...'}"
        explained, l0, dead = (latest[name] for name in ("explained_variance", "l0", "dead"))
        return f"{self.config.name}: explained {explained:.3f}, L0 {l0:.4f}, dead {dead:.3f}"

    # ------------------------------------------------------------------------------------------------------ its state

    def state(self) -> dict[str, Any]:
        return {
            "tensors": self.model.tensors, "optimiser": self.optimiser.state_dict(), "since": self.since,
            "uuid": self.uuid, "history": [list(row) for row in self.history], "last_gradient": self.last_gradient,
            "failed": self.failed,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load(state["tensors"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.since.copy_(state["since"])
        self.uuid, self.failed, self.last_gradient = state["uuid"], state["failed"], state["last_gradient"]
        self.history = [(step, name, value) for step, name, value in state["history"]]
