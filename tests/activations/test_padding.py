"""Of a clip that is shorter than the window, what it was padded with is recorded by nobody and fitted on by nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchkit.activations import Recording, fit, record
from benchkit.activations.pairing import paired_batches
from benchkit.catalog.resolve import resolve
from benchkit.sae import SAEConfig, TrainConfig, train

SECONDS = (1.0, 1.0, 2.5, 5.0, 1.0, 6.0)
REAL = (48, 48, 120, 256, 48, 256)


@pytest.fixture(scope="module")
def recording(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Noise of several lengths by the small Bird-MAE, whose window is 5 s."""
    root = tmp_path_factory.mktemp("esc")
    (root / "audio").mkdir()
    (root / "meta").mkdir()
    rng = np.random.default_rng([1, 8])
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for i, seconds in enumerate(SECONDS):
        name = f"{1 + i % 5}-{i}-A-0.wav"
        soundfile.write(root / "audio" / name, 0.1 * rng.standard_normal(round(seconds * 32_000)), 32_000)
        lines.append(f"{name},{1 + i % 5},0,dog,True,{i},A")
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    model = f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"
    points = ["blocks.1.norm2", "blocks.2.resid_post", "tokens"]
    return record(f"esc50,root={root}", model, points, root / "r", split="clips", workers=0, shard_bytes=200_000)


def test_each_example_has_its_own_number_of_tokens(recording: Recording) -> None:
    for point in recording.points.values():
        by_name = dict(zip(point.ids, point.metadata["real_tokens"], strict=True))
        assert [by_name[name] for name in sorted(by_name, key=lambda n: int(n.split("-")[1]))] == list(REAL)
        assert point.padding == pytest.approx(1 - sum(REAL) / (6 * 256))
        assert point.vectors_of(patches=True) == sum(REAL)
        assert point.vectors_of() == sum(REAL) + 6 * point.prefix_tokens


def test_statistics_and_batches_are_of_what_is_real(recording: Recording) -> None:
    point = recording["blocks.1.norm2"]
    stored = np.concatenate(point.shards)
    real = stored[:, 1:].reshape(-1, 64)
    real = real[~np.isnan(real).any(axis=1)]
    assert len(real) == sum(REAL)
    np.testing.assert_allclose(point.patch_statistics.variance, real.astype(np.float64).var(axis=0), rtol=1e-9)
    assert point.statistics.not_finite == 0
    for epochs, skip in ((1, 0), (2, 3)):
        found = list(point.batches(100, seed=1, epochs=epochs, patches=True, skip=skip))
        assert len(found) == epochs * -(-sum(REAL) // 100) - skip
    found = np.concatenate(list(point.batches(100, seed=1, patches=True)))
    a, b = (x[np.lexsort(x.T)] for x in (found, real))
    np.testing.assert_array_equal(a, b)


def test_pairs_of_two_points_are_of_the_same_tokens(recording: Recording) -> None:
    a, b = recording["blocks.1.norm2"], recording["blocks.2.resid_post"]
    made = np.concatenate(list(paired_batches(
        a, b, 64, seed=0, epochs=1, patches=True, skip=0, examples=np.arange(6)
    )))  # fmt: skip
    assert made.shape == (sum(REAL), 128)
    both = np.concatenate([np.concatenate(p.shards)[np.argsort(p.rows)][:, 1:].reshape(-1, 64) for p in (a, b)], axis=1)
    both = both[~np.isnan(both).any(axis=1)]
    np.testing.assert_array_equal(made[np.lexsort(made.T)], both[np.lexsort(both.T)])


def test_nothing_is_fitted_on_padding(recording: Recording, tmp_path: Path) -> None:
    point = recording["tokens"]
    scorer = fit("kmeans,k=4", recording.folder, tmp_path / "k", point="tokens")
    assert np.isfinite(scorer.tensors()["prototypes"]).all()
    shared = TrainConfig(batch_size=100, held_out=0.0)
    (t,) = train(
        recording.folder, tmp_path / "t", [SAEConfig("topk", 32, "dimension", k=2)], shared, point="tokens"
    ).trained
    assert t.record["steps"] == -(-sum(REAL) // 100)
    assert t.record["measured_on"] == sum(REAL) == point.n_vectors
    wide = np.concatenate(point.shards).astype(np.float64).reshape(-1, 64)
    wide = wide[~np.isnan(wide[:, 0])]
    np.testing.assert_allclose(scorer.tensors()["prototypes"].mean(), wide.mean(), atol=1)


def test_the_metadata_and_a_line_say_the_share(recording: Recording) -> None:
    words = [sys.executable, "-m", "benchkit", "activations", "ls", str(recording.folder)]
    shown = subprocess.run(words, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    said = " ".join(shown.stderr.split())
    assert "% of the tokens at 'tokens' are padding of short examples; nothing is fitted on them" in said
    assert f"{100 * (1 - sum(REAL) / 1536):.3g} %" in shown.stdout
    metadata = json.loads((recording.folder / "tokens" / "metadata.json").read_text())
    assert sorted(metadata["real_tokens"]) == sorted(REAL)
    assert metadata["model"].startswith("bird-mae@2"), "what probes on tokens see of short clips is another number"


def test_diagnosis_leaves_padding_out(shared: Path) -> None:
    """Statistics of a place are those of the tokens that are the examples' own."""
    from benchkit.diagnose.gather import gather
    from benchkit.diagnose.inputs import Inputs
    from benchkit.diagnose.places import Place
    from benchkit.progress import Silent

    backbone = resolve("model", f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}").build()
    backbone.setup("cpu")
    rng = np.random.default_rng([1, 9])
    clips = [0.1 * rng.standard_normal(round(s * 32_000)).astype(np.float32) for s in SECONDS]
    values = np.stack([backbone.preprocess(clip) for clip in clips])
    (stats,) = gather(backbone, [Place.of("blocks.1.norm2")], Inputs.of("noise", values), Silent())
    x = backbone.activations(values, ["blocks.1.norm2"])["blocks.1.norm2"].astype(np.float64)
    real = np.concatenate([np.ones((6, 1), bool), backbone.real_tokens(values, 256)], axis=1)
    np.testing.assert_allclose(stats.mean_d, x[real].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stats.rms_d, np.sqrt((x[real] ** 2).mean(axis=0)), rtol=1e-5)
    np.testing.assert_allclose(stats.high_d, x[real].max(axis=0), rtol=1e-6)
    last = x[[3, 5], -1]
    np.testing.assert_allclose(stats.position_rms_td[-1], np.sqrt((last**2).mean(axis=0)), rtol=1e-4)
    pooled = np.stack([one[its].mean(axis=0) for one, its in zip(x, real, strict=True)])
    np.testing.assert_allclose(stats.pooled_ed, pooled, atol=1e-5)
    assert np.isfinite(stats.sample_nd).all()
