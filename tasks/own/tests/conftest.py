"""ESC-10's real recordings, laid out as people lay theirs out."""

import csv
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def esc10(shared: Path) -> list[dict[str, str]]:
    """Rows of its table, with `path`; eight clips of each of four classes."""
    root = shared / "data" / "esc10"
    with (root / "meta" / "esc50.csv").open() as f:
        rows = [row | {"path": str(root / "audio" / row["filename"])} for row in csv.DictReader(f)]
    kept: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        kept.setdefault(row["category"], []).append(row)
    return [row for name in sorted(kept)[:4] for row in kept[name][:8]]


@pytest.fixture
def place(tmp_path: Path):
    """Links a recording to a name below a folder of the test's own."""

    def link(row: dict[str, str], name: str) -> Path:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(row["path"], path)
        return path

    return link
