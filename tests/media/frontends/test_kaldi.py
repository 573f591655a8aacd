"""The Kaldi filterbank against the published feature extractor's output, and against the definition in plain numpy."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchkit.media.frontends import kaldi
from benchkit.media.frontends.kaldi import Fbank, fbank

BIRD = Fbank(sample_rate=32_000)


def reference(wave: np.ndarray, s: Fbank, weights: np.ndarray) -> np.ndarray:
    """Frame by frame in float64, in the order in which Kaldi's feature-window.cc does it."""
    window = {
        "rectangular": lambda t: np.ones_like(t),
        "hanning": lambda t: 0.5 - 0.5 * np.cos(t),
        "hamming": lambda t: 0.54 - 0.46 * np.cos(t),
        "povey": lambda t: (0.5 - 0.5 * np.cos(t)) ** 0.85,
        "blackman": lambda t: 0.42 - 0.5 * np.cos(t) + 0.08 * np.cos(2 * t),
    }[s.window](2 * np.pi * np.arange(s.frame) / (s.frame - 1))
    rows = []
    for start in range(0, len(wave) - s.frame + 1, s.shift):
        frame = wave[start : start + s.frame].astype(np.float64)
        frame = frame - frame.mean()
        frame = frame - s.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, s.n_fft)) ** 2
        rows.append(np.log(np.maximum(power @ weights, np.finfo(np.float32).eps)))
    return np.array(rows)


def triangles(s: Fbank) -> np.ndarray:
    """mel-computations.cc: [n_fft / 2 + 1, n_mels], evenly spaced on the mel scale, none reaching the Nyquist bin."""

    def mel(hz: float | np.ndarray) -> np.ndarray:
        return 1127.0 * np.log(1.0 + hz / 700.0)

    high_hz = s.high_hz if s.high_hz > 0 else s.sample_rate / 2 + s.high_hz
    edges = np.linspace(mel(s.low_hz), mel(high_hz), s.n_mels + 2)
    at = mel(np.arange(s.n_fft // 2 + 1) * s.sample_rate / s.n_fft)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    weights = np.maximum(0, np.minimum((at - left) / (centre - left), (right - at) / (right - centre)))
    weights[-1] = 0
    return weights


@pytest.mark.parametrize("fixture", ["bird_mae_tiny", "bird_mae_outlier"])
def test_real_recordings_give_the_published_extractors_filterbank(shared, fixture):
    expected = np.load(shared / "fixtures" / fixture / "expected.npz")
    for i in range(2):
        wave = expected[f"wave{i}"][: 5 * 32_000]
        ours = fbank(torch.from_numpy(wave - wave.mean())[None], BIRD)[0].numpy()
        theirs = expected["fbank"][i, : len(ours)] * (2 * 4.43) - 7.2
        assert len(ours) == 498
        error = np.abs(ours - theirs) / (2 * 4.43)  # the bounds are for normalised values
        assert error.max() < 1e-3
        assert error.mean() < 1e-4


@given(
    rate=st.sampled_from([8_000, 16_000, 22_050, 32_000, 44_100, 48_000]),
    n_mels=st.integers(4, 128),
    frame_ms=st.sampled_from([10.0, 20.0, 25.0, 32.0]),
    shift_ms=st.sampled_from([5.0, 10.0, 12.5]),
    band=st.sampled_from([(20.0, 0.0), (0.0, 0.0), (60.0, -200.0), (300.0, 3400.0)]),
    preemphasis=st.sampled_from([0.0, 0.5, 0.97, 1.0]),
    window=st.sampled_from(["hanning", "hamming", "povey", "blackman", "rectangular"]),
    level=st.floats(-4, 0),
    offset=st.floats(-0.5, 0.5),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=40)
@example(32_000, 128, 25.0, 10.0, (20.0, 0.0), 0.97, "hanning", -1.0, 0.0, 0)
@example(16_000, 128, 25.0, 10.0, (20.0, 0.0), 0.97, "hanning", -1.0, 0.0, 0)
def test_any_settings_agree_with_the_definition(
    rate, n_mels, frame_ms, shift_ms, band, preemphasis, window, level, offset, seed
):
    s = Fbank(rate, n_mels, frame_ms, shift_ms, *band, preemphasis, window)
    weights = kaldi._mel_weights(s).numpy()
    np.testing.assert_allclose(weights, triangles(s), atol=1e-3)  # they are computed in float32, as in Kaldi
    waves = np.random.default_rng(seed).normal(offset, 10**level, (2, s.frame + 3 * s.shift + 7))
    expected = np.stack([reference(wave, s, weights.astype(np.float64)) for wave in waves])
    exact = fbank(torch.from_numpy(waves), s).numpy()
    np.testing.assert_allclose(exact, expected, atol=1e-6)
    single = fbank(torch.from_numpy(waves.astype(np.float32)), s)
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - exact).max() < 0.05  # a bin whose energies nearly cancel, far below its neighbours
    assert np.abs(single.numpy() - exact).mean() < 1e-4


def test_silence_lies_at_kaldis_floor_whatever_its_offset():
    waves = torch.tensor([0.0, 0.1, -0.7]).unsqueeze(1).expand(-1, 4000)
    assert torch.equal(fbank(waves, BIRD), torch.full((3, 11, 128), float(np.log(np.finfo(np.float32).eps))))


def test_a_clips_values_do_not_depend_on_its_neighbours():
    waves = torch.randn(5, 16_000, generator=torch.Generator().manual_seed(0))
    loud = waves.clone()
    loud[[0, 1, 3, 4]] *= 1e4
    np.testing.assert_allclose(fbank(loud, BIRD)[2], fbank(waves[2:3], BIRD)[0], atol=1e-5)


@pytest.mark.parametrize("frames", [1, 7, 100])
def test_working_in_small_pieces_changes_nothing(monkeypatch, frames):
    waves = torch.randn(3, 16_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    whole = fbank(waves, BIRD)
    monkeypatch.setattr(kaldi, "CHUNK_FRAMES", frames)
    np.testing.assert_allclose(fbank(waves, BIRD), whole, atol=1e-8)


def test_scratch_does_not_grow_with_the_clips(monkeypatch):
    asked = []
    empty = kaldi._Scratch.empty
    monkeypatch.setattr(kaldi._Scratch, "empty", lambda n, *rest: asked.append(n) or empty(n, *rest))
    fbank(torch.zeros(1, 60 * 32_000), BIRD)
    fbank(torch.zeros(40, 32_000), BIRD)
    assert max(asked) <= kaldi.CHUNK_FRAMES
    assert len(asked) <= 2 * torch.get_num_threads()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_value_and_are_left_as_they_were(monkeypatch, threads):
    waves = torch.randn(9, 16_000, generator=torch.Generator().manual_seed(0))
    expected = fbank(waves, BIRD)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        monkeypatch.setattr(kaldi, "CHUNK_FRAMES", 20)
        np.testing.assert_allclose(fbank(waves, BIRD), expected, atol=1e-4)
        assert torch.get_num_threads() == threads
        seen = []
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert seen == [threads]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_runs_in_every_mode_and_asks_for_no_gradient(mode):
    with mode():
        found = fbank(torch.randn(4, 16_000, generator=torch.Generator().manual_seed(0)).requires_grad_(), BIRD)
    assert not found.requires_grad
    again = fbank(torch.randn(4, 16_000, generator=torch.Generator().manual_seed(0)), BIRD)
    assert torch.equal(found, again)


def test_a_waveform_shorter_than_a_frame_is_refused():
    assert fbank(torch.zeros(2, 800), BIRD).shape == (2, 1, 128)
    with pytest.raises(ValueError, match="799 samples is shorter than one frame of 800"):
        fbank(torch.zeros(2, 799), BIRD)


def test_a_band_beyond_nyquist_is_refused():
    with pytest.raises(ValueError, match="from 20 to 9000 Hz do not fit below Nyquist, 8000 Hz"):
        fbank(torch.zeros(1, 16_000), Fbank(16_000, high_hz=9_000.0))


def test_no_clips_give_no_rows():
    assert fbank(torch.zeros(0, 16_000), BIRD).shape == (0, 48, 128)
