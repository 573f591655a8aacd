"""The check `repeatable`: features that depend on their neighbours, on chance, or on what came before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit.api import Settings
from benchkit.checks import check_repeatable
from benchkit.checks.repeatable import ROUNDING, Again, difference, scale_of
from benchkit.interfaces import Encoded
from benchkit.records.report import Check
from benchkit_baselines.pixels import Pixels

PLAIN = Pixels.encode
Encode = Callable[..., Encoded]


def repeatable(tmp_path: Path, classifier: str = "centroid", **more: Any) -> Check:
    settings = Settings(db=tmp_path / "r.sqlite", cache=tmp_path / "cache", replicates=0, workers=0, **more)
    (report,) = benchkit.run(task="digits", model="pixels", classifier=classifier, n_train=20, settings=settings)
    (check,) = [c for c in report.checks if c.name == "repeatable"]
    return check


def pooled(function: Callable[[Pixels, np.ndarray], np.ndarray]) -> Encode:
    def encode(self: Pixels, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return Encoded(function(self, PLAIN(self, batch).pooled).astype(np.float32), None)

    return encode


def test_features_of_each_example_by_itself_pass_for_sixteen_encodings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []

    def counted(self: Pixels, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        batches.append(len(batch))
        return PLAIN(self, batch, tokens=tokens)

    monkeypatch.setattr(Pixels, "encode", counted)
    check = repeatable(tmp_path)
    assert (check.status, check.details["examples"]) == ("ok", 16)
    assert check.details["largest"] == 0.0
    assert batches[-5:] == [1, 1, 1, 1, 12]
    assert sum(batches) == 200 + 596 + 16
    batches.clear()
    assert repeatable(tmp_path, classifier="knn").status == "ok"
    assert sum(batches) == 16, "features that come from the cache are looked at too"


@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_a_backbone_that_normalises_over_its_batch_fails_whatever_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    over_batch = pooled(lambda _, x: (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-5))
    monkeypatch.setattr(Pixels, "encode", over_batch)
    check = repeatable(tmp_path, batch_size=batch_size)
    assert (check.status, check.details["cause"]) == ("fail", "neighbours"), check.summary
    assert "--batch-size" in check.summary


def test_a_batch_normalisation_that_refuses_one_example_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: Pixels, x: np.ndarray) -> np.ndarray:
        if len(x) == 1:
            raise ValueError("Expected more than 1 value per channel when training")
        return x - x.mean(axis=0)

    monkeypatch.setattr(Pixels, "encode", pooled(refuses))
    check = repeatable(tmp_path)
    assert (check.status, check.details["cause"]) == ("fail", "neighbours")
    assert "Expected more than 1 value per channel" in check.summary


@pytest.mark.parametrize("noise", [0.003, 1.0])
def test_a_backbone_with_noise_in_each_call_depends_on_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise: float
) -> None:
    rng = np.random.default_rng()
    monkeypatch.setattr(Pixels, "encode", pooled(lambda _, x: x + noise * x.std() * rng.standard_normal(x.shape)))
    check = repeatable(tmp_path)
    assert (check.status, check.details["cause"]) == ("fail", "chance"), check.summary


def test_weights_that_each_instance_draws_anew_depend_on_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def project(self: Pixels, x: np.ndarray) -> np.ndarray:
        if not hasattr(self, "drawn"):
            self.drawn = np.random.default_rng().standard_normal((x.shape[1], x.shape[1]))  # type: ignore[attr-defined]
        return x @ self.drawn  # type: ignore[attr-defined]

    monkeypatch.setattr(Pixels, "encode", pooled(project))
    check = repeatable(tmp_path)
    assert (check.status, check.details["cause"]) == ("fail", "chance"), check.summary
    assert "fixed seed" in check.summary


def test_random_crops_depend_on_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, rng = Pixels.preprocess, np.random.default_rng()
    monkeypatch.setattr(Pixels, "preprocess", lambda self, raw: plain(self, np.roll(raw, rng.integers(1, 7), axis=1)))
    check = repeatable(tmp_path)
    assert (check.status, check.details["cause"]) == ("fail", "chance"), check.summary


def test_features_that_depend_on_what_was_encoded_before_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def settles(_: Pixels, x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return x * (1.0 + 1.0 / len(seen)) if len(seen) < 20 else x

    monkeypatch.setattr(Pixels, "encode", pooled(settles))
    check = repeatable(tmp_path, batch_size=16)
    assert (check.status, check.details["cause"]) == ("fail", "history"), check.summary


def test_rounding_is_no_difference_and_an_outlier_dimension_hides_none() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 64)).astype(np.float32)
    x[:, 3] = 2500 + 0.4 * x[:, 3]
    x[:, 5] = 7.0
    scale = scale_of(x)
    rounded = (x.astype(np.float64) * (1 + 1e-6 * rng.standard_normal(x.shape))).astype(np.float32)
    assert difference(x, rounded, scale).max() < ROUNDING / 10
    moved = x.copy()
    moved[:, 10:20] += 0.1
    assert difference(x, moved, scale).min() > ROUNDING
    broken = x.copy()
    broken[1, 0] = np.nan
    assert np.isinf(difference(x, broken, scale)[1])
    assert difference(broken, broken, scale).max() == 0.0


def test_an_example_that_does_not_decode_any_more_is_no_repetition() -> None:
    check = check_repeatable([Again("a", "decoded again", np.inf, "does not decode any more: gone")], None, ROUNDING)
    assert check.status == "fail"
    assert "'a' decoded again does not decode any more" in check.summary
