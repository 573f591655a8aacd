"""Names that only fingerprints tell apart: where the files were is said beside them, and for no others."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store, queries
from benchkit.store.places import places

ONE, TWO, THREE = (f"fp-{c * 16}" for c in "abc")


def fill(
    path: Path, make_report: Callable[..., Report], *cells: tuple[str, str, str, dict[str, dict[str, str]]]
) -> None:
    with open_store(path) as store:
        for seed, (task, model, classifier, params) in enumerate(cells):
            seal(make_report(cell=Cell(task, model, classifier, -1, seed), params=params, artifacts=[]), store.inbox)


def test_places_that_tell_two_names_apart_are_named(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    path = tmp_path / "r.sqlite"
    autumn = {"task": {"root": "/data/autumn"}, "classifier": {"checkpoint": "/k"}}
    fill(
        path, make_report,
        (f"calls,root={ONE}", "odd", "linear", {"task": {"root": "/data/../data/spring"}}),
        (f"calls,root={TWO}", "odd", f"fitted:{THREE}", autumn),
        (f"other,root={THREE}", "odd", "linear", {"task": {"root": "/data/alone"}}),
    )  # fmt: skip
    with open_store(path) as store:
        assert places(store, queries.recent(store, queries.Filters())) == {TWO: "/data/autumn", ONE: "/data/spring"}
        assert places(store, queries.entries(store, queries.Filters(task=(f"calls,root={ONE}",)))) == {}
    for words in (["ls"], ["table"]):
        done = subprocess.run(
            [sys.executable, "-m", "benchkit", *words, "--db", str(path)], capture_output=True, text=True, check=True
        )
        assert {f"{ONE}: /data/spring", f"{TWO}: /data/autumn"} <= set(done.stderr.splitlines())
        assert "/data" not in done.stdout
    done = subprocess.run(
        [sys.executable, "-m", "benchkit", "ls", "--json", "--db", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "/data" not in done.stdout + done.stderr


def test_files_that_two_scorers_come_from_are_named_too(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    path = tmp_path / "r.sqlite"
    cells = [("t", "m", f"fitted:{fp}", {"classifier": {"checkpoint": f"/k/{fp[-1]}"}}) for fp in (ONE, TWO)]
    fill(path, make_report, *cells, ("t", "m", f"fitted:{THREE}", {}))
    with open_store(path) as store:
        assert places(store, queries.recent(store, queries.Filters())) == {TWO: "/k/b", ONE: "/k/a"}
