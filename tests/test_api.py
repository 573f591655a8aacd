"""benchkit.run and Settings from Python: any value that cannot be is one line, and none is taken for another."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchkit
from benchkit.api import Settings
from benchkit.errors import BenchkitError

# The tests' type checks would come first: in a process of its own the words are those that a user sees.
PROGRAM = """
import sys
from pathlib import Path
import benchkit
from benchkit.api import Settings
try:
    benchkit.run(**({"task": "digits", "model": "pixels", "db": "r.sqlite"} | eval(sys.argv[1])))
except benchkit.BenchkitError as e:
    print(e)
"""


def test_a_value_that_cannot_be_is_one_line_that_names_it(tmp_path: Path) -> None:
    for given, words in {
        "{'task': None}": "task = (None,) must be a spec, as text, or several",
        "{'model': Path('x')}": "model = (PosixPath('x'),) must be a spec",
        "{'classifier': []}": "classifier = () must be a spec",
        "{'n_train': 'all'}": "n_train = ('all',) must be a whole number (-1 is all), or several",
        "{'n_train': [1.0]}": "n_train = (1.0,) must be a whole number",
        "{'n_train': True}": "n_train = (True,) must be a whole number",
        "{'seed': None}": "seed = (None,) must be a whole number",
        "{'settings': {'device': 'cpu'}}": "settings is a dict, and must be a benchkit.api.Settings",
        "{'settings': Settings(jobs='2')}": "jobs='2' must be a whole number from 1",
    }.items():
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, given], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (words in done.stdout, done.stderr) == (True, ""), given
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"jobs": 0}, "jobs=0 must be a whole number from 1"),
        ({"jobs": -1}, "jobs=-1"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1"),
        ({"workers": -1}, "workers=-1 must be a whole number from 0"),
        ({"skip_bad": -1}, "skip_bad=-1"),
        ({"replicates": -1}, "replicates=-1"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_made(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchkitError, match=words):
        Settings(**given)


def test_numbers_may_come_from_numpy_and_specs_from_any_collection(tmp_path: Path) -> None:
    settings = Settings(db=tmp_path / "r.sqlite", replicates=0, jobs=1)
    reports = benchkit.run(
        task=("digits",), model=["pixels"], classifier="centroid", n_train=np.arange(1, 3), seed=range(2),
        settings=settings,
    )  # fmt: skip
    assert [(r.cell.n_train, r.cell.seed) for r in reports] == [(1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_tilde_is_the_home_folder_for_the_registry_its_folder_and_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BENCHKIT_CACHE", "~/cache")
    monkeypatch.chdir(work)
    (report,) = benchkit.run(
        task="digits", model="pixels", classifier="centroid", db="~/r.sqlite", settings=Settings(jobs=1, replicates=0)
    )
    assert report.value > 0.8
    command = [sys.executable, "-m", "benchkit"]
    for words in (["run", "--task=digits", "--model=pixels", "--classifier=knn", "--db=~/r.sqlite", "--cache=~/cache2"],
                  ["backup", "~/copy.sqlite", "--db=~/r.sqlite"], ["cache", "ls", "--cache=~/cache2"]):  # fmt: skip
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr
    assert {p.name for p in home.iterdir()} >= {"r.sqlite", "r.sqlite.d", "cache", "cache2", "copy.sqlite"}
    assert not list(work.iterdir())
