"""The weights that a diagnosis is shown are those that compute the activations."""

from pathlib import Path

import numpy as np

from benchkit_bird_mae.backbone import BirdMAE, Params


def test_weights_by_role_give_the_activations_at_the_places(shared: Path) -> None:
    folder = shared / "fixtures" / "bird_mae_outlier"
    backbone = BirdMAE(Params(path=folder))
    backbone.setup("cpu")
    layers = {w.name: w for w in backbone.anatomy()}
    assert len(layers) == 3 + 6 * 4 + 2
    wave = np.load(folder / "expected.npz")["wave0"]
    at = backbone.activations(backbone.preprocess(wave)[None], backbone.points())
    for i in range(4):
        for place, stream in (("norm1", "resid_pre"), ("norm2", "resid_mid")):
            x, norm = at[f"blocks.{i}.{stream}"].astype(np.float64), layers[f"blocks.{i}.{place}"]
            assert (norm.role, norm.block) == (place, i)
            normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            np.testing.assert_allclose(normed * norm.weight + norm.bias, at[f"blocks.{i}.{place}"], atol=1e-4)
        written = at[f"blocks.{i}.mlp_out"][0] - layers[f"blocks.{i}.mlp.fc2"].bias
        assert layers[f"blocks.{i}.mlp.fc2"].weight.shape == (64, 256)
        assert np.abs(written).max() < 30  # the outlier of 2,200 is the bias, and that was taken away
    token = layers["cls_token"].weight[0] + layers["pos_embed"].weight[0]
    np.testing.assert_allclose(at["blocks.0.resid_pre"][0, 0], token, atol=1e-6)
