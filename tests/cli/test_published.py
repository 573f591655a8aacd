"""`benchkit table --published` shows ours, theirs and the gap, from the registry alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchkit.checks import check_published
from benchkit.interfaces import Published
from benchkit.records.report import Cell, Metric, Report
from benchkit.store import open_store
from benchkit.store.insert import insert

PAPER = Published("bird-mae", "linear", -1, "cmap", 0.1637, "arXiv 2508.01277, Table 2")


def registry(tmp_path: Path, make_report: Callable[..., Report]) -> Path:
    metrics = [Metric("cmap", 0.15, 0.14, 0.17)]
    ours = make_report(
        cell=Cell("hsn", "bird-mae", "linear", -1, 0), primary="cmap", metrics=metrics,
        checks=[check_published(metrics, [PAPER])],
    )  # fmt: skip
    path = tmp_path / "r.sqlite"
    with open_store(path) as store, store.write():
        insert(store, ours)
        insert(store, make_report())
    return path


def test_ours_theirs_and_the_gap_stand_side_by_side(tmp_path: Path, cli: Any, make_report: Any) -> None:
    db = registry(tmp_path, make_report)
    shown = cli("table", "--published", "--db", db, "--digits", 4)
    assert shown.code == 0
    assert len(shown.lines) == 3
    for word in ("hsn", "0.1500", "[0.1400, 0.1700]", "0.1637", "-0.0137", "arXiv 2508.01277, Table 2"):
        assert word in shown.lines[2]
    (row,) = json.loads(cli("table", "--published", "--format", "json", "--db", db).out)
    assert row["published"] == 0.1637
    assert row["value"] == 0.15
    assert abs(row["gap"] + 0.0137) < 1e-9


def test_where_no_paper_reports_a_cell_it_says_so(tmp_path: Path, cli: Any, make_report: Any) -> None:
    shown = cli("table", "--published", "--task", "digits", "--db", registry(tmp_path, make_report))
    assert shown.code == 0
    assert not shown.out
    assert "no paper is known" in shown.err


def test_the_gap_of_a_metric_beside_the_primary_one_is_between_its_own_numbers(
    tmp_path: Path, cli: Any, make_report: Any
) -> None:
    metrics = [Metric("cmap", 0.15, 0.14, 0.17), Metric("auroc", 0.7, 0.6, 0.8)]
    paper = Published("bird-mae", "linear", -1, "auroc", 0.75, "a paper")
    path = tmp_path / "r.sqlite"
    with open_store(path) as store, store.write():
        cell = Cell("hsn", "bird-mae", "linear", -1, 0)
        insert(
            store, make_report(cell=cell, primary="cmap", metrics=metrics, checks=[check_published(metrics, [paper])])
        )
    (row,) = json.loads(cli("table", "--published", "--format", "json", "--db", path).out)
    assert (row["metric"], row["value"], row["low"], row["high"]) == ("auroc", 0.7, 0.6, 0.8)
