"""Removing runs: what takes their place, after a conflict too, and what goes with them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchkit.progress import Silent
from benchkit.records.report import Cell
from benchkit.store import Store, open_store, queries
from benchkit.store.check import check
from benchkit.store.merge import merge
from benchkit.store.remove import remove

from .conftest import Add


@pytest.fixture
def path(tmp_path: Path, registry: Callable[..., Path]) -> Path:
    """Run 1 of seed 0, with which run 2, merged from elsewhere, is in conflict; run 3 of seed 1."""
    mine, theirs = registry("mine.sqlite", (0, 0.9)), registry("theirs.sqlite", (0, 0.7), (1, 0.6))
    with open_store(mine) as store:
        assert len(merge(store, theirs, Silent()).conflicts) == 1
        assert runs(store) == {1: (0, 0.9, 1), 2: (0, 0.7, 0), 3: (1, 0.6, 1)} or runs(store) == {
            1: (0, 0.9, 1), 3: (0, 0.7, 0), 2: (1, 0.6, 1)
        }  # fmt: skip
    return mine


def runs(store: Store) -> dict[int, tuple[int, float, int]]:
    return {r: (s, v, c) for r, s, v, c in store.execute("SELECT id, seed, value, current FROM runs").fetchall()}


def number(store: Store, value: float) -> int:
    return int(store.execute("SELECT id FROM runs WHERE value = ?", (value,)).fetchone()[0])


def sound(store: Store) -> bool:
    return check(store, Silent()) == []


def test_where_ones_own_run_goes_the_one_that_contradicted_it_takes_its_place(path: Path) -> None:
    with open_store(path) as store:
        own, other = number(store, 0.9), number(store, 0.7)
        assert len(queries.load(store, own).conflicts) == len(queries.load(store, other).conflicts) == 1
        gone = remove(store, [own])
        assert (gone.runs, gone.promoted, gone.files, gone.left) == (1, 1, 1, ())
        assert runs(store)[other] == (0, 0.7, 1)
        assert store.execute("SELECT count(*) FROM conflicts").fetchone() == (0,)
        assert queries.load(store, other).conflicts == []
        assert sound(store)


def test_where_the_other_goes_ones_own_stays_and_there_is_no_conflict_any_more(path: Path) -> None:
    with open_store(path) as store:
        own, other = number(store, 0.9), number(store, 0.7)
        gone = remove(store, [other])
        assert (gone.runs, gone.promoted) == (1, 0)
        assert runs(store)[own] == (0, 0.9, 1)
        assert store.execute("SELECT count(*) FROM conflicts").fetchone() == (0,)
        assert sound(store)


def test_both_may_go_at_once_and_other_cells_stay(path: Path) -> None:
    with open_store(path) as store:
        gone = remove(store, [number(store, 0.9), number(store, 0.7)])
        assert (gone.runs, gone.promoted) == (2, 0)
        assert list(runs(store).values()) == [(1, 0.6, 1)]
        assert store.execute("SELECT count(*) FROM conflicts").fetchone() == (0,)
        assert sound(store)


def test_after_a_removal_the_same_merge_brings_the_run_again(path: Path) -> None:
    with open_store(path) as store:
        remove(store, [number(store, 0.7)])
        assert len(merge(store, path.with_name("theirs.sqlite"), Silent()).conflicts) == 1
        assert store.execute("SELECT count(*) FROM conflicts").fetchone() == (1,)
        assert sound(store)


def test_of_several_superseded_runs_the_one_that_came_last_becomes_current(path: Path, add: Add) -> None:
    with open_store(path) as store:
        for value, day in ((0.2, 6), (0.3, 3), (0.4, 5), (0.5, 4)):  # their clocks say otherwise
            add(store, 7, value, finished_at=f"2026-02-0{day}T00:00:00.000000+00:00")
        assert remove(store, [number(store, 0.5)]).promoted == 1
        assert store.execute("SELECT value FROM results WHERE seed = 7").fetchone() == (0.4,)
        assert remove(store, [number(store, 0.3)]).promoted == 0
        assert store.execute("SELECT value FROM results WHERE seed = 7").fetchone() == (0.4,)
        assert remove(store, [number(store, 0.4)]).promoted == 1
        assert store.execute("SELECT value FROM results WHERE seed = 7").fetchone() == (0.2,)


@pytest.mark.parametrize("field", ["task", "model", "classifier", "n_train", "seed"])
def test_nothing_of_another_cell_takes_its_place(path: Path, add: Add, field: str) -> None:
    cell = Cell("digits", "pixels", "linear", -1, 0)
    other = {"task": "hsn", "model": "logmel", "classifier": "knn", "n_train": 5, "seed": 9}[field]
    with open_store(path) as store:
        add(store, value=0.11, cell=cell._replace(**{field: other}), finished_at="2027-01-01T00:00:00.000000+00:00")
        add(store, value=0.12, cell=cell._replace(**{field: other}), finished_at="2027-01-02T00:00:00.000000+00:00")
        before = runs(store)[number(store, 0.11)], runs(store)[number(store, 0.12)]
        remove(store, [number(store, 0.9)])
        assert (runs(store)[number(store, 0.11)], runs(store)[number(store, 0.12)]) == before
        assert runs(store)[number(store, 0.7)][2] == 1


def test_an_environment_goes_with_its_last_run_alone(path: Path) -> None:
    with open_store(path) as store:
        assert store.execute("SELECT count(*) FROM environments").fetchone() == (1,)
        remove(store, [number(store, 0.9), number(store, 0.7)])
        assert store.execute("SELECT count(*) FROM environments").fetchone() == (1,)
        remove(store, [number(store, 0.6)])
        assert store.execute("SELECT count(*) FROM environments").fetchone() == (0,)


def test_a_file_that_another_run_names_too_stays(path: Path, add: Add) -> None:
    with open_store(path) as store:
        first = add(store, 20, 0.21)
        (artifact,) = first.artifacts
        add(store, 21, 0.22, artifacts=[])
        store.execute(
            "INSERT INTO artifacts VALUES (?, 'predictions', ?, ?, ?)",
            (number(store, 0.22), artifact.path, artifact.sha256, artifact.bytes),
        )
        file = store.side / artifact.path
        assert remove(store, [number(store, 0.21)]).files == 0
        assert file.exists()
        gone = remove(store, [number(store, 0.22)])
        assert (gone.files, gone.left) == (0, (file,)), "it never was this run's own"
