"""rm: runs go with everything that belongs to them, and nothing else does."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from benchkit.records.gate import predictions_path
from benchkit.records.others import Failure
from benchkit.records.report import Artifact, Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store, queries
from benchkit.store.opening import refresh
from benchkit.store.remove import forget_failures


def stored(registry: Path) -> list[int]:
    with open_store(registry) as store:
        return [r[0] for r in store.execute("SELECT id FROM runs ORDER BY id").fetchall()]


def with_predictions(path: Path, report: Callable[..., Report], *cells: tuple[Any, ...]) -> list[Path]:
    """A run with a file for each cell, one second apart."""
    files = []
    with open_store(path) as store:
        (store.side / "predictions").mkdir(parents=True)
        for i, cell in enumerate(cells):
            name = f"{i}" * 32
            file = store.side / predictions_path(name)
            file.write_bytes(f"file {i}".encode())
            artifact = Artifact("predictions", predictions_path(name), sha256(file.read_bytes()).hexdigest(), 6)
            stamp = f"2026-01-01T00:00:{i:02d}.000000+00:00"
            seal(report(uuid=name, cell=Cell(*cell), artifacts=[artifact], finished_at=stamp), store.inbox)
            refresh(store)
            files.append(file)
    return files


def test_rm_removes_runs_with_everything_that_belongs_to_them(cli, tmp_path: Path, make_report) -> None:
    path = tmp_path / "r.sqlite"
    files = with_predictions(path, make_report, ("a", "m", "c", 1, 0), ("b", "m", "c", 1, 0))
    ran = cli("rm", 1, "--yes", "--db", path)
    assert (ran.code, ran.out) == (0, "removed: 1 run, files: 1\n")
    assert [f.exists() for f in files] == [False, True]
    with open_store(path) as store:
        for table in ("metrics", "class_metrics", "checks", "artifacts"):
            assert {r[0] for r in store.execute(f"SELECT run_id FROM {table}").fetchall()} == {2}
        assert store.execute("SELECT count(*) FROM environments").fetchone()[0] == 1
    assert cli("rm", 2, "--yes", "--db", path).code == 0
    with open_store(path) as store:
        assert store.execute("SELECT count(*) FROM environments").fetchone()[0] == 0


def test_the_newest_of_the_history_becomes_current_when_the_current_run_goes(cli, tmp_path: Path, fill) -> None:
    path = tmp_path / "r.sqlite"
    fill(path, {"value": 0.1}, {"value": 0.2}, {"value": 0.3}, {"cell": ("x", "pixels", "linear", -1, 0)})
    ran = cli("rm", 3, "--yes", "--db", path)
    assert ran.out == "removed: 1 run, files: 0; superseded runs that are current now: 1\n"
    with open_store(path) as store:
        assert store.execute("SELECT run, value FROM results ORDER BY run").fetchall() == [(2, 0.2), (4, 0.9)]
    assert cli("rm", 1, "--yes", "--db", path).out == "removed: 1 run, files: 0\n"
    assert cli("rm", 2, 4, "--yes", "--db", path).code == 0
    assert stored(path) == []


def test_rm_by_filter_takes_the_history_along(cli, tmp_path: Path, fill) -> None:
    path = tmp_path / "r.sqlite"
    fill(path, {}, {}, {"cell": ("other", "pixels", "linear", -1, 0)})
    assert cli("rm", "--task", "digits", "--yes", "--db", path).code == 0
    assert stored(path) == [3]


def test_a_file_that_another_run_names_or_that_lies_elsewhere_stays(cli, tmp_path: Path, make_report) -> None:
    path, outside = tmp_path / "r.sqlite", tmp_path / "precious.txt"
    outside.write_text("mine")
    (file,) = with_predictions(path, make_report, ("a", "m", "c", 1, 0))
    with open_store(path) as store:
        store.execute("INSERT INTO artifacts VALUES (1, 'other', '../precious.txt', '', 4)")
        seal(make_report(cell=Cell("b", "m", "c", 1, 0), artifacts=[]), store.inbox)
        refresh(store)
        store.execute("INSERT INTO artifacts SELECT 2, kind, path, sha256, bytes FROM artifacts WHERE kind <> 'other'")
    ran = cli("rm", 1, "--yes", "--db", path)
    assert file.exists()
    assert outside.read_text() == "mine"
    assert "could not be deleted" in ran.err


def test_nothing_is_removed_where_there_is_nobody_to_ask(script, registry: Path) -> None:
    ran = script("rm", 1, "--db", registry)
    assert ran.code == 1
    assert "--yes" in ran.err
    assert len(stored(registry)) == 20


def test_nothing_is_removed_without_a_name_or_a_filter(cli, registry: Path) -> None:
    assert "name either runs" in cli("rm", "--yes", "--db", registry).err
    assert "name either runs" in cli("rm", 1, "--task", "hsn", "--yes", "--db", registry).err
    assert "there is no run '99'" in cli("rm", 1, 99, "--yes", "--db", registry).err
    assert "did you mean 'digits'" in cli("rm", "--task", "digist", "--yes", "--db", registry).err
    assert len(stored(registry)) == 20


@pytest.mark.parametrize(
    ("answer", "left", "code", "last"),
    [
        ("n\n", 20, 1, "error: nothing was removed"),
        ("\n", 20, 1, "error: nothing was removed"),
        ("\x04", 20, 130, "error: interrupted"),
        ("\x03", 20, 130, "error: interrupted"),
        ("y\n", 16, 0, "removed: 4 runs, files: 0"),
    ],
)
def test_rm_shows_what_would_go_and_asks(
    terminal, registry: Path, answer: str, left: int, code: int, last: str
) -> None:
    ran = terminal("rm", "--task", "hsn", "--db", registry, width=200, type_in=answer)
    assert ran.out.count("hsn") >= 4
    assert "these 4 runs" in ran.out
    assert ran.code == code
    assert last in ran.lines[-1], "after an answer without a line of its own it stands behind the question"
    assert len(stored(registry)) == left


def test_rm_deletes_what_it_has_shown_and_not_what_came_meanwhile(
    registry: Path, make_report, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(registry) as store:
        shown = queries.recent(store, queries.Filters(task=("hsn",), history=True))
        seal(make_report(cell=Cell("hsn", "late", "linear", -1, 0)), store.inbox)
        refresh(store)
        from benchkit.store.remove import remove

        assert remove(store, [r.run for r in shown]).runs == 4
        assert [r.model for r in queries.recent(store, queries.Filters(task=("hsn",)))] == ["late"]


def failed(registry: Path, *cells: Cell) -> None:
    with open_store(registry) as store:
        for i, cell in enumerate(cells):
            stamp = f"2026-01-01T00:00:{i:02d}.000000+00:00"
            seal(Failure(f"{i}" * 32, cell, "error", "n_train=77 is too many", "node1", stamp), store.inbox)


def test_failures_that_are_not_to_be_tried_again_can_be_forgotten(cli, script, terminal, registry: Path) -> None:
    typo, other = Cell("hsn", "m", "linear", 77, 0), Cell("pow", "m", "linear", -1, 0)
    failed(registry, typo, other)
    assert "failed cells: 2" in cli("ls", "--db", registry).err
    assert "there is nobody to ask" in script("rm", "failed", "--db", registry).err
    asked = terminal("rm", "failed", "--n-train", 77, "--db", registry, width=200, type_in="n\n")
    assert "hsn m linear n_train=77 seed=0: n_train=77 is too many" in asked.out
    assert "Forget this failure?" in asked.out
    assert "failed cells: 2" in cli("ls", "--db", registry).err
    assert cli("rm", "failed", "--n-train", 77, "--yes", "--db", registry).out == "forgotten: 1 failure\n"
    assert "pow m linear" in cli("show", "failed", "--db", registry).out
    assert cli("rm", "failed", "--yes", "--db", registry).out == "forgotten: 1 failure\n"
    assert "failed cells" not in cli("ls", "--db", registry).err
    assert "no cell has failed" in cli("rm", "failed", "--yes", "--db", registry).err
    assert len(stored(registry)) == 20


def test_a_cell_that_failed_anew_meanwhile_is_not_forgotten(registry: Path) -> None:
    cell = Cell("hsn", "m", "linear", 77, 0)
    failed(registry, cell)
    with open_store(registry) as store:
        shown = queries.failures(store)
        seal(Failure("1a" * 16, cell, "error", "another", "node1", "2026-01-02T00:00:00.000000+00:00"), store.inbox)
        refresh(store)
        assert forget_failures(store, shown) == 0
        assert [f.error for f in queries.failures(store)] == ["another"]
