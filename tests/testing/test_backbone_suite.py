"""The backbone suite passes what is right and catches each thing that is wrong, in words that say what."""

import functools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from benchkit.catalog.spec import param
from benchkit.errors import BenchkitError, SpecError
from benchkit.interfaces import Backbone, Encoded, Trainable, Weights
from benchkit.media.fingerprint import fingerprint
from benchkit.testing import BackboneSuite, check_backbone

RATE, SAMPLES, FRAME, DIM = 8000, 8000, 200, 6


def encoded(pooled: Any, tokens: Any = None) -> Encoded:
    """An Encoded that may be wrong: the tests' type checks on its constructor would be faster than the suite."""
    made = object.__new__(Encoded)
    object.__setattr__(made, "pooled", pooled)
    object.__setattr__(made, "tokens", tokens)
    return made


@dataclass(frozen=True)
class RightParams:
    seed: int = param(0, help="of the weights", low=0)


class Right(Backbone):
    """One second of sound in 40 frames, or 8 x 8 pixels, times random weights."""

    Params: ClassVar[type] = RightParams
    modalities = ("audio", "image")
    sample_rate = RATE
    dim = DIM
    weights: np.ndarray | None = None

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        if raw.ndim == 1:
            wave = np.zeros(SAMPLES, np.float32)
            wave[: min(SAMPLES, len(raw))] = raw[:SAMPLES]
            return wave
        grey = raw.mean(axis=2)
        rows, columns = (np.linspace(0, n - 1, 80).astype(int) for n in grey.shape)
        return (grey[rows][:, columns[:100]].reshape(-1)[:SAMPLES] / 255).astype(np.float32)

    def setup(self, device: str) -> None:
        self.weights = np.random.default_rng(self.params.seed).standard_normal((FRAME, DIM)).astype(np.float32)

    def tokens_of(self, batch: np.ndarray) -> np.ndarray:
        assert self.weights is not None
        padded = np.zeros((len(batch), SAMPLES), np.float32)
        padded[:, : batch.shape[1]] = batch
        return np.abs(padded.reshape(len(batch), -1, FRAME) @ self.weights)

    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        found = self.tokens_of(batch)
        return encoded(found.mean(axis=1), found if tokens else None)

    def points(self) -> tuple[str, ...]:
        return tuple(f"frames.{i}" for i in range(9))

    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, np.ndarray]:
        if unknown := set(points) - set(self.points()):
            raise BenchkitError(f"no place named {unknown}")
        return {point: self.tokens_of(batch) for point in points}

    def fingerprint(self) -> str:
        assert self.weights is not None
        return fingerprint(self.weights.astype(float).tolist())


class TestRight(BackboneSuite):
    backbone = Right


class Tunes(Right):
    """Right, in torch too."""

    share: ClassVar[bool] = False
    factor: ClassVar[float] = 1.0

    def trainable(self) -> Trainable:
        import torch

        module = torch.nn.Linear(FRAME, DIM, bias=False, device="meta")
        weights = torch.from_numpy(self.weights if self.share else self.weights.copy())
        module.weight = torch.nn.Parameter(weights.T)
        return Trainable(
            module,
            lambda x: (
                self.factor
                * module(torch.nn.functional.pad(x, (0, SAMPLES - x.shape[1])).unflatten(1, (-1, FRAME)))
                .abs()
                .mean(dim=1)
            ),
            {"weight": 0},
            1,
        )


class TestTunes(BackboneSuite):
    backbone = Tunes
    other = Right(RightParams(seed=1))


class TestAnInstanceWithParams(BackboneSuite):
    backbone = Right(RightParams(seed=3))


def test_all_checks_run_without_pytest() -> None:
    check_backbone(Right, other=Right(RightParams(seed=1)))


# ------------------------------------------------------------------------------------------------------ what is broken


class ThawedParams(Right):
    @dataclass
    class Params:
        seed: int = 0


class OtherParams(Right):
    def __init__(self, params: Any = None) -> None:
        self.params = 3


class Unspeakable(Right):
    @dataclass(frozen=True)
    class Params:
        seed: int = 0
        words: tuple[str, ...] = ("a+b",)


class NoVersion(Right):
    version: Any = "1.0"


class NoMedia(Right):
    modalities: Any = ("video",)


class NoRate(Right):
    sample_rate = None


class Unpicklable(Right):
    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.activation = lambda x: x


class LosesState(Right):
    """Preprocesses otherwise once it was pickled."""

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.gain = 2.0

    def __getstate__(self) -> dict[str, Any]:
        return {"params": self.params, "gain": 1.0}

    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return super().preprocess(raw) * np.float32(self.gain)


class AnyLength(Right):
    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return raw.reshape(-1)[:SAMPLES].astype(np.float32)


class AnyType(Right):
    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        x = super().preprocess(raw)
        return x if len(raw) > 1000 else x.astype(np.float64)


class FailsWhenShort(Right):
    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        if raw.ndim == 1 and len(raw) < 10:
            raise IndexError("window longer than the signal")
        return super().preprocess(raw)


class DividesBySilence(Right):
    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        x = super().preprocess(raw)
        with np.errstate(invalid="ignore"):
            return x / x.max()


class Augments(Right):
    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        return super().preprocess(raw) + np.random.rand(SAMPLES).astype(np.float32)


class StatesTooLittle(Right):
    seconds = 0.25


class WritesToItsInput(Right):
    def preprocess(self, raw: np.ndarray) -> np.ndarray:
        raw[:] = 0
        return super().preprocess(raw)


class WritesToTheBatch(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        batch -= batch.mean(axis=1, keepdims=True)
        return super().encode(batch, tokens=tokens)


class DoublePrecision(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return encoded(super().encode(batch).pooled.astype(np.float64))


class WrongDim(Right):
    dim = DIM + 1


class NaNs(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return encoded(np.full((len(batch), DIM), np.nan, np.float32))


class PlainArray(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Any:
        return self.tokens_of(batch).mean(axis=1)


class TokensUnasked(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return super().encode(batch, tokens=True)


class BatchNorm(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return encoded(super().encode(batch - batch.mean(axis=0)).pooled)


class SquashesOne(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        pooled = super().encode(batch).pooled
        return encoded(pooled.squeeze() if len(batch) == 1 else pooled)


class Position(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return encoded(super().encode(batch).pooled + np.arange(len(batch), dtype=np.float32)[:, None])


class Dead(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return encoded(np.ones((len(batch), DIM), np.float32))


class Unseeded(Right):
    def setup(self, device: str) -> None:
        self.weights = np.random.default_rng().standard_normal((FRAME, DIM)).astype(np.float32)


class FlatTokens(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        found = self.tokens_of(batch)
        return encoded(found.mean(axis=1), found.reshape(len(batch), -1) if tokens else None)


class OtherPooledWithTokens(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        found = self.tokens_of(batch)
        return encoded(found[:, 0] if tokens else found.mean(axis=1), found if tokens else None)


class TunesItself(Tunes):
    share = True


class TunesAnother(Tunes):
    factor = 0.9


class TunesNothing(Tunes):
    def trainable(self) -> Trainable:
        right = super().trainable()
        return Trainable(right.module, right.pooled, {"head.weight": 0}, 1)


class ShowsWeightsTwice(Right):
    def anatomy(self) -> Iterator[Weights]:
        yield from [Weights("frames.linear", "patches", None, np.zeros((DIM, FRAME), np.float32))] * 2


class PointTwice(Right):
    def points(self) -> tuple[str, ...]:
        return ("a", "a")


class PointMissing(Right):
    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {"frames.0": self.tokens_of(batch)}


class PooledPoints(Right):
    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {point: self.tokens_of(batch)[:, 0] for point in points}


class AnyPoint(Right):
    def activations(self, batch: np.ndarray, points: Sequence[str]) -> Mapping[str, np.ndarray]:
        return {point: self.tokens_of(batch) for point in points}


class PrintOfTime(Right):
    def fingerprint(self) -> str:
        return str(time.time_ns())


class PrintOfHash(Right):
    def fingerprint(self) -> str:
        return str(hash("the weights"))


class PrintOfName(Right):
    def fingerprint(self) -> str:
        return "right"


class NoPrint(Right):
    def fingerprint(self) -> str:
        return ""


BROKEN: list[tuple[type[Backbone], str, str]] = [
    (ThawedParams, "params_are_a_frozen_dataclass_that_specs_can_spell", "is no frozen dataclass"),
    (OtherParams, "params_are_a_frozen_dataclass_that_specs_can_spell", "built with params of type int"),
    (Unspeakable, "params_are_a_frozen_dataclass_that_specs_can_spell", "a default that a user cannot spell"),
    (NoVersion, "its_version_is_a_number_from_1", "version is '1.0'"),
    (NoMedia, "it_says_what_media_it_takes", "must name 'image', 'audio' or both"),
    (NoRate, "it_says_what_media_it_takes", "sample_rate is None"),
    (Unpicklable, "it_can_be_sent_to_a_worker_before_setup", "cannot be pickled before setup"),
    (LosesState, "it_can_be_sent_to_a_worker_before_setup", "preprocessed by a copy: they differ"),
    (AnyLength, "preprocess_gives_one_shape_and_type_for_whatever_comes", "[800] for noise of 0.1 s"),
    (AnyType, "preprocess_gives_one_shape_and_type_for_whatever_comes", "float64 [8000] for noise of 0.1 s"),
    (FailsWhenShort, "preprocess_gives_one_shape_and_type_for_whatever_comes", "window longer than the signal"),
    (DividesBySilence, "preprocess_gives_one_shape_and_type_for_whatever_comes", "NaN or infinity for silence"),
    (
        StatesTooLittle,
        "no_more_of_a_recording_is_used_than_it_states",
        "0.5 s and its first 0.25 s, which is what seconds",
    ),
    (Augments, "preprocess_is_deterministic", "preprocessed twice: they differ"),
    (WritesToItsInput, "preprocess_is_deterministic", "preprocess modifies what it is given"),
    (WritesToTheBatch, "a_batch_of_one_gives_the_same_features", "encode modifies what it is given"),
    (DoublePrecision, "features_have_the_declared_shape_and_type", "must be float32, and is float64"),
    (WrongDim, "features_have_the_declared_shape_and_type", "must be of shape [4, 7], and is [4, 6]"),
    (NaNs, "features_have_the_declared_shape_and_type", "holds NaN or infinity"),
    (PlainArray, "features_have_the_declared_shape_and_type", "encode gives ndarray, not benchkit.Encoded"),
    (TokensUnasked, "features_have_the_declared_shape_and_type", "gives tokens although tokens=False"),
    (BatchNorm, "a_batch_of_one_gives_the_same_features", "features of example 0, in a batch and alone"),
    (SquashesOne, "a_batch_of_one_gives_the_same_features", "the shapes are [1, 6] and [6]"),
    (Position, "features_do_not_depend_on_the_rest_of_the_batch", "the same batch turned round"),
    (Dead, "features_tell_examples_apart", "is the model dead?"),
    (Unseeded, "two_instances_give_the_same_features", "features of two instances: they differ"),
    (FlatTokens, "tokens_come_only_where_asked_for_and_change_nothing", "must be of shape [4, any, any]"),
    (OtherPooledWithTokens, "tokens_come_only_where_asked_for_and_change_nothing", "without and with tokens"),
    (ShowsWeightsTwice, "the_weights_it_shows_have_names_and_roles", "names a layer twice"),
    (PointTwice, "activations_at_every_named_place", "must be a tuple of unique names"),
    (PointMissing, "activations_at_every_named_place", "gives ['frames.0']"),
    (PooledPoints, "activations_at_every_named_place", "must be of shape [2, any, any], and is [2, 6]"),
    (AnyPoint, "a_place_that_does_not_exist_is_an_error", "raises no BenchkitError"),
    (TunesItself, "what_is_fine_tuned_is_a_copy_of_the_same_model", "features before and after training a copy"),
    (TunesAnother, "what_is_fine_tuned_is_a_copy_of_the_same_model", "features of encode and of trainable()"),
    (TunesNothing, "what_is_fine_tuned_is_a_copy_of_the_same_model", "depth_of has {'head.weight': 0}"),
    (PrintOfTime, "the_fingerprint_is_of_the_weights_alone", "in another process: it must come from the contents"),
    (PrintOfHash, "the_fingerprint_is_of_the_weights_alone", "in another process: it must come from the contents"),
    (NoPrint, "the_fingerprint_is_of_the_weights_alone", "must be a short text"),
    (PrintOfName, "other_weights_have_another_fingerprint", "have one fingerprint, 'right'"),
]


@pytest.mark.parametrize(("cls", "check", "words"), BROKEN, ids=[cls.__name__ for cls, *_ in BROKEN])
def test_each_broken_backbone_is_caught(cls: type[Backbone], check: str, words: str) -> None:
    other = functools.partial(cls, RightParams(seed=1))() if check.startswith("other_weights") else None
    suite = type("Suite", (BackboneSuite,), {"backbone": cls, "other": other})
    with pytest.raises((AssertionError, BenchkitError, IndexError, ValueError)) as caught:
        getattr(suite(), f"test_{check}")()
    assert words in str(caught.value)


def test_a_module_that_imports_a_framework_is_caught(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jax.py").write_text("")  # what is looked at is the name
    (tmp_path / "heavy_toy.py").write_text(
        "import jax\nfrom benchkit.interfaces import Backbone\n\n"
        "class Heavy(Backbone):\n    modalities = ('image',)\n    dim = 1\n"
        "    def preprocess(self, raw): return raw\n    def encode(self, batch, *, tokens=False): ...\n"
        "    def fingerprint(self): return 'x'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    import heavy_toy

    del sys.modules["jax"]
    suite = type("Suite", (BackboneSuite,), {"backbone": heavy_toy.Heavy})
    with pytest.raises(AssertionError, match="importing heavy_toy imports jax: import it inside the methods"):
        suite().test_importing_it_imports_no_framework()


def test_a_call_lists_every_check_that_failed() -> None:
    with pytest.raises(AssertionError) as caught:
        check_backbone(Dead, other=Dead(RightParams(seed=0)))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("2 of 21 checks failed")
    assert lines[1].startswith("- features tell examples apart: all audio inputs give the same features")
    assert lines[2].startswith("- other weights have another fingerprint: two models with different weights have one")


def test_an_exception_of_the_model_itself_says_in_which_check_it_came() -> None:
    with pytest.raises(
        AssertionError, match=r"it can be sent to a worker before setup; .* could not go on: Index"
    ) as caught:
        check_backbone(FailsWhenShort)
    assert isinstance(caught.value.__cause__, IndexError)


class GivesNone(Right):
    def encode(self, batch: np.ndarray, *, tokens: bool = False) -> Encoded:
        return None  # type: ignore[return-value]


def test_a_check_that_cannot_go_on_keeps_no_other_from_saying_what_is_wrong() -> None:
    with pytest.raises(AssertionError) as caught:
        check_backbone(GivesNone)
    lines = str(caught.value).splitlines()
    assert lines[1] == "- features have the declared shape and type: encode gives NoneType, not benchkit.Encoded"
    assert lines[-1].endswith("could not go on: AttributeError: 'NoneType' object has no attribute 'pooled'")


def test_a_mistyped_name_is_told_once() -> None:
    with pytest.raises(SpecError, match="no model named 'riht'"):
        check_backbone("riht")


def test_a_suite_that_names_nothing_says_so() -> None:
    class Empty(BackboneSuite):
        pass

    with pytest.raises(AssertionError, match=r"Empty tests nothing yet: set spec = '...' or backbone = ..."):
        Empty().make()


def test_a_class_inside_a_function_says_that_it_cannot_be_found() -> None:
    class Inner(Right):
        pass

    suite = type("Suite", (BackboneSuite,), {"backbone": Inner})
    with pytest.raises(AssertionError, match="Inner must stand at the top level of a module"):
        suite().test_importing_it_imports_no_framework()
