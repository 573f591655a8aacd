"""registry.sqlite.example is a store of this version, made by the README's own commands."""

import runpy
import shutil
import sqlite3
from itertools import pairwise
from pathlib import Path

from benchkit.records.report import Cell
from benchkit.store import open_store
from benchkit.store.migrations import VERSION
from benchkit.store.reports import load_reports

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "registry.sqlite.example"
SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"


def test_the_example_has_the_schema_of_a_new_store(tmp_path: Path) -> None:
    with open_store(tmp_path / "new.sqlite") as store:
        expected = store.execute(SCHEMA).fetchall()
    with sqlite3.connect(f"file:{EXAMPLE}?mode=ro&immutable=1", uri=True) as db:
        assert db.execute(SCHEMA).fetchall() == expected
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_example_holds_the_quick_start(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE, tmp_path / "r.sqlite")
    with open_store(tmp_path / "r.sqlite", create=False) as store:
        runs = [run for (run,) in store.execute("SELECT run FROM results ORDER BY run").fetchall()]
        reports = load_reports(store, runs)
    first, grid = runpy.run_path(str(ROOT / "docs" / "make_example.py"))["quick_start"]()
    assert first == ["run", "--task", "digits", "--model", "pixels"]
    sizes = [int(n) for flag, n in pairwise(grid) if flag == "--n-train"]
    seeds = [int(n) for flag, n in pairwise(grid) if flag == "--seed"]
    expected = {
        Cell("digits", model, probe, n, seed)
        for model in ("pixels", "random-vit")
        for probe in ("linear@2", "centroid@2")
        for n in sizes
        for seed in seeds
    }
    assert {r.cell for r in reports} == expected
    assert all(r.metrics and r.checks and r.artifacts and r.chance < 0.15 for r in reports)
    best = max(reports, key=lambda r: r.value)
    assert best.value >= 0.94
    assert best.cell.model == "pixels"
