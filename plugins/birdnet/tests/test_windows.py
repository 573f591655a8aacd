"""Where windows lie, what is in them, and that each placement has one name."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchkit import BenchkitError, SpecError, resolve
from benchkit_birdnet.windows import starts

RATE = 48_000


def seconds(spec: str) -> list[tuple[float, float]]:
    """The windows of a model in seconds."""
    params = resolve("model", spec).params
    window = params.window
    return [(s / window.rate, s / window.rate + window.seconds) for s in params.starts()]


@pytest.mark.parametrize(
    ("spec", "windows"),
    [
        ("birdnet", [(0, 3), (2, 5)]),
        ("birdnet:3.0", [(0, 3), (2, 5)]),
        ("birdnet,hop=1", [(0, 3), (1, 4), (2, 5)]),
        ("birdnet,hop=1.5", [(0, 3), (1.5, 4.5), (2, 5)]),
        ("birdnet,windows=padded", [(0, 3), (3, 6)]),
        ("birdnet,windows=centre", [(1, 4)]),
        ("birdnet,windows=first", [(0, 3)]),
        ("birdnet,seconds=10", [(0, 3), (3, 6), (6, 9), (7, 10)]),
        ("birdnet,seconds=6,windows=padded", [(0, 3), (3, 6)]),
        ("birdnet,seconds=1", [(0, 3)]),
        ("perch", [(0, 5)]),
        ("perch,seconds=3", [(0, 5)]),
        ("perch,seconds=12", [(0, 5), (5, 10), (7, 12)]),
    ],
)
def test_windows_lie_where_the_documentation_says(spec: str, windows: list[tuple[float, float]]) -> None:
    assert seconds(spec) == windows


@given(clip=st.integers(1, 4000), window=st.integers(1, 500), data=st.data())
def test_windows_that_cover_a_clip_leave_no_gap_and_none_is_needless(
    clip: int, window: int, data: st.DataObject
) -> None:
    hop = data.draw(st.integers(1, window))
    for placement in ("cover", "padded"):
        begins = starts(placement, clip, window, hop)
        heard = np.zeros(begins[-1] + window, bool)
        for begin in begins:
            heard[begin : begin + window] = True
        assert heard.all()
        assert len(heard) >= clip
        assert list(begins) == sorted(set(begins))
        assert len(begins) == 1 or begins[-2] + window < clip
    assert starts("cover", clip, window, hop)[-1] + window == max(clip, window)


def test_the_windows_of_a_clip_are_its_samples_with_zeros_behind_it() -> None:
    wave = np.random.default_rng(0).standard_normal(7 * RATE).astype(np.float32)
    for spec in ("birdnet", "birdnet,windows=padded", "birdnet,windows=centre", "birdnet,hop=1", "birdnet,seconds=2"):
        backbone = resolve("model", spec).build()
        for length in (7 * RATE, 4 * RATE, 100, 1):
            clip = np.zeros(10 * RATE, np.float32)
            heard = min(length, backbone.params.clip)
            clip[:heard] = wave[:heard]
            wanted = [clip[round(a * RATE) : round(b * RATE)] for a, b in seconds(spec)]
            np.testing.assert_array_equal(backbone.preprocess(wave[:length]), wanted)


def test_perch_scales_each_window_to_its_peak_unless_told_not_to() -> None:
    wave = np.random.default_rng(0).standard_normal(6 * 32_000).astype(np.float32) + 0.5
    plain, scaled = (resolve("model", s).build() for s in ("perch,peak=none,seconds=6", "perch,seconds=6"))
    as_it_is, made = plain.preprocess(wave), scaled.preprocess(wave)
    np.testing.assert_array_equal(as_it_is, [wave[: 5 * 32_000], wave[32_000:]])
    for before, after in zip(as_it_is.astype(np.float64), made, strict=True):
        centred = before - before.mean()
        np.testing.assert_allclose(after, 0.25 * centred / np.abs(centred).max(), atol=1e-6)
    np.testing.assert_array_equal(scaled.preprocess(np.zeros(100, np.float32)), np.zeros((2, 160_000)))


@pytest.mark.parametrize(
    ("spellings", "name"),
    [
        (["birdnet:2.4", "birdnet,hop=3", "birdnet,hop=2", "birdnet,windows=padded,hop=2"], "birdnet"),
        (["birdnet,windows=first,pool=max"], "birdnet,windows=first"),
        (["birdnet,seconds=3,windows=centre", "birdnet,seconds=3,windows=first"], "birdnet,seconds=3"),
        (["birdnet,windows=cover,hop=1.50"], "birdnet,hop=1.5"),
        (["perch,windows=first", "perch,hop=2.5", "perch,peak=0.25,pool=max"], "perch"),
    ],
)
def test_placements_with_the_same_windows_have_one_name(spellings: list[str], name: str) -> None:
    assert {resolve("model", spelling).canonical for spelling in spellings} == {name}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("birdnet,hop=3.5", "hop is 3.5, and leaves gaps between windows of 3 s"),
        ("birdnet,windows=centre,hop=1", "windows=centre has one window"),
        ("birdnet:2.3", "'2.3', which is none of 2.4, 3.0; did you mean '2.4'?"),
        ("birdnet,windows=center", "did you mean 'centre'?"),
        ("birdnet,seconds=0", "below the least allowed"),
        ("birdnet,path=nowhere.tflite", "there is no such file or folder"),
        ("perch,path=TINY/perch.onnx,export=gpu", "export is of the SavedModel"),
    ],
)
def test_a_spec_that_means_nothing_is_refused_in_one_line(tiny, text: str, said: str) -> None:
    with pytest.raises(SpecError, match=re.escape(said)) as raised:
        resolve("model", text.replace("TINY", str(tiny)))
    assert "\n" not in str(raised.value)


def test_images_are_refused() -> None:
    with pytest.raises(BenchkitError, match="BirdNET takes audio, not an image of 4x6x3"):
        resolve("model", "birdnet").build().preprocess(np.zeros((4, 6, 3), np.uint8))
