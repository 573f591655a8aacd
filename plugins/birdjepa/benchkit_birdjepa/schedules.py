"""The share of the peak rate at each update, counted from 0: what the optimiser multiplies its rates by.

With a warm-up the first update, number 0, has rate 0, as in optax. Parts of length 0 drop out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from benchkit import BenchkitError, param

Decay = Literal["linear", "sqrt", "cosine", "square", "exponential"]


@dataclass(frozen=True)
class Schedule:
    name: Literal["cosine", "wsd", "constant"] = param("cosine", help="wsd: warm-up, constant, decay")
    warmup: int = param(0, low=0, help="updates of a linear rise from 0")
    decay: int = param(0, low=0, help="of wsd: the last so many updates")
    shape: Decay = param("linear", help="of wsd's decay; sqrt: 1 - sqrt(x); exponential: halves twice")
    floor: float = param(0.0, low=0, high=1, help="share of the peak that remains at the end")


def schedule(config: Schedule, total: int) -> Callable[[Any], Any]:
    """The share at update t, a number or an array. Raises BenchkitError where the parts are longer than the whole.

    Shapes: 1 - sqrt(x) by arXiv 2405.18392, exponential by 2404.06395, the others as optax has them.
    """
    parts = config.warmup + (config.decay if config.name == "wsd" else 0)
    if total < 1 or parts > total:
        raise BenchkitError(
            f"a warm-up of {config.warmup} and a decay of {parts - config.warmup} are longer than {total} updates"
        )

    def at(t: Any) -> Any:
        import jax.numpy as jnp

        t = jnp.asarray(t)
        rise = jnp.clip(t / config.warmup, 0, 1) if config.warmup else jnp.ones(t.shape)
        length = {"cosine": total - config.warmup, "wsd": config.decay, "constant": 0}[config.name]
        if not length:
            return rise
        x = jnp.clip((t - (total - length)) / length, 0, 1)
        shape = "cosine" if config.name == "cosine" else config.shape
        left = {
            "linear": lambda: 1 - x, "sqrt": lambda: 1 - jnp.sqrt(x), "square": lambda: 1 - jnp.square(x),
            "cosine": lambda: (1 + jnp.cos(math.pi * x)) / 2, "exponential": lambda: 0.25**x,
        }[shape]()  # fmt: skip
        return rise * (config.floor + (1 - config.floor) * left)

    return at
