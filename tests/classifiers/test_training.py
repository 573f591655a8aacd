"""linear and mlp against a plain PyTorch loop, and heads trained together against each trained alone."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchkit.catalog.resolve import resolve
from benchkit.classifiers import trainer
from benchkit.classifiers.data import Split
from benchkit.classifiers.linear import Linear, LinearParams
from benchkit.classifiers.losses import asymmetric
from benchkit.classifiers.mlp import MLP, MLPParams
from benchkit.classifiers.streams import Stream
from benchkit.classifiers.trained import TrainedProbe, fit_grid
from benchkit.errors import FitError, MissingDependency
from benchkit.interfaces import Classifier, Fitted, Problem, Subset
from benchkit.machine.seeds import Purpose, generator

QUICK: dict[str, Any] = {"epochs": 4, "min_steps": 30, "batch": 32}


def accuracy(fitted: Fitted, data: Any) -> float:
    return float((fitted.scores(data.x_test).argmax(axis=1) == data.y_test).mean())


def shots(y: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """k rows of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(np.flatnonzero(y == c))[:k] for c in range(int(y.max()) + 1)])


# ----------------------------------------------------------------------------------------------- against plain PyTorch


def plain_loop(
    model: nn.Module, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], data: Any, params: Any, seed: int
) -> np.ndarray:
    """The way one would write it for a single head. Scores of the test rows."""
    stream = Stream(Split(np.arange(len(data.x)), np.arange(0)), seed, (params,))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=params.lr, weight_decay=params.weight_decay, betas=(params.beta1, params.beta2)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, stream.rate)
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    batches = stream.minibatches()
    for _ in range(stream.steps):
        rows = torch.from_numpy(next(batches))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        if params.grad_clip:
            nn.utils.clip_grad_norm_(model.parameters(), params.grad_clip)
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return model(torch.from_numpy(data.x_test)).numpy()


def load(layer: nn.Linear, weight: np.ndarray) -> None:
    """Weights as our nets keep them: the bias in the column behind the last feature."""
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight[:, : layer.in_features]))
        layer.bias.copy_(torch.from_numpy(weight[:, layer.in_features]))


def test_linear_with_cross_entropy_is_a_plain_pytorch_loop(digits: Any) -> None:
    params = LinearParams(norm="layer", **QUICK)
    layer = nn.Linear(64, 10)
    load(layer, Linear(params).net((64,), 10).init(generator(3, Purpose.INIT))["weight"])
    model = nn.Sequential(nn.LayerNorm(64, eps=1e-6, elementwise_affine=False), layer)
    expected = F.log_softmax(torch.from_numpy(plain_loop(model, F.cross_entropy, digits, params, 3)), dim=1).numpy()
    found = Linear(params).fit(digits.x, digits.y, digits.problem, seed=3).scores(digits.x_test)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_bird_mae_recipe_is_a_plain_pytorch_loop(several: Any) -> None:
    spec = resolve("classifier", "linear:bird-mae,epochs=3,lr=0.01")
    params = spec.params
    layer = nn.Linear(24, 6)
    load(layer, Linear(params).net((24,), 6).init(generator(5, Purpose.INIT))["weight"])
    model = nn.Sequential(nn.LayerNorm(24, eps=1e-6, elementwise_affine=False), layer)

    def loss(logits_bc: torch.Tensor, y_bc: torch.Tensor) -> torch.Tensor:
        return asymmetric(logits_bc.T[None, None], y_bc[None], 4.0, 1.0, 0.05).mean()

    expected = plain_loop(model, loss, several, params, 5)
    found = spec.build().fit(several.x, several.y, several.problem, seed=5).scores(several.x_test)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("activation", "module"), [("gelu", nn.GELU), ("relu", nn.ReLU)])
def test_mlp_is_a_plain_pytorch_loop(several: Any, activation: Any, module: type[nn.Module]) -> None:
    params = MLPParams(norm="layer", hidden=(13, 7), activation=activation, grad_clip=0.5, **QUICK)
    layers = [nn.Linear(24, 13), nn.Linear(13, 7), nn.Linear(7, 6)]
    for layer, weight in zip(layers, MLP(params).net((24,), 6).init(generator(1, Purpose.INIT)).values(), strict=True):
        load(layer, weight)
    norm = nn.LayerNorm(24, eps=1e-6, elementwise_affine=False)
    model = nn.Sequential(norm, layers[0], module(), layers[1], module(), layers[2])
    expected = plain_loop(model, lambda z, y: F.binary_cross_entropy_with_logits(z, y.float()), several, params, 1)
    found = MLP(params).fit(several.x, several.y, several.problem, seed=1).scores(several.x_test)
    np.testing.assert_allclose(found, expected, atol=1e-4)


# --------------------------------------------------------------------------------------------------- together or alone


@pytest.mark.parametrize("probe", [Linear(LinearParams(**QUICK)), MLP(MLPParams(hidden=(24,), **QUICK))])
def test_updates_in_one_pass_are_those_made_step_by_step(
    digits: Any, probe: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = []
    for smallest in (1, 10**9):
        monkeypatch.setattr(trainer, "FUSED", smallest)
        scores.append(probe.fit(digits.x, digits.y, digits.problem, seed=0).scores(digits.x_test))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("probe", [Linear(LinearParams(**QUICK)), MLP(MLPParams(hidden=(24,), **QUICK))])
def test_heads_trained_together_are_as_they_would_be_alone(
    digits: Any, probe: Classifier, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.classifiers.trainer.SHARED", 0)  # several shares, where there are several threads
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        subsets = [Subset(shots(digits.y, k, seed), seed) for k in (1, 3, 20, 500) for seed in (0, 1)]
        together = list(probe.fit_many(digits.x, digits.y, digits.problem, subsets))
        for subset, fitted in zip(subsets, together, strict=True):
            alone = probe.fit(digits.x[subset.rows], digits.y[subset.rows], digits.problem, seed=subset.seed)
            np.testing.assert_allclose(fitted.scores(digits.x_test), alone.scores(digits.x_test), atol=1e-5, rtol=1e-5)
            assert fitted.record == pytest.approx(alone.record)
    finally:
        torch.set_num_threads(before)


def grid_of(probe: TrainedProbe, **values: tuple[Any, ...]) -> list[TrainedProbe]:
    """The probe with each of the values, all of them as many."""
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return [type(probe)(dataclasses.replace(probe.params, **row)) for row in rows]


@pytest.mark.parametrize("probe", [Linear(LinearParams(**QUICK)), MLP(MLPParams(hidden=(8,), **QUICK))])
def test_a_grid_of_settings_is_each_setting_by_itself(several: Any, probe: TrainedProbe) -> None:
    settings = grid_of(
        probe,
        lr=(1e-3, 1e-2, 3e-3, 3e-3, 3e-3),
        weight_decay=(0.0, 0.1, 1e-2, 1e-2, 1e-2),
        epochs=(4, 4, 9, 4, 4),
        warmup=(0.0, 0.0, 0.2, 0.0, 0.0),
        batch=(32, 32, 32, 32, 17),
    )
    subsets = [Subset(np.arange(0, 300, step), seed) for step in (1, 7) for seed in (0, 1)]
    grid = [(p, s) for s in subsets for p in settings]
    together = fit_grid(grid, several.x, several.y, several.problem)
    for (member, subset), fitted in zip(grid, together, strict=True):
        alone = member.fit(several.x[subset.rows], several.y[subset.rows], several.problem, seed=subset.seed)
        np.testing.assert_allclose(fitted.scores(several.x_test), alone.scores(several.x_test), atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_in_memory_at_once_is_trained_in_turns(several: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Linear(LinearParams(**QUICK))
    subsets = [Subset(np.arange(300), seed) for seed in range(5)]
    at_once = [f.scores(several.x_test) for f in probe.fit_many(several.x, several.y, several.problem, subsets)]
    monkeypatch.setattr(trainer, "CPU_MEMORY", 2 * 4 * probe.net((24,), 6).floats(32))
    in_turns = [f.scores(several.x_test) for f in probe.fit_many(several.x, several.y, several.problem, subsets)]
    np.testing.assert_allclose(in_turns, at_once, atol=1e-5)


def test_another_seed_is_another_fit(digits: Any) -> None:
    a, b, c = (
        Linear(LinearParams(**QUICK)).fit(digits.x, digits.y, digits.problem, seed=seed).scores(digits.x_test)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-3


def test_nothing_global_is_touched_and_the_callers_mode_does_not_matter(several: Any) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state(), torch.get_num_threads(), str(np.random.get_state())
    probe = Linear(LinearParams(**QUICK))
    plain = probe.fit(several.x, several.y, several.problem, seed=0).scores(several.x_test)
    with torch.inference_mode():
        inside = probe.fit(several.x, several.y, several.problem, seed=0).scores(several.x_test)
    after = torch.get_rng_state(), torch.get_num_threads(), str(np.random.get_state())
    np.testing.assert_array_equal(plain, inside)
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


# -------------------------------------------------------------------------------------------------------- what it does


def test_defaults_reach_94_percent_on_digits_and_learn_from_few(digits: Any) -> None:
    subsets = [Subset(np.arange(len(digits.y)), 0), Subset(shots(digits.y, 5), 0), Subset(shots(digits.y, 1), 0)]
    everything, five, one = Linear().fit_many(digits.x, digits.y, digits.problem, subsets)
    assert accuracy(everything, digits) >= 0.95
    assert accuracy(five, digits) >= 0.8
    assert accuracy(one, digits) >= 0.55


def test_a_dimension_at_2500_does_not_hide_the_others(digits: Any) -> None:
    rng = np.random.default_rng(0)
    loud = digits._replace(
        x=np.c_[digits.x, 2500 + 20 * rng.standard_normal(len(digits.x))].astype(np.float32),
        x_test=np.c_[digits.x_test, 2500 + 20 * rng.standard_normal(len(digits.x_test))].astype(np.float32),
    )
    assert accuracy(Linear().fit(loud.x, loud.y, loud.problem, seed=0), loud) >= 0.95
    layer_norm_alone = Linear(LinearParams(norm="layer")).fit(loud.x, loud.y, loud.problem, seed=0)
    assert accuracy(layer_norm_alone, loud) < 0.5  # which is why standardisation is the default


def test_one_example_of_each_of_three_classes_is_enough() -> None:
    x = np.eye(3, 40, dtype=np.float32) * 5
    for probe in (Linear(), MLP()):
        fitted = probe.fit(x, np.arange(3), Problem("multiclass", 3), seed=0)
        assert (fitted.scores(x + 0.1).argmax(axis=1) == np.arange(3)).all()


def test_a_class_without_examples_is_never_the_answer(digits: Any) -> None:
    seen = digits.y != 3
    fitted = Linear(LinearParams(**QUICK)).fit(digits.x[seen], digits.y[seen], digits.problem, seed=0)
    assert not (fitted.scores(digits.x_test).argmax(axis=1) == 3).any()


def test_scores_of_one_label_are_log_probabilities(digits: Any) -> None:
    scores = Linear(LinearParams(**QUICK)).fit(digits.x, digits.y, digits.problem, seed=0).scores(digits.x_test)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, atol=1e-5)


def test_few_examples_get_more_epochs_and_many_no_fewer_than_asked() -> None:
    params = LinearParams(epochs=5, min_steps=100, batch=64)

    def steps(n: int) -> int:
        return Stream(Split(np.arange(n), np.arange(0)), 0, (params,)).steps

    assert steps(10) == 100
    assert steps(130) == 102  # in whole epochs of 3 steps
    assert steps(6400) == 500


def test_the_learning_rate_rises_falls_and_ends_near_0() -> None:
    stream = Stream(Split(np.arange(64), np.arange(0)), 0, (LinearParams(epochs=100, min_steps=0, warmup=0.1),))
    rates = [stream.rate(t) for t in range(stream.steps)]
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-3


def test_an_epoch_shows_every_example_once() -> None:
    stream = Stream(Split(np.arange(10, 33), np.arange(0)), 0, (LinearParams(batch=8),))
    batches = stream.minibatches()
    for _ in range(3):
        epoch = np.concatenate([next(batches) for _ in range(stream.steps_per_epoch)])
        assert sorted(epoch.tolist()) == list(range(10, 33))


# ------------------------------------------------------------------------------------------------------ early stopping


def test_early_stopping_keeps_the_best_epoch_and_ends_soon_where_there_is_nothing_to_learn() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(200, 30)).astype(np.float32), rng.integers(0, 3, 200)
    problem = Problem("multiclass", 3)
    fitted = Linear(LinearParams(val=0.25, patience=3, lr=0.01)).fit(x, noise, problem, seed=0)
    assert fitted.record["epochs"] == fitted.record["best_epoch"] + 3
    assert fitted.record["epochs"] < 50
    assert fitted.record["val_loss"] < 1.5
    overfitted = Linear(LinearParams(lr=0.01)).fit(x, noise, problem, seed=0)
    other = rng.integers(0, 3, 1000), rng.normal(size=(1000, 30)).astype(np.float32)
    loss, worse = (-f.scores(other[1])[np.arange(1000), other[0]].mean() for f in (fitted, overfitted))
    assert loss < worse


def test_heads_that_stop_early_are_as_they_would_be_alone(digits: Any) -> None:
    settings = grid_of(Linear(LinearParams(val=0.2, patience=2, batch=32)), lr=(1e-3, 3e-2))
    rows = shots(digits.y, 12)
    grid = [(p, Subset(rows, seed)) for p in settings for seed in (0, 1)]
    stopped = set()
    for (probe, subset), fitted in zip(grid, fit_grid(grid, digits.x, digits.y, digits.problem), strict=True):
        alone = probe.fit(digits.x[rows], digits.y[rows], digits.problem, seed=subset.seed)
        np.testing.assert_allclose(fitted.scores(digits.x_test), alone.scores(digits.x_test), atol=1e-5, rtol=1e-5)
        assert fitted.record == pytest.approx(alone.record)
        stopped.add(fitted.record["epochs"])
    assert len(stopped) > 1


# -------------------------------------------------------------------------------------------------------------- errors

X = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
ONE = Problem("multiclass", 3, ("wren", "robin", "crane"))
MANY = Problem("multilabel", 3, ("wren", "robin", "crane"))


@pytest.mark.parametrize(
    ("problem", "labels", "words"),
    [
        (ONE, np.array([1] * 6), "all 6 training examples are of class 'robin': linear needs at least two classes"),
        (MANY, np.zeros((6, 3), np.uint8), "none of the 6 training examples has a positive label"),
        (
            MANY,
            np.array([[1, 0, 1]] * 6, np.uint8),
            r"all 6 training examples have the same labels \('wren', 'crane'\)",
        ),
        (ONE, np.array([0, 1, 2, 3, 0, 1]), "needs one label below 3"),
        (MANY, np.ones((6, 4), np.uint8), r"needs labels of shape \[6, 3\]"),
        (Problem("traits", 3), np.eye(6, 3, dtype=np.uint8), "fits multiclass and multilabel tasks, not traits"),
    ],
)
def test_labels_that_teach_nothing_are_refused_in_one_line(problem: Problem, labels: Any, words: str) -> None:
    with pytest.raises(FitError, match=words) as caught:
        Linear().fit(X, labels, problem, seed=0)
    assert "\n" not in str(caught.value)


def test_nan_features_are_refused_and_their_row_is_named() -> None:
    x = X.copy()
    x[4, 1], x[5, 0] = np.nan, np.inf
    with pytest.raises(FitError, match="2 of 6 training examples hold NaN or infinity"):
        Linear().fit(x, np.array([0, 1, 2, 0, 1, 2]), ONE, seed=0)


def test_a_class_with_one_example_and_a_validation_split_is_refused() -> None:
    with pytest.raises(FitError, match="class 'crane' has a single training example, and linear holds out"):
        Linear(LinearParams(val=0.3)).fit(X, np.array([0, 1, 2, 0, 1, 1]), ONE, seed=0)


def test_a_learning_rate_that_diverges_says_so() -> None:
    with pytest.raises(FitError, match=r"the training of mlp diverged \(step 2\): give a learning rate below lr=1e"):
        MLP(MLPParams(lr=1e30)).fit(X, np.array([0, 1, 2, 0, 1, 2]), ONE, seed=0)


def test_a_subset_that_cannot_be_fitted_on_raises_in_its_turn() -> None:
    y = np.array([0, 1, 2, 0, 1, 1])
    subsets = [Subset(np.arange(6), 0), Subset(np.array([0, 3]), 0), Subset(np.arange(5), 0)]
    fits = Linear(LinearParams(**QUICK)).fit_many(X, y, ONE, subsets)
    assert next(fits).scores(X).shape == (6, 3)
    with pytest.raises(FitError, match="all 2 training examples are of class 'wren'"):
        next(fits)


def test_torch_missing_is_a_line_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"'torch', .* pip install 'benchkit-core\[probes\]'"):
        Linear().fit(X, np.array([0, 1, 2, 0, 1, 2]), ONE, seed=0)


# ------------------------------------------------------------------------------------------------------------- presets


def test_the_bird_mae_preset_holds_the_papers_values_and_each_can_be_overridden() -> None:
    params = resolve("classifier", "linear:bird-mae").params
    recipe = {
        "loss": "asymmetric", "gamma_neg": 4, "gamma_pos": 1, "clip": 0.05, "lr": 4e-4, "weight_decay": 3e-4,
        "epochs": 30, "batch": 64, "schedule": "cosine", "grad_clip": 2,
    }  # fmt: skip
    assert {name: getattr(params, name) for name in recipe} == recipe
    assert resolve("classifier", "linear:bird-mae,lr=4e-4,batch=64").canonical == "linear@2:bird-mae"
    assert resolve("classifier", "linear:bird-mae,grad_clip=1").canonical == "linear@2:bird-mae,grad_clip=1"
    in_full = ",".join(f"{k}={v}" for k, v in LinearParams.PRESETS["bird-mae"].items())
    assert resolve("classifier", f"linear,{in_full}").canonical == "linear@2:bird-mae"
