"""plugins, tasks, models, classifiers, scorers and objectives: all installed is shown, whatever is wrong with it."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.catalog.discovery import discover
from benchkit.catalog.params import default_of, format_value
from benchkit.catalog.resolve import resolve

HEAVY = ("torch", "jax", "transformers", "datasets", "sklearn", "tensorflow")
GROUPS = {
    "tasks": "task",
    "models": "model",
    "classifiers": "classifier",
    "scorers": "scorer",
    "objectives": "objective",
}

EXTRA = """
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from benchkit import Backbone, Encoded, Entry, hookimpl, param


@dataclass(frozen=True)
class Params:
    root: Path = param(help="the folder")
    checkpoint: Literal["small", "big"] = "big"
    size: int = param(224, low=1, high=1024, help="pixels a side")
    rate: float | None = param(None, low=0.0, help="a rate")
    pool: Literal["mean", "cls"] = "mean"
    layers: tuple[int, ...] = (1, 2)
    fast: bool = True


class Good(Backbone):
    Params = Params
    version = 2
    modalities = ("image",)
    dim = 1

    def preprocess(self, raw):
        return raw

    def encode(self, batch, *, tokens=False):
        return Encoded(np.zeros((len(batch), 1), np.float32))

    def fingerprint(self):
        return "none"


@hookimpl
def benchkit_models():
    return {
        "good": Entry("a good one", "extra:Good"),
        "gone": Entry("a module that is not there", "no_such_module:Gone"),
        "raises": Entry("one that raises", "raising:Model"),
        "pixels": Entry("a name that is taken", "extra:Good"),
    }
"""


@pytest.fixture
def with_extra(tmp_path: Path) -> Callable[..., Any]:
    """The console script with two more distributions installed: one with all kinds of models, one that is broken."""
    for dist, module, source in (
        ("extra-models", "extra", EXTRA),
        ("broken-plugin", "broken", "raise OSError('no licence')"),
    ):
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{dist.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[benchkit]\n{module} = {module}\n")
    (tmp_path / "raising.py").write_text("raise RuntimeError('out of order')")

    def invoke(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "benchkit", *words],
            env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return invoke


@pytest.mark.parametrize(("command", "kind"), GROUPS.items())
def test_every_name_is_listed_with_its_summary_and_every_parameter(cli, command: str, kind: Any) -> None:
    listed = {d["spec"]: d for d in json.loads(cli(command, "--json").out)}
    text = cli(command).out
    provided = list(discover().provided(kind))
    assert set(listed) == {p.name for p in provided}
    for p in provided:
        d = listed[p.name]
        assert (d["summary"], d["dist"], d["target"]) == (p.entry.summary, p.plugin.dist, p.entry.target)
        assert p.entry.summary in text
        if d["error"]:
            continue
        fields = {f.name: f for f in dataclasses.fields(p.load().Params)}
        shown = {q["name"]: q["default"] for q in d["parameters"]}
        assert set(shown) == set(fields) - {"checkpoint"}
        for name, default in shown.items():
            assert default is None or default == format_value(default_of(fields[name]))
            assert f"{name}=" in text


@pytest.mark.parametrize("command", GROUPS)
def test_what_is_installed_here_loads(cli, command: str) -> None:
    assert [(d["name"], d["error"]) for d in json.loads(cli(command, "--json").out) if d["error"]] == []


def test_a_default_that_is_shown_can_be_typed(cli) -> None:
    for d in json.loads(cli("models", "--json").out):
        if d["needs_checkpoint"]:
            continue
        bare = d["spec"] if d["name"] != "birdjepa" else "birdjepa,init=random"  # which has no weights of its own
        spelled = ",".join([bare, *(f"{p['name']}={p['default']}" for p in d["parameters"] if p["name"] not in bare)])
        assert resolve("model", spelled).canonical == resolve("model", bare).canonical


def test_one_name_is_shown_in_full(cli, with_extra) -> None:
    text = with_extra("models", "good").stdout
    for known in (
        "a good one", "from extra-models 1.5, extra:Good", "good:big, good:small", "size", "int", "224", "1 to 1024",
        "pixels a side", "rate", "float or none", "none", "from 0", "mean|cls", "int+...", "1+2", "true|false",
        "path", "(must be given)", "the folder", "modalities: image",
    ):  # fmt: skip
        assert known in text, known
    assert text == with_extra("models", "good:big").stdout
    (record,) = json.loads(with_extra("models", "good", "--json").stdout)
    assert record["class_version"] == 2
    assert record["checkpoints"] == ["big", "small"]
    assert record["parameters"][1] == {
        "name": "size", "type": "int", "default": "224", "low": 1, "high": 1024, "help": "pixels a side",
    }  # fmt: skip


def test_parameters_of_all_are_shown_on_demand(cli) -> None:
    text = cli("models", "--params").out
    for p in discover().provided("model"):
        assert f"\n{p.name}" in f"\n{text}"
    assert text.count("meaning") >= 2


def test_an_unknown_name_is_one_line_with_a_suggestion(script) -> None:
    ran = script("models", "pixel")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: no model named 'pixel'; did you mean 'pixels'? (benchkit models lists all)")
    assert ran.err.count("\n") == 1


def test_what_does_not_load_is_a_row_with_its_error(with_extra) -> None:
    done = with_extra("models", "--json")
    assert done.returncode == 0
    models = {d["spec"]: d for d in json.loads(done.stdout)}
    assert models["good"]["error"] is None
    assert "no_such_module" in models["gone"]["error"]
    assert "RuntimeError: out of order" in models["raises"]["error"]
    assert "broken" in done.stderr
    text = with_extra("models").stdout
    assert "does not load" in text
    assert "out of order" in text


def test_a_name_that_two_provide_is_listed_under_both(with_extra) -> None:
    models = {d["spec"]: d["dist"] for d in json.loads(with_extra("models", "--json").stdout)}
    assert models["benchkit-baselines/pixels"] == "benchkit-baselines"
    assert models["extra-models/pixels"] == "extra-models"
    assert "pixels" not in models
    refused = with_extra("models", "pixels")
    assert refused.returncode == 1
    assert "write 'benchkit-baselines/pixels' or 'extra-models/pixels'" in refused.stderr
    assert "an image's pixels" in with_extra("models", "benchkit-baselines/pixels").stdout


def test_plugins_lists_each_with_what_it_provides_or_why_it_failed(with_extra) -> None:
    done = with_extra("plugins")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[2:]}
    assert "extra-models" in rows["extra"]
    assert "1.5" in rows["extra"]
    assert "models: gone, good, pixels, raises" in rows["extra"]
    assert "failed: OSError: no licence" in rows["broken"]
    assert "classifiers: " in rows["core"]
    assert all(" ms " in line for line in rows.values())
    records = {p["name"]: p for p in json.loads(with_extra("plugins", "--json").stdout)}
    assert records["broken"]["error"] == "OSError: no licence"
    assert records["extra"]["provides"]["model"]["good"] == {"summary": "a good one", "target": "extra:Good"}


@pytest.mark.parametrize("command", ["plugins", *GROUPS])
def test_listing_imports_no_framework(command: str) -> None:
    program = f"""
import sys
from benchkit.cli import main
sys.argv = ["benchkit", "{command}", *{["--params"] if command != "plugins" else []}]
try:
    main()
except SystemExit as e:
    assert not e.code
print(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == ""


def test_presets_are_listed_and_spelled_out(cli) -> None:
    (linear,) = [d for d in json.loads(cli("classifiers", "--json").out) if d["name"] == "linear"]
    assert linear["presets"]["bird-mae"]["lr"] == "0.0004"
    spelled = ",".join(f"{key}={value}" for key, value in linear["presets"]["bird-mae"].items())
    assert resolve("classifier", f"linear,{spelled}").canonical == "linear@2:bird-mae"
    assert f"preset linear:bird-mae is {spelled}" in cli("classifiers", "linear").out
    assert "presets" in cli("classifiers").out.splitlines()[0]
    assert "presets" not in cli("models").out.splitlines()[0]
