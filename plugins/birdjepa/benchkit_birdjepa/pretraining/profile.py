"""What a step needs, from XLA's analysis of the compiled step: it is compiled for each batch size, and never run."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchkit import BenchkitError
from benchkit_birdjepa.pretraining.settings import Settings
from benchkit_birdjepa.pretraining.training import Training

PEAKS = {
    "A100": {"bfloat16": 312e12, "float32": 19.5e12}, "H100": {"bfloat16": 989e12, "float32": 67e12},
    "H200": {"bfloat16": 989e12, "float32": 67e12}, "V100": {"bfloat16": 125e12, "float32": 15.7e12},
    "L40S": {"bfloat16": 362e12, "float32": 91.6e12}, "RTX 4090": {"bfloat16": 165e12, "float32": 82.6e12},
}  # fmt: skip
"""Operations a second, dense, as the makers' data sheets have them."""
MOST = 1 << 20
"""Examples a batch that are tried."""


@dataclass(frozen=True)
class Profiled:
    """Of one batch size. memory: bytes at the peak, the state and the batch among them. flops: operations a step, as
    XLA counts them in what it compiled, with what is computed again for remat. model_flops: 6 operations for each
    parameter of a matrix and each token, and attention's: what the model itself needs."""

    batch: int
    memory: int
    flops: float
    model_flops: float
    compile_s: float


def profiled(settings: Settings, batch: int) -> Profiled:
    """Compiles the step for a batch of so many. Raises BenchkitError where it does not compile."""
    if batch % settings.accumulate:
        raise BenchkitError(f"a batch of {batch} is no multiple of accumulate={settings.accumulate}")
    settings = replace(settings, data=replace(settings.data, batch=batch))
    training = Training(settings, tell=lambda line: None)
    state = jax.eval_shape(training.first_state)
    inputs = _inputs(training, batch)
    began = time.perf_counter()
    compiled = jax.jit(training.step, donate_argnums=0).lower(state, inputs).compile()
    seconds = time.perf_counter() - began
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    peak = int(memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
               + memory.temp_size_in_bytes)  # fmt: skip
    return Profiled(batch, peak, float(cost.get("flops", 0.0)), _model_flops(training, batch), seconds)


def _inputs(training: Training, batch: int) -> dict[str, Any]:
    """Shapes of a batch of the training's own data: one example of it is made."""
    s = training.settings
    maker = replace(training._maker(), data=replace(s.data, batch=1))
    one = maker.batch(0).arrays
    return {k: jax.ShapeDtypeStruct((batch, *v.shape[1:]), v.dtype) for k, v in one.items()}


def _model_flops(training: Training, batch: int) -> float:
    """Forward and backward of the encoder on all of its patches, 3 times 2 operations each."""
    c = training.settings.model
    tokens = c.n_cls_tokens + c.n_patches + c.n_reg_tokens
    matrices = sum(
        int(np.prod(shape)) for n, shape in c.shapes().items() if n.startswith("blocks.") and len(shape) == 2
    )
    embed = c.patch_dim * c.embed_dim
    each = matrices * tokens + embed * c.n_patches + 2 * c.depth * tokens**2 * c.embed_dim
    return 6.0 * each * batch * training.objective.views


def sizes(settings: Settings, within: int | None) -> Iterator[Profiled]:
    """From one example a device on, doubled until what it needs is more than `within` bytes, and then the largest that
    fits, to an eighth."""
    size = settings.accumulate * len(jax.devices())
    unit, fits = size, 0
    while size <= MOST:
        found = profiled(settings, size)
        yield found
        if within is None and size >= settings.data.batch:
            return
        if within is not None and found.memory > within:
            break
        fits, size = size, size * 2
    low, high = fits, size
    while fits and high - low > max(unit, low // 8):
        middle = (low + high) // 2 // unit * unit
        found = profiled(settings, middle)
        yield found
        low, high = (middle, high) if found.memory <= within else (low, middle)


def device_memory() -> int | None:
    """Bytes that one device has; None where it does not say. On a CPU, of the machine."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        import psutil

        return int(psutil.virtual_memory().total)
    return (device.memory_stats() or {}).get("bytes_limit")


def peak_rate(dtype: str) -> tuple[float, str]:
    """Operations a second of one device, and where that number is from."""
    device = jax.devices()[0]
    for name, rates in PEAKS.items():
        if name.lower() in device.device_kind.lower():
            return rates[dtype], f"{name}, data sheet"
    n = 1024
    a = jnp.ones((n, n), jnp.float32)
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best, "measured, a product of 1,024 x 1,024 in float32"
