"""What is held out is measured on, and reaches nothing that is trained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchkit.activations import Recording
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, DataError
from benchkit.sae import SAEConfig, TrainConfig, train
from benchkit.sae.held_out import divide

HELD_OUT = {"held_out_mse", "held_out_explained_variance", "held_out_l0", "held_out_l1", "held_out_dead"}
Make = Callable[[np.ndarray], Path]


def examples(n: int = 60, tokens: int = 20, dim: int = 8) -> np.ndarray:
    """[N, T, D]; the tokens of an example are much alike."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 1, dim)) * 2 + rng.standard_normal((n, tokens, dim)) * 0.5 + 1


@pytest.mark.parametrize(
    ("n", "share", "count", "says"),
    [(100, None, 5, 0.05), (20, None, 1, 0.05), (19, None, 0, 0), (100, 0.0, 0, 0), (8, 0.25, 2, 0.25)],
)
def test_a_share_of_the_examples_is_held_out(n: int, share: float | None, count: int, says: float) -> None:
    parts = divide(n, share, seed=3)
    assert (len(parts.held_out), parts.share) == (count, says)
    assert sorted([*parts.train, *parts.held_out]) == list(range(n))
    for part in (parts.train, parts.held_out):
        np.testing.assert_array_equal(part, np.sort(part))
    np.testing.assert_array_equal(divide(n, share, seed=3).held_out, parts.held_out)


def test_another_seed_holds_other_examples_out() -> None:
    assert len({tuple(divide(100, None, seed).held_out) for seed in range(5)}) == 5


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_share_that_is_no_example_or_every_one_is_refused(share: float) -> None:
    with pytest.raises(
        BenchkitError, match=rf"--held-out {share} of 8 examples is (0|8): one at least must be held out"
    ):
        divide(8, share, 0)


CONFIGS = [
    SAEConfig("topk", 24, "none", k=3, lr=3e-3),
    SAEConfig("batchtopk", 16, "whiten", k=3, lr=3e-3),
    SAEConfig("relu", 16, "dimension", l1=0.1, lr=3e-3),
]


def test_other_held_out_examples_train_the_same_autoencoder(as_recording: Make, tmp_path: Path) -> None:
    """Neither steps nor normalisation nor the threshold of batchtopk know of them."""
    x = examples()
    other = x.copy()
    other[divide(len(x), None, 7).held_out] = np.random.default_rng(1).standard_normal((3, 20, 8)) * 50 + 300
    shared = TrainConfig(batch_size=100, epochs=2, seed=7, dead_after=300)
    a, b = (train(as_recording(v, n), tmp_path / f"t{n}", CONFIGS, shared).trained for v, n in ((x, "a"), (other, "b")))
    for one, two in zip(a, b, strict=True):
        first, second = load_file(one.path), load_file(two.path)
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=1e-4, atol=1e-5, err_msg=name)
        m, o = one.record["metrics"], two.record["metrics"]
        assert m["mse"] == pytest.approx(o["mse"], rel=1e-3)
        assert o["held_out_mse"] > 10 * m["held_out_mse"]


def test_its_metrics_are_of_the_held_out_examples(as_recording: Make, tmp_path: Path) -> None:
    x = examples()
    recording = as_recording(x)
    shared = TrainConfig(batch_size=64, epochs=3, seed=2, held_out=0.1)
    parts = divide(len(x), 0.1, 2)
    for t in train(recording, tmp_path / "t", CONFIGS, shared).trained:
        w = load_file(t.path)
        assert (t.record["held_out_examples"], t.record["held_out_measured_on"]) == (6, 120)
        assert (t.record["measured_on"], t.record["training"]["held_out"]) == (54 * 20, 0.1)
        for prefix, rows in (("", parts.train), ("held_out_", parts.held_out)):
            v = x[rows].reshape(-1, 8).astype(np.float32)
            f = resolve("scorer", f"sae:{t.path}").build()(v).astype(np.float64)
            z = v.astype(np.float64)
            if t.record["autoencoder"]["normalise"] == "dimension":
                z = (z - x[parts.train].reshape(-1, 8).mean(0)) / x[parts.train].reshape(-1, 8).std(0)
            elif t.record["autoencoder"]["normalise"] == "whiten":
                z = (z - w["normalise.mean"]) @ w["normalise.whitening"]
            rest = z - (f @ w["w_dec"] + w["b_dec"])
            metrics = t.record["metrics"]
            assert metrics[f"{prefix}mse"] == pytest.approx((rest**2).mean(), rel=1e-3)
            explained = 1 - rest.var(axis=0).sum() / z.var(axis=0).sum()
            assert metrics[f"{prefix}explained_variance"] == pytest.approx(explained, abs=1e-3)
            assert metrics[f"{prefix}l0"] == pytest.approx((f > 1e-8).mean(), abs=2e-3)
            assert metrics[f"{prefix}l1"] == pytest.approx(f.sum(axis=1).mean(), rel=1e-3)
            assert metrics[f"{prefix}dead"] == pytest.approx((f.max(axis=0) <= 1e-8).mean(), abs=1e-9)
        assert {name for step, name, _ in t.history if step == t.record["steps"]} >= HELD_OUT
        assert not any(name in HELD_OUT for step, name, _ in t.history if step < t.record["steps"])


def test_where_nothing_is_held_out_there_are_no_such_metrics(as_recording: Make, tmp_path: Path) -> None:
    recording = as_recording(examples())
    (t,) = train(recording, tmp_path / "t", CONFIGS[:1], TrainConfig(batch_size=512, held_out=0.0)).trained
    assert not HELD_OUT & set(t.record["metrics"])
    assert (t.record["held_out_examples"], t.record["measured_on"]) == (0, Recording.open(recording).only.n_vectors)
    with pytest.raises(BenchkitError, match="is another training"):
        train(recording, tmp_path / "t", CONFIGS[:1], TrainConfig(batch_size=512))


def test_a_point_without_patches_is_one_line(as_recording: Make, tmp_path: Path) -> None:
    recording = as_recording(examples(tokens=2), prefix=2)
    with pytest.raises(DataError, match=r"point 'tokens' of '.*' has no patches, .* --all-tokens trains on them"):
        train(recording, tmp_path / "t", CONFIGS[:1], TrainConfig())
    assert train(recording, tmp_path / "t", CONFIGS[:1], TrainConfig(patches=False)).trained
