"""What `benchkit --help`, `plugins` and `ls` import is pinned, so that a slow import cannot come in unseen."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchkit.store import open_store
from benchkit.store.insert import insert

HEAVY = {
    "torch", "torchaudio", "jax", "flax", "transformers", "datasets", "tensorflow", "sklearn", "scipy", "numpy",
    "pandas", "pyarrow", "soundfile", "soxr", "PIL", "jaxtyping", "beartype", "matplotlib", "huggingface_hub",
}  # fmt: skip
BASELINE = "import typer, rich.table, peewee, pluggy"
"""What issue 2 compares with: everything that it imports is paid for."""
FACE = {"cli", "errors", "machine", "machine.version", "progress"}
OURS = {
    "--help": {
        *FACE, "hookspecs", "catalog", "catalog.builtin", "catalog.discovery", "catalog.namesakes", "catalog.params",
        "catalog.spec", "machine.files", "machine.home", "machine.times",
    },
    "--version": FACE,
    "plugins": {
        *FACE, "hookspecs", "catalog", "catalog.builtin", "catalog.discovery", "catalog.namesakes", "catalog.params",
        "catalog.spec", "machine.files", "machine.home", "machine.times", "reading", "reading.tables",
    },
    "ls": {
        *FACE, "catalog", "catalog.params", "catalog.spec", "machine.files", "machine.home", "machine.times", "reading",
        "reading.asked", "reading.names", "reading.tables", "records", "records.gate", "records.others",
        "records.report", "store",
    },
}  # fmt: skip
"""The modules of benchkit itself that each command may import; those of the rooms cli and store count as one."""

SHOW_MODULES = """
import sys
{0}
before = set(sys.modules)
print("\\n".join(sorted(before)), file=sys.stderr)
"""
RUN = """
import sys
sys.argv = ["benchkit", *{words!r}]
from benchkit.cli import main
try:
    main()
except SystemExit as e:
    assert not e.code, e.code
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
"""


def modules(program: str) -> set[str]:
    """Names in sys.modules at the end of a program that prints them to stderr."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.fixture
def registry(tmp_path: Path, make_report) -> Path:
    with open_store(tmp_path / "r.sqlite") as store, store.write():
        insert(store, make_report())
    return tmp_path / "r.sqlite"


@pytest.mark.parametrize("command", OURS)
def test_a_light_command_imports_nothing_heavy(command: str, registry: Path) -> None:
    words = [command, "--db", str(registry)] if command == "ls" else [command]
    found = modules(RUN.format(words=words))
    assert {name.partition(".")[0] for name in found} & HEAVY == set()


@pytest.mark.parametrize("command", OURS)
def test_a_light_command_imports_few_modules_of_benchkit(command: str, registry: Path) -> None:
    words = [command, "--db", str(registry)] if command == "ls" else [command]
    names = [name.split(".")[1:] for name in modules(RUN.format(words=words)) if name.startswith("benchkit.")]
    assert {room if room in ("cli", "store") else ".".join([room, *rest]) for room, *rest in names} <= OURS[command]


@pytest.mark.parametrize("command", ["plugins", "ls"])
def test_a_light_command_imports_little_beside_its_four_libraries(command: str, registry: Path) -> None:
    words = [command, "--db", str(registry)] if command == "ls" else [command]
    paid = {name.partition(".")[0] for name in modules(f"import sys\n{BASELINE}\nprint(*sys.modules, file=sys.stderr)")}
    found = {name.partition(".")[0] for name in modules(RUN.format(words=words))}
    plugins = {name for name in found if name.startswith("benchkit")}
    third_party = {name for name in found - paid - plugins if not _is_standard(name)}
    assert third_party == set()


def _is_standard(name: str) -> bool:
    return name in sys.stdlib_module_names or name.lstrip("_") in sys.stdlib_module_names or name.startswith("_")
