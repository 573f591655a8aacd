"""Labels: softmax cross-entropy of an example's one class, or binary cross-entropy of each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchkit import BenchkitError, Objective, param

HEAD = "objective.head"


@dataclass(frozen=True)
class SupervisedParams:
    labels: Literal["single", "multi"] = param("single", help="softmax over classes, or each class for itself")
    pool: Literal["cls", "patches"] = param("cls", help="mean of the class tokens, or of the patches")
    smoothing: float = param(0.0, low=0, high=1, help="of a label's 1 towards the mean of all classes")
    views: int = param(1, low=1, help="crops of an example in a batch, each with its label")


class Supervised(Objective):
    """The mean over examples; of several labels, over examples and classes."""

    Params = SupervisedParams
    params: SupervisedParams

    @property
    def views(self) -> int:
        return self.params.views

    @property
    def labels(self) -> Literal["single", "multi"]:
        return self.params.labels

    def init(self, key: Any, context: Any) -> dict[str, Any]:
        from benchkit_birdjepa.objectives.context import first_linear

        least = 2 if self.params.labels == "single" else 1
        if context.n_classes < least:
            raise BenchkitError(
                f"supervised needs data with labels of {least} classes or more, not {context.n_classes}"
            )
        return first_linear(key, HEAD, context.config.embed_dim, context.n_classes, context.read_std)

    def loss(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], key: Any, step: Any, context: Any
    ) -> tuple[Any, Any]:
        import jax
        import jax.numpy as jnp

        from benchkit_birdjepa.encoder import patchify
        from benchkit_birdjepa.objectives.context import Outcome, detached

        x = batch["x"]
        encoded = context.encode(params, *patchify(x.reshape(-1, *x.shape[2:]), context.config), key=key)
        pooled = (encoded.cls if self.params.pool == "cls" else encoded.patches).mean(1)
        logits = jnp.matmul(pooled, params[f"{HEAD}.weight"].T) * context.readout + params[f"{HEAD}.bias"]
        labels = jnp.repeat(batch["labels"], x.shape[1], axis=0)
        smooth, hot = self.params.smoothing, labels
        if self.params.labels == "single":
            # mixup gives shares of classes, [B, C], in place of one class
            hot = jax.nn.one_hot(labels, context.n_classes, dtype=logits.dtype) if labels.ndim == 1 else labels
            hot = hot * (1 - smooth) + smooth / context.n_classes
            losses = -(hot * jax.nn.log_softmax(logits)).sum(-1)
            right = logits.argmax(-1) == hot.argmax(-1)
        else:
            hot = hot.astype(logits.dtype) * (1 - smooth) + smooth / 2
            losses = (jnp.logaddexp(0, logits) - hot * logits).mean(-1)
            right = ((logits > 0) == (hot > 0.5)).mean(-1)
        loss = context.mean(losses.mean())
        parts = {"accuracy": context.mean(jax.lax.stop_gradient(right.astype(losses.dtype)).mean())}
        return loss, Outcome(parts, detached(encoded))
