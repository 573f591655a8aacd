"""Losses, gradients and files, against what SAELens makes of the same tensors (reference/make.py made them with it)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, StoreError
from benchkit.sae import SAEConfig, TrainConfig, saelens, train
from benchkit.sae.losses import forward
from benchkit.sae.model import Autoencoder
from benchkit.sae.normalise import denormalised

HERE = Path(__file__).parent / "reference"
LOSSES = load_file(HERE / "losses.safetensors")
SAVED = load_file(HERE / "saved.safetensors")
FOLDERS = sorted(path.name for path in (HERE / "saved").iterdir())


@pytest.mark.parametrize(
    ("config", "shared"),
    [
        (SAEConfig("gated", 40, "none", l1=0.7), TrainConfig()),
        (SAEConfig("jumprelu", 40, "none", l0=0.3), TrainConfig(bandwidth=0.4)),
        (SAEConfig("matryoshka", 40, "none", k=5), TrainConfig(nested=(0.125, 0.25, 0.5))),
    ],
    ids=["gated", "jumprelu", "matryoshka"],
)
def test_losses_and_gradients_are_those_of_saelens(config: SAEConfig, shared: TrainConfig) -> None:
    given = {name.removeprefix("given."): torch.from_numpy(x) for name, x in LOSSES.items() if name[:6] == "given."}
    model = Autoencoder(config, 12, given["b_dec"], "cpu")
    with torch.no_grad():
        for name, parameter in model.parameters.items():
            parameter.copy_(given[name])
    made = forward(model, given["z"], given["z"], shared)
    made.loss.backward()
    np.testing.assert_allclose(made.f.detach(), LOSSES[f"{config.activation}.f"], rtol=1e-5, atol=1e-6)
    assert float(made.loss.detach()) == pytest.approx(float(LOSSES[f"{config.activation}.loss"]), rel=1e-5)
    for name, parameter in model.parameters.items():
        assert parameter.grad is not None
        expected = LOSSES[f"{config.activation}.grad.{name}"]
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-5, atol=1e-5, err_msg=name)
        assert np.abs(expected).max() > 1e-3, name


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_published_autoencoder_scores_and_reconstructs_as_saelens_says(folder: str, tmp_path: Path) -> None:
    to = tmp_path / "f.safetensors"
    saelens.import_(HERE / "saved" / folder, to, model="m", point="blocks.1.norm2")
    scorer = resolve("scorer", f"sae:{to}").build()
    f = scorer(SAVED["x"])
    np.testing.assert_allclose(f, SAVED[f"{folder}.f"], rtol=1e-5, atol=1e-5 * np.abs(f).max())
    assert scorer.point == "blocks.1.norm2"
    t = scorer.tensors()
    z_hat = torch.from_numpy(f @ t["w_dec"] + t["b_dec"])
    x_hat = denormalised(z_hat, torch.from_numpy(SAVED["x"]), scorer.config.normalise, {})
    expected = SAVED[f"{folder}.x_hat"]
    np.testing.assert_allclose(x_hat, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def shown_by(folder: Path, x: np.ndarray) -> np.ndarray:
    """x_hat of a folder, by SAELens' formulas in float64."""
    given = json.loads((folder / "cfg.json").read_text())
    w = {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "sae_weights.safetensors").items()}
    wide, mu, s = x.astype(np.float64), np.zeros((len(x), 1)), np.ones((len(x), 1))
    if given["normalize_activations"] == "layer_norm":
        mu, s = wide.mean(1, keepdims=True), wide.std(1, ddof=1, keepdims=True)
        wide = (wide - mu) / (s + 1e-5)
    p = (wide - w["b_dec"] * given["apply_b_dec_to_input"]) @ w["W_enc"] + w["b_gate" if "b_gate" in w else "b_enc"]
    if given["architecture"] == "gated":
        f = (p > 0) * np.maximum((p - w["b_gate"]) * np.exp(w["r_mag"]) + w["b_mag"], 0)
    elif given["architecture"] == "topk":
        f = np.where(p >= np.sort(p, axis=1)[:, -given["k"]][:, None], np.maximum(p, 0), 0)
    else:
        f = np.maximum(p, 0) * (p > w.get("threshold", 0))
    return (f @ w["W_dec"] + w["b_dec"]) * s + mu


@pytest.mark.parametrize("how", ["none", "dimension", "layernorm", "whiten"])
def test_what_is_exported_reconstructs_as_ours(how, as_recording, tmp_path: Path) -> None:
    """Every activation; with dimensions far from 0, of which one hardly moves."""
    rng = np.random.default_rng([3, 3])
    x = (rng.standard_normal((600, 10)) @ rng.standard_normal((10, 10)) * 3 + np.linspace(-20, 300, 10)).astype(
        np.float32
    )
    configs = [
        *(SAEConfig(a, 24, how, l1=0.1) for a in ("relu", "gated")), SAEConfig("jumprelu", 24, how, l0=0.01),
        *(SAEConfig(a, 24, how, k=4) for a in ("topk", "batchtopk", "matryoshka")),
    ]  # fmt: skip
    for t in train(as_recording(x), tmp_path / "t", configs, TrainConfig(batch_size=100, epochs=2)).trained:
        folder = saelens.export(t.path, tmp_path / t.path.stem)
        scorer = resolve("scorer", f"sae:{t.path}").build()
        of = scorer.tensors()
        norm = {k.removeprefix("normalise."): torch.from_numpy(v) for k, v in of.items() if k.startswith("normalise.")}
        z_hat = torch.from_numpy(scorer(x) @ of["w_dec"] + of["b_dec"])
        ours = denormalised(z_hat, torch.from_numpy(x), how, norm).numpy()
        np.testing.assert_allclose(
            shown_by(folder, x), ours, rtol=1e-5, atol=1e-5 * np.abs(x).max(), err_msg=t.path.stem
        )
        back = saelens.import_(folder, tmp_path / f"{t.path.stem}.back", model="m", point="tokens")
        again = resolve("scorer", f"sae:{back}").build()
        np.testing.assert_allclose(again(x), scorer(x), rtol=1e-3, atol=2e-3)


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read '.*cfg.json'"):
        saelens.read(tmp_path)
    folder = tmp_path / "one"
    folder.mkdir()
    source = HERE / "saved" / "standard-none-plain"
    (folder / "sae_weights.safetensors").write_bytes((source / "sae_weights.safetensors").read_bytes())
    given = json.loads((source / "cfg.json").read_text())
    for change, said in (
        ({"architecture": "temporal"}, "architecture 'temporal', which is not known here"),
        ({"normalize_activations": "expected_average_only_in"}, "by an average norm.*--input-scale"),
        ({"normalize_activations": "covariance_whitening"}, "whitens its input.*fold it in SAELens"),
        ({"architecture": "topk"}, "names no k"),
    ):
        (folder / "cfg.json").write_text(json.dumps(given | change))
        with pytest.raises(BenchkitError, match=said):
            saelens.read(folder)
    (folder / "cfg.json").write_text(json.dumps(given | {"normalize_activations": "expected_average_only_in"}))
    config, tensors, _ = saelens.read(folder, scale=0.5)
    x = SAVED["x"]
    plain = load_file(source / "sae_weights.safetensors")
    expected = np.maximum((0.5 * x) @ plain["W_enc"] + plain["b_enc"], 0) @ plain["W_dec"] + plain["b_dec"]
    made = np.maximum(x @ tensors["w_enc"] + tensors["b_enc"], 0) @ tensors["w_dec"] + tensors["b_dec"]
    np.testing.assert_allclose(made, expected / 0.5, rtol=1e-4, atol=1e-4)
    assert config.name == "relu-w40-l1_unknown-none-lr0.0003-s0"


def test_import_and_export_as_a_user_types_them(tmp_path: Path) -> None:
    def benchkit(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benchkit", "sae", *map(str, words)], capture_output=True, text=True
        )

    to = tmp_path / "one.safetensors"
    folder = HERE / "saved" / "jumprelu-none-centred"
    ran = benchkit("import", folder, "--to", to, "--model", "random-vit", "--point", "blocks.0.norm2")
    assert ran.returncode == 0, ran.stderr
    assert f"sae:{to}" in ran.stderr
    ran = benchkit("export", to, "--to", tmp_path / "out")
    assert ran.returncode == 0, ran.stderr
    for name, tensor in load_file(folder / "sae_weights.safetensors").items():
        np.testing.assert_allclose(
            load_file(tmp_path / "out" / "sae_weights.safetensors")[name], tensor, rtol=1e-5, atol=1e-6
        )
    ran = benchkit("export", to, "--to", HERE)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "choose a folder that is empty" in ran.stderr
