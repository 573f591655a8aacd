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
