"""docs/architecture.md, the import contracts and the folders tell of the same rooms."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FACE = {"__init__", "__main__"}


def _on_disk() -> set[str]:
    found = (ROOT / "benchkit").iterdir()
    return {p.stem for p in found if p.suffix == ".py" or (p / "__init__.py").is_file()} - FACE


def _documented() -> list[str]:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.M)


def _contracted() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    return [room.strip() for layer in layers for room in layer.split("|")]


def test_the_page_lists_the_folders() -> None:
    assert set(_documented()) == _on_disk()


def test_the_page_has_the_order_of_the_contracts() -> None:
    assert _documented() == _contracted()


def test_the_root_of_the_package_holds_the_face_and_the_contract_alone() -> None:
    files = {p.stem for p in (ROOT / "benchkit").glob("*.py")}
    assert files == FACE | {"api", "errors", "hookspecs", "interfaces", "progress"}


def test_tests_stand_in_folders_of_rooms() -> None:
    folders = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir() and any(p.rglob("test_*.py"))}
    assert folders - {"packaging"} <= _on_disk()


def test_every_import_is_looked_at() -> None:
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert not linter["exclude_type_checking_imports"]
    assert not any("ignore_imports" in contract for contract in linter["contracts"])
