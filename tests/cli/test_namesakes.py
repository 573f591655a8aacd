"""Another distribution that brings a package named `benchkit` is told of, with the way out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import benchkit
from benchkit.catalog.namesakes import complaint, namesakes

SAID = (
    "other projects bring a package named 'benchkit' too, which overwrites files of this one or is overwritten: "
    "{0}; mend it with `pip uninstall {0}` and then `pip install --force-reinstall --no-deps benchkit-core`"
)


def install(site: Path, dist: str, **files: str) -> None:
    """A .dist-info folder as pip leaves it."""
    info = site / f"{dist.replace('-', '_')}-1.0.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0.2\n")
    for name, text in files.items():
        (info / name).write_text(text)


def test_none_is_found_here() -> None:
    assert (namesakes(), complaint()) == ([], None)


@pytest.mark.parametrize(
    ("dist", "files"),
    [
        ("benchkit", {"RECORD": "benchkit/__init__.py,,\nbenchkit/nn/helpers.py,,\n"}),
        ("kit-of-benches", {"RECORD": "other/__init__.py,,\nbenchkit/misc/cli.py,,\n"}),
        ("built-long-ago", {"top_level.txt": "tests\nbenchkit\n"}),
    ],
)
def test_one_that_brings_the_package_is_one_line(dist: str, files: dict[str, str], tmp_path: Path, script) -> None:
    install(tmp_path, dist, **files)
    ran = script("plugins", PYTHONPATH=str(tmp_path))
    assert ran.code == 0
    assert ran.err == f"warning: {SAID.format(dist)}\n"


@pytest.mark.parametrize(
    ("dist", "files"),
    [
        ("benchkit-core", {"RECORD": "benchkit/__init__.py,,\n"}),
        ("Benchkit_Core", {"RECORD": "benchkit/__init__.py,,\n"}),
        ("benchkit-hog", {"RECORD": "benchkit_hog/__init__.py,,\n", "top_level.txt": "benchkit_hog\n"}),
        ("nothing-told", {}),
    ],
)
def test_ours_and_plugins_of_ours_are_none(dist: str, files: dict[str, str], tmp_path: Path, script) -> None:
    install(tmp_path, dist, **files)
    assert script("plugins", PYTHONPATH=str(tmp_path)).err == ""


def test_where_its_files_lie_over_ours_no_command_runs(tmp_path: Path) -> None:
    """As after `pip install benchkit` beside benchkit-core: its package face is empty, the rest of ours is there."""
    shutil.copytree(Path(benchkit.__file__).parent, tmp_path / "benchkit", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "benchkit" / "__init__.py").write_text("")
    install(tmp_path, "benchkit", RECORD="benchkit/__init__.py,,\n")
    for words in (["plugins"], ["--help"], ["ls"]):
        done = subprocess.run(
            [sys.executable, "-m", "benchkit", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"error: {SAID.format('benchkit')}\n"
