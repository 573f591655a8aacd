import numpy as np
import pytest
import torch

from benchkit import BenchkitError, SpecError, resolve
from benchkit import log_mel as numpy_log_mel
from benchkit.testing import BackboneSuite
from benchkit_baselines.random_vit import RandomViT
from benchkit_baselines.vit import Block, log_mel, positions
from benchkit_baselines.vit_params import PLACES, RandomViTParams

SMALL = RandomViTParams(sample_rate=16_000, seconds=0.5, n_mels=32, width=24, depth=3, heads=2, size=32)


class TestConformance(BackboneSuite):
    spec = "random-vit,sample_rate=16000,seconds=0.5,n_mels=32,width=24,depth=3,heads=2,size=32"
    other = spec + ",seed=1"


def ready(params: RandomViTParams = SMALL) -> RandomViT:
    vit = RandomViT(params)
    vit.setup("cpu")
    return vit


def batches(vit: RandomViT) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, c), dtype=np.uint8) for c in (1, 3)]
    waves = [rng.standard_normal(n).astype(np.float32) for n in (5000, 9000)]
    return {name: np.stack([vit.preprocess(x) for x in raw]) for name, raw in (("image", images), ("audio", waves))}


def normed(x: np.ndarray) -> np.ndarray:
    """LayerNorm without learnt scale and shift."""
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize(("modality", "n_tokens"), [("image", 4), ("audio", 2 * 4)])  # 0.5 s are 50 frames: 4 columns
def test_every_point_has_the_class_token_and_all_patches(modality: str, n_tokens: int) -> None:
    vit = ready()
    batch = batches(vit)[modality]
    seen = vit.activations(batch, vit.points())
    assert len(seen) == 3 * len(PLACES)
    assert {a.shape for a in seen.values()} == {(2, 1 + n_tokens, 24)}
    assert vit.encode(batch, tokens=True).tokens.shape == (2, n_tokens, 24)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_the_residual_stream_is_the_sum_of_what_is_written_to_it(modality: str) -> None:
    vit = ready()
    seen = vit.activations(batches(vit)[modality], vit.points())
    for i in range(3):
        at = {place: seen[f"blocks.{i}.{place}"] for place in PLACES}
        total = at["resid_pre"] + at["attn_out"] + at["mlp_out"]
        np.testing.assert_allclose(at["resid_post"], total, atol=1e-5)
        if i:
            np.testing.assert_array_equal(at["resid_pre"], seen[f"blocks.{i - 1}.resid_post"])
        for norm, before in (("norm1", at["resid_pre"]), ("norm2", at["resid_pre"] + at["attn_out"])):
            np.testing.assert_allclose(at[norm], normed(before), atol=1e-4)


def test_a_block_computes_what_torchs_own_transformer_layer_computes() -> None:
    torch.manual_seed(0)
    ours = Block(24, 2).eval()
    theirs = torch.nn.TransformerEncoderLayer(24, 2, 96, activation="gelu", batch_first=True, norm_first=True).eval()
    theirs.norm1.eps = theirs.norm2.eps = 1e-6
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": ours.qkv.weight, "self_attn.in_proj_bias": ours.qkv.bias,
            "self_attn.out_proj.weight": ours.proj.weight, "self_attn.out_proj.bias": ours.proj.bias,
            "linear1.weight": ours.fc1.weight, "linear1.bias": ours.fc1.bias,
            "linear2.weight": ours.fc2.weight, "linear2.bias": ours.fc2.bias,
            "norm1.weight": ours.norm1.weight, "norm1.bias": ours.norm1.bias,
            "norm2.weight": ours.norm2.weight, "norm2.bias": ours.norm2.bias,
        }
    )  # fmt: skip
    x = torch.randn(2, 7, 24)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x)[0], theirs(x), atol=1e-5, rtol=1e-5)


def test_pooling_is_over_the_patch_tokens_or_takes_the_class_token() -> None:
    mean, cls = ready(), ready(RandomViTParams(**{**vars(SMALL), "pool": "cls"}))
    batch = batches(mean)["image"]
    encoded = mean.encode(batch, tokens=True)
    assert encoded.tokens is not None
    np.testing.assert_allclose(encoded.pooled, encoded.tokens.mean(axis=1), atol=1e-6)
    last = cls.activations(batch, ["blocks.2.resid_post"])["blocks.2.resid_post"][:, 0]
    np.testing.assert_allclose(cls.encode(batch).pooled, normed(last), atol=1e-4)


def test_weights_follow_from_the_seed_and_from_nothing_else() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = ready()
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    torch.manual_seed(99)
    assert one.fingerprint() == ready().fingerprint() == "294ca25ffbd6d34b"
    assert one.fingerprint() != ready(RandomViTParams(**{**vars(SMALL), "seed": 1})).fingerprint()


def test_weights_are_uniform_after_glorot() -> None:
    vit = ready()
    weight = vit._vit().blocks[0].fc1.weight.numpy()
    bound = np.sqrt(6 / (24 + 96))
    assert 0.95 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert abs(weight.mean()) < 0.02 * bound


def test_the_spectrogram_on_the_device_is_that_of_the_numpy_frontend() -> None:
    waves = np.random.default_rng(0).standard_normal((3, SMALL.samples)).astype(np.float32)
    ours = log_mel(torch.from_numpy(waves), SMALL.settings).numpy()
    np.testing.assert_allclose(ours, numpy_log_mel(waves, SMALL.settings), atol=1e-3)


def test_silence_and_padding_are_the_least_a_patch_can_hold_and_the_loudest_is_one() -> None:
    vit = ready()
    wave = np.zeros(8000, np.float32)
    wave[:2000] = np.sin(np.arange(2000))
    grid = vit._vit().spectrogram(torch.from_numpy(vit.preprocess(wave)[None])).numpy()[0]
    assert grid.shape == (32, 64)
    assert grid.max() == pytest.approx(1.0)
    assert (grid[:, -1] == -1.0).all()


def test_positions_tell_every_place_of_the_grid_apart() -> None:
    table = positions(3, 5, 24)
    assert table.shape == (15, 24)
    assert len(np.unique(table.round(6), axis=0)) == 15
    np.testing.assert_allclose(table[7, :6], np.sin(2 * 10_000.0 ** -(np.arange(6) / 6)), atol=1e-6)  # row 1, column 2
    np.testing.assert_allclose(table[7, 18:], np.cos(1 * 10_000.0 ** -(np.arange(6) / 6)), atol=1e-6)


def test_patches_that_do_not_tile_the_input_are_one_clear_line() -> None:
    vit = RandomViT(RandomViTParams(patch=12, size=36))
    vit.preprocess(np.zeros((8, 8, 1), np.uint8))
    with pytest.raises(BenchkitError, match="patches of 12 do not tile n_mels=128: give a multiple"):
        vit.preprocess(np.zeros(100, np.float32))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("random-vit,width=30", "width=30 must be a multiple of 4 and of heads=3"),
        ("random-vit,top_db=none", "top_db=none leaves the spectrogram without a scale"),
    ],
)
def test_parameters_that_make_no_transformer_are_one_clear_line(spec: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resolve("model", spec)


def test_a_misspelt_point_is_met_with_the_nearest() -> None:
    vit = ready()
    with pytest.raises(BenchkitError, match=r"no point 'blocks.1.norm3'; did you mean 'blocks.1.norm"):
        vit.activations(batches(vit)["image"], ["blocks.1.norm3"])
