"""Statistics through depth: of a normal matrix, of one with outliers, and the step at which a dimension stands out."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from benchkit_birdjepa import encoder, statistics
from benchkit_birdjepa.config import EncoderConfig
from benchkit_birdjepa.parameters import draw

CONFIG = EncoderConfig(32, 32, 16, 16, 32, 2, 2)


def params() -> dict[str, jax.Array]:
    return encoder.stacked(draw(CONFIG, 0), CONFIG)


def test_matrices_have_their_kurtosis_outliers_and_norms() -> None:
    weights = params()
    weights["blocks.mlp.fc1.weight"] = weights["blocks.mlp.fc1.weight"].at[1, 0, 0].set(9)
    found = {n: float(v) for n, v in statistics.of_arrays(weights, "weight").items()}
    for i in range(2):
        x = np.asarray(weights["blocks.mlp.fc1.weight"][i], np.float64)
        name = f"weight/blocks.{i}.mlp.fc1"
        np.testing.assert_allclose(found[f"{name}/kurtosis"], scipy.stats.kurtosis(x, None, fisher=False), rtol=1e-3)
        np.testing.assert_allclose(found[f"{name}/norm"], np.linalg.norm(x), rtol=1e-5)
        assert (found[f"{name}/outliers"] > 0) is (i == 1)
        read = np.hypot(np.linalg.norm(x), np.linalg.norm(weights["blocks.attn.qkv.weight"][i]))
        np.testing.assert_allclose(found[f"weight/blocks.{i}.reading/norm"], read, rtol=1e-5)
    assert len(found) == 2 * (4 * 3 + 2)
    zeros = statistics.of_arrays({n: 0 * x for n, x in weights.items()}, "gradient")
    assert all(float(v) == 0 for v in zeros.values())


def test_a_dimension_that_stands_out_is_named_with_its_step() -> None:
    weights = params()
    patches, grid = encoder.patchify(jax.random.normal(jax.random.key(0), (3, 32, 32)), CONFIG)
    history = {}
    for step, size in ((0, 0.0), (10, 50.0), (20, 0.0), (30, 50.0), (40, 50.0)):
        bias = weights["blocks.mlp.fc2.bias"].at[1, 7].set(size)
        changed = weights | {"blocks.mlp.fc2.bias": bias}
        history[step] = statistics.computed(changed, CONFIG, patches, grid)
    assert int(history[40]["activation/blocks.1.resid_post/dimension"]) == 7
    assert int(history[40]["activation/blocks.1.resid_post/outliers"]) == 1
    assert int(history[0]["activation/blocks.1.resid_post/outliers"]) == 0
    assert history[40]["activation/blocks.1.resid_post/kurtosis"] > 10
    assert statistics.emerged(history) == {"blocks.1.resid_post": 30}
    assert jnp.isfinite(history[0]["activation/blocks.0.resid_post/largest"])
