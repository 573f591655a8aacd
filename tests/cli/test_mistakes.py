"""What a user may get wrong, or the machine refuse: one line, and nothing is left behind."""

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.api import Grid, Settings, look
from benchkit.store import database, open_store

Script = Callable[..., Any]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--task", "digits", "--model", "pixels", "--jobs", "0"), "'--jobs' / '-j': '0': Input should be gr"),
        (("ls", "--seed", "1", "--seed", "x"), "'--seed': 'x': 'x' is not a valid integer"),
        (("table", "--format", "pdf"), "'pdf' is not one of 'text'"),
        (("sql",), "Missing argument 'query'"),
        (("ls", "--modle", "x"), "No such option: --modle"),
        (("rum",), "No such command 'rum'"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it_and_its_value(
    script: Script, words: tuple[str, ...], said: str
) -> None:
    ran = script(*words)
    assert (ran.code, ran.out) == (2, "")
    assert re.match(r"error: .*\bbenchkit\b", ran.err)
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert "--help` lists" in ran.err


def test_no_command_at_all_is_the_help(script: Script) -> None:
    ran = script("cache")
    assert ran.code == 2
    assert "prune" in ran.err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 300, "cannot be opened: File name too long; --db or BENCHKIT_DB"),
        ("/dev/null", "'/dev/null' is a device or a pipe, not a registry file"),
        ("/tmp", "'/tmp' is a folder, not a registry file"),
        ("/dev/null/r.sqlite", "there is no registry at '/dev/null/r.sqlite'"),
    ],
)
def test_a_nonsensical_registry_is_one_line(script: Script, name: str, said: str) -> None:
    ran = script("ls", BENCHKIT_DB=name)
    assert ran.code == 1
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_an_argument_that_is_not_text_is_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", "sql", b"\xff"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "error: the argument '\\udcff' is not UTF-8\n")


def test_a_full_disk_under_the_answer_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "benchkit", "classifiers"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


def test_a_bug_is_still_a_traceback(tmp_path: Path) -> None:
    code = """
import sys
from benchkit.cli import app, main, with_commands
@with_commands().command()
def buggy():
    open("gone/there.txt")
sys.argv[1:] = ["buggy"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_merging_a_mistyped_registry_makes_none(script: Script, tmp_path: Path) -> None:
    ran = script("merge", tmp_path / "typo.sqlite", "--db", tmp_path / "mine.sqlite")
    assert ran.code == 1
    assert "there is no registry at" in ran.err
    assert os.listdir(tmp_path) == []


def test_a_registry_that_is_only_read_can_be_planned_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(tmp_path / "r.sqlite").close()
    monkeypatch.setattr(database, "_writable", lambda _: False)
    plan = look([Grid(("digits",), ("pixels",))], Settings(db=tmp_path / "r.sqlite"))
    assert plan.by_state["todo"] == 1


@pytest.mark.parametrize("closed", [">&-", "0<&- >&- 2>&-"])
def test_streams_that_are_closed_are_as_good_as_none(tmp_path: Path, closed: str) -> None:
    run = f"run --task digits --model pixels --classifier centroid --db {tmp_path}/r.sqlite"
    for words in (run, f"ls --db {tmp_path}/r.sqlite", f"rm 1 --db {tmp_path}/r.sqlite"):
        done = subprocess.run(
            f"{sys.executable} -m benchkit {words} {closed}", shell=True, capture_output=True, text=True, check=False
        )
        assert (done.returncode, "Traceback" in done.stderr) == (1 if words.startswith("rm") else 0, False), done.stderr
    with sqlite3.connect(tmp_path / "r.sqlite") as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
