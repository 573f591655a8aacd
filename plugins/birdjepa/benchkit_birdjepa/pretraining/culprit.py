"""What went wrong first in a step: the first activation, on the way of the computation, or the first parameter."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from benchkit_birdjepa import encoder
from benchkit_birdjepa.pretraining.step import State, Step


def first_wrong(step: Step, state: State, batch: Mapping[str, Any]) -> str:
    """In words, of the state before the step and its batch: what is not finite first, among the inputs, the parameters,
    the activations and the gradients; where all is finite, the gradient that is the largest beside its weights."""
    inputs = step.inputs(batch)
    bad = np.flatnonzero(~np.isfinite(np.asarray(inputs["x"])).reshape(len(inputs["x"]), -1).all(1))
    if len(bad):
        return f"the input of example {int(np.asarray(batch['rows'])[bad[0]])} was the first that is not finite"
    for name, value in state["params"].items():
        if not np.isfinite(np.asarray(value)).all():
            return f"the parameter {_block(name, value)} was the first that is not finite"
    if place := _activation(step, state, inputs):
        return f"the activation {place} was the first that is not finite"
    _, _, _, grads = step.gradients(state, inputs)
    ordered = list(reversed(list(grads.items())))  # the way back meets what is last first
    for name, value in ordered:
        if not np.isfinite(np.asarray(value)).all():
            return f"the gradient of {_block(name, value)} was the first that is not finite"
    sizes = {n: float(np.linalg.norm(g) / (np.linalg.norm(state["params"][n]) + 1e-8)) for n, g in grads.items()}
    worst = max(sizes, key=lambda n: sizes[n])
    return f"the gradient of {worst} was the largest beside its weights, {sizes[worst]:.3g} of their norm"


def _block(name: str, value: Any) -> str:
    """Blocks are stacked: which of them."""
    if not name.startswith("blocks."):
        return name
    wrong = ~np.isfinite(np.asarray(value)).reshape(len(value), -1).all(1)
    return f"blocks.{int(np.flatnonzero(wrong)[0])}.{name[7:]}"


def _activation(step: Step, state: State, inputs: Mapping[str, Any]) -> str | None:
    config, x = step.settings.encoder, inputs["x"]
    patches, grid = encoder.patchify(x.reshape(-1, *x.shape[2:]), config)
    found: list[str] = []

    def look(place: str, value: Any) -> None:
        if not found and not np.isfinite(np.asarray(value)).all():
            found.append(place)

    own = {n: v for n, v in state["params"].items() if not n.startswith("objective.")}
    with jax.disable_jit():
        encoder.encode(own, config, patches, grid, scan=False, tap=look)
    return found[0] if found else None
