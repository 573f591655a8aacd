"""Losses, gradients and steps on four devices are those of one: N of SIGReg is the global batch."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from benchkit import resolve
from benchkit_birdjepa import encoder
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.objectives.context import Context
from benchkit_birdjepa.objectives.sigreg import directions, sigreg
from benchkit_birdjepa.parameters import draw

config = EncoderConfig(32, 32, 16, 16, 16, 1, 2)
mesh = Mesh(np.array(jax.devices()), ("batch",))
sharded, everywhere = NamedSharding(mesh, P("batch")), NamedSharding(mesh, P())
out = {"devices": len(jax.devices())}
for spec in ("lejepa,views=2,hidden=8,directions=16", "pixio,block=1,width=8,depth=1,heads=2", "supervised"):
    made, context = resolve("objective", spec).build(), Context(config, n_classes=3)
    params = encoder.stacked(draw(config, 0), config) | made.init(jax.random.key(0), context)
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((8, made.views, 32, 32)).astype("f4"), "labels": rng.integers(0, 3, 8)}
    data = {n: jax.device_put(x, sharded) for n, x in data.items()}
    step = jax.jit(jax.value_and_grad(lambda p, d: made.loss(p, d, jax.random.key(3), 0, context)[0]))
    loss, grads = step(jax.device_put(params, everywhere), data)
    out[spec.split(",")[0]] = [float(loss), float(sum(jnp.abs(g).sum() for g in grads.values()))]

proj, along = jax.random.normal(jax.random.key(1), (2, 8, 5)), directions(jax.random.key(2), 5, 16)
inside = Context(config, axis="batch")
mapped = jax.jit(jax.shard_map(
    jax.value_and_grad(lambda p: sigreg(p, along, inside)), mesh=mesh,
    in_specs=P(None, "batch"), out_specs=(P(), P(None, "batch")), check_vma=False,
))
value, gradient = mapped(proj)
alone = jax.jit(jax.value_and_grad(lambda p: sigreg(p, along, Context(config))))(proj)
out["mapped"], out["alone"] = float(value), float(alone[0])
out["gradients"] = float(jnp.abs(np.asarray(gradient) / len(jax.devices()) - np.asarray(alone[1])).max())
print(json.dumps(out))
"""


def on(devices: int) -> dict[str, object]:
    env = {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_one_and_four_devices_have_the_same_losses_and_gradients() -> None:
    one, four = on(1), on(4)
    assert (one.pop("devices"), four.pop("devices")) == (1, 4)
    for name in ("lejepa", "pixio", "supervised"):
        assert four[name] == pytest.approx(one[name], rel=1e-5), name
    for found in (one, four):
        assert found["mapped"] == pytest.approx(found["alone"], rel=1e-6)
        assert found["gradients"] == pytest.approx(0, abs=1e-6)
