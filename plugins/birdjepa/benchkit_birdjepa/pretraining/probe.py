"""The online probe: a LayerNorm and a linear layer on detached features, in a world of its own.

It has its own parameters, optimiser and gradient: nothing of it enters the norm that the encoder's gradient is clipped
by, nor what stops or skips a step. With other labels the encoder is the same to the bit.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from benchkit_birdjepa.pretraining.settings import ProbeConfig


def norm_of(tree: Any) -> Array:
    """Of all leaves together."""
    return jnp.sqrt(sum(jnp.square(x.astype(jnp.float32)).sum() for x in jax.tree.leaves(tree)))


@dataclass(frozen=True)
class Probe:
    """dim: of the features. kind: single for one class of `n_classes` an example, multi for any of them."""

    config: ProbeConfig
    dim: int
    n_classes: int
    kind: str

    @cached_property
    def tx(self) -> optax.GradientTransformation:
        return optax.adamw(self.config.lr, weight_decay=self.config.weight_decay)

    def first(self) -> dict[str, Array]:
        return {
            "norm.weight": jnp.ones(self.dim), "norm.bias": jnp.zeros(self.dim),
            "weight": jnp.zeros((self.n_classes, self.dim)), "bias": jnp.zeros(self.n_classes),
        }  # fmt: skip

    def features(self, encoded: Any) -> Array:
        """[B * V, D], without a way back."""
        tokens = encoded.cls if self.config.pool == "cls" else encoded.patches
        return jax.lax.stop_gradient(tokens.mean(1))

    def logits(self, params: dict[str, Array], x: Array) -> Array:
        x = x - x.mean(-1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)
        return (x * params["norm.weight"] + params["norm.bias"]) @ params["weight"].T + params["bias"]

    def _loss(self, params: dict[str, Array], x: Array, labels: Array) -> Array:
        logits = self.logits(params, x)
        if self.kind == "multi":
            return (jnp.logaddexp(0, logits) - labels * logits).mean()
        hot = jax.nn.one_hot(labels, self.n_classes) if labels.ndim == 1 else labels
        return -(hot * jax.nn.log_softmax(logits)).sum(-1).mean()

    def judged(self, params: dict[str, Array], x: Array, labels: Array) -> dict[str, Array]:
        """probe_loss; probe_accuracy: how often the highest class is the example's, or one of the example's."""
        best = self.logits(params, x).argmax(-1)
        if self.kind == "multi":
            right = jnp.take_along_axis(labels, best[:, None], 1)[:, 0] > 0
        else:
            right = best == (labels if labels.ndim == 1 else labels.argmax(-1))
        return {"probe_loss": self._loss(params, x, labels), "probe_accuracy": right.astype(jnp.float32).mean()}

    def step(self, params: Any, opt: Any, x: Array, labels: Array) -> tuple[Any, Any, dict[str, Array]]:
        """A gradient that is not finite changes nothing."""
        found = self.judged(params, x, labels)
        grads = jax.grad(self._loss)(params, x, labels)
        good = jnp.isfinite(norm_of(grads))
        updates, new = self.tx.update(grads, opt, params)
        keep = lambda a, b: jax.tree.map(lambda p, q: jnp.where(good, p, q), a, b)  # noqa: E731
        return keep(optax.apply_updates(params, updates), params), keep(new, opt), found
