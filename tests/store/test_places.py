"""Where the files were that a name holds a fingerprint of: kept with the reports, and said in their names."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

from benchkit.progress import Silent
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store, queries
from benchkit.store.merge import merge
from benchkit.store.migrations import MIGRATIONS
from benchkit.store.opening import refresh
from benchkit.store.places import places

ONE, TWO, THREE = (f"fp-{c * 16}" for c in "abc")


def fill(
    path: Path, make_report: Callable[..., Report], *cells: tuple[str, str, str, dict[str, dict[str, str]]]
) -> None:
    with open_store(path) as store:
        for seed, (task, model, classifier, params) in enumerate(cells):
            seal(make_report(cell=Cell(task, model, classifier, -1, seed), params=params, artifacts=[]), store.inbox)
        refresh(store)


AUTUMN = {"task": {"root": "/data/autumn"}, "classifier": {"checkpoint": "/k"}}
CELLS = (
    (f"calls,root={ONE}", "odd", "linear", {"task": {"root": "/data/../data/spring"}}),
    (f"calls,root={TWO}", "odd", f"fitted:{THREE}", AUTUMN),
)


def test_a_report_brings_the_paths_of_its_fingerprints_and_a_merge_brings_those_of_others(
    tmp_path: Path, make_report: Callable[..., Report]
) -> None:
    fill(tmp_path / "theirs.sqlite", make_report, *CELLS)
    fill(tmp_path / "r.sqlite", make_report)
    with open_store(tmp_path / "r.sqlite") as store:
        merge(store, tmp_path / "theirs.sqlite", Silent())
        found = places(store, [ONE, TWO, THREE, "no fingerprint"])
        assert {fp: [p.path for p in seen] for fp, seen in found.items()} == {
            ONE: ["/data/spring"], TWO: ["/data/autumn"], THREE: ["/k"],
        }  # fmt: skip
        assert found[ONE][0].host == queries.recent(store, queries.Filters())[0].host


def test_a_registry_from_before_gets_the_places_of_its_runs(tmp_path: Path, make_report) -> None:
    path = tmp_path / "r.sqlite"
    fill(path, make_report, *CELLS)
    db = sqlite3.connect(path)
    for table in ("places", "labels", "studies", "study_cells", "notes"):
        db.execute(f"DROP TABLE {table}")
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) - 1}")
    db.commit()
    db.close()
    with open_store(path) as store:
        assert {fp: p[0].path for fp, p in places(store, [ONE, TWO]).items()} == {
            ONE: "/data/spring", TWO: "/data/autumn",
        }  # fmt: skip
