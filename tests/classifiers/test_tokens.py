"""prototypical and attentive: against plain formulas, on planted tokens, and from a memory map."""

import dataclasses
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn import functional as F

from benchkit.classifiers.attentive import Attentive, AttentiveParams
from benchkit.classifiers.attentive_net import AttentiveNet
from benchkit.classifiers.data import Split
from benchkit.classifiers.linear import Linear
from benchkit.classifiers.nets import TokenNet
from benchkit.classifiers.params import PrototypicalParams
from benchkit.classifiers.prototypical import Prototypical
from benchkit.classifiers.prototypical_net import PrototypicalNet, _Nearest, _Unit
from benchkit.classifiers.tokens import TokenProbe
from benchkit.classifiers.trained import fit_grid
from benchkit.errors import FitError
from benchkit.interfaces import Problem, Subset
from benchkit.testing import ClassifierSuite

CLASSES, TOKENS, DIM = 4, 12, 32
ONE, MANY = Problem("multiclass", CLASSES), Problem("multilabel", CLASSES)
SMALL: dict[str, Any] = {"epochs": 2, "min_steps": 25, "batch": 16}
PROTOTYPICAL = Prototypical(PrototypicalParams(prototypes=3, **SMALL))
ATTENTIVE = Attentive(AttentiveParams(depth=2, heads=4, **SMALL))


def planted(problem: Problem, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, with a direction of its own in one token for each class of the example, taken out of the tokens' mean."""
    rng = np.random.default_rng(seed)
    directions = 5 * np.linalg.qr(np.random.default_rng(9).normal(size=(DIM, DIM)))[0][:CLASSES]
    y = rng.integers(0, CLASSES, n) if problem is ONE else (rng.random((n, CLASSES)) < 0.3).astype(np.uint8)
    x = rng.normal(size=(n, TOKENS, DIM))
    for i in range(n):
        for c in [y[i]] if problem is ONE else np.flatnonzero(y[i]):
            x[i, rng.integers(TOKENS)] += directions[c]
            x[i] -= directions[c] / TOKENS
    return x.astype(np.float32), y


def quality(scores: np.ndarray, y: np.ndarray) -> float:
    """Accuracy, or the mean over classes of the average precision."""
    return float((scores.argmax(axis=1) == y).mean() if y.ndim == 1 else average_precision_score(y, scores))


def formed(net: TokenNet, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([net.form(of_a_stream.clone()) for of_a_stream in x])


# -------------------------------------------------------------------------------------------------------- prototypical


@pytest.mark.parametrize("problem", [ONE, MANY])
def test_prototypical_finds_a_planted_token_that_the_mean_does_not_show(problem: Problem) -> None:
    (x, y), (x_test, y_test) = planted(problem, 300, 0), planted(problem, 300, 1)
    pooled = Linear().fit(x.mean(axis=1), y, problem, seed=0).scores(x_test.mean(axis=1))
    found = Prototypical().fit(x, y, problem, seed=0).scores(x_test)
    assert quality(pooled, y_test) < 0.45
    assert quality(found, y_test) > 0.75


def net_and_weights(n_streams: int = 2, n_heads: int = 3) -> tuple[PrototypicalNet, dict[str, torch.Tensor]]:
    net = PrototypicalNet((1, TOKENS), (1, TOKENS), DIM - 3, CLASSES, 5, orthogonality=0.7, connection=1.0, bias=-2.0)
    rng = np.random.default_rng(0)
    w = {
        name: torch.from_numpy(np.stack([[net.init(rng)[name] for _ in range(n_heads)] for _ in range(n_streams)]))
        for name in ("prototypes", "connections", "bias")
    }
    w["connections"] += torch.from_numpy(rng.normal(size=w["connections"].shape)).float()
    w["bias"] += torch.from_numpy(rng.normal(size=w["bias"].shape)).float()
    return net, w


def test_prototypical_logits_are_their_formula() -> None:
    net, w = net_and_weights()
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 6, TOKENS, DIM - 3))).float()
    found = net.logits(w, formed(net, x))
    assert found.shape == (2, 3, CLASSES, 6)
    for s, h, c, b in np.ndindex(2, 3, CLASSES, 6):
        logit = float(w["bias"][s, h, c])
        for j in range(5):
            p = w["prototypes"][s, h, c, j, : DIM - 3].numpy()
            tokens = x[s, b].numpy()
            cosine = tokens @ p / np.linalg.norm(tokens, axis=1) / np.linalg.norm(p)
            logit += max(float(w["connections"][s, h, c, j]), 0) * max(cosine.max(), 0)
        assert float(found[s, h, c, b]) == pytest.approx(logit, abs=1e-5)


def test_orthogonality_is_its_formula_and_0_for_orthogonal_prototypes() -> None:
    net, w = net_and_weights()
    found = net.penalty(w)
    assert found is not None
    for s, h in np.ndindex(2, 3):
        total = 0.0
        for c in range(CLASSES):
            p = w["prototypes"][s, h, c].numpy()
            p = p / np.linalg.norm(p, axis=1, keepdims=True)
            total += ((p @ p.T - np.eye(5)) ** 2).sum()
        assert float(found[s, h]) == pytest.approx(0.7 * total**0.5 / (CLASSES * 25), rel=1e-4)
    w["prototypes"] = torch.eye(32)[:5].expand(2, 3, CLASSES, 5, 32).clone().requires_grad_()
    orthogonal = net.penalty(w)
    assert orthogonal is not None
    assert torch.allclose(orthogonal, torch.zeros(()))
    assert torch.isfinite(torch.autograd.grad(orthogonal.sum(), w["prototypes"])[0]).all()


@pytest.mark.parametrize("step", [1, 4, 100])
def test_the_gradient_of_the_nearest_token_is_autograds(step: int) -> None:
    rng = np.random.default_rng(0)
    p = torch.from_numpy(rng.normal(size=(2, 7, 16))).float().requires_grad_()
    x = torch.from_numpy(rng.normal(size=(2, 6, 9, 16))).float()
    weight = torch.from_numpy(rng.normal(size=(2, 7, 6))).float()
    ours = _Nearest.apply(p, x, step)
    plain = torch.einsum("skd,sbtd->skbt", p, x).amax(dim=3)
    torch.testing.assert_close(ours, plain)
    (found,) = torch.autograd.grad((ours * weight).sum(), p)
    (expected,) = torch.autograd.grad((plain * weight).sum(), p)
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_a_vector_of_length_1_is_autograds() -> None:
    rng = np.random.default_rng(0)
    p = torch.from_numpy(rng.normal(size=(2, 3, 4, 16))).float().requires_grad_()
    weight = torch.from_numpy(rng.normal(size=p.shape)).float()
    ours, plain = _Unit.apply(p, 0.0, 0.0), F.normalize(p, dim=-1)
    torch.testing.assert_close(ours, plain)
    (found,) = torch.autograd.grad((ours * weight).sum(), p)
    (expected,) = torch.autograd.grad((plain * weight).sum(), p)
    torch.testing.assert_close(found, expected)


def test_more_tokens_never_lower_a_class_for_its_last_layer_is_never_negative() -> None:
    net, w = net_and_weights()
    assert (w["connections"] < 0).any()  # as training may leave them
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 6, TOKENS, DIM - 3))).float()
    fewer, all_of_them = net.logits(w, formed(net, x[:, :, :4])), net.logits(w, formed(net, x))
    assert (all_of_them >= fewer - 1e-5).all()
    assert (all_of_them > fewer + 0.01).any()


def test_upsampled_tokens_lie_between_their_neighbours_in_the_grid() -> None:
    probe = Prototypical(PrototypicalParams(upsample=2, token_rows=3))
    net = probe.net((12, 2), CLASSES)
    assert isinstance(net, PrototypicalNet)
    assert (net.given, net.grid) == ((3, 4), (6, 8))
    row, column = np.divmod(np.arange(12), 4)
    x = torch.from_numpy(np.stack([row, column], axis=1).astype(np.float32))[None]
    found = net._interpolated(x)[0].numpy().reshape(6, 8, 2)
    of_two = net._interpolated(torch.cat([x, 2 * x]))
    torch.testing.assert_close(of_two[0], net._interpolated(x)[0])
    torch.testing.assert_close(of_two[1], 2 * of_two[0])
    between = [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]  # half of a token apart; beyond the last ones there is nothing
    np.testing.assert_allclose(found[0, :, 1], between)
    np.testing.assert_allclose(found[:, 0, 0], [0, 0.25, 0.75, 1.25, 1.75, 2])
    with pytest.raises(FitError, match="cannot put 12 tokens into token_rows=5"):
        Prototypical(PrototypicalParams(token_rows=5)).net((12, 2), CLASSES)


def test_the_published_recipe_of_prototypical_probing_learns() -> None:
    (x, y), (x_test, y_test) = planted(MANY, 300, 0), planted(MANY, 300, 1)
    params = PrototypicalParams(**(PrototypicalParams.PRESETS["bird-mae"] | {"token_rows": 3, "min_steps": 300}))
    x, x_test = (tokens - tokens.mean(axis=2, keepdims=True) for tokens in (x, x_test))  # as behind a LayerNorm
    assert quality(Prototypical(params).fit(x, y, MANY, seed=0).scores(x_test), y_test) > 0.75


# ----------------------------------------------------------------------------------------------------------- attentive


class Plain(nn.Module):
    """The attentive probe of one head out of torch's own modules."""

    def __init__(self, w: dict[str, np.ndarray], depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        t = {name: torch.from_numpy(a) for name, a in w.items()}
        self.blocks = nn.ModuleList()
        for i in range(1, depth):
            block = nn.TransformerEncoderLayer(DIM, heads, hidden, 0.0, "gelu", batch_first=True, norm_first=True)
            names = {
                "norm1": "norm1",
                "norm2": "norm2",
                "linear1": "fc1",
                "linear2": "fc2",
                "self_attn.out_proj": "proj",
            }
            state = {f"{a}.{k}": t[f"block{i}.{b}.{k}"] for a, b in names.items() for k in ("weight", "bias")}
            state |= {f"self_attn.in_proj_{k}": t[f"block{i}.qkv.{k}"] for k in ("weight", "bias")}
            block.load_state_dict(state)
            self.blocks.append(block)
        self.t, self.heads = t, heads

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.t[f"{name}.weight"], self.t[f"{name}.bias"])

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (DIM,), self.t[f"{name}.weight"], self.t[f"{name}.bias"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        k, v = self.linear("cross.kv", self.norm("cross.norm1", x)).chunk(2, dim=-1)
        q = self.linear("cross.q", self.t["query"][None])
        pooled = []
        for b in range(len(x)):
            parts = zip(*(z.chunk(self.heads, dim=-1) for z in (q[0], k[b], v[b])), strict=True)
            attended = [((a @ c.T) / (DIM // self.heads) ** 0.5).softmax(dim=-1) @ d for a, c, d in parts]
            pooled.append(self.t["query"] + torch.cat(attended, dim=-1))
        z = torch.cat(pooled)
        z = z + self.linear("cross.fc2", F.gelu(self.linear("cross.fc1", self.norm("cross.norm2", z))))
        return self.linear("head", z)


@pytest.mark.parametrize("depth", [1, 3])
def test_attentive_logits_are_those_of_torchs_own_modules(depth: int) -> None:
    net = AttentiveNet(TOKENS, DIM, CLASSES, depth, heads=4, hidden=48, init_std=0.3)
    heads = [[net.init(np.random.default_rng(10 * s + h)) for h in range(2)] for s in range(3)]
    w = {name: torch.from_numpy(np.stack([[h[name] for h in row] for row in heads])) for name in heads[0][0]}
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 5, TOKENS, DIM))).float()
    found = net.logits(w, formed(net, x))
    assert found.shape == (3, 2, CLASSES, 5)
    for s, h in np.ndindex(3, 2):
        with torch.no_grad():
            expected = Plain(heads[s][h], depth, 4, 48).eval()(x[s])
        torch.testing.assert_close(found[s, h].T, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("problem", [ONE, MANY])
@pytest.mark.parametrize("depth", [1, 3])
def test_attentive_learns(problem: Problem, depth: int) -> None:
    rng = np.random.default_rng(0)
    directions = 3 * np.linalg.qr(np.random.default_rng(9).normal(size=(DIM, DIM)))[0][:CLASSES]

    def examples(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, CLASSES, n) if problem is ONE else (rng.random((n, CLASSES)) < 0.3).astype(np.uint8)
        shown = directions[y] if problem is ONE else y @ directions
        x = 0.5 * rng.normal(size=(n, 5, DIM))
        x[:, 0] += shown
        return x.astype(np.float32), y

    (x, y), (x_test, y_test) = examples(300), examples(200)
    probe = Attentive(AttentiveParams(depth=depth, heads=4, min_steps=0, epochs=20, lr=2e-3))
    assert quality(probe.fit(x, y, problem, seed=0).scores(x_test), y_test) > 0.9


def test_heads_adapt_to_the_width_of_the_tokens() -> None:
    def heads(dim: int) -> int:
        net = Attentive().net((TOKENS, dim), CLASSES)
        assert isinstance(net, AttentiveNet)
        return net.heads

    assert [heads(dim) for dim in (768, 256, 192, 64, 40, 50, 8, 37)] == [16, 16, 12, 4, 2, 2, 1, 1]


def test_the_first_weights_are_larger_for_narrower_tokens() -> None:
    for dim, std in ((1024, 0.02), (64, 0.08)):
        first = Attentive(AttentiveParams(depth=1)).net((TOKENS, dim), CLASSES).init(np.random.default_rng(0))
        assert first["cross.kv.weight"].std() == pytest.approx(std, rel=0.03)


def test_weight_decay_is_for_matrices_alone() -> None:
    net = Attentive().net((TOKENS, DIM), CLASSES)
    decays = {name: net.rate(name, AttentiveParams(weight_decay=0.5))[1] for name in net.init(np.random.default_rng(0))}
    assert {name for name, d in decays.items() if d} == {
        name for name, w in net.init(np.random.default_rng(0)).items() if w.ndim == 2 and name != "query"
    }


# ---------------------------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("problem", [ONE, MANY])
@pytest.mark.parametrize("probe", [PROTOTYPICAL, ATTENTIVE])
def test_heads_trained_together_are_as_they_would_be_alone(probe: TokenProbe, problem: Problem) -> None:
    x, y = planted(problem, 60, 0)
    settings = [type(probe)(dataclasses.replace(probe.params, lr=lr)) for lr in (1e-3, 1e-2)]
    subsets = [Subset(np.arange(n), seed) for n in (60, 25, 7) for seed in (0, 1)]
    grid = [(p, s) for p in settings for s in subsets]
    for (member, subset), fitted in zip(grid, fit_grid(grid, x, y, problem), strict=True):
        alone = member.fit(x[subset.rows], y[subset.rows], problem, seed=subset.seed)
        np.testing.assert_allclose(fitted.scores(x), alone.scores(x), atol=1e-5, rtol=1e-5)
        assert fitted.record == pytest.approx(alone.record)


@pytest.mark.parametrize("probe", [PROTOTYPICAL, ATTENTIVE, Attentive(AttentiveParams(depth=1, **SMALL))])
def test_updates_in_one_pass_are_those_made_step_by_step(probe: TokenProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = planted(ONE, 60, 0)
    scores = []
    for smallest in (1, 10**9):
        monkeypatch.setattr("benchkit.classifiers.trainer.FUSED", smallest)
        scores.append(probe.fit(x, y, ONE, seed=0).scores(x))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("norm", ["layer+standard", "layer", "standard", "none"])
@pytest.mark.parametrize("in_cache", [1, 4 * 3 * TOKENS * DIM, 2**30])
def test_minibatches_are_the_tokens_normalised_and_of_length_1(
    dtype: Any, norm: Any, in_cache: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchkit.classifiers.token_table.IN_CACHE", in_cache)
    x, y = planted(ONE, 40, 0)
    x = 3 * x.astype(dtype) + 1
    before = x.copy()
    probe = Prototypical(PrototypicalParams(norm=norm))
    splits = [Split(np.arange(40), np.arange(0)), Split(np.arange(5), np.arange(5, 9))]
    prepared = probe.prepare(x, y, splits, probe.net((TOKENS, DIM), CLASSES), "cpu")
    rows = np.stack([s.train[[4, 0, 3, 3, 1, 2, 0]] for s in prepared.splits])
    first = prepared.examples.take(rows[:1, ::-1])[0].clone()
    tokens, labels = prepared.examples.take(rows)
    for s, normaliser in enumerate(prepared.normalisers):
        plain = normaliser(x[rows[s] % 40].reshape(-1, DIM).astype(np.float32)).reshape(7, TOKENS, DIM)
        plain /= np.linalg.norm(plain, axis=-1, keepdims=True)
        np.testing.assert_allclose(tokens[s], plain, atol=1e-6)
        np.testing.assert_array_equal(labels[s], y[rows[s] % 40])
    torch.testing.assert_close(first[0].flip(0), tokens[0], rtol=0, atol=0)
    np.testing.assert_array_equal(x, before)


def test_threads_that_take_minibatches_at_the_same_time_do_not_share_their_memory() -> None:
    x, y = planted(ONE, 40, 0)
    probe = Prototypical()
    prepared = probe.prepare(x, y, [Split(np.arange(40), np.arange(0))], probe.net((TOKENS, DIM), CLASSES), "cpu")
    mine = prepared.examples.take(np.arange(8)[None])[0]
    kept = mine.clone()
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(prepared.examples.take, np.arange(8, 16)[None]).result()[0]
    torch.testing.assert_close(mine, kept, rtol=0, atol=0)
    assert not torch.equal(other, mine)


@pytest.mark.parametrize("probe", [PROTOTYPICAL, ATTENTIVE])
def test_a_memory_map_is_read_a_part_at_a_time(probe: TokenProbe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (6000, 32, 64)
    mapped = np.memmap(tmp_path / "tokens", np.float16, "w+", shape=shape)  # 24 MB
    for i in range(0, shape[0], 1000):
        mapped[i : i + 1000] = rng.standard_normal((1000, *shape[1:]), np.float32)
    mapped.flush()
    y = rng.integers(0, CLASSES, shape[0])
    probe = type(probe)(dataclasses.replace(probe.params, epochs=1, min_steps=0, batch=200, norm_examples=50))
    tracemalloc.start()
    fitted = probe.fit(np.memmap(tmp_path / "tokens", np.float16, "r", shape=shape), y, ONE, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * mapped.nbytes
    few = np.arange(0, 6000, 100)
    same = probe.fit(np.asarray(mapped[few], np.float32), y[few], ONE, seed=0).scores(
        np.asarray(mapped[:3], np.float32)
    )
    again = next(probe.fit_many(mapped, y, ONE, [Subset(few, 0)])).scores(mapped[:3])
    np.testing.assert_allclose(same, again, atol=1e-5)
    assert np.isfinite(fitted.scores(mapped[:3])).all()


@pytest.mark.parametrize("probe", [PROTOTYPICAL, ATTENTIVE])
def test_a_dimension_at_2500_does_not_hide_the_others(probe: TokenProbe) -> None:
    (x, y), (x_test, y_test) = planted(ONE, 200, 0), planted(ONE, 200, 1)
    probe = type(probe)(dataclasses.replace(probe.params, epochs=25))
    plain = quality(probe.fit(x, y, ONE, seed=0).scores(x_test), y_test)
    rng = np.random.default_rng(2)
    for tokens in (x, x_test):
        tokens[:, :, 5] = 2500 + 20 * rng.standard_normal(tokens.shape[:2])
    assert quality(probe.fit(x, y, ONE, seed=0).scores(x_test), y_test) > plain - 0.15


def test_early_stopping_holds_out_examples_of_tokens_too() -> None:
    x, y = planted(ONE, 80, 0)
    probe = Prototypical(dataclasses.replace(PROTOTYPICAL.params, val=0.25, patience=2, prototype_lr=0.5))
    fitted = probe.fit(x, y, ONE, seed=0)
    assert fitted.record["epochs"] >= fitted.record["best_epoch"] >= 1
    assert np.isfinite(fitted.record["val_loss"])


def test_pooled_features_are_refused_in_one_line() -> None:
    x, y = np.zeros((4, DIM), np.float32), np.array([0, 1, 0, 1])
    for probe, name in ((PROTOTYPICAL, "prototypical"), (ATTENTIVE, "attentive")):
        with pytest.raises(FitError, match=rf"{name} needs tokens, \[T, D\] for each example, .* of shape \[32\]"):
            probe.fit(x, y, ONE, seed=0)


def test_the_losses_that_auto_stands_for() -> None:
    x, y = planted(MANY, 60, 0)
    auto = PROTOTYPICAL.fit(x, y, MANY, seed=0).scores(x)
    named = [
        Prototypical(dataclasses.replace(PROTOTYPICAL.params, loss=loss)).fit(x, y, MANY, seed=0).scores(x)
        for loss in ("asymmetric", "bce")
    ]
    np.testing.assert_array_equal(auto, named[0])
    assert np.abs(auto - named[1]).max() > 1e-3


class TestPrototypical(ClassifierSuite):
    spec = "prototypical,prototypes=4,min_steps=150"


class TestAttentive(ClassifierSuite):
    spec = "attentive,depth=2,epochs=10,min_steps=130"
