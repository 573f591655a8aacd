"""Every command that tells how to install something finds this project's distributions, and no stranger's.

Resolved without an index: against wheels built here, empty stand-ins for the libraries that they need, and a stranger
called `benchkit`, as the package index has one.
"""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("plugins/*/*.md"), *ROOT.glob("tasks/*/*.md")])
CODE = sorted(
    file
    for folder in ("benchkit", "plugins", "tasks")
    for file in (ROOT / folder).rglob("*.py")
    if "tests" not in file.parts
)
COMMAND = re.compile(r"(?:uv pip|pip|pipx|uv tool) install ([^`\n|&;#]+)|uv add ([^`\n|&;#]+)|uvx ([^`\n|&;# ]+)")
READERS_OWN = {"benchkit-hog", "benchkit-my-model", "benchkit-mynet"}
"""Distributions that a page tells its reader to make."""
STRANGER = ("benchkit", "1.0.2")


def requirements(words: str) -> list[str]:
    """What a command installs, less its options and folders."""
    bare = [word.strip("'\"") for word in words.split()]
    return [word for word in bare if re.match(r"[A-Za-z0-9]", word)]


def commands() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where each stands, and what it installs."""
    for page in PAGES:
        for match in COMMAND.finditer(page.read_text(encoding="utf-8")):
            yield page.relative_to(ROOT).as_posix(), tuple(requirements(next(filter(None, match.groups()))))
    for file in CODE:
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "require":
                extra = node.args[1]
                assert isinstance(extra, ast.Constant), f"{file}: require() with a name that no test can read"
                yield file.relative_to(ROOT).as_posix(), (extra.value,)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                for match in re.finditer(r"pip install '?([a-z0-9][a-z0-9.-]*-[a-z0-9.\[\]-]+)", node.value):
                    yield file.relative_to(ROOT).as_posix(), (match[1],)


COMMANDS = sorted({c for c in commands() if c[1]})


def wheel(folder: Path, name: str, version: str, extras: list[str] | None = None) -> None:
    """A distribution without contents and needs."""
    stem = f"{canonicalize_name(name).replace('-', '_')}-{version}"
    provides = "".join(f"Provides-Extra: {extra}\n" for extra in extras or [])
    with ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as z:
        z.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{provides}")
        z.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{stem}.dist-info/RECORD", "")


def needs(built: Path) -> Iterator[Requirement]:
    for file in built.glob("*.whl"):
        with ZipFile(file) as z:
            (metadata,) = (n for n in z.namelist() if n.endswith(".dist-info/METADATA"))
            for line in z.read(metadata).decode().splitlines():
                if line.startswith("Requires-Dist: "):
                    yield Requirement(line.removeprefix("Requires-Dist: "))


def ours(built: Path) -> dict[str, str]:
    """Name and version of each distribution that was built."""
    split = (file.name.split("-")[:2] for file in built.glob("*.whl"))
    return {canonicalize_name(name): version for name, version in split}


@pytest.fixture(scope="module")
def stand_ins(wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is not ours: as installed here, else of the lowest version that is allowed."""
    folder = tmp_path_factory.mktemp("stand-ins")
    versions = {canonicalize_name(d.metadata["Name"]): d.version for d in distributions()}
    wanted = {word: Requirement(word) for _, words in COMMANDS for word in words}
    for requirement in [*needs(wheelhouse), *wanted.values()]:
        name = canonicalize_name(requirement.name)
        if name not in versions and not name.startswith("benchkit"):
            bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==", "~=")]
            versions[name] = bounds[0] if bounds else "1.0"
    for name, version in versions.items():
        if not name.startswith("benchkit"):
            wheel(folder, name, version, sorted({e for w in wanted.values() if w.name == name for e in w.extras}))
    for name in READERS_OWN:
        wheel(folder, name, "0.1.0", ["onnx"])
    wheel(folder, *STRANGER, ["probes", "audio", "image", "pandas", "slurm", "all"])
    return folder


def resolved(uv: str, wheelhouse: Path, stand_ins: Path, wanted: tuple[str, ...]) -> dict[str, str]:
    """Name and version of all that would be installed. Fails where something is not found, or an extra is not there."""
    done = subprocess.run(
        [uv, "pip", "compile", "-", "--no-index", "--no-header", "--no-annotate", "--no-config",
         "--find-links", wheelhouse, "--find-links", stand_ins],
        input="\n".join(wanted), capture_output=True, text=True, timeout=60, cwd=stand_ins,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "does not have an extra" not in done.stderr, done.stderr
    return dict(line.split("==") for line in done.stdout.splitlines() if "==" in line)


def test_there_are_commands_of_each_sort() -> None:
    told = {where for where, _ in COMMANDS}
    assert {"README.md", "docs/plugins.md", "docs/slurm.md", "benchkit/media/recording.py"} <= told


@pytest.mark.parametrize(("where", "wanted"), COMMANDS, ids=[f"{w}: {' '.join(r)}" for w, r in COMMANDS])
def test_a_command_finds_our_distributions(
    where: str, wanted: tuple[str, ...], uv: str, wheelhouse: Path, stand_ins: Path
) -> None:
    found = resolved(uv, wheelhouse, stand_ins, wanted)
    named = {n: v for n, v in found.items() if n.startswith("benchkit") and n not in READERS_OWN}
    assert named.items() <= ours(wheelhouse).items()


def test_the_stranger_would_be_noticed(uv: str, wheelhouse: Path, stand_ins: Path) -> None:
    found = resolved(uv, wheelhouse, stand_ins, ("benchkit[probes]",))
    assert found["benchkit"] == "1.0.2"
    assert "benchkit" not in ours(wheelhouse)


def test_every_distribution_of_this_repository_needs_ours_alone_among_those_of_such_names(
    uv: str, wheelhouse: Path, stand_ins: Path
) -> None:
    built = ours(wheelhouse)
    members = [tomllib.loads(f.read_text()) for f in [ROOT / "pyproject.toml", *ROOT.glob("*/*/pyproject.toml")]]
    assert {m["project"]["name"] for m in members} == set(built)
    extras = [f"{m['project']['name']}[{','.join(m['project'].get('optional-dependencies', {}))}]" for m in members]
    found = resolved(uv, wheelhouse, stand_ins, tuple(extra.removesuffix("[]") for extra in extras))
    assert {n: v for n, v in found.items() if n.startswith("benchkit")} == built
