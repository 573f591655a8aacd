"""Places inside blocks are what they are called, in every family that is hooked by names; what is not is refused."""

import numpy as np
import pytest
import torch

from benchkit import Backbone, Encoded
from benchkit_hf.blocks import points, shown
from benchkit_hf.truth import untrue

SMALL = {
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "conv_depthwise_kernel_size": 5,
}  # fmt: skip


def perturbed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def conformer(kind: str):
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(11)
    more = {"feature_projection_input_dim": 32} if kind == "wav2vec2-bert" else {
        "conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2), "num_feat_extract_layers": 2,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "position_embeddings_type": "relative",
    }  # fmt: skip
    model = perturbed(AutoModel.from_config(AutoConfig.for_model(kind, **SMALL, **more)))
    x = torch.randn(2, 40, 32) if kind == "wav2vec2-bert" else torch.randn(2, 4000)
    return model, lambda: model(x)


@pytest.mark.parametrize("kind", ["wav2vec2-bert", "wav2vec2-conformer"])
def test_a_conformers_parts_add_up_and_its_norms_are_norms(kind: str) -> None:
    model, run = conformer(kind)
    with torch.inference_mode(), shown(model, points(model)) as at:
        run()
    for i, layer in enumerate(model.encoder.layers):
        b = {name.rpartition(".")[2]: x for name, x in at.items() if name.startswith(f"blocks.{i}.")}
        stream = b["resid_pre"]
        for added, place in (("ffn1_out", "resid_ffn1"), ("attn_out", "resid_mid"), ("conv_out", "resid_conv"),
                             ("mlp_out", "resid_out")):  # fmt: skip
            stream = stream + b[added]
            torch.testing.assert_close(b[place], stream, rtol=1e-4, atol=1e-4)
        with torch.inference_mode():
            torch.testing.assert_close(b["norm_ffn1"], layer.ffn1_layer_norm(b["resid_pre"]))
            torch.testing.assert_close(b["norm1"], layer.self_attn_layer_norm(b["resid_ffn1"]))
            torch.testing.assert_close(b["norm2"], layer.ffn2_layer_norm(b["resid_conv"]))
            torch.testing.assert_close(b["resid_post"], layer.final_layer_norm(b["resid_out"]))
            torch.testing.assert_close(b["ffn1_out"], 0.5 * layer.ffn1(b["norm_ffn1"]), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(b["mlp_out"], 0.5 * layer.ffn2(b["norm2"]), rtol=1e-4, atol=1e-4)
            assert (b["norm2"] - b["resid_post"]).abs().max() > 0.1
            assert untrue(model, i, run) == {}
    torch.testing.assert_close(at["blocks.1.resid_pre"], at["blocks.0.resid_post"])


def test_a_bias_of_the_first_feed_forward_part_is_blamed_on_it() -> None:
    from benchkit.diagnose.attribution import attribute
    from benchkit.diagnose.gather import gather
    from benchkit.diagnose.inputs import Inputs
    from benchkit.diagnose.judge import judge
    from benchkit.diagnose.places import places
    from benchkit.progress import Silent

    model, _ = conformer("wav2vec2-bert")
    with torch.no_grad():
        model.encoder.layers[0].ffn1.output_dense.bias[7] = 6000

    class Shown(Backbone):
        modalities, dim = ("audio",), 48

        def preprocess(self, raw: np.ndarray) -> np.ndarray:
            return raw

        def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
            raise NotImplementedError

        def fingerprint(self) -> str:
            return "one"

        def activations(self, batch: np.ndarray, wanted: list[str]) -> dict[str, np.ndarray]:
            with torch.inference_mode(), shown(model, wanted) as found:
                model(torch.from_numpy(batch))
            return {name: found[name].numpy() for name in wanted}

    given = np.random.default_rng([1, 3]).standard_normal((8, 40, 32)).astype(np.float32)
    named = [p for p in places(points(model)) if p.point not in ("embeddings", "norm")]
    stats = gather(Shown(), named, Inputs.of("noise", given), Silent())
    (origin, *_) = attribute([judge(s) for s in stats], [])
    assert (origin.dim, origin.module, origin.block) == (7, "first feed-forward part", 0)
    assert origin.writer == "block 0's first feed-forward part"


@pytest.mark.parametrize("name", ["vit", "dinov2", "clip_vision_model", "siglip_vision_model", "whisper"])
def test_families_that_are_known_are_what_they_say(name: str) -> None:
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(5)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if name == "whisper":
        config = AutoConfig.for_model("whisper", d_model=32, encoder_layers=2, encoder_attention_heads=2,
                                      encoder_ffn_dim=64, decoder_layers=1, decoder_attention_heads=2, num_mel_bins=16,
                                      max_source_positions=50)  # fmt: skip
        model, x = perturbed(AutoModel.from_config(config).encoder), torch.randn(2, 16, 100)
    else:
        config = AutoConfig.for_model(name, **small, image_size=32, patch_size=8)
        model, x = perturbed(AutoModel.from_config(config)), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        for number in (0, 1):
            assert untrue(model, number, lambda: model(x)) == {}


def test_blocks_whose_norms_come_behind_are_refused() -> None:
    """BART's encoder has Whisper's names, and norms after the sums."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(5)
    config = AutoConfig.for_model("bart", d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64,
                                  decoder_layers=1, decoder_attention_heads=2, vocab_size=50)  # fmt: skip
    encoder = perturbed(AutoModel.from_config(config).encoder)
    ids = torch.randint(3, 50, (2, 9))
    with torch.inference_mode():
        wrong = untrue(encoder, 0, lambda: encoder(ids))
    assert {"norm1", "attn_out"} <= wrong.keys()
