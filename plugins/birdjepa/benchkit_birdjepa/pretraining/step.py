"""One step of a training as a pure function of the state and the batch, compiled once.

The state is one tree: `params` (the encoder's and the objective's), `opt`, `probe`, `probe_opt`, `guard`, `step`
(of the batch) and `key`. The key of a step is folded in from its number, so that nothing random hangs on how one came
there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchkit import BenchkitError
from benchkit_birdjepa import encoder
from benchkit_birdjepa.objectives.context import PREFIX, Context
from benchkit_birdjepa.pretraining.probe import Probe, norm_of
from benchkit_birdjepa.pretraining.settings import Settings
from benchkit_birdjepa.pretraining.spectrogram import levels, masked

State = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Step:
    """Builds and makes steps. kind: of the data's labels, None where there are none."""

    settings: Settings
    objective: Any
    context: Context
    tx: optax.GradientTransformation
    probe: Probe | None
    kind: str | None

    def first(self, named: Mapping[str, np.ndarray]) -> State:
        """From the encoder's first weights under their published names."""
        s = self.settings
        key = jax.random.key(s.seed)
        params = dict(encoder.stacked(named, s.encoder))
        own = self.objective.init(jax.random.fold_in(key, 0x0B7), self.context)
        if wrong := [name for name in own if not name.startswith(PREFIX)]:
            raise BenchkitError(f"objective '{s.objective['name']}' names a parameter '{wrong[0]}', without '{PREFIX}'")
        params |= own
        state: State = {
            "params": params, "opt": self.tx.init(params), "step": jnp.zeros((), jnp.int32),
            "key": jax.random.key_data(key),
            "guard": {"mean": jnp.zeros(()), "var": jnp.zeros(()), "count": jnp.zeros((), jnp.int32),
                      "skipped": jnp.zeros((), jnp.int32)},
        }  # fmt: skip
        if self.probe is not None:
            state["probe"] = self.probe.first()
            state["probe_opt"] = self.probe.tx.init(state["probe"])
        return state

    # ---------------------------------------------------------------------------------------------------------- inputs

    def inputs(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """What the objective is given: x [B, V, ...], and labels as it reads them, where there are some."""
        a, config = self.settings.augment, self.settings.model
        share, partner = batch["share"], batch["partner"]
        if "waves" in batch:
            waves, held = batch["waves"], batch["held"]
            if a.mixup:
                of = share[:, None, None]
                waves, held = of * waves + (1 - of) * waves[partner], jnp.maximum(held, held[partner])
            b, v = held.shape
            x = levels(waves.reshape(b * v, -1), held.reshape(-1), config.input_h, config.input_w)
        else:
            pixels = batch["pixels"].astype(jnp.float32) / 127.5 - 1
            if a.mixup:
                of = share[:, None, None, None, None]
                pixels = of * pixels + (1 - of) * pixels[partner]
            b, v = pixels.shape[:2]
            x = pixels.reshape(b * v, *pixels.shape[2:])
        x = masked(x, batch["time"].reshape(b * v, -1, 2), batch["freq"].reshape(b * v, -1, 2))
        found = {"x": x.reshape(b, v, *x.shape[1:])}
        if "labels" in batch:
            labels = batch["labels"]
            if a.mixup:
                labels = self._mixed(labels, partner, share)
            found["labels"] = labels
        return found

    def _mixed(self, labels: Array, partner: Array, share: Array) -> Array:
        """Of one class shares of both; of several the union: both birds are there."""
        if self.kind == "multi":
            both = jnp.maximum(labels, labels[partner])
            return jnp.where((share < 1)[:, None], both, labels)
        hot = jax.nn.one_hot(labels, self.context.n_classes)
        return share[:, None] * hot + (1 - share[:, None]) * hot[partner]

    def read(self, labels: Array) -> Array:
        """As this objective reads them."""
        if self.objective.labels == "multi" and self.kind == "single" and labels.ndim == 1:
            return jax.nn.one_hot(labels, self.context.n_classes)
        return labels

    # ----------------------------------------------------------------------------------------------------------- steps

    def loss(self, params: Any, inputs: Mapping[str, Array], key: Array, step: Array) -> tuple[Array, Any]:
        """And (parts of the loss, what the probe is given)."""
        given = {"x": inputs["x"]}
        if self.objective.labels != "none":
            given["labels"] = self.read(inputs["labels"])
        loss, outcome = self.objective.loss(params, given, key, step, self.context)
        features = self.probe.features(outcome.encoded) if self.probe is not None else None
        return loss, (outcome.parts, features)

    def __call__(self, state: State, batch: Mapping[str, Array]) -> tuple[State, dict[str, Array]]:
        return self.of_inputs(state, self.inputs(batch))

    def gradients(self, state: State, inputs: Mapping[str, Array]) -> tuple[Array, Any, Any, Any]:
        """Loss, parts, the probe's features and the gradient, of a batch in `accumulate` parts, mean over them."""
        s = self.settings
        key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
        grad = jax.value_and_grad(self.loss, has_aux=True)
        if s.accumulate == 1:
            (loss, (parts, features)), grads = grad(state["params"], inputs, key, state["step"])
            return loss, parts, features, grads
        n = s.accumulate
        cut = {k: jnp.swapaxes(v.reshape(len(v) // n, n, *v.shape[1:]), 0, 1) for k, v in inputs.items()}

        def one(total: Any, given: Any) -> tuple[Any, Any]:
            part, i = given
            (loss, (parts, features)), grads = grad(state["params"], part, jax.random.fold_in(key, i), state["step"])
            return jax.tree.map(jnp.add, total, (loss, parts, grads)), features

        shape = jax.eval_shape(lambda: one_shape(grad, state, cut, key))
        zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shape)
        (loss, parts, grads), features = jax.lax.scan(one, zero, (cut, jnp.arange(n)))
        loss, parts, grads = jax.tree.map(lambda x: x / n, (loss, parts, grads))
        if features is not None:  # [n, B / n * V, D] as [B * V, D], the order of the batch
            views = self.objective.views
            by_example = features.reshape(n, -1, views, features.shape[-1])
            features = jnp.swapaxes(by_example, 0, 1).reshape(-1, features.shape[-1])
        return loss, parts, features, grads

    def of_inputs(self, state: State, inputs: Mapping[str, Array]) -> tuple[State, dict[str, Array]]:
        """The state after the step, and its figures. A step gone wrong changes nothing but its count."""
        s = self.settings
        loss, parts, features, grads = self.gradients(state, inputs)
        norm = norm_of(grads)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        guard = state["guard"]
        far = loss - guard["mean"] > s.guard.spike * jnp.sqrt(guard["var"] + 1e-12)
        spike = far & (guard["count"] >= max(2, s.guard.patience)) & finite if s.guard.spike else jnp.zeros((), bool)
        good = finite & ~spike
        clean = jax.tree.map(lambda g: jnp.where(good, g, 0.0), grads)
        updates, opt = self.tx.update(clean, state["opt"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)  # noqa: E731
        params, opt = keep(params, state["params"]), keep(opt, state["opt"])
        new: State = {
            **state, "params": params, "opt": opt, "step": state["step"] + 1,
            "guard": _guarded(guard, loss, good),
        }  # fmt: skip
        figures = {
            "loss": loss, **parts, "gradient_norm": norm, "weight_norm": norm_of(params),
            "update_norm": jnp.where(good, norm_of(updates), 0.0), "finite": finite, "spike": spike,
        }  # fmt: skip
        if self.probe is not None:
            labels = jnp.repeat(inputs["labels"], self.objective.views, axis=0)
            probe, probe_opt, of_probe = self.probe.step(state["probe"], state["probe_opt"], features, labels)
            new |= {"probe": probe, "probe_opt": probe_opt}
            figures |= of_probe
        return new, figures

    def test(self, state: State, batch: Mapping[str, Array]) -> dict[str, Array]:
        """The loss and its parts, and the probe's figures, on examples that are not trained on."""
        inputs = self.inputs(batch)
        key = jax.random.wrap_key_data(state["key"])
        found: dict[str, Array] = {}
        loss, (parts, features) = self.loss(state["params"], inputs, key, state["step"])
        found |= {"loss": loss, **parts}
        if self.probe is not None and "labels" in inputs:
            labels = jnp.repeat(inputs["labels"], self.objective.views, axis=0)
            found |= self.probe.judged(state["probe"], features, labels)
        return found


def one_shape(grad: Any, state: State, cut: Any, key: Array) -> Any:
    """Of what is summed over the parts of a batch."""
    first = {k: v[0] for k, v in cut.items()}
    (loss, (parts, _)), grads = grad(state["params"], first, key, state["step"])
    return loss, parts, grads


def _guarded(guard: dict[str, Array], loss: Array, good: Array) -> dict[str, Array]:
    """The running mean and variance of good losses (decay 0.98; the plain mean of the first 50), and how many steps in
    a row were not."""
    count = guard["count"] + 1
    weight = jnp.maximum(1 / count, 0.02)
    off = jnp.where(good, loss, guard["mean"]) - guard["mean"]
    mean = guard["mean"] + weight * off
    var = (1 - weight) * (guard["var"] + weight * jnp.square(off))
    return {
        "mean": jnp.where(good, mean, guard["mean"]), "var": jnp.where(good, var, guard["var"]),
        "count": jnp.where(good, count, guard["count"]), "skipped": jnp.where(good, 0, guard["skipped"] + 1),
    }  # fmt: skip


def exported(state: State, settings: Settings) -> dict[str, np.ndarray]:
    """The encoder under its published names, on the host: the EMA where there is one."""
    params = state["opt"].ema or state["params"]
    own = {name: x for name, x in params.items() if not name.startswith(PREFIX)}
    return {n: np.array(x, np.float32) for n, x in encoder.unstacked(own, settings.encoder).items()}
