"""What tells features apart: the processor, the configuration, versions; and the check of what a model is given."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as tf
from huggingface_hub import constants
from tiny_models import clip, image, load

import benchkit
from benchkit import Report
from benchkit.api import Settings
from benchkit.checks import check_inputs
from benchkit.checks.inputs import NOTHING, Measured

Saved = Callable[[str], Path]


def changed(folder: Path, to: Path, **values: Any) -> Path:
    shutil.copytree(folder, to)
    path = to / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return to


@pytest.fixture
def hub(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`org/x` in the hub's own cache, of one model and two processors; moves `main` to one of them."""
    cache, repo = tmp_path / "hub", tmp_path / "hub" / "models--org--x"
    for commit, mean, std in (("a" * 40, 0.5, 0.5), ("b" * 40, 0.0, 50.0)):
        changed(saved("vit"), repo / "snapshots" / commit, image_mean=[mean] * 3, image_std=[std] * 3)
    (repo / "refs").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return lambda letter: (repo / "refs" / "main").write_text(letter * 40) and None


def run(folder: Path, classifier: str, **settings: Any) -> Report:
    folder.mkdir(exist_ok=True)
    where = Settings(db=folder / "r.sqlite", replicates=0, workers=0, **settings)
    (report,) = benchkit.run(task="digits", model="hf:org/x", classifier=classifier, n_train=20, settings=where)
    return report


def scores(report: Report) -> dict[str, float]:
    return {m.name: m.value for m in report.metrics}


def test_a_name_that_moves_to_another_processor_gets_other_features(
    hub: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub("a")
    first = run(tmp_path / "one", "centroid")
    hub("b")
    other = run(tmp_path / "one", "knn")
    forced = run(tmp_path / "one", "centroid", force=True)
    monkeypatch.setenv("BENCHKIT_CACHE", str(tmp_path / "empty"))
    assert scores(run(tmp_path / "two", "knn")) == scores(other)
    assert scores(run(tmp_path / "two", "centroid")) == scores(forced)
    assert scores(forced) != scores(first)
    assert first.model_fingerprint != other.model_fingerprint, "so that the two are flagged"


def verdict(folder: Path, seconds: float = 1.0) -> tuple[str, str]:
    backbone = load(folder, seconds=seconds)
    raws = [image(s) if backbone.sample_rate is None else clip(backbone.sample_rate, 0.7, s) for s in range(4)]
    batch = np.stack([backbone.preprocess(raw) for raw in raws])
    total = sum((Measured.of(backbone.model_inputs(batch[i : i + 1])) for i in range(4)), NOTHING)
    check = check_inputs({"train": total}, backbone.stated_inputs())
    return check.status, check.summary


@pytest.mark.parametrize(
    "name",
    ["vit", "dinov3_vit", "siglip2", "clip", "wav2vec2", "wav2vec2-bert", "whisper", "audio-spectrogram-transformer",
     "clap"],
)  # fmt: skip
def test_what_a_model_is_given_is_what_its_processor_states(saved: Saved, name: str) -> None:
    assert verdict(saved(name))[0] == "ok", verdict(saved(name))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"image_mean": [127.5] * 3}, "mean 0 and deviation 1 are meant"),
        ({"do_rescale": False}, "mean 0 and deviation 1 are meant"),
        ({"rescale_factor": 1 / 255**2}, "rescale_factor=1.54e-05"),
        ({"rescale_factor": 1 / 255**2}, "inputs hardly differ"),
    ],
)
def test_pixels_scaled_twice_or_not_at_all_warn(
    saved: Saved, tmp_path: Path, values: dict[str, Any], what: str
) -> None:
    status, summary = verdict(changed(saved("vit"), tmp_path / "other", **values))
    assert status == "warn"
    assert what in summary


def test_a_rate_that_models_of_the_type_do_not_have_warns(saved: Saved, tmp_path: Path) -> None:
    status, summary = verdict(changed(saved("wav2vec2"), tmp_path / "other", sampling_rate=44_100))
    assert status == "warn"
    assert "states 44,100 Hz, and models of its type are of 16,000 Hz" in summary


def test_a_processor_file_that_says_nothing_warns(saved: Saved, tmp_path: Path) -> None:
    shutil.copytree(saved("vit"), tmp_path / "empty")
    (tmp_path / "empty" / "preprocessor_config.json").write_text("{}")
    config = json.loads((tmp_path / "empty" / "config.json").read_text()) | {"image_size": 224}
    tf.ViTModel(tf.ViTConfig(**config)).save_pretrained(tmp_path / "empty")
    status, summary = verdict(tmp_path / "empty")
    assert status == "warn"
    assert "states nothing: these are transformers' defaults" in summary


def test_padding_is_no_part_of_what_is_measured(saved: Saved) -> None:
    for name in ("wav2vec2", "wav2vec2-bert", "audio-spectrogram-transformer"):
        backbone = load(saved(name))
        x = clip(16_000, 0.3)
        given = backbone.model_inputs(backbone.preprocess(x)[None])
        assert given.size < 0.4 * backbone.preprocess(x).size
        if name != "audio-spectrogram-transformer":
            assert abs(given.std() - 1) < 0.02
