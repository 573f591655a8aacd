"""docs/plugins.md does what it says: its files are built, checked and run as a stranger would, in an empty folder."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
FIRST_PART = "## A backbone, from an empty folder"

FILE = re.compile(r"^\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.slow


def section(title: str) -> str:
    """The text under a heading, down to the next of its level."""
    after = DOC.split(f"{title}\n", 1)[1]
    return re.split(r"^## ", after, maxsplit=1, flags=re.MULTILINE)[0]


def write(folder: Path, text: str) -> None:
    for name, contents in FILE.findall(text):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(contents, encoding="utf-8")


@dataclass(frozen=True)
class Project:
    """What the page's reader has: an empty folder at first, uv, and the package index with this checkout's wheels."""

    folder: Path
    uv: str
    wheelhouse: Path
    said: dict[str, str] = field(default_factory=dict)
    """What each command of the page printed."""

    def call(self, command: str) -> str:
        """Runs one command of the page as it stands there, but for where benchkit comes from: this checkout."""
        words = [self._wheel(word) or word for word in command.split()]
        local = " ".join(words) if command.startswith("uv pip install") else command
        done = subprocess.run(
            local, shell=True, cwd=self.folder, env=self._environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _wheel(self, name: str) -> str | None:
        return next((shlex.quote(str(f)) for f in self.wheelhouse.glob(f"{name.replace('-', '_')}-*.whl")), None)

    def _environment(self) -> dict[str, str]:
        """Ours without what would lead to our own environment, registry or cache."""
        leads = re.compile(r"VIRTUAL_ENV|PYTHON|BENCHKIT_|UV_PROJECT|PYTEST")
        return {
            **{k: v for k, v in os.environ.items() if not leads.match(k)},
            "PATH": f"{Path(self.uv).parent}{os.pathsep}{os.environ['PATH']}",
            "UV_PYTHON": f"{sys.version_info.major}.{sys.version_info.minor}",
            "BENCHKIT_CACHE": str(self.folder.parent / "cache"),
            "COLUMNS": "200",
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, uv: str, wheelhouse: Path) -> Project:
    """The first part of the page, from an empty folder to the wheel."""
    folder = tmp_path_factory.mktemp("plugin") / "benchkit-hog"
    folder.mkdir()
    text = section(FIRST_PART)
    write(folder, text)
    project = Project(folder, uv, wheelhouse)
    for block in COMMANDS.findall(text):
        for command in block.splitlines():
            project.said[command] = project.call(command)
    return project


def said_by(project: Project, part: str) -> str:
    return "\n".join(out for command, out in project.said.items() if part in command)


def test_the_page_shows_every_file_that_it_lists() -> None:
    listed = set(re.findall(r"^ +([\w.]+\.(?:toml|py))\b", section(FIRST_PART), re.MULTILINE))
    shown = {Path(name).name for name, _ in FILE.findall(section(FIRST_PART))}
    assert listed == shown != set()


def test_the_conformance_checks_of_the_page_pass(project: Project) -> None:
    out = said_by(project, "--no-sync pytest")
    passed = re.search(r"\b(\d+) passed\b", out)
    assert passed, out
    assert int(passed[1]) >= 40, out


def test_benchkit_is_installed_there_as_a_stranger_would_have_it(project: Project) -> None:
    where = project.call('uv run --no-sync python -c "import benchkit; print(benchkit.__file__)"')
    assert Path(where.strip()).is_relative_to(project.folder / ".venv")


def test_the_plugin_is_listed_with_its_version(project: Project) -> None:
    out = said_by(project, "benchkit plugins")
    assert re.search(r"benchkit-hog\b.*\b0\.1\.0\b.*\bhog\b", out), out


def test_the_table_is_the_one_on_the_page(project: Project) -> None:
    (shown,) = re.findall(r"^```text\n(.*?)^```$", section(FIRST_PART), re.MULTILINE | re.DOTALL)
    printed = said_by(project, "benchkit table")
    number = re.compile(r"\d\.\d+")
    assert number.sub("#", printed).split() == number.sub("#", shown).split()
    two_of_596 = 0.0041  # another processor rounds otherwise
    close = pytest.approx([float(n) for n in number.findall(shown)], abs=two_of_596)
    assert [float(n) for n in number.findall(printed)] == close


def test_the_numbers_are_in_the_registry(project: Project) -> None:
    columns = "SELECT model, classifier, value FROM results ORDER BY value"
    rows = json.loads(project.call(f'uv run --no-sync benchkit sql "{columns}" --format json'))
    found = {(row["model"], row["classifier"]): row["value"] for row in rows}
    assert set(found) == {("hog", "centroid@2"), ("hog,cells=8", "centroid@2"), ("hog,cells=8", "knn@2")}
    assert all(0.85 < value < 1 for value in found.values()), found


def test_a_second_run_answers_from_the_registry(project: Project) -> None:
    command = next(c for c in project.said if "benchkit run" in c)
    assert "0 to do" in project.call(f"{command} --dry-run")
    again = project.call(command)
    for number in re.findall(r"\b0\.\d+", said_by(project, command)):
        assert number in again


def test_the_wheel_holds_the_package_and_its_entry_point(project: Project) -> None:
    (wheel,) = (project.folder / "dist").glob("benchkit_hog-0.1.0-*.whl")
    names = subprocess.run([sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True)
    assert "benchkit_hog/model.py" in names.stdout
    assert "entry_points.txt" in names.stdout


def test_everything_else_on_the_page_passes_its_conformance_checks_too(project: Project) -> None:
    write(project.folder, DOC)
    out = project.call("uv run --no-sync pytest tests/test_conformance_more.py")
    assert re.search(r"\b\d\d passed\b", out), out
    assert not re.search(r"failed|error", out), out


def test_everything_the_page_adds_is_listed(project: Project) -> None:
    out = project.call("uv run --no-sync benchkit plugins")
    for name in ("hog-projected", "image-folder", "ridge", "axes"):
        assert name in out, out
