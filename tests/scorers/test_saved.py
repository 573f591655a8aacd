"""Scorers fitted on a recording, saved with their record, used again."""

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from benchkit.activations.fitting import fit
from benchkit.activations.moments import Moments
from benchkit.activations.recording import RecordedPoint
from benchkit.activations.shards import Identity, ShardWriter
from benchkit.catalog.discovery import Catalog, Plugin, discover
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, FitError, PluginError, SpecError, StoreError
from benchkit.hookspecs import Entry
from benchkit.interfaces import Scorer
from benchkit.scorers.saved import read_record


@pytest.fixture(scope="session")
def recorded(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real activations of six clips at two points."""
    from benchkit.activations import record

    to = tmp_path_factory.mktemp("recorded") / "r"
    task, model = f"esc50,root={shared / 'data' / 'esc10'}", f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"
    record(task, model, ["blocks.1.norm2", "tokens"], to, split="clips", limit=6, workers=0)
    return to


@pytest.mark.parametrize("spec", ["random,k=40", "random,k=7,variant=directions", "kmeans,k=12", "pca,k=8,signs=both"])
def test_a_scorer_scores_alike_after_it_was_saved(spec: str, recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    fitted = fit(spec, recorded, path, point="blocks.1.norm2")
    again: Scorer = resolve("scorer", f"fitted:{path}").build()
    x = np.load(recorded / "blocks.1.norm2" / "00000.npy")[0].astype(np.float32)
    np.testing.assert_array_equal(again(x), fitted(x))
    assert again.n_prototypes == fitted.n_prototypes
    assert (again.point, fitted.point) == ("blocks.1.norm2", "blocks.1.norm2")
    with safe_open(path, framework="numpy") as f:
        record = json.loads(f.metadata()["benchkit"])
    assert record["scorer"].startswith(spec.split(",")[0])
    assert "point=blocks.1.norm2" in record["scorer"]
    assert record["model"].startswith("bird-mae@2,path=fp-")
    assert record["vectors"] == 6 * 256


def test_a_scorer_of_the_backbones_own_tokens_has_no_point(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    assert fit("random,k=5", recorded, path, point="tokens").point is None
    assert resolve("scorer", f"fitted:{path}").build().point is None


@pytest.mark.parametrize("spec", ["random,k=5", "kmeans,k=5", "pca,k=4"])
def test_the_point_tokens_is_the_backbones_own_tokens(spec: str, recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    assert resolve("scorer", f"{spec},point=tokens").canonical == resolve("scorer", spec).canonical
    assert resolve("scorer", f"{spec},point=tokens").build().point is None
    assert fit(f"{spec},point=tokens", recorded, path, point="tokens").point is None


def test_where_it_is_to_be_written_is_looked_at_before_anything_is_fitted(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was fitted")

    monkeypatch.setattr("benchkit.scorers.random.Random.fit", never)
    (tmp_path / "file").write_text("")
    for to, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "s.safetensors", "cannot write"),
        (tmp_path / "new" / "deep" / "s.safetensors", f"there is no folder '{tmp_path / 'new' / 'deep'}'"),
    ):
        with pytest.raises(StoreError, match=said):
            fit("random,k=5", recorded, to, point="tokens")


def test_the_reader_ends_with_the_fit(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the scorer wants only some of the stream, and where it fails."""
    before = threading.active_count()
    fit("random,k=7,variant=directions", recorded, tmp_path / "s", point="tokens", batch_size=10)
    assert threading.active_count() == before

    def failing(self: object, activations: Iterator[np.ndarray], **_: object) -> None:
        next(activations)
        raise FitError("no")

    monkeypatch.setattr("benchkit.scorers.random.Random.fit", failing)
    try:
        fit("random,k=7", recorded, tmp_path / "s", point="tokens", batch_size=10)
    except FitError:  # within, its traceback holds every frame
        assert threading.active_count() == before
    else:
        raise AssertionError("it did not fail")


def test_prototypes_that_do_not_fit_into_memory_are_one_line(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchkitError, match=r"the memory of 'cpu' does not suffice \(.*\): give fewer prototypes"):
        fit(f"random,k={10**13}", recorded, tmp_path / "s", point="tokens")


def test_its_spec_holds_a_fingerprint_of_the_file(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    fit("random,k=5", recorded, path, point="tokens")
    name = resolve("scorer", f"fitted:{path}").canonical
    assert name.startswith("fitted:fp-")
    moved = tmp_path / "b.safetensors"
    path.rename(moved)
    assert resolve("scorer", f"fitted:{moved}").canonical == name


def test_what_does_not_go_together_is_refused(recorded: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(SpecError, match=r"is of point 'blocks.1.norm2', and --point names 'tokens'"):
        fit("random,k=5,point=blocks.1.norm2", recorded, path, point="tokens")
    with pytest.raises(BenchkitError, match=r"has 2 points \(blocks.1.norm2, tokens\): say which"):
        fit("random,k=5", recorded, path)
    fit("random,k=5,point=blocks.1.norm2", recorded, path)
    with pytest.raises(BenchkitError, match="scorer 'fitted' is fitted already"):
        fit(f"fitted:{path}", recorded, tmp_path / "b.safetensors")
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"a.safetensors' is no file of benchkit's"):
        resolve("scorer", f"fitted:{path}").build().n_prototypes  # noqa: B018


def test_vectors_that_are_not_finite_are_not_fitted_on(tmp_path: Path) -> None:
    assert Moments.of(np.full((2, 2), np.nan)).nan.tolist() == [2, 2]
    from benchkit.activations.recorder import _conclude

    to = tmp_path / "r"
    to.mkdir()
    identity = Identity(1, "t", "m", "train", "r", 3, "d", "w", "float32")
    identity.claim(to)
    with ShardWriter(to, "p", "float32", ["a", "b", "c"], 0) as writer:
        writer.write(np.arange(3), np.full((3, 2, 4), np.inf, np.float32))
        writer.close()
        _conclude(to, "p", identity, writer.shards, {}, 0)
    assert RecordedPoint.open(to / "p").statistics.not_finite == 24
    with pytest.raises(BenchkitError, match=r"point 'p' of .*: 0 values are NaN and 24 infinite"):
        fit("random,k=2", to, tmp_path / "s.safetensors")


@dataclass(frozen=True)
class MeanParams:
    habit: str = "good"


class Mean(Scorer):
    """A third party's, without a parameter `point`."""

    Params = MeanParams
    n_prototypes = 1

    def fit(self, activations: Iterator[np.ndarray], *, seed: int = 0, device: str = "cpu") -> None:
        self.mean = np.concatenate(list(activations)).mean(axis=0)

    def __call__(self, activations: np.ndarray) -> np.ndarray:
        return activations @ self.mean[:, None]

    def tensors(self) -> dict[str, Any]:
        wrong = {"list": [self.mean], "object": {"mean": self.mean.astype(object)}, "torch": {"mean": None}}
        return wrong.get(self.params.habit, {"mean": self.mean})  # type: ignore[return-value]

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.mean = tensors["mean"]


@pytest.fixture
def mean(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("the mean activation", f"{__name__}:Mean")
    plugin = Plugin("mean", "benchkit-mean", "1", __name__, {"scorer": {"mean": entry}})
    catalog = Catalog((*discover().plugins, plugin))
    monkeypatch.setattr("benchkit.catalog.resolve.discover", lambda: catalog)


@pytest.mark.usefixtures("mean")
def test_a_scorer_without_a_parameter_for_its_point_is_fitted_and_used_where_one_says(
    recorded: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mean.safetensors"
    fitted = fit("mean", recorded, path, point="blocks.1.norm2")
    again: Scorer = resolve("scorer", f"fitted:{path}").build()
    assert again.point == "blocks.1.norm2"
    x = np.load(recorded / "blocks.1.norm2" / "00000.npy")[0].astype(np.float32)
    np.testing.assert_array_equal(again(x), fitted(x))


@pytest.mark.usefixtures("mean")
@pytest.mark.parametrize(
    ("habit", "words"),
    [
        ("list", "gave a list, not arrays by name"),
        ("object", "'mean' as array of type object"),
        ("torch", "'mean' as NoneType"),
    ],
)
def test_what_cannot_be_saved_of_a_scorer_is_named(recorded: Path, tmp_path: Path, habit: str, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        fit(f"mean,habit={habit}", recorded, tmp_path / "mean.safetensors", point="tokens")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ('{"format": 1, "kind": "sae"}', "holds a sae of format 1, not a scorer of 1"),
        ('{"format": 0, "kind": "scorer"}', "holds a scorer of format 0, not a scorer of 1"),
        ("[1]", "its record is no table"),
        ("[" * 100_000, "no file of benchkit's, or damaged"),
    ],
)
def test_what_holds_another_thing_is_refused_by_name(record: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"w": np.zeros(2, np.float32)}, path, {"benchkit": record})
    with pytest.raises(StoreError, match=said):
        read_record(path, "scorer")
