"""What is kept beside features: the code that made them, the model's inputs; and what is in their key."""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_samples import Bands, BandsParams, Gradients, Pixels, Recordings, encoded

from benchkit.errors import PluginError
from benchkit.features import Options, extract, forget, ls, stream_for
from benchkit.features.made import EXAMPLES, Made, source_of
from benchkit.progress import Silent

KEY = {"data": "d1"}


class Notes(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


CODE = """
import numpy as np
from benchkit import Backbone, Encoded

class Mean(Backbone):
    modalities = ("image",)
    dim = 2
    def preprocess(self, raw):
        return raw.astype(np.float32)
    def encode(self, batch, *, tokens=False):
        x = batch.reshape(len(batch), -1).mean(1)
        return Encoded(np.stack([x, x * FACTOR], 1).astype(np.float32))
    def fingerprint(self):
        return "none"
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A plugin's class from its source, as a new process imports it."""
    monkeypatch.syspath_prepend(tmp_path / "plugin")

    def write(factor: int) -> Any:
        (tmp_path / "plugin").mkdir(exist_ok=True)
        (tmp_path / "plugin" / "moving_plugin.py").write_text(f"FACTOR = {factor}\n" + CODE)
        sys.modules.pop("moving_plugin", None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        return importlib.import_module("moving_plugin").Mean()

    return write


def test_features_made_by_other_code_under_the_same_version_are_taken_and_told_of(
    plugin: Callable[[int], Any], tmp_path: Path
) -> None:
    options, rows = Options(tmp_path / "cache", workers=0), np.arange(10)

    def run(factor: int, wanted: np.ndarray = rows) -> tuple[np.ndarray, list[str]]:
        notes = Notes()
        made = extract(Gradients(), plugin(factor), "train", wanted, KEY, options, notes)
        return np.array(made.pooled[wanted]), notes.lines

    first, lines = run(2)
    assert lines == []
    assert run(2)[1] == []
    old, lines = run(3)
    np.testing.assert_array_equal(old, first)
    (line,) = lines
    assert "Gradients/train: cached features were made by other code of moving_plugin" in line
    assert "raise Mean.version" in line
    assert "--force" in line
    assert "other code" in run(3, np.arange(20))[1][0], "some rows are of either now"
    assert "other code" in run(3, np.arange(20))[1][0]

    forget(Gradients(), plugin(3), "train", KEY, options, Silent())
    new, lines = run(3)
    assert lines == []
    np.testing.assert_array_equal(new[:, 1], 3 * first[:, 0])


def test_the_digest_is_of_the_modules_that_encode_and_of_those_beside_them(
    plugin: Callable[[int], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = [source_of(type(plugin(factor))) for factor in (2, 2, 3)]
    assert digests[0] == digests[1] != digests[2]
    package = tmp_path / "plugin" / "whole_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "model.py").write_text("from whole_plugin.help import FACTOR\n" + CODE)
    found = []
    for factor in (1, 2):
        (package / "help.py").write_text(f"FACTOR = {factor}\n")
        for name in [n for n in sys.modules if n.startswith("whole_plugin")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        found.append(source_of(importlib.import_module("whole_plugin.model").Mean))
    assert found[0] != found[1], "a module that the model imports changed"


def test_whatever_the_backbone_names_is_in_the_key(task: Recordings, tmp_path: Path) -> None:
    class Versioned(Bands):
        made_with: Mapping[Any, Any] = {"library": "1.0"}

        def feature_key(self) -> Mapping[str, str]:
            return self.made_with

    log, options = tmp_path / "log", Options(tmp_path / "cache", workers=0)
    for version, calls in (("1.0", 5), ("1.0", 5), ("2.0", 10)):
        Versioned.made_with = {"library": version}
        extract(task, Versioned(BandsParams(log=str(log))), "test", np.arange(5), KEY, options, Silent())
        assert encoded(log) == calls
    assert sorted(e.key["made_with"]["library"] for e in ls(tmp_path / "cache")) == ["1.0", "2.0"]
    Versioned.made_with = {"library": 3}
    with pytest.raises(PluginError, match=r"feature_key\(\) gave .* not texts by name"):
        extract(task, Versioned(), "test", np.arange(5), KEY, options, Silent())


def test_forgotten_features_are_computed_anew_and_those_of_another_split_are_not(
    task: Recordings, tmp_path: Path
) -> None:
    log, options = tmp_path / "log", Options(tmp_path / "cache", workers=0)
    backbone = Bands(BandsParams(log=str(log)))
    for split in ("test", "train"):
        extract(task, backbone, split, np.arange(5), KEY, options, Silent())
    forget(task, backbone, "test", KEY, options, Silent())
    forget(task, backbone, "valid", KEY, options, Silent())
    for split in ("test", "train"):
        extract(task, backbone, split, np.arange(5), KEY, options, Silent())
    assert encoded(log) == 15


def test_the_inputs_of_some_examples_are_measured_once(tmp_path: Path) -> None:
    options = Options(tmp_path / "cache", workers=0, batch_size=7)
    backbone = Pixels()
    made = extract(Gradients(), backbone, "train", np.arange(10), KEY, options, Silent())
    assert made.inputs.n == 10
    x = np.stack(
        [type(backbone)(backbone.params).preprocess(e.media.load()) for e in Gradients().examples("train", range(10))]
    )
    assert made.inputs.mean == pytest.approx(x.mean(dtype=np.float64))
    assert (made.inputs.low, made.inputs.high) == (x.min(), x.max())
    again = extract(Gradients(), backbone, "train", np.arange(10), KEY, options, Silent())
    assert again.inputs == made.inputs
    more = extract(Gradients(), backbone, "train", np.arange(100), KEY, options, Silent())
    assert EXAMPLES <= more.inputs.n <= EXAMPLES + 10
    assert extract(Gradients(), backbone, "train", np.arange(90), KEY, options, Silent()).inputs == more.inputs


def test_a_pass_for_tokens_measures_them_too(task: Recordings, tmp_path: Path) -> None:
    options = Options(tmp_path / "cache", workers=0)
    list(stream_for("tokens", task, Bands(), "test", np.arange(9), options, Silent(), KEY))
    (entry,) = ls(tmp_path / "cache")
    made = Made.read(entry.folder)
    assert made.inputs.n == 9
    assert made.sources == (source_of(Bands),)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"sources": 3}', '{"sources": [], "inputs": {"n": "x"}}'])
def test_a_damaged_note_is_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "made.json").write_text(damage)
    assert Made.read(tmp_path).inputs.n == 0
