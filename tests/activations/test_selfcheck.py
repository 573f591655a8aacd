"""What is recorded at a place is what the place is called, or nothing is."""

from pathlib import Path

import numpy as np
import pytest

from benchkit.activations import record
from benchkit.activations.selfcheck import untrue
from benchkit.catalog.resolve import resolve
from benchkit.errors import PluginError

PLACES = ("resid_pre", "norm1", "attn_out", "resid_mid", "norm2", "mlp_out", "resid_post")


def block(dim: int = 12) -> dict[str, np.ndarray]:
    """A pre-norm block with an outlier dimension."""
    rng = np.random.default_rng([1, 2])

    def norm(x: np.ndarray) -> np.ndarray:
        z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return z * rng.uniform(0.5, 2, dim) + rng.standard_normal(dim)

    pre = rng.standard_normal((3, 10, dim))
    pre[..., 4] += 2500
    first = norm(pre)
    attn = first @ rng.standard_normal((dim, dim))
    second = norm(pre + attn)
    mlp = np.maximum(second @ rng.standard_normal((dim, dim)), 0)
    made = (pre, first, attn, pre + attn, second, mlp, pre + attn + mlp)
    return {name: x.astype(np.float32) for name, x in zip(PLACES, made, strict=True)}


def test_a_pre_norm_block_is_what_it_says() -> None:
    at = block()
    assert untrue(at) == {}
    assert untrue({name: x for name, x in at.items() if name != "resid_mid"}) == {}
    assert untrue({"resid_pre": at["resid_pre"]}) == {}


def test_an_rms_norm_is_a_norm() -> None:
    at = block()
    x = at["resid_pre"].astype(np.float64)
    scaled = x / np.sqrt((x**2).mean(-1, keepdims=True)) * np.linspace(0.5, 2, 12)
    assert untrue({"resid_pre": at["resid_pre"], "norm1": scaled.astype(np.float32)}) == {}


@pytest.mark.parametrize(
    ("place", "other", "wrong"),
    [
        ("norm2", "resid_post", "norm2"), ("norm1", "norm2", "norm1"), ("mlp_out", "attn_out", "mlp_out"),
        ("attn_out", "mlp_out", "attn_out"), ("resid_mid", "resid_post", "resid_mid"),
    ],
)  # fmt: skip
def test_a_place_that_is_another_is_named(place: str, other: str, wrong: str) -> None:
    at = block()
    at["resid_pre"] = at["resid_pre"] - 2500 * (np.arange(12) == 4)  # or its size hides all that is added
    at |= {name: at[name] - 2500 * (np.arange(12) == 4).astype(np.float32) for name in ("resid_mid", "resid_post")}
    at = {name: x.astype(np.float32) for name, x in at.items()}
    assert wrong in untrue(at | {place: at[other]})


def test_nothing_is_recorded_under_a_wrong_name(task: str, model: str, tmp_path: Path, monkeypatch) -> None:
    cls = type(resolve("model", model).build())
    before = cls.activations

    def mixed_up(self, batch, points):
        shown = before(self, batch, tuple({*points, "blocks.1.norm1", "blocks.1.norm2"}))
        swap = {"blocks.1.norm1": "blocks.1.norm2", "blocks.1.norm2": "blocks.1.norm1"}
        return {point: shown[swap.get(point, point)] for point in points}

    monkeypatch.setattr(cls, "activations", mixed_up)
    with pytest.raises(PluginError, match=r"something else at 'blocks.1.norm2' than its name says: it is no norm of"):
        record(task, model, ["blocks.1.norm2"], tmp_path / "r", split="clips", limit=2, workers=0)
    assert record(task, model, ["blocks.1.resid_post"], tmp_path / "s", split="clips", limit=2, workers=0).only
