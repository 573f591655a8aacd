"""LeJEPA's two terms (arXiv 2511.08544, and galilai-group/lejepa where the paper leaves it open).

Shapes: V views, N examples, P numbers of a projection, K directions.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from benchkit_birdjepa.objectives.context import Context

KNOTS, RANGE = 17, 3.0
"""Of the trapezoid rule on [0, RANGE]."""


def invariance(proj: Float[Array, "V N P"], n_global: int | None = None) -> Float[Array, ""]:
    """Mean squared distance of all views from their example's centre: the mean of its first `n_global` views, which are
    those of the whole, or of all."""
    centre = proj[:n_global].mean(axis=0, keepdims=True)
    return jnp.square(centre - proj).mean()


def directions(key: Array, p: int, k: int) -> Float[Array, "P K"]:
    """Unit columns, uniform on the sphere; one key gives one set, on every device."""
    drawn = jax.random.normal(key, (p, k), jnp.float32)
    return drawn / jnp.linalg.norm(drawn, axis=0, keepdims=True)


def sigreg(proj: Float[Array, "V N P"], along: Float[Array, "P K"], context: Context) -> Float[Array, ""]:
    """Epps and Pulley's statistic against a standard normal distribution on each direction, of each view's N examples,
    mean over views and directions.

    N is the global batch: it multiplies the statistic, whose floor for an exact Gaussian is 1.05 at every N, so with
    the batch grows the pull. Inside shard_map N of all devices are meant, by a mean of cosines and sines before they
    are squared.
    """
    knots = jnp.linspace(0, RANGE, KNOTS, dtype=proj.dtype)
    target = jnp.exp(-jnp.square(knots) / 2)
    step = RANGE / (KNOTS - 1)
    weights = jnp.full(KNOTS, 2 * step, proj.dtype).at[jnp.array([0, KNOTS - 1])].set(step) * target
    angles = jnp.einsum("vnp,pk->vnk", proj, along.astype(proj.dtype))[..., None] * knots
    cos, sin = context.mean(jnp.cos(angles).mean(axis=1)), context.mean(jnp.sin(angles).mean(axis=1))  # [V, K, knots]
    errors = (jnp.square(cos - target) + jnp.square(sin)) @ weights
    return errors.mean() * proj.shape[1] * context.devices
