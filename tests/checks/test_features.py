"""Planted failures in the features are found; ordinary features, however lopsided, are left alone."""

import json

import numpy as np
import pytest

from benchkit.checks import check_features


@pytest.fixture
def healthy():
    """Features as a transformer gives them: 384 dimensions within 10, correlated."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 60)) @ rng.normal(size=(60, 384)) / 4 + rng.normal(size=384)
    return np.clip(x, -10, 10).astype(np.float32)


def _judge(train, test=None):
    check = check_features(train, test)
    assert check.name == "features"
    assert json.dumps(check.details, allow_nan=False)
    assert "\n" not in check.summary
    return check


def test_healthy_features_are_ok_and_the_summary_tells_their_rank(healthy):
    check = _judge(healthy[:2000], healthy[2000:])
    assert check.status == "ok"
    assert check.summary.startswith("384 dimensions, 0 constant, effective rank ")
    assert 30 < check.details["train"]["effective_rank"] < 384


def test_pixels_with_constant_corners_are_ok(digits):
    x, _ = digits
    check = _judge(x[:1200], x[1200:])
    assert check.status == "ok"
    assert check.details["train"]["n_constant"] > 0


@pytest.mark.parametrize("spread", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("n_dims", [1, 2])
def test_a_dimension_at_2500_is_caught_whether_it_varies_or_not(healthy, spread, n_dims):
    rng = np.random.default_rng(1)
    healthy[:, 17 : 17 + n_dims] = 2500 + spread * rng.normal(size=(len(healthy), n_dims))
    check = _judge(healthy)
    assert check.status == "warn"
    named = "dimension 17 carries 100.0%" if n_dims == 1 else "2 dimensions"
    assert named in check.summary
    assert "RMS 2,5" in check.summary
    assert "`benchkit diagnose` tells where" in check.summary
    assert sorted(check.details["train"]["outliers"]) == [17, 18][:n_dims]


def test_an_outlier_is_caught_even_where_a_last_norm_has_shrunk_it(shared):
    pooled = np.load(shared / "fixtures" / "bird_mae_outlier" / "expected.npz")["pooled_mean"]
    rng = np.random.default_rng(0)
    x = (pooled[rng.integers(0, 2, 50)] + 0.1 * rng.normal(size=(50, pooled.shape[1]))).astype(np.float32)
    assert "of the mean squared norm" in _judge(x).summary
    fine = np.load(shared / "fixtures" / "bird_mae_tiny" / "expected.npz")["pooled_mean"]
    x = (fine[rng.integers(0, 2, 50)] + 0.1 * rng.normal(size=(50, fine.shape[1]))).astype(np.float32)
    assert _judge(x).status == "ok"


def test_log_mel_statistics_and_mfcc_of_real_recordings_are_ok(shared):
    soundfile = pytest.importorskip("soundfile")
    mel, mfcc = [], []
    for path in sorted((shared / "data" / "esc10" / "audio").iterdir())[::10]:
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        db = _log_mel(wave.mean(axis=1), rate)
        k = np.arange(db.shape[1])
        basis = np.sqrt(2 / len(k)) * np.cos(np.pi / len(k) * (k + 0.5)[:, None] * np.arange(20))
        mel.append(np.r_[db.mean(axis=0), db.std(axis=0)])
        mfcc.append(np.r_[(db @ basis).mean(axis=0), (db @ basis).std(axis=0)])
    for features in (mel, mfcc):
        check = _judge(np.array(features, np.float32))
        assert check.status == "ok", check.summary


def _log_mel(wave, rate, n_mels=64):
    """In dB, [frames, n_mels]; the plainest filterbank there is."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 1024)[::512] * np.hanning(1024)
    power = np.abs(np.fft.rfft(frames)) ** 2
    edges = 700 * (10 ** (np.linspace(0.05, np.log10(1 + rate / 1400), n_mels + 2)) - 1)
    hz = np.linspace(0, rate / 2, power.shape[1])
    up = (hz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - hz) / (edges[2:] - edges[1:-1])[:, None]
    return 10 * np.log10(np.maximum(power @ np.clip(np.minimum(up, down), 0, 1).T, 1e-10))


def test_nan_and_infinite_values_fail_with_their_number_and_place(healthy):
    test = healthy[2000:].copy()
    test[3, 5] = np.nan
    test[7, 1:3] = np.inf
    check = _judge(healthy[:2000], test)
    assert check.status == "fail"
    assert check.summary == "test: 1 NaN and 2 infinite values (0.00%)"
    assert (check.details["test"]["n_nan"], check.details["test"]["n_infinite"]) == (1, 2)


def test_features_that_are_all_nan_fail(healthy):
    check = _judge(np.full_like(healthy, np.nan))
    assert check.status == "fail"
    assert "1,152,000 NaN" in check.summary


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_dead_extractor_fails(healthy, noise):
    rng = np.random.default_rng(2)
    dead = healthy[:1] * (1 + noise * rng.normal(size=healthy.shape))
    check = _judge(dead.astype(np.float32))
    assert check.status == "fail"
    assert "the same for every example" in check.summary


def test_all_zero_features_fail_and_one_finding_in_both_parts_is_told_once(healthy):
    check = _judge(np.zeros_like(healthy), np.zeros_like(healthy))
    assert check.status == "fail"
    assert check.summary.startswith("train and test: the features are the same")
    assert check.summary.count("same for every example") == 1


def test_zero_rows_repeated_rows_constant_and_collapsed_dimensions_warn(healthy):
    zero = healthy.copy()
    zero[::20] = 0
    assert "5.0% of the rows are all zero" in _judge(zero).summary
    assert "of the rows are distinct" in _judge(np.tile(healthy[:300], (10, 1))).summary
    constant = healthy.copy()
    constant[:, :200] = 1
    assert "200 of 384 dimensions are constant" in _judge(constant).summary
    line = np.outer(healthy[:, 0], healthy[0]) + 1e-3 * healthy
    assert "collapsed" in _judge(line.astype(np.float32)).summary
    for x in (zero, constant, line.astype(np.float32)):
        assert _judge(x).status == "warn"


def test_effective_rank_is_the_number_of_equally_strong_directions():
    x = np.zeros((400, 50), np.float32)
    rows = np.arange(400)
    x[rows, rows % 5] = 1
    x[rows[200:], rows[200:] % 5] = -1
    assert check_features(x).details["train"]["effective_rank"] == pytest.approx(5, abs=1e-3)


def test_a_split_larger_than_what_is_looked_at_closely_is_read_whole(healthy):
    many = np.tile(healthy, (7, 1)) + np.random.default_rng(0).normal(size=(21_000, 384)).astype(np.float32)
    many[20_777, 100] = np.nan
    assert "1 NaN" in _judge(many).summary
