"""Losses and gradients, and saved autoencoders, as SAELens has them on seeded tensors: what test_reference.py compares
with. `uv run --no-project --with sae-lens --with numpy python tests/sae/reference/make.py` writes them anew, here.

Decoder rows have length 1, as ours always have. Every file is small: 12 dimensions, 40 units, 32 vectors.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE, __version__
from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig, GatedTrainingSAE, GatedTrainingSAEConfig
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig, JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig
from sae_lens.saes.matryoshka_batchtopk_sae import (
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig
from sae_lens.saes.transcoder import Transcoder, TranscoderConfig
from safetensors.numpy import save_file

HERE = Path(__file__).parent
D, K, B = 12, 40, 32


def drawn() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng([7, 1])

    def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.from_numpy((rng.standard_normal(shape) * scale).astype(np.float32))

    decoder = normal(K, D)
    return {
        "z": normal(B, D) + 0.3, "w_enc": normal(D, K, scale=0.4), "b_enc": normal(K, scale=0.1),
        "w_dec": decoder / decoder.norm(dim=1, keepdim=True), "b_dec": normal(D, scale=0.2),
        "threshold": normal(K, scale=0.2).abs(), "r_mag": normal(K, scale=0.3), "b_mag": normal(K, scale=0.1),
    }  # fmt: skip


def losses() -> None:
    common: dict[str, Any] = {"d_in": D, "d_sae": K, "device": "cpu", "dtype": "float32"}
    made = {
        "gated": GatedTrainingSAE(GatedTrainingSAEConfig(**common, l1_coefficient=0.7)),
        "jumprelu": JumpReLUTrainingSAE(
            JumpReLUTrainingSAEConfig(**common, l0_coefficient=0.3, jumprelu_bandwidth=0.4)
        ),
        "matryoshka": MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(**common, k=5, matryoshka_widths=[5, 10, 20, K])
        ),
    }
    names = {
        "gated": {
            "W_enc": "w_enc",
            "W_dec": "w_dec",
            "b_dec": "b_dec",
            "b_gate": "b_enc",
            "r_mag": "r_mag",
            "b_mag": "b_mag",
        },
        "jumprelu": {"W_enc": "w_enc", "W_dec": "w_dec", "b_dec": "b_dec", "b_enc": "b_enc", "threshold": "threshold"},
        "matryoshka": {"W_enc": "w_enc", "W_dec": "w_dec", "b_dec": "b_dec", "b_enc": "b_enc"},
    }
    coefficients = {"gated": {"l1": 0.7}, "jumprelu": {"l0": 0.3}, "matryoshka": {}}
    tensors = drawn()
    found = {f"given.{name}": t.numpy() for name, t in tensors.items()}
    for kind, sae in made.items():
        with torch.no_grad():
            for theirs, ours in names[kind].items():
                getattr(sae, theirs).copy_(tensors[ours])
        out = sae.training_forward_pass(
            TrainStepInput(
                sae_in=tensors["z"],
                coefficients=coefficients[kind],
                dead_neuron_mask=None,
                n_training_steps=0,
                is_logging_step=False,
            )
        )
        out.loss.backward()
        found[f"{kind}.loss"] = out.loss.detach().numpy()
        acts = out.feature_acts.to_dense() if out.feature_acts.is_sparse else out.feature_acts
        found[f"{kind}.f"] = acts.detach().numpy()
        for theirs, ours in names[kind].items():
            found[f"{kind}.grad.{ours}"] = getattr(sae, theirs).grad.numpy()
    save_file(found, HERE / "losses.safetensors", metadata={"sae_lens": __version__})


def saved() -> None:
    """Each architecture with each of SAELens' normalisations that a file can carry, with what it makes of vectors."""
    tensors = drawn()
    rng = np.random.default_rng([7, 2])
    x = torch.from_numpy((rng.standard_normal((B, D)) * 3 + np.linspace(-5, 40, D)).astype(np.float32))
    kinds = {
        "standard": (StandardSAE, StandardSAEConfig, {}), "topk": (TopKSAE, TopKSAEConfig, {"k": 5}),
        "topk_rescaled": (TopKSAE, TopKSAEConfig, {"k": 5, "rescale_acts_by_decoder_norm": True}),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig, {}), "gated": (GatedSAE, GatedSAEConfig, {}),
        "transcoder": (Transcoder, TranscoderConfig, {"d_out": 9}),
    }  # fmt: skip
    expected = {"x": x.numpy()}
    for name, (cls, config, more) in kinds.items():
        for norm, centred in (("none", True), ("none", False), ("layer_norm", True), ("constant_norm_rescale", False)):
            if name == "transcoder" and (centred or norm != "none"):
                continue
            common: dict[str, Any] = {"d_in": D, "d_sae": K, "device": "cpu", "dtype": "float32"}
            sae = cls(config(**common, normalize_activations=norm, apply_b_dec_to_input=centred, **more))
            with torch.no_grad():
                length = torch.linspace(0.5, 2, K)[:, None]  # of rows that are not of length 1
                for theirs, value in (
                        ("W_enc", tensors["w_enc"]), ("W_dec", tensors["w_dec"] * length),
                        ("b_dec", tensors["b_dec"] * 5),
                        ("b_enc", tensors["b_enc"]), ("b_gate", tensors["b_enc"]), ("threshold", tensors["threshold"]),
                        ("r_mag", tensors["r_mag"]), ("b_mag", tensors["b_mag"]),
                    ):  # fmt: skip
                    if getattr(sae, theirs, None) is not None:
                        parameter = getattr(sae, theirs)
                        parameter.copy_(value[..., : parameter.shape[-1]])
                folder = f"{name}-{norm}-{'centred' if centred else 'plain'}"
                sae.save_model(HERE / "saved" / folder)
                again = SAE.load_from_disk(HERE / "saved" / folder)
                f = again.encode(x)
                expected[f"{folder}.f"] = (f.to_dense() if f.is_sparse else f).numpy().copy()
                expected[f"{folder}.x_hat"] = again(x).detach().numpy().copy()
            path = HERE / "saved" / folder / "cfg.json"
            path.write_text(json.dumps(json.loads(path.read_text()), indent=1) + "\n")
    save_file(expected, HERE / "saved.safetensors", metadata={"sae_lens": __version__})


if __name__ == "__main__":
    torch.manual_seed(0)
    losses()
    saved()
