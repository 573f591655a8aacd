"""A clip shorter than the window: the patches that look at what it was padded with are none of its own."""

from pathlib import Path

import numpy as np
import pytest

from benchkit.catalog.resolve import resolve


@pytest.fixture(scope="module")
def backbone(shared: Path):
    made = resolve("model", f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}").build()
    made.setup("cpu")
    return made


@pytest.mark.parametrize(("seconds", "columns"), [(1.0, 6), (2.5, 15), (0.01, 1), (5.0, 32), (7.0, 32)])
def test_as_many_columns_are_real_as_whole_frames_fill(backbone, seconds: float, columns: int) -> None:
    """Frames begin each 10 ms and are 25 ms long: 98 in a second, six times 16."""
    rng = np.random.default_rng([1, 5])
    short = backbone.preprocess(rng.standard_normal(round(seconds * 32_000)).astype(np.float32))
    full = backbone.preprocess(rng.standard_normal(160_000).astype(np.float32))
    real = backbone.real_tokens(np.stack([short, full]), 256)
    if columns == 32:
        assert real is None
    else:
        assert real[0].tolist() == [True] * (8 * columns) + [False] * (256 - 8 * columns)
        assert real[1].all()


def test_silence_at_the_end_of_a_recording_is_its_own(backbone) -> None:
    wave = np.zeros(160_000, np.float32)
    wave[:32_000] = np.random.default_rng([1, 6]).standard_normal(32_000)
    assert backbone.real_tokens(backbone.preprocess(wave)[None], 256) is None


def test_the_model_hears_the_same_zeros(backbone) -> None:
    wave = np.random.default_rng([1, 7]).standard_normal(32_000).astype(np.float32)
    padded = np.pad(wave, (0, 128_000))
    a, b = (backbone.encode(backbone.preprocess(x)[None], tokens=True) for x in (wave, padded))
    np.testing.assert_array_equal(a.pooled, b.pooled)
    np.testing.assert_array_equal(a.tokens, b.tokens)
