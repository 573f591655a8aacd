"""One autoencoder while it is trained: a step, its metrics, its state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jaxtyping import Float

from benchkit.sae import metrics
from benchkit.sae.config import SAEConfig, TrainConfig, l1_scale_at, scale_at
from benchkit.sae.losses import auxiliary_loss, forward
from benchkit.sae.model import Autoencoder

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED = 4096
"""Units that correlation and coherence are taken of while training."""
RECTIFIED = ("relu", "jumprelu", "gated")
"""Activations whose units are active wherever they like, half of them at the start."""


@dataclass
class Run:
    """since: [K], vectors since each unit fired last. variance: of z, at the start, summed over dimensions: the unit of
    the auxiliary loss. scale: the root of its mean over dimensions, that of jumprelu's bandwidth. history:
    rows of (steps done, name, value)."""

    config: SAEConfig
    model: Autoencoder
    optimiser: Any
    since: "Tensor"
    variance: float
    scale: float
    uuid: str
    history: list[tuple[int, str, float]] = field(default_factory=list)
    last_gradient: float = 0.0
    failed: str | None = None

    @staticmethod
    def start(
        config: SAEConfig,
        z: "Float[Tensor, 'B D']",
        device: str,
        uuid: str,
        target: "Float[Tensor, 'B E'] | None" = None,
    ) -> "Run":
        """z: the first batch, for its mean and variance. target: of a transcoder, what it is to make of that."""
        import torch

        wanted = z if target is None else target
        model = Autoencoder(
            config, z.shape[1], wanted.mean(dim=0), device, b_in=None if target is None else z.mean(dim=0)
        )
        if config.activation in RECTIFIED:
            model.fit_encoder(z, wanted)
        variance = float((wanted - wanted.mean(dim=0)).double().square().sum(dim=1).mean())
        scale = (variance / wanted.shape[1]) ** 0.5
        if config.activation == "jumprelu":
            model.parameters["threshold"].detach().mul_(scale)
        optimiser = torch.optim.Adam(model.parameters.values(), lr=config.lr)
        since = torch.zeros(config.width, dtype=torch.int64, device=device)
        return Run(config, model, optimiser, since, variance, scale, uuid)

    def step(
        self,
        z: "Float[Tensor, 'B D']",
        number: int,
        steps: int,
        shared: TrainConfig,
        *,
        log: bool,
        target: "Float[Tensor, 'B E'] | None" = None,
    ) -> None:
        """One update, number from 0. log: metrics of this batch, before the update, go to `history`. target: of a
        transcoder."""
        import torch

        model, config = self.model, self.config
        wanted = z if target is None else target
        half = shared.precision == "bfloat16"
        with torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            weight = l1_scale_at(number, steps, shared.l1_warmup)
            made = forward(model, z, wanted, shared, weight, shared.bandwidth * self.scale)
            loss = made.loss
            self.since += len(z)
            self.since.masked_fill_((made.f.detach().abs() > metrics.ACTIVE).any(dim=0), 0)
            dead = self.since >= (shared.dead_after or 0)
            if shared.aux and bool(dead.any()):
                aux_k = shared.aux_k or max(1, wanted.shape[1] // 2)
                rectified = config.activation not in RECTIFIED
                rest = auxiliary_loss(made.pre, model.w_dec, made.error, dead, aux_k, rectified=rectified)
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
            self.note(number + 1, self.measure(wanted, made.f.detach(), made.z_hat.detach()))
        if shared.clip is not None:
            torch.nn.utils.clip_grad_norm_(list(model.parameters.values()), shared.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * scale_at(number, steps, shared.warmup, shared.decay)
        self.optimiser.step()
        model.constrain()

    def measure(
        self, z: "Float[Tensor, 'N D']", f: "Float[Tensor, 'N K']", z_hat: "Float[Tensor, 'N D']"
    ) -> dict[str, float]:
        """Of a batch, while training; correlation and coherence of every n-th unit, so that there are SAMPLED of them
        at most."""
        decoder = self.model.w_dec.detach()
        every = -(-len(decoder) // SAMPLED)
        return {
            "mse": metrics.mse(z, z_hat),
            "explained_variance": metrics.explained_variance(z, z_hat),
            "l0": metrics.l0(f),
            "l1": metrics.l1(f),
            "dead": metrics.dead(f),
            "correlation": metrics.correlation(f[:, ::every])[0],
            "coherence": metrics.coherence(decoder[::every]),
            "decoder_norm": metrics.decoder_norm(decoder),
            "gradient_norm": self.last_gradient,
        }

    def of_itself(self, shared: TrainConfig) -> dict[str, float]:
        """Metrics of the result that no vectors are needed for."""
        return {
            "dead_in_training": float((self.since >= (shared.dead_after or 0)).double().mean()),
            "decoder_norm": metrics.decoder_norm(self.model.w_dec.detach()),
            "gradient_norm": self.last_gradient,
        }

    def note(self, step: int, found: Mapping[str, float]) -> None:
        """What is not a number is left out."""
        self.history += [
            (step, name, float(value)) for name, value in found.items() if value == value and abs(value) != float("inf")
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
