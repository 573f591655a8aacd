"""Classes that are far apart are told apart, whatever the scale, the size and the number of classes."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchkit.catalog.resolve import resolve
from benchkit.interfaces import Problem

POOLED = ("linear", "mlp", "centroid", "knn", "logreg")
TOKENS = ("prototypical", "attentive-pool", "attentive,depth=1")


def right(probe: str, scale: float, classes: int, each: int, dim: int, spread: float, seed: int) -> float:
    rng = np.random.default_rng(1000 + seed)
    means = 12 * np.linalg.qr(rng.normal(size=(max(dim, classes), max(dim, classes))))[0][:classes, :dim]
    if dim < classes:
        means = np.linspace(-8, 8, classes)[:, None] * np.eye(1, dim)
    y, truth = np.repeat(np.arange(classes), each), np.repeat(np.arange(classes), 20)

    def drawn(labels: np.ndarray) -> np.ndarray:
        loud = 10 ** rng.uniform(-spread, spread, (len(labels), 1))
        return ((means[labels] + rng.normal(size=(len(labels), dim))) * loud * scale).astype(np.float32)

    x, test = drawn(y), drawn(truth)
    if probe in TOKENS:
        x, test = (np.repeat(a[:, None], 3, axis=1) for a in (x, test))
    problem = Problem("multiclass", classes, tuple(map(str, range(classes))))
    scores = resolve("classifier", probe).build().fit(x, y, problem, seed=seed).scores(test)
    return float((scores.argmax(axis=1) == truth).mean())


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    scale=st.sampled_from([1e-10, 1e-4, 1.0, 1e4, 1e12]),
    classes=st.sampled_from([2, 5, 12]),
    each=st.sampled_from([4, 10]),
    spread=st.sampled_from([0.0, 1.5]),
    seed=st.integers(0, 5),
)
@pytest.mark.parametrize("probe", POOLED)
def test_probes_on_pooled_features(probe: str, scale: float, classes: int, each: int, spread: float, seed: int) -> None:
    assert right(probe, scale, classes, each, 32, spread, seed) >= 0.99


@pytest.mark.parametrize("probe", TOKENS)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_probes_on_tokens(probe: str, scale: float) -> None:
    assert right(probe, scale, 3, 8, 32, 1.5, 0) >= 0.98


@pytest.mark.parametrize("probe", POOLED)
@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_few_features_keep_what_they_say(probe: str, dim: int) -> None:
    rng = np.random.default_rng(7)
    y = np.arange(200) % 2
    x = (rng.normal(size=(200, dim)) + 16 * (y[:, None] - 0.5) * np.eye(1, dim) + 3).astype(np.float32)
    fitted = resolve("classifier", probe).build().fit(x, y, Problem("multiclass", 2, ("a", "b")), seed=0)
    assert (fitted.scores(x).argmax(axis=1) == y).mean() == 1.0
    assert fitted.record["layer_norm"] == f"left out: {dim} features"
