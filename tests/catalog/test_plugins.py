"""Discovery with real broken plugins: modules and .dist-info folders on PYTHONPATH, read by processes of their own."""

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import benchkit
from benchkit.catalog.discovery import KINDS, discover

HEAVY = {"torch", "jax", "transformers", "datasets", "sklearn", "tensorflow"}
ROOT = Path(__file__).parents[2]

HEADER = "from benchkit.hookspecs import Entry, hookimpl\n"
GOOD = HEADER + '@hookimpl\ndef benchkit_models():\n    return {"good": Entry("a good one", "good_model:Model")}\n'
MODEL = """
import numpy as np
from benchkit import Backbone, Encoded

class Model(Backbone):
    modalities = ("image",)
    dim = 1

    def preprocess(self, raw):
        return raw

    def encode(self, batch, *, tokens=False):
        return Encoded(np.zeros((len(batch), 1), np.float32))

    def fingerprint(self):
        return "none"
"""


def install(site: Path, dist: str, modules: dict[str, str], entry: str | None = None, version: str = "1.0") -> None:
    """A distribution as pip would leave it: its modules and its .dist-info folder."""
    for name, source in modules.items():
        (site / f"{name}.py").write_text(source)
    info = site / f"{dist.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry or f"[benchkit]\n{dist} = {next(iter(modules))}\n")


@dataclass(frozen=True)
class Answer:
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def ask(site: Path, program: str, **env: str) -> Answer:
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(site), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return Answer(done.stdout, done.stderr)


DISCOVER = """
import json
from benchkit.catalog.discovery import discover
plugins = discover().plugins
print(json.dumps({p.dist: [p.version, {k: sorted(v) for k, v in p.provides.items()}, p.error] for p in plugins}))
"""

RESOLVE = """
import json, sys
from benchkit.errors import BenchkitError
from benchkit.catalog.resolve import resolve
answers = {}
for text in %r:
    try:
        spec = resolve("model", text)
        answers[text] = [spec.canonical, spec.dist]
    except BenchkitError as e:
        answers[text] = f"{type(e).__name__}: {e}"
print(json.dumps(answers))
"""


def models(site: Path, *texts: str, **env: str) -> Any:
    return ask(site, RESOLVE % (list(texts),), **env).json


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with one plugin that works."""
    install(tmp_path, "good", {"good_plugin": GOOD, "good_model": MODEL})
    return tmp_path


HOOK = "@hookimpl\ndef benchkit_models():\n    return "
BROKEN = {
    "raises": ("raise RuntimeError('boom\\nand more')", "RuntimeError: boom"),
    "raises an odd thing": ("class Odd(BaseException): pass\nraise Odd", "Odd"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "syntax error": ("def f(:", "SyntaxError: invalid syntax"),
    "lacks a dependency": ("import no_such_package_anywhere", "No module named 'no_such_package_anywhere'"),
    "no hooks": ("x = 1", "it implements none of benchkit's hooks (is @hookimpl missing?)"),
    "unmarked hook": ("def benchkit_models():\n    return {}", "is @hookimpl missing?"),
    "misspelt hook": (HEADER + "@hookimpl\ndef benchkit_model():\n    return {}", "unknown hook 'benchkit_model'"),
    "hook with an argument": (HEADER + "@hookimpl\ndef benchkit_models(x):\n    return {}", "PluginValidationError"),
    "hook raises": (HEADER + HOOK + "{}[1]", "KeyError: 1"),
    "hook exits": (HEADER + HOOK + "exit()", "SystemExit"),
    "returns a list": (HEADER + HOOK + "['m']", "benchkit_models() returned ['m'], not a dict of Entry by name"),
    "returns text": (HEADER + HOOK + "'m:M'", "benchkit_models() returned 'm:M', not a dict"),
    "entry is text": (HEADER + HOOK + "{'m': 'm:M'}", "model 'm' is 'm:M', not an Entry(summary, 'module:Class')"),
    "target is a module": (HEADER + HOOK + "{'m': Entry('x', 'mod')}", "has the target 'mod', not 'module:Class'"),
    "target is a class": (HEADER + HOOK + "{'m': Entry('x', int)}", "has the target <class 'int'>, not 'module:Class'"),
    "name with a blank": (HEADER + HOOK + "{'my model': Entry('x', 'm:M')}", "has no name that a spec can hold"),
    "name is a number": (HEADER + HOOK + "{3: Entry('x', 'm:M')}", "model 3 has no name that a spec can hold"),
    "summary of two lines": (HEADER + HOOK + "{'m': Entry('x\\ny', 'm:M')}", "not one line of text"),
}  # fmt: skip


def test_a_broken_plugin_is_named_with_its_reason_and_stops_none_of_the_others(site: Path) -> None:
    for i, (source, _) in enumerate(BROKEN.values()):
        install(site, f"broken-{i:02d}", {f"broken_{i:02d}": source + "\n"})
    found = ask(site, DISCOVER).json
    assert found["good"] == ["1.0", {"model": ["good"]}, None]
    assert found["benchkit-core"][2] is None
    assert "linear" in found["benchkit-core"][1]["classifier"]
    for i, (name, (_, reason)) in enumerate(BROKEN.items()):
        version, provides, error = found[f"broken-{i:02d}"]
        assert (version, provides) == ("1.0", {}), name
        assert reason in error, name
        assert "\n" not in error, name


def test_a_plugin_that_hangs_costs_its_time_limit_and_no_more(site: Path) -> None:
    install(site, "asleep", {"asleep": "import time\nwhile True: time.sleep(60)\n"})
    install(site, "busy", {"busy": "while True: pass\n"})
    answer = ask(site, DISCOVER, BENCHKIT_PLUGIN_TIMEOUT="0.5").json
    for hanging in ("asleep", "busy"):
        assert answer[hanging][2] == "did not load within 0.5 s (BENCHKIT_PLUGIN_TIMEOUT)"
    assert answer["good"] == ["1.0", {"model": ["good"]}, None]


def test_a_class_whose_module_hangs_stops_nobody_either(site: Path) -> None:
    hooks = GOOD.replace('"good"', '"stuck"').replace("good_model", "stuck_model")
    install(site, "stuck", {"stuck": hooks, "stuck_model": "import time\nwhile True: time.sleep(60)\n"})
    answers = models(site, "stuck", "good", BENCHKIT_PLUGIN_TIMEOUT="0.5")
    assert answers == {
        "stuck": "PluginError: model 'stuck' of stuck 1.0 does not load from 'stuck_model:Model': "
        "did not load within 3 s (BENCHKIT_PLUGIN_TIMEOUT)",
        "good": ["good", "good 1.0"],
    }


@pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_is_none_is_said_so(site: Path, limit: str) -> None:
    answer = models(site, "good", BENCHKIT_PLUGIN_TIMEOUT=limit)
    assert answer["good"] == f"BenchkitError: BENCHKIT_PLUGIN_TIMEOUT={limit} is no number of seconds above 0"


def test_what_plugins_print_while_imported_stays_out_of_stdout(site: Path) -> None:
    noise = "import sys\nprint('hello from the plugin')\nsys.stdout.write('and more')\n"
    loud = noise + GOOD.replace('"good"', '"loud"').replace("good_model", "loud_model")
    install(site, "loud", {"loud": loud, "loud_model": noise + MODEL})
    answer = ask(site, RESOLVE % (["loud"],))
    assert answer.json == {"loud": ["loud", "loud 1.0"]}
    assert answer.err.count("hello from the plugin") == 2


def test_the_commands_that_list_plugins_write_nothing_else_to_stdout(site: Path) -> None:
    loud = "print('hello from the plugin')\n"
    install(site, "loud", {"loud": loud + GOOD.replace("good", "loud"), "loud_model": loud + MODEL})
    install(site, "silly", {"silly": loud + "raise ValueError\n"})
    for command in ("plugins", "models"):
        listed = ask(
            site, f"import sys; sys.argv[1:] = ['{command}', '--json']; import benchkit.cli; benchkit.cli.main()"
        )
        assert "loud" in [record["name"] for record in listed.json]
        assert "hello from the plugin" in listed.err


def test_a_damaged_entry_points_file_stops_nobody_else(site: Path) -> None:
    install(site, "torn", {"torn": GOOD}, entry="[benchkit]\nthis line has no equals sign\n")
    install(site, "unrelated", {"unrelated": ""}, entry="[console_scripts]\nnor has this\n")
    install(site, "odd", {"odd": GOOD}, entry="[benchkit]\nodd = not a module!\n")
    found = ask(site, DISCOVER).json
    assert found["good"] == ["1.0", {"model": ["good"]}, None]
    assert found["torn"][2].startswith("its entry_points.txt is damaged: ")
    assert found["odd"][2]
    assert "unrelated" not in found


def test_a_distribution_without_metadata_is_named_after_its_folder(site: Path) -> None:
    install(site, "bare", {"bare_plugin": GOOD})
    (site / "bare-1.0.dist-info" / "METADATA").unlink()
    assert ask(site, DISCOVER).json["bare"] == ["1.0", {"model": ["good"]}, None]


def test_two_plugins_with_one_name_are_both_named_and_either_can_be_chosen(site: Path) -> None:
    install(
        site,
        "Other_One",
        {"other_plugin": GOOD.replace("good_model", "other_model"), "other_model": MODEL},
        version="0.2",
    )
    answers = models(site, "good", "good/good", "other-one/good", "Other_One/good", "third/good")
    assert answers == {
        "good": "SpecError: model 'good' is provided by Other_One 0.2 and good 1.0: "
        "write 'other-one/good' or 'good/good'",
        "good/good": ["good/good", "good 1.0"],
        "other-one/good": ["other-one/good", "Other_One 0.2"],
        "Other_One/good": ["other-one/good", "Other_One 0.2"],
        "third/good": "SpecError: distribution 'third' provides no model 'good'; Other_One and good does",
    }  # fmt: skip


def test_where_the_core_is_one_of_two_its_name_in_a_spec_is_the_one_that_registries_hold(site: Path) -> None:
    probe = "@hookimpl\ndef benchkit_classifiers():\n    return {'knn': Entry('mine', 'm:M')}\n"
    install(site, "other", {"other_plugin": HEADER + probe})
    program = RESOLVE.replace('"model"', '"classifier"')
    answers = ask(site, program % (["knn", "benchkit/knn,k=3", "benchkit-core/knn", "Benchkit_Core/knn"],)).json
    core = f"benchkit-core {benchkit.__version__}"
    assert answers == {
        "knn": f"SpecError: classifier 'knn' is provided by {core} and other 1.0: write 'benchkit/knn' or 'other/knn'",
        "benchkit/knn,k=3": ["benchkit/knn@2,k=3", core],
        "benchkit-core/knn": ["benchkit/knn@2", core],
        "Benchkit_Core/knn": ["benchkit/knn@2", core],
    }


TARGETS = {
    "typo": ("good_modle:Model", "PluginError: {}: its target 'good_modle:Model' is not there"),
    "below": ("good_model.deeper:Model", "PluginError: {}: its target 'good_model.deeper:Model' is not there"),
    "lacking": ("lacks:Model", "MissingDependency: {} needs the package 'no_such_package_anywhere', "),
    "raising": ("raises:Model", "PluginError: {} does not load from 'raises:Model': ValueError: no licence file"),
    "exiting": ("exits:Model", "PluginError: {} does not load from 'exits:Model': SystemExit: 1"),
    "nameless": ("good_model:Modell", "has no attribute 'Modell'"),
    "function": ("shapes:function", "PluginError: {}: 'shapes:function' is no class derived from benchkit.Backbone"),
    "stranger": ("shapes:Stranger", "PluginError: {}: 'shapes:Stranger' is no class derived from benchkit.Backbone"),
    "half": ("shapes:Half", "PluginError: {}: 'shapes:Half' leaves out encode, fingerprint"),
    "zero": ("shapes:Zero", "PluginError: {}: 'shapes:Zero' has version = 0, not a whole number from 1"),
    "thawed": ("shapes:Thawed", "PluginError: {}: 'shapes:Thawed' has Params that cannot be used: Thaw is no frozen "),
    "twofold": ("shapes:Twofold", "the parameter 'x' of Two has a default that a user cannot spell"),
}  # fmt: skip
SHAPES = (
    MODEL
    + """
from dataclasses import dataclass

def function(): pass

class Stranger: pass

class Half(Backbone):
    dim = 3
    def preprocess(self, raw): return raw

class Zero(Model):
    version = 0

@dataclass
class Thaw:
    x: int = 1

class Thawed(Model):
    Params = Thaw

@dataclass(frozen=True)
class Two:
    x: str | None = "none"

class Twofold(Model):
    Params = Two
"""
)


def test_a_class_that_does_not_load_is_an_error_that_says_whose_and_why(site: Path) -> None:
    entries = ", ".join(f"'{name}': Entry('x', '{target}')" for name, (target, _) in TARGETS.items())
    modules = {
        "many": f"{HEADER}{HOOK}{{{entries}}}\n",
        "lacks": "import no_such_package_anywhere\n",
        "raises": "raise ValueError('no licence file')\n",
        "exits": "import sys; sys.exit(1)\n",
        "shapes": SHAPES,
    }
    install(site, "many", modules)
    answers = models(site, "good", *TARGETS)
    assert answers["good"] == ["good", "good 1.0"]
    for name, (_, words) in TARGETS.items():
        assert words.format(f"model '{name}' of many 1.0") in answers[name]
        assert answers[name].isprintable(), name


def test_a_plugin_of_each_kind_is_found(site: Path) -> None:
    hooks = "".join(
        f"@hookimpl\ndef benchkit_{kind}s():\n    return {{'my-{kind}': Entry('mine', 'm:M')}}\n" for kind in KINDS
    )
    install(site, "all-kinds", {"all_kinds": HEADER + hooks})
    assert ask(site, DISCOVER).json["all-kinds"][1] == {kind: [f"my-{kind}"] for kind in KINDS}


# ------------------------------------------------------------------------------------------------ what it costs to look


def test_importing_benchkit_imports_nothing_but_benchkit(tmp_path: Path) -> None:
    program = "import sys; before = set(sys.modules); import benchkit; print(*sorted(set(sys.modules) - before))"
    imported = set(ask(tmp_path, program).out.split())
    found = {m for m in imported if m.partition(".")[0] not in sys.stdlib_module_names}
    assert found == {"benchkit"}


def test_discovery_imports_no_numpy_and_nothing_heavy(site: Path) -> None:
    program = (
        "import sys; from benchkit.catalog.discovery import discover; discover(); "
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    imported = set(ask(site, program).out.split())
    assert "good_plugin" in imported, "it was discovered"
    assert not imported & (HEAVY | {"numpy", "jaxtyping", "pandas", "good_model"})


def _first_party() -> set[str]:
    files = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("tasks/*/pyproject.toml")]
    return {tomllib.loads(f.read_text())["project"]["name"] for f in files}


def test_our_own_plugins_are_all_found_and_none_is_broken() -> None:
    found = {p.dist: p.error for p in discover().plugins}
    assert {dist: found.get(dist, "not installed") for dist in _first_party()} == dict.fromkeys(_first_party())


def test_every_first_party_class_loads_without_a_framework(tmp_path: Path) -> None:
    program = """
import json, sys
from benchkit.errors import BenchkitError
from benchkit.catalog.discovery import KINDS, discover
loaded, failed = {}, {}
for kind in KINDS:
    for provided in discover().provided(kind):
        try:
            provided.load()
        except BenchkitError as e:
            failed[provided.name] = str(e)
        loaded[provided.name] = provided.plugin.dist
print(json.dumps([loaded, failed, sorted(sys.modules)]))
"""
    loaded, failed, modules = ask(tmp_path, program).json
    assert {name: why for name, why in failed.items() if loaded[name] in _first_party()} == {}
    assert {"digits", "esc50", "pixels", "logmel", "mfcc", "random-vit", "linear", "centroid", "random"} <= set(loaded)
    assert not {m.partition(".")[0] for m in modules} & HEAVY


COMMAND = """
import typer

app = typer.Typer(help="Greets.")

@app.command()
def greet(who: str) -> None:
    \"\"\"Says hello.\"\"\"
    print(f"hello {who}")
"""
CALL = """
import sys
sys.argv = ["benchkit", *{words!r}]
from benchkit.cli import main
try:
    main()
except SystemExit as e:
    print("left", e.code)
"""


def commands(name: str, target: str) -> str:
    return HEADER + f"@hookimpl\ndef benchkit_commands():\n    return {{{name!r}: Entry('Says hello.', {target!r})}}\n"


def test_a_plugin_adds_a_command_that_is_listed_without_being_imported(tmp_path: Path) -> None:
    hooks = commands("greet", "greet_cli:app")
    install(tmp_path, "greet-dist", {"greet_hooks": hooks, "greet_cli": "print('imported')\n" + COMMAND})

    helped = ask(tmp_path, CALL.format(words=["--help"]))
    assert "imported" not in helped.out
    assert "greet" in helped.out[helped.out.index("From plugins") :]
    assert ask(tmp_path, CALL.format(words=["greet", "them"])).out == "imported\nhello them\n"
    assert "commands: greet" in ask(tmp_path, CALL.format(words=["plugins"])).out


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("app = 1", "is no typer.Typer"),
        ("import nothing_of_that_name", "needs the package 'nothing_of_that_name'"),
        ("1 / 0", "does not load from 'broken_cli:app': ZeroDivisionError"),
    ],
)
def test_a_command_that_cannot_be_used_is_one_line_and_the_others_work(tmp_path: Path, module: str, said: str) -> None:
    hooks = commands("broken", "broken_cli:app")
    install(tmp_path, "broken-dist", {"broken_hooks": hooks, "broken_cli": module})

    found = ask(tmp_path, CALL.format(words=["broken"]))
    assert found.out == "left 1\n"
    assert said in found.err
    assert found.err.startswith("error: command 'broken' of broken-dist 1.0")
    assert ask(tmp_path, CALL.format(words=["--version"])).err == ""


def test_no_plugin_replaces_a_command_of_benchkits_own(tmp_path: Path) -> None:
    hooks = commands("ls", "greet_cli:app")
    install(tmp_path, "greet-dist", {"greet_hooks": hooks, "greet_cli": COMMAND})
    assert "hello" not in ask(tmp_path, CALL.format(words=["ls", "--help"])).out
