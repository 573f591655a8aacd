"""LeJEPA (arXiv 2511.08544): the projections of an example's views near their centre, and normally distributed.

As galilai-group/lejepa's example has it: SIGReg of each view, BatchNorm over all views at once in the projector,
(1 - weight) * invariance + weight * SIGReg. samuelstevens/birdjepa: norm=layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchkit import BenchkitError, Objective, param

PROJECTOR = "objective.projector"
EPS = 1e-5


@dataclass(frozen=True)
class LeJEPAParams:
    views: int = param(4, low=1, help="V, crops of an example in a batch")
    global_views: int = param(0, low=0, help="the first so many make the centre; 0: all")
    weight: float = param(0.02, low=0, high=1, help="of SIGReg against the invariance; 0.05 in the package's scripts")
    directions: int = param(256, low=1, help="drawn anew each step; 1024 in the package's readme")
    hidden: int = param(2048, low=1, help="width inside the projector")
    layers: int = param(2, low=0, help="hidden layers of the projector")
    out: int = param(16, low=1, help="P, numbers of a projection")
    norm: Literal["batch", "layer"] = param("batch", help="in the projector; batch: over all views of the global batch")
    embedding: int = param(0, low=0, help="width of a linear layer before the projector; 0: none; 512 in the example")
    pool: Literal["cls", "patches"] = param("cls", help="mean of the class tokens, or of the patches")

    def __post_init__(self) -> None:
        if self.global_views > self.views:
            raise ValueError(f"global_views={self.global_views} of views={self.views}")


class LeJEPA(Objective):
    """Parts: `invariance` and `sigreg`, whose floor is 1.05."""

    Params = LeJEPAParams
    params: LeJEPAParams

    @property
    def views(self) -> int:
        return self.params.views

    def init(self, key: Any, context: Any) -> dict[str, Any]:
        import jax
        import jax.numpy as jnp

        from benchkit_birdjepa.objectives.context import first_linear

        wanted, config = self.params, context.config
        inner = wanted.embedding or config.embed_dim
        keys = jax.random.split(key, wanted.layers + 2)
        found: dict[str, Any] = {}
        if wanted.embedding:
            found |= first_linear(keys[0], "objective.embedding", config.embed_dim, inner, context.read_std)
        for i in range(wanted.layers + 1):
            outer = wanted.hidden if i < wanted.layers else wanted.out
            # PyTorch's own first weights have this spread, 1 / sqrt(3 * inputs); what reads the encoder has muP's
            std = context.read_std if i == 0 and not wanted.embedding else (3 * inner) ** -0.5
            found |= first_linear(keys[i + 1], f"{PROJECTOR}.{i}", inner, outer, std)
            if i < wanted.layers:
                found[f"{PROJECTOR}.norm{i}.weight"] = jnp.ones(outer, jnp.float32)
                found[f"{PROJECTOR}.norm{i}.bias"] = jnp.zeros(outer, jnp.float32)
            inner = outer
        return found

    def loss(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], key: Any, step: Any, context: Any
    ) -> tuple[Any, Any]:
        from benchkit_birdjepa.encoder import patchify
        from benchkit_birdjepa.objectives.context import Outcome, detached
        from benchkit_birdjepa.objectives.sigreg import directions

        x = batch["x"]  # [B, V, ...]
        b, v = x.shape[:2]
        if v != self.params.views:
            raise BenchkitError(f"lejepa has views={self.params.views}, and the batch {v}")
        encoded = context.encode(params, *patchify(x.reshape(b * v, *x.shape[2:]), context.config), key=key)
        pooled = (encoded.cls if self.params.pool == "cls" else encoded.patches).mean(1)
        proj = self.projected(params, pooled, context)
        # examples come first in the batch: [B, V, P], and only then the views
        proj = proj.reshape(b, v, -1).swapaxes(0, 1)
        along = directions(key, self.params.out, self.params.directions)
        loss, parts = self.of_projections(proj, along, context)
        return loss, Outcome(parts, detached(encoded))

    def projected(self, params: Mapping[str, Any], pooled: Any, context: Any) -> Any:
        """[B * V, D] to [B * V, P]; what first reads the encoder's width carries muP's multiplier."""
        import jax
        import jax.numpy as jnp

        first = f"{PROJECTOR}.0"
        if self.params.embedding:
            first = "objective.embedding"
        x = jnp.matmul(pooled, params[f"{first}.weight"].T) * context.readout + params[f"{first}.bias"]
        for i in range(self.params.layers + 1):
            if i or self.params.embedding:
                x = jnp.matmul(x, params[f"{PROJECTOR}.{i}.weight"].T) + params[f"{PROJECTOR}.{i}.bias"]
            if i < self.params.layers:
                x = self._normed(x, context) * params[f"{PROJECTOR}.norm{i}.weight"]
                x = jax.nn.relu(x + params[f"{PROJECTOR}.norm{i}.bias"])
        return x

    def _normed(self, x: Any, context: Any) -> Any:
        import jax
        import jax.numpy as jnp

        if self.params.norm == "layer":
            centred = x - x.mean(-1, keepdims=True)
            return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPS)
        centred = x - context.mean(x.mean(0))
        return centred * jax.lax.rsqrt(context.mean(jnp.square(centred).mean(0)) + EPS)

    def of_projections(self, proj: Any, along: Any, context: Any) -> tuple[Any, dict[str, Any]]:
        """The loss and its parts of projections [V, B, P] on directions [P, K]."""
        import jax.numpy as jnp

        from benchkit_birdjepa.objectives.sigreg import invariance, sigreg

        # cosines of numbers in bfloat16 are off by their third digit
        proj = proj.astype(jnp.promote_types(proj.dtype, jnp.float32))
        near = context.mean(invariance(proj, self.params.global_views or None))
        normal = sigreg(proj, along, context)
        share = self.params.weight
        return (1 - share) * near + share * normal, {"invariance": near, "sigreg": normal}
