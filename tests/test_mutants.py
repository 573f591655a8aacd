"""bench/mutants.py: its lists fit the code, and it tells a fault that is noticed from one that is not."""

import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TOOL = ROOT / "bench" / "mutants.py"
LISTS = sorted((ROOT / "bench" / "mutants").glob("*.toml"))
ROOMS = {"metrics", "checks", "planning", "jobs", "store", "classifiers", "sae", "scorers"}


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


def test_there_is_a_list_for_each_room_whose_numbers_are_relied_on() -> None:
    assert {path.stem for path in LISTS} >= ROOMS


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_a_list_is_of_places_that_are_there_and_of_code_that_compiles(path: Path, tool: dict[str, Any]) -> None:
    mutants = tool["read"](path)
    assert len(mutants) == len(tomllib.loads(path.read_text())["mutant"])
    fit = [m for m in mutants if m.fits(ROOT)]
    stale = [str(m) for m in mutants if m not in fit]
    assert len(fit) > 0.7 * len(mutants), (
        stale
    )  # a line that changes need not change its list at once: the tool says so
    for m in fit:
        assert m.old != m.new
        compile((ROOT / m.file).read_text().replace(m.old, m.new), m.file, "exec")
    for m in mutants:
        assert m.tests, m
        for test in m.tests:
            assert (ROOT / test.partition("::")[0]).is_file(), m


CODE = "def double(x):\n    return 2 * x\n\n\ndef unused(x):\n    return 3 * x\n"
TEST = "from thing import double\n\n\ndef test_it_doubles():\n    assert double(4) == 8\n"
LIST = """
tests = ["test_thing.py"]
[[mutant]]
file = "thing.py"
old = "2 * x"
new = "x + 2"
[[mutant]]
file = "thing.py"
old = "3 * x"
new = "x"
{survives}
[[mutant]]
file = "thing.py"
old = "    return 2 * x"
new = "    while True:\\n        pass"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("survives", "more", "code", "words"),
    [
        (
            "survives = 'nobody calls it'",
            8 * "[[mutant]]\nfile = 'thing.py'\nold = '2 *'\nnew = '5 *'\n",
            0,
            "10 of 11",
        ),
        ("", "[[mutant]]\nfile = 'thing.py'\nold = '4 * x'\nnew = 'x'\n", 1, "2 of 3 killed (67%)"),
    ],
)
def test_it_tells_what_is_noticed_from_what_is_not(
    tmp_path: Path, survives: str, more: str, code: int, words: str
) -> None:
    tree = tmp_path / "repository"
    (tree / "bench").mkdir(parents=True)
    tool = TOOL.read_text().replace("LEAST_LIMIT, TIMES = 60.0, 4.0", "LEAST_LIMIT, TIMES = 5.0, 1.0")
    for name, text in (("thing.py", CODE), ("test_thing.py", TEST), ("bench/mutants.py", tool)):
        (tree / name).write_text(text)
    faults = tmp_path / "faults.toml"
    faults.write_text(LIST.format(survives=survives) + more)
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    done = subprocess.run(
        [sys.executable, "bench/mutants.py", str(faults)], cwd=tree, capture_output=True, text=True, timeout=200,
        env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout
    assert "[test_it_doubles]" in done.stdout
    assert "[took too long]" in done.stdout
    assert ("STALE" in done.stdout) == bool(code)
    assert (tree / "thing.py").read_text() == CODE, "the tree itself is left alone"
