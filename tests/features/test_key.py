"""The key of cached features as a job makes it, of real tasks and models: what changes it, and what does not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import benchkit
from benchkit.api import Settings
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError
from benchkit.features import cache_key, ls
from benchkit.jobs.data import JobData
from benchkit.jobs.job import JobOptions
from benchkit.media.fingerprint import cache_dir, fingerprint
from benchkit.progress import Silent
from benchkit_baselines.pixels import Pixels
from benchkit_bird_mae.backbone import BirdMAE


def key(task: str, model: str, split: str = "test", **options: Any) -> str:
    """The name of the cache entry, for weights that are always the same."""
    data = JobData.open(resolve("task", task), resolve("model", model), JobOptions("", "", **options), Silent())
    return fingerprint(cache_key(data.task, split, data.key(split), "weights"))


@pytest.fixture
def birds(shared: Path) -> str:
    return f"hsn,repo={shared / 'data' / 'birdset_mini'}"


@pytest.fixture
def tiny(shared: Path) -> str:
    return f"bird-mae,path={shared / 'fixtures' / 'bird_mae_tiny'}"


def test_layer_pooling_precision_compilation_weights_and_code_each_give_another_key(
    birds: str, tiny: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [
        tiny, f"{tiny},layer=0", f"{tiny},pool=cls", f"{tiny},dtype=bfloat16", f"{tiny},compile=true",
        f"{tiny},init=random", f"{tiny},init=random,seed=1", "bird-mae", "bird-mae:large",
    ]  # fmt: skip
    names = [key(birds, model) for model in models]
    monkeypatch.setattr(BirdMAE, "version", BirdMAE.version + 1)
    names.append(key(birds, tiny))
    assert len(set(names)) == len(models) + 1


def test_the_choice_of_the_clip_changes_the_key_of_what_is_clipped_and_of_nothing_else(birds: str, tiny: str) -> None:
    choices = [birds, f"{birds},clip=first", f"{birds},clip=loudest", f"{birds},seconds=3"]
    assert len({key(choice, tiny, "train") for choice in choices}) == len(choices)
    assert len({key(choice, tiny, "test") for choice in choices}) == 1, "test windows are as they come"


def test_other_data_is_another_key_and_the_same_data_elsewhere_is_not(
    birds: str, tiny: str, shared: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shared / "data" / "birdset_mini", copy)
    assert key(f"hsn,repo={copy}", tiny) == key(birds, tiny)
    (file,) = (copy / "HSN").glob("test_5s-*")
    pq.write_table(pq.read_table(file).slice(1), file)
    assert key(f"hsn,repo={copy}", tiny) != key(birds, tiny)


def test_where_the_weights_lie_and_how_a_spec_is_spelt_change_nothing(
    birds: str, tiny: str, shared: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(shared / "fixtures" / "bird_mae_tiny", moved)
    assert key(birds, f"bird-mae,path={moved},pool=mean,layer=none,dtype=float32") == key(birds, tiny)
    with (moved / "model.safetensors").open("r+b") as f:
        f.seek(-1, 2)
        f.write(b"\x01")
    assert key(birds, f"bird-mae,path={moved}") != key(birds, tiny)


def test_how_a_job_is_computed_changes_no_key(birds: str, tiny: str) -> None:
    plain = key(birds, tiny)
    changed: dict[str, Any] = {
        "device": "cuda", "batch_size": 7, "workers": 3, "skip_bad": 5, "replicates": 10, "shuffled": True,
    }  # fmt: skip
    for name, value in changed.items():
        assert key(birds, tiny, **{name: value}) == plain, name


def test_no_other_probe_size_seed_or_registry_extracts_anything_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(db: str = "a.sqlite", settings: dict[str, Any] | None = None, **grid: Any) -> None:
        where = Settings(db=tmp_path / db, **{"replicates": 10, **(settings or {})})
        benchkit.run(**{"task": "digits", "model": "pixels", "classifier": "centroid", **grid}, settings=where)

    run()
    before = {entry.folder for entry in ls(cache_dir() / "features")}
    assert len(before) == 2, "one for each split"
    assert all(entry.done == entry.rows for entry in ls(cache_dir() / "features"))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("features are extracted again")

    monkeypatch.setattr(Pixels, "encode", refuse)
    again: list[Callable[[], None]] = [
        lambda: run(classifier="knn"),
        lambda: run(n_train=[1, 5]),
        lambda: run(seed=[1, 2]),
        lambda: run(db="b.sqlite"),
        lambda: run(db="c.sqlite", settings={"batch_size": 3, "workers": 1, "replicates": 0, "shuffled": True}),
    ]
    for one in again:
        one()
    assert {entry.folder for entry in ls(cache_dir() / "features")} == before
    with pytest.raises(BenchkitError, match="extracted again"):
        run(settings={"force": True})
