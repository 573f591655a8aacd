"""Presets with a paper's name beside the published recipe, written out in plain torch from the same first weights."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchkit.catalog.resolve import resolve
from benchkit.interfaces import Problem
from benchkit.machine.seeds import Purpose, generator

PROBLEM = Problem("multilabel", 3, ("a", "b", "c"))
SEED = 4


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 16)).astype(np.float32)
    y = (x @ rng.normal(size=(16, 3)) > 2).astype(np.uint8)
    return x, y


def asymmetric(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """util/asymmetric_loss.py of Bird-MAE: gamma 4 and 1, clip 0.05."""
    p = torch.sigmoid(z)
    q = (1 - p + 0.05).clamp(max=1)
    loss = y * torch.log(p.clamp(min=1e-8)) + (1 - y) * torch.log(q.clamp(min=1e-8))
    pt = p * y + q * (1 - y)
    return -(loss * (1 - pt) ** (y + 4 * (1 - y))).mean()


def warm_cosine(step: int, warm: float, total: int, peak: float, least: float) -> float:
    """models/components/cosine_warmup.py of Bird-MAE, and transformers' cosine where `least` is 0."""
    if step < warm:
        return peak * step / max(1.0, warm)
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))


def batches(n: int, size: int, epochs: int) -> list[np.ndarray]:
    """Whole minibatches, those of an epoch in its own order, as probes draw it."""
    rng, made = generator(SEED, Purpose.SHUFFLE), []
    for _ in range(epochs):
        order = rng.permutation(n)
        made += [order[i : i + size] for i in range(0, n - size + 1, size)]
    return made


def bird_mae(
    model: nn.Module, groups: list[dict[str, Any]], x: Any, y: Any, size: int, epochs: int, extra: Any
) -> None:
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    peaks = [group["lr"] for group in optimizer.param_groups]
    steps = batches(len(x), size, epochs)
    for step, rows in enumerate(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = warm_cosine(step, 0.067 * len(steps), len(steps), peak, 1e-6)
        optimizer.zero_grad()
        (asymmetric(model(x[rows]), y[rows]) + extra()).backward()
        nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], 2.0)
        optimizer.step()


@pytest.mark.parametrize(("preset", "lr", "epochs", "bias_decays"), [
    ("bird-mae", 4e-4, 30, True), ("bird-mae-fewshot", 3e-4, 50, False),
])  # fmt: skip
def test_linear_is_bird_maes(data: Any, preset: str, lr: float, epochs: int, bias_decays: bool) -> None:
    x, y = data
    probe = resolve("classifier", f"linear:{preset}").build()
    first = probe.net((16,), 3).init(generator(SEED, Purpose.INIT))["weight"]
    assert first[:, :16].std() == pytest.approx(0.02, rel=0.25)
    layer = nn.Linear(16, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(first[:, :16]))
        layer.bias.zero_()
    model = nn.Sequential(nn.LayerNorm(16, eps=1e-6, elementwise_affine=False), layer)
    groups = [
        {"params": [layer.weight], "lr": lr, "weight_decay": 3e-4},
        {"params": [layer.bias], "lr": lr, "weight_decay": 3e-4 if bias_decays else 0.0},
    ]
    tx, ty = torch.from_numpy(x), torch.from_numpy(y).float()
    bird_mae(model, groups, tx, ty, 64, epochs, lambda: 0.0)
    found = probe.fit(x, y, PROBLEM, seed=SEED).scores(x)
    np.testing.assert_allclose(found, model(tx).detach().numpy(), atol=1e-4)


class PPNet(nn.Module):
    """models/ppnet/ppnet.py of Bird-MAE: tokens [B, 16, D] as 8 rows of 2, interpolated to 16 of 4."""

    def __init__(self, prototypes: np.ndarray) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.from_numpy(prototypes.copy()))
        self.w, self.b = (
            nn.Parameter(torch.ones(prototypes.shape[:2])),
            nn.Parameter(torch.full((len(prototypes),), -2.0)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = F.interpolate(x.permute(0, 2, 1).reshape(len(x), -1, 8, 2), scale_factor=2, mode="bilinear")
        channel = torch.full((len(x), 2, 16, 4), 1e-4)
        planes = torch.cat([planes, channel], dim=1)
        planes = 64 * planes / torch.sqrt((planes**2).sum(dim=1, keepdim=True) + 1e-4)
        p = torch.cat([self.p, torch.full((*self.p.shape[:2], 2), 1e-4)], dim=2).flatten(0, 1)
        p = p / (torch.sqrt((p**2).sum(dim=1, keepdim=True) + 1e-4) + 1e-4)
        near = torch.einsum("bdhw,kd->bkhw", planes, p).flatten(2).amax(dim=2) / (64 * 1.01)
        near = torch.relu(near).unflatten(1, self.w.shape)
        return torch.einsum("bcj,cj->bc", near, torch.relu(self.w)) + self.b

    def apart(self) -> torch.Tensor:
        unit = self.p / (torch.sqrt((self.p**2).sum(dim=2, keepdim=True) + 1e-4) + 1e-4)
        gram = unit @ unit.transpose(1, 2) - torch.eye(self.p.shape[1])
        return torch.norm(gram) / gram.numel()


@pytest.mark.parametrize(("preset", "lr", "size", "epochs"), [
    ("bird-mae", 3e-4, 128, 30), ("bird-mae-huge", 3e-4, 64, 30), ("bird-mae-fewshot", 4e-4, 64, 50),
])  # fmt: skip
def test_prototypical_is_bird_maes(preset: str, lr: float, size: int, epochs: int) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(140, 16, 8)).astype(np.float32), (rng.random((140, 3)) < 0.4).astype(np.uint8)
    x[:, 3] += 2 * (y @ rng.normal(size=(3, 8))).astype(np.float32)
    probe = resolve("classifier", f"prototypical:{preset}").build()
    first = probe.net((16, 8), 3).init(generator(SEED, Purpose.INIT))["prototypes"][:, :, :8]
    assert first.shape == (3, 20, 8)
    assert 0 <= first.min() < first.max() < 1
    model = PPNet(first)
    groups = [
        {"params": [model.p], "lr": 0.04, "weight_decay": 3e-4},
        {"params": [model.w, model.b], "lr": lr, "weight_decay": 1e-4},
    ]
    tx, ty = torch.from_numpy(x), torch.from_numpy(y).float()
    bird_mae(model, groups, tx, ty, size, epochs, model.apart)
    found = probe.fit(x, y, PROBLEM, seed=SEED).scores(x)
    # Within 1 % of logits near 10: which of two tokens is the nearer is sometimes decided by rounding.
    np.testing.assert_allclose(found, model(tx).detach().numpy(), rtol=1e-3, atol=2e-2)


class VJepa2(nn.Module):
    """src/models/attentive_pooler.py of V-JEPA 2: pre-norm blocks, then a query that reads through one of its own."""

    def __init__(self, dim: int, heads: int, n_classes: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in ("a1", "a2", "c1", "c2")})
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.mlps = nn.ModuleDict({
            name: nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for name in ("a", "c")
        })  # fmt: skip
        self.query, self.head = nn.Parameter(torch.zeros(1, 1, dim)), nn.Linear(dim, n_classes)

    def load(self, w: dict[str, np.ndarray]) -> None:
        a, c = self.norms, self.mlps
        places = {
            "block1.norm1": a["a1"], "block1.qkv": self.qkv, "block1.proj": self.proj, "block1.norm2": a["a2"],
            "block1.fc1": c["a"][0], "block1.fc2": c["a"][2], "cross.norm1": a["c1"], "cross.q": self.q,
            "cross.kv": self.kv, "cross.norm2": a["c2"], "cross.fc1": c["c"][0], "cross.fc2": c["c"][2],
            "head": self.head,
        }  # fmt: skip
        with torch.no_grad():
            self.query.copy_(torch.from_numpy(w["query"])[None])
            for name, layer in places.items():
                layer.weight.copy_(torch.from_numpy(w[f"{name}.weight"]))
                layer.bias.copy_(torch.from_numpy(w[f"{name}.bias"]))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        q, k, v = (z.unflatten(2, (self.heads, -1)).transpose(1, 2) for z in (q, k, v))
        weight = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(dim=3)
        return (weight @ v).transpose(1, 2).flatten(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.proj(self.attend(*self.qkv(self.norms["a1"](x)).chunk(3, dim=2)))
        x = x + self.mlps["a"](self.norms["a2"](x))
        query = self.query.expand(len(x), -1, -1)
        y = query + self.attend(self.q(query), *self.kv(self.norms["c1"](x)).chunk(2, dim=2))
        return self.head((y + self.mlps["c"](self.norms["c2"](y)))[:, 0])


def trained(model: nn.Module, optimizer: Any, x: Any, y: Any, size: int, epochs: int, rate: Any, loss: Any) -> None:
    steps = batches(len(x), size, epochs)
    for step, rows in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, len(steps))
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()


def test_attentive_is_vjepa2s() -> None:
    """One configuration of its grid: cosine from the first step on, no warm-up, every tensor decays, no clipping."""
    rng = np.random.default_rng(2)
    y = np.arange(96) % 3
    x = rng.normal(size=(96, 5, 32)).astype(np.float32)
    x[:, 2] += 2 * rng.normal(size=(3, 32)).astype(np.float32)[y]
    spec = "attentive:vjepa2,depth=2,heads=2,batch=32,lr_grid=none,decay_grid=none,lr=0.001,weight_decay=0.4,epochs=10"
    probe = resolve("classifier", spec).build()
    first = probe.net((5, 32), 3).init(generator(SEED, Purpose.INIT))
    assert first["block1.qkv.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert first["block1.fc2.weight"].std() == pytest.approx(0.02 / 2**0.5, rel=0.1)
    model = VJepa2(32, 2, 3)
    model.load(first)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.4)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y)
    trained(model, optimizer, tx, ty, 32, 10,
            lambda step, n: 1e-3 * 0.5 * (1 + math.cos(math.pi * (step + 1) / n)), F.cross_entropy)  # fmt: skip
    found = probe.fit(x, y, Problem("multiclass", 3, ("a", "b", "c")), seed=SEED).scores(x)
    np.testing.assert_allclose(found, model(tx).log_softmax(dim=1).detach().numpy(), atol=1e-4)


class Aim(nn.Module):
    """The attentive pooling of AIM as BioFoundation has it: keys and values without bias, a query of each head."""

    def __init__(self, first: dict[str, np.ndarray], dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.value = (nn.Parameter(torch.from_numpy(first[name].copy())) for name in ("key", "value"))
        self.query = nn.Parameter(torch.from_numpy(first["query"].copy()))
        self.weight = nn.Parameter(torch.from_numpy(first["head"][:, :dim].copy()))
        self.bias = nn.Parameter(torch.from_numpy(first["head"][:, dim].copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        k, v = ((x @ w.T).unflatten(2, (self.heads, -1)) for w in (self.key, self.value))
        q = self.query[0].unflatten(0, (self.heads, -1))
        weight = (torch.einsum("he,bthe->bht", q, k) / math.sqrt(q.shape[1])).softmax(dim=2)
        return torch.einsum("bht,bthe->bhe", weight, v).flatten(1) @ self.weight.T + self.bias


@pytest.mark.parametrize(("preset", "decay"), [("biofoundation", 5e-4), ("biofoundation-beans", 7e-3)])
def test_attentive_pool_is_biofoundations(preset: str, decay: float) -> None:
    """Its last epoch: which is the best on what is held out is tested by itself (test_training.py)."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(128, 6, 128)).astype(np.float32), (rng.random((128, 3)) < 0.4).astype(np.uint8)
    x[:, 1] += (y @ rng.normal(size=(3, 128))).astype(np.float32)
    probe = resolve("classifier", f"attentive-pool:{preset},val=0.0,epochs=5,min_steps=0,batch=32").build()
    first = probe.net((6, 128), 3).init(generator(SEED, Purpose.INIT))
    assert first["query"].std() == pytest.approx(0.02, rel=0.2)
    assert 0.9 < np.abs(first["key"]).max() * math.sqrt(128) <= 1
    model = Aim(first, 128, 2)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=decay)
    tx, ty = torch.from_numpy(x), torch.from_numpy(y).float()
    steps = 5 * 4
    trained(model, optimizer, tx, ty, 32, 5,
            lambda step, _: warm_cosine(step, math.ceil(0.05 * steps), steps, 1.3e-3, 0.0),
            F.binary_cross_entropy_with_logits)  # fmt: skip
    found = probe.fit(x, y, PROBLEM, seed=SEED).scores(x)
    np.testing.assert_allclose(found, model(tx).detach().numpy(), atol=1e-3)
