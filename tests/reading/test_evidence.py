"""The table of runs that keep replicates: intervals over examples and seeds, the set of the best, places, the mean."""

import re
from pathlib import Path

import pytest

import benchkit
from benchkit.api import Settings
from benchkit.reading.evidence import evidence, table_of
from benchkit.reading.rendering import render
from benchkit.store import look
from benchkit.store.queries import Filters


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evidence") / "r.sqlite"
    settings = Settings(db=path, cache=path.parent / "cache", replicates=200, workers=0)
    benchkit.run(
        task="digits",
        model="pixels",
        classifier=["centroid", "knn"],
        n_train=[5, -1],
        seed=[0, 1, 2],
        settings=settings,
    )
    return path


def test_a_run_keeps_its_replicates_and_its_interval_names_its_method(db: Path) -> None:
    with look(db) as store:
        kept = evidence(store, Filters())
    assert not kept.notes
    assert {len(seeds) for seeds in kept.by_cell.values()} == {3}
    assert len({r.kept.same for seeds in kept.by_cell.values() for r in seeds.values()}) == 1
    with benchkit.open(db) as results:
        assert results.report(1).record["interval"]["method"] == "examples and seeds, MOVER on the logit scale"


def test_the_mean_over_seeds_has_an_interval_at_least_as_wide_as_its_examples_alone(db: Path) -> None:
    with look(db) as store:
        both, _ = table_of(store, Filters(n_train=(5,)))
        alone, _ = table_of(store, Filters(n_train=(5,)), over="examples")
    for a, b in zip(both.entries, alone.entries, strict=True):
        assert None not in (a.low, a.high, b.low, b.high)
        assert a.low <= b.low < a.value < b.high <= a.high  # type: ignore[operator]


def test_seeds_that_change_nothing_count_as_one_and_the_table_says_so(db: Path) -> None:
    with look(db) as store:
        made, _ = table_of(store, Filters(n_train=(-1,)), places=True)
    assert made.sets
    assert "in 2 cells seeds change nothing: they count as one" in made.notes
    assert made.places
    assert all(1 <= first <= last <= 2 for first, last in made.places.values())


def test_a_damaged_file_of_replicates_is_said_and_the_rest_stands(db: Path, tmp_path: Path) -> None:
    with look(db) as store:
        file = min((store.side / "predictions").glob("*.replicates"))
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + b"x")
        try:
            made, lost = table_of(store, Filters())
        finally:
            file.write_bytes(whole)
    assert len(lost) == 1
    assert "altered" in lost[0]
    assert made.entries


def test_it_is_written_with_the_number_of_seeds_and_what_intervals_are_over(db: Path) -> None:
    with look(db) as store:
        made, _ = table_of(store, Filters(n_train=(5,)))
    out = render(made)
    assert re.search(r"0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] \(3\)", out)
    assert "95 % interval over test examples and seeds" in out
    assert "in the set that holds all of the best" in out
