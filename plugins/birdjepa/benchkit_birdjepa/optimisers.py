"""AdamW, and Muon for the matrices of blocks with AdamW for all else, as one optax transformation over flat parameters.

Its state is flat dictionaries under the parameters' names too, so that a checkpoint is arrays with names. Every
parameter's rule is in `rules`, which the update reads and tests list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from benchkit import BenchkitError, param
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.parameterisation import MuonScale, OptimiserName, Parameterisation, is_matrix
from benchkit_birdjepa.schedules import Schedule, schedule

Params = Mapping[str, Array]
NS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz step aX + (bA + cA^2)X with A = XX^T (KellerJordan/Muon)."""


@dataclass(frozen=True)
class Optimiser:
    name: OptimiserName = param("adamw", help="muon: of the matrices of blocks; adamw has the rest")
    lr: float = param(1e-3, low=0, help="AdamW's peak rate")
    weight_decay: float = param(0.05, low=0, help="AdamW's, of matrices alone, times the rate")
    b1: float = param(0.9, low=0, high=1, help="of AdamW's mean of gradients")
    b2: float = param(0.999, low=0, high=1, help="of AdamW's mean of squares")
    eps: float = param(1e-8, low=0, help="AdamW's, added to the root")
    decay_tokens: bool = param(False, help="decay tokens and positions too, as Pixio's and MAE's recipes do")
    muon_lr: float = param(0.02, low=0, help="Muon's peak rate")
    muon_decay: float = param(0.0, low=0, help="Muon's weight decay, times its rate")
    momentum: float = param(0.95, low=0, high=1, help="Muon's")
    nesterov: Literal["keller", "optax", "none"] = param("keller", help="keller: g and m as 1 to 19 at every update")
    muon_scale: MuonScale = param("keller", help="keller: sqrt(max(1, rows / columns)); moonlight: 0.2 sqrt(max side)")
    ns_steps: int = param(5, low=1, help="Newton-Schulz steps")
    ns_dtype: Literal["float32", "bfloat16"] = param("float32", help="that they are computed in")
    clip: float = param(1.0, low=0, help="largest norm of the gradient of encoder and objective; 0: any")
    layer_decay: float = param(1.0, low=0, high=1, help="a block's rate is its successor's times this")
    ema: float = param(0.0, low=0, high=1, help="decay of a running average of the weights; 0: none is kept")


class State(NamedTuple):
    """count: updates made. mean: of gradients, Adam's or Muon's. square: Adam's. ema: of the weights, or empty."""

    count: Array
    mean: dict[str, Array]
    square: dict[str, Array]
    ema: dict[str, Array]


@dataclass(frozen=True)
class Rule:
    """rate: at the peak, times layers, one factor for each block of a stacked parameter. decay: before the rate."""

    optimiser: OptimiserName
    rate: float
    decay: float
    eps: float
    layers: tuple[float, ...] | float = 1.0


def rules(config: Optimiser, names: Any, encoder: EncoderConfig, how: Parameterisation) -> dict[str, Rule]:
    """Of every parameter, by its name alone."""
    return {name: _rule(name, config, encoder, how) for name in names}


def _rule(name: str, config: Optimiser, encoder: EncoderConfig, how: Parameterisation) -> Rule:
    muon = config.name == "muon" and is_matrix(name) and _is_block(name)
    optimiser: OptimiserName = "muon" if muon else "adamw"
    factors = how.factors(name, encoder, optimiser, config.muon_scale)
    decays = is_matrix(name) or (config.decay_tokens and name.rpartition(".")[2] in TOKENS)
    decay = config.muon_decay if muon else config.weight_decay
    rate = config.muon_lr if muon else config.lr
    return Rule(
        optimiser, rate * factors.rate, decay * factors.decay if decays else 0.0, config.eps * factors.eps,
        _layers(name, config.layer_decay, encoder.depth),
    )  # fmt: skip


TOKENS = ("cls_tokens", "reg_tokens", "pos_embed_hw", "pos_embed", "mask_token")


def _is_block(name: str) -> bool:
    return "blocks" in name.split(".")


def _layers(name: str, decay: float, depth: int) -> tuple[float, ...] | float:
    """As BEiT counts: embeddings are layer 0, block i is layer i + 1, the final norm and the objective are the last."""
    if name.startswith(("objective.", "norm.")):
        return 1.0
    if name.startswith("blocks."):
        return tuple(decay ** (depth - i) for i in range(depth)) if decay != 1 else 1.0
    return decay ** (depth + 1)


def make(
    config: Optimiser, schedule_config: Schedule, total: int, encoder: EncoderConfig,
    how: Parameterisation = Parameterisation(),
) -> optax.GradientTransformation:  # fmt: skip
    """Of flat parameters, the encoder's blocks stacked. Clips, updates, decays, keeps the average of weights."""
    share = schedule(schedule_config, total)

    def init(params: Any) -> State:
        of = rules(config, params, encoder, how)
        zeros = {n: jnp.zeros_like(x) for n, x in params.items()}
        square = {n: jnp.zeros_like(x) for n, x in params.items() if of[n].optimiser == "adamw"}
        average = {n: jnp.array(x) for n, x in params.items()} if config.ema else {}
        return State(jnp.zeros((), jnp.int32), zeros, square, average)

    def update(grads: Any, state: State, params: Any = None) -> tuple[dict[str, Array], State]:
        if params is None:
            raise BenchkitError("the optimiser needs the parameters: update(grads, state, params)")
        of = rules(config, params, encoder, how)
        if config.clip:
            grads = clipped(grads, config.clip)
        count = state.count + 1
        mean, square, updates = {}, dict(state.square), {}
        for name, g in grads.items():
            rule = of[name]
            if rule.optimiser == "muon":
                step, mean[name] = _muon(name, g, state.mean[name], count, config)
            else:
                mean[name] = config.b1 * state.mean[name] + (1 - config.b1) * g
                square[name] = config.b2 * state.square[name] + (1 - config.b2) * jnp.square(g)
                root = jnp.sqrt(square[name] / (1 - config.b2**count)) + rule.eps
                step = mean[name] / (1 - config.b1**count) / root
            if rule.decay:
                step = step + rule.decay * params[name]
            layers = jnp.reshape(jnp.asarray(rule.layers, g.dtype), (-1, *([1] * (g.ndim - 1))) if g.ndim else ())
            updates[name] = (-share(state.count) * rule.rate * layers * step).astype(params[name].dtype)
        average = {n: config.ema * a + (1 - config.ema) * (params[n] + updates[n]) for n, a in state.ema.items()}
        return updates, State(count, mean, square, average)

    return optax.GradientTransformation(init, update)


def clipped(grads: Params, norm: float) -> dict[str, Array]:
    """Scaled down where their joint norm is above `norm`."""
    found = optax.global_norm(dict(grads))
    return {n: jnp.where(found < norm, g, g * (norm / found)) for n, g in grads.items()}


def _muon(name: str, g: Array, m: Array, count: Array, config: Optimiser) -> tuple[Array, Array]:
    """The step before rate and decay, and the momentum.

    keller: step lerp(g, m, beta) with m = lerp(m, g, 1 - beta), as its reference. optax: both terms corrected for their
    bias as in Nadam, 9.7 to 1 in place of 19 to 1 at first, and 3 to 11 % apart later.
    """
    beta = config.momentum
    m = beta * m + (1 - beta) * g
    if config.nesterov == "keller":
        mixed = (1 - beta) * g + beta * m
    elif config.nesterov == "optax":
        mixed = beta * m / (1 - beta ** (count + 1)) + (1 - beta) * g / (1 - beta**count)
    else:
        mixed = m
    pieces = 3 if name.endswith("attn.qkv.weight") else 1  # queries, keys and values are three matrices
    split = mixed.reshape(*mixed.shape[:-2], pieces, mixed.shape[-2] // pieces, mixed.shape[-1])
    rows, columns = split.shape[-2:]
    scale = max(1, rows / columns) ** 0.5 if config.muon_scale == "keller" else 0.2 * max(rows, columns) ** 0.5
    return orthogonalised(split, config.ns_steps, jnp.dtype(config.ns_dtype)).reshape(m.shape) * scale, m


def orthogonalised(x: Array, steps: int = 5, dtype: Any = jnp.float32) -> Array:
    """Each matrix of [..., rows, columns] with its singular values near 1, 0.3 to 1.3 after 5 steps; 0 stays 0."""
    a, b, c = NS
    wide = x if x.shape[-2] <= x.shape[-1] else x.mT
    y = wide.astype(dtype)
    y = y / (jnp.linalg.norm(y, axis=(-2, -1), keepdims=True) + 1e-7)
    exact = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    for _ in range(steps):
        square = jnp.matmul(y, y.mT, precision=exact)
        mixed = b * square + c * jnp.matmul(square, square, precision=exact)
        y = a * y + jnp.matmul(mixed, y, precision=exact)
    return (y if wide is x else y.mT).astype(x.dtype)


def accumulated(step: Any, batch: Mapping[str, Array], key: Array, pieces: int) -> Any:
    """Gradients of a batch in `pieces`, one after another: means of what `step(batch, key)` gives, a tree of arrays.

    Every device keeps its own examples. What looks over the examples of a batch, SIGReg and BatchNorm, sees one piece.
    """
    if pieces == 1:
        return step(batch, key)
    if bad := {n: len(x) for n, x in batch.items() if len(x) % pieces}:
        name, n = next(iter(bad.items()))
        raise BenchkitError(f"a batch of {n} ('{name}') is not made of {pieces} pieces of one size")
    cut = {n: x.reshape(len(x) // pieces, pieces, *x.shape[1:]).swapaxes(0, 1) for n, x in batch.items()}

    def one(total: Any, piece: Any) -> tuple[Any, None]:
        found = step(piece[0], piece[1])
        return jax.tree.map(lambda a, b: a + b / pieces, total, found), None

    keys = jax.random.split(key, pieces)
    shapes = jax.eval_shape(lambda: step({n: x[0] for n, x in cut.items()}, keys[0]))
    return jax.lax.scan(one, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), (cut, keys))[0]
