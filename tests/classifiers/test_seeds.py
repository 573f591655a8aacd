"""Every probe whose fit is random honours its seed, alone and among others; one without a seed says so."""

from typing import Any

import numpy as np
import pytest

from benchkit.catalog.discovery import discover
from benchkit.catalog.resolve import resolve
from benchkit.classifiers.data import Split, hold_out
from benchkit.classifiers.linear import LinearParams
from benchkit.classifiers.streams import Stream
from benchkit.classifiers.subsets import split_of
from benchkit.interfaces import Classifier, Problem, Subset
from benchkit.machine.seeds import Purpose, generator

QUICK = "epochs=2,min_steps=4,batch=8"
SEEDED = {
    "linear": f"linear,{QUICK}",
    "mlp": f"mlp,{QUICK}",
    "attentive": f"attentive,depth=1,{QUICK}",
    "attentive-pool": f"attentive-pool,{QUICK}",
    "prototypical": f"prototypical,prototypes=2,{QUICK}",
    "logreg": "logreg",  # which draws what it chooses C on
}
SEEDLESS = ("centroid", "knn")
ELSEWHERE = (
    "finetune",
    "retrieval",
    "clustering",
)  # test_finetune: it needs a backbone; test_questions: none is fitted


def data(probe: Classifier) -> tuple[np.ndarray, np.ndarray, Problem]:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = (np.eye(3, 12)[y] + rng.normal(size=(60, 12))).astype(np.float32)
    return x if probe.needs == "pooled" else np.repeat(x[:, None], 4, axis=1), y, Problem("multiclass", 3)


def told(fitted: Any, x: np.ndarray) -> list[Any]:
    """What tells two fits apart."""
    return [fitted.scores(x).tolist(), dict(fitted.record).get("validation_loss")]


def test_no_probe_is_left_out() -> None:
    assert {p.name for p in discover().provided("classifier")} == {*SEEDED, *SEEDLESS, *ELSEWHERE}


@pytest.mark.parametrize("spec", SEEDED.values())
def test_two_seeds_differ_and_one_does_not(spec: str) -> None:
    probe: Classifier = resolve("classifier", spec).build()
    x, y, problem = data(probe)
    a, b, again = (told(probe.fit(x, y, problem, seed=seed), x) for seed in (0, 1, 0))
    assert a == again
    assert a != b


@pytest.mark.parametrize("spec", SEEDED.values())
def test_each_of_many_fits_has_its_own_seed(spec: str) -> None:
    probe: Classifier = resolve("classifier", spec).build()
    x, y, problem = data(probe)
    rows = np.arange(60)
    fits = list(probe.fit_many(x, y, problem, [Subset(rows, seed) for seed in (5, 6, 5)]))
    a, b, again = (told(f, x) for f in fits)
    assert np.allclose(a[0], again[0], atol=1e-5)
    assert not np.allclose(a[0], b[0], atol=1e-4) or a[1] != b[1]
    alone = probe.fit(x, y, problem, seed=6)
    assert np.allclose(alone.scores(x), b[0], atol=1e-4)


@pytest.mark.parametrize("spec", SEEDLESS)
def test_a_probe_that_no_seed_changes_gives_the_same_for_all(spec: str) -> None:
    probe: Any = resolve("classifier", spec).build()
    x, y, problem = data(probe)
    a, b = (probe.fit(x, y, problem, seed=seed).scores(x) for seed in (0, 1))
    np.testing.assert_array_equal(a, b)
    assert probe.seedless


def test_first_weights_order_and_held_out_rows_each_have_a_generator_of_their_own() -> None:
    drawn = {
        (seed, purpose): generator(seed, purpose).random(4).tolist()
        for seed in (0, 1, 2**63 - 1)
        for purpose in (Purpose.INIT, Purpose.SHUFFLE, Purpose.HOLDOUT)
    }
    assert len({tuple(d) for d in drawn.values()}) == 9
    assert generator(1, Purpose.SHUFFLE).random(4).tolist() == drawn[1, Purpose.SHUFFLE]


def test_the_seed_gives_the_order_of_the_minibatches_and_what_is_held_out() -> None:
    def first(seed: int) -> list[int]:
        return next(Stream(Split(np.arange(50), np.arange(0)), seed, (LinearParams(batch=50),)).minibatches()).tolist()

    assert first(0) == first(0)
    assert len({tuple(first(seed)) for seed in range(5)}) == 5
    several = (np.random.default_rng(0).random((80, 4)) < 0.4).astype(np.uint8)
    for labels, kind in ((np.arange(80) % 4, "multiclass"), (several, "multilabel")):
        held = [hold_out("it", labels, Problem(kind, 4), 0.25, seed).val.tolist() for seed in (0, 1, 2, 0)]
        assert held[0] == held[3]
        assert len({tuple(h) for h in held}) == 3


def test_two_passes_over_the_examples_are_in_two_orders() -> None:
    batches = Stream(Split(np.arange(50), np.arange(0)), 0, (LinearParams(batch=50),)).minibatches()
    assert next(batches).tolist() != next(batches).tolist()


def test_a_fits_own_seed_holds_its_validation_rows_out() -> None:
    labels, rows = np.arange(80) % 4, np.arange(0, 80, 2)
    made = [split_of("it", 0.25, Subset(rows, seed), labels, Problem("multiclass", 4)) for seed in (0, 1, 2, 0)]
    held = [split.val.tolist() for split in made]
    assert held[0] == held[3]
    assert len({tuple(h) for h in held}) == 3
    assert all(set(h) < set(rows.tolist()) for h in held)
