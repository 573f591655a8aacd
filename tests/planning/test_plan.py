"""What a plan says of each cell: done, claimed, failed or to do; and which combinations cannot be."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchkit.catalog.discovery import discover
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, SpecError
from benchkit.machine.times import now
from benchkit.planning import plan as planning
from benchkit.planning.plan import Grid, Plan, make_plan
from benchkit.records.others import Failure
from benchkit.records.report import Cell, Report
from benchkit.store import Store, open_store
from benchkit.store.claims import Owner, claim
from benchkit.store.insert import insert, insert_failure

CATALOG = discover()
CENTROID, KNN = (resolve("classifier", name).canonical for name in ("centroid", "knn"))
CELL = Cell("digits", "pixels", CENTROID, 5, 1)
GRID = Grid(("digits",), ("pixels",), ("centroid",), (5,), (1,))
OTHERS = [
    CELL._replace(task="digits,split=forms"), CELL._replace(model="pixels,size=12"), CELL._replace(classifier=KNN),
    CELL._replace(n_train=-1), CELL._replace(seed=0),
]  # fmt: skip
WITH = {"device": "cpu", "skip_bad": 0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "r.sqlite") as store:
        yield store


@pytest.fixture
def done(store: Store, make_report: Callable[..., Report]) -> Callable[..., None]:
    def add(*cells: Cell, **given: Any) -> None:
        with store.write():
            for cell in cells:
                insert(store, make_report(cell=cell, **given))

    return add


def fail(store: Store, cell: Cell, reason: Any = "error", options: Any = None, times: int = 1) -> None:
    with store.write():
        for _ in range(times):
            insert_failure(
                store, Failure("f", cell, reason, "it is broken", "host", now(), options=options or dict(WITH))
            )


def plan(store: Store | None, *grids: Grid, **given: Any) -> Plan:
    return make_plan(grids or (GRID,), store, CATALOG, **given)


def states(made: Plan) -> list[str]:
    return [p.state for p in made.cells]


def test_a_grid_is_the_product_of_its_values_in_order_each_cell_once() -> None:
    grid = Grid(("digits",), ("pixels", "random-vit"), ("knn", "centroid"), (1, -1), (3, 0))
    made = plan(None, grid, GRID, Grid(("digits",), ("pixels,size=8",), ("centroid", "knn,k=10"), (1,), (3,)))
    expected = [
        Cell("digits", m, c, n, s)
        for m in ("pixels", "random-vit") for c in (KNN, CENTROID) for n in (1, -1) for s in (3, 0)
    ]  # fmt: skip
    cells = [p.cell for p in made.cells]
    assert cells[:16] == expected
    assert cells[16] == CELL
    assert len(set(cells)) == len(cells)
    assert made.by_state == {"done": 0, "claimed": 0, "failed": 0, "todo": len(cells)}


def test_a_cell_is_done_where_a_run_of_all_its_five_parts_is_current(store: Store, done: Callable[..., None]) -> None:
    done(*OTHERS)
    assert states(plan(store)) == ["todo"]
    done(CELL, finished_at="2026-03-04T05:06:07.000000+00:00")
    (planned,) = plan(store).cells
    assert (planned.state, planned.run, planned.since) == ("done", 6, "2026-03-04T05:06:07.000000+00:00")
    assert (planned.metric, planned.value) == ("top1", 0.9)
    store.execute("UPDATE runs SET current = 0 WHERE id = 6")
    assert states(plan(store)) == ["todo"], "history is no result"


def test_of_several_runs_the_current_one_counts_and_there_is_one_answer_a_cell(
    store: Store, done: Callable[..., None]
) -> None:
    for day in (1, 3, 2):
        done(CELL, finished_at=f"2026-03-0{day}T00:00:00.000000+00:00")
    (planned,) = plan(store).cells
    assert (planned.run, planned.since) == (3, "2026-03-02T00:00:00.000000+00:00"), "the last one to come in"


def test_a_cell_is_claimed_where_somebody_alive_has_claimed_all_its_five_parts(store: Store) -> None:
    owner = Owner.this_process()
    assert claim(store, OTHERS, owner) == OTHERS
    assert states(plan(store)) == ["todo"]
    claim(store, [CELL], owner)
    made = plan(store)
    assert (states(made), made.by_state["claimed"]) == (["claimed"], 1)
    assert made.cells[0].owner == str(owner)


def test_a_claim_of_the_dead_is_none(store: Store) -> None:
    dead = dataclasses.replace(Owner.this_process(), token="de" * 16, process_started=0.0)
    claim(store, [CELL], dead)
    assert states(plan(store)) == ["todo"]
    far = Owner("fa" * 16, "another-host", 1, 0.0, None)
    store.execute("DELETE FROM claims")
    claim(store, [CELL], far)
    assert states(plan(store)) == ["claimed"], "nobody knows otherwise yet"


def test_a_cell_that_was_claimed_and_is_done_is_done(store: Store, done: Callable[..., None]) -> None:
    done(CELL)
    claim(store, [CELL], Owner.this_process(), force=True)
    assert states(plan(store)) == ["done"]


@pytest.mark.parametrize(
    ("reason", "state"),
    [("error", "failed"), ("crash", "failed"), ("out of memory", "todo"), ("machine", "todo"), ("killed", "todo"),
     ("time limit", "todo"), ("disk", "todo"), ("network", "todo")],
)  # fmt: skip
def test_what_failed_of_itself_is_not_tried_again_with_the_same_options(store: Store, reason: str, state: str) -> None:
    fail(store, CELL, reason, times=2)
    (planned,) = plan(store, options=WITH).cells
    assert planned.state == state
    assert planned.failure is not None
    assert (planned.failure.reason, planned.failure.attempts) == (reason, 2)
    assert "it is broken (failed before, 2 times: --retry-failed tries again)" in str(planned.failure)
    assert states(plan(store, options=WITH | {"device": "cuda"})) == ["todo"]
    assert states(plan(store)) == ["todo"], "as with --retry-failed"


def test_a_failure_is_of_all_five_parts(store: Store) -> None:
    for cell in OTHERS:
        fail(store, cell)
    assert states(plan(store, options=WITH)) == ["todo"]


def test_who_has_claimed_a_failed_cell_is_at_it(store: Store) -> None:
    fail(store, CELL)
    claim(store, [CELL], Owner.this_process())
    (planned,) = plan(store, options=WITH).cells
    assert planned.state == "claimed"
    assert planned.failure is not None


def test_jobs_are_the_cells_to_do_of_each_task_and_model(store: Store, done: Callable[..., None]) -> None:
    models, tasks = ("pixels", "pixels,size=12"), ("digits", "digits,split=forms")
    grid = Grid(tasks, models, ("centroid",), (1, 5))
    done(Cell("digits", "pixels", CENTROID, 1, 0))
    made = plan(store, grid)
    jobs = [[p.cell for p in job] for job in made.jobs()]
    assert [len(job) for job in jobs] == [1, 2, 2, 2]
    assert jobs == [
        [c for t, m, n in ((a, b, n) for n in (1, 5)) if (c := Cell(t, m, CENTROID, n, 0)) != jobs_done]
        for jobs_done in [Cell("digits", "pixels", CENTROID, 1, 0)] for a in tasks for b in models
    ]  # fmt: skip
    assert [[p.cell.n_train for p in job] for job in made.jobs(("done",))] == [[1]]
    assert sum(map(len, made.jobs(("todo", "done")))) == 8


def test_a_grid_of_too_many_cells_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "MAX_CELLS", 8)
    eight, nine = (Grid(("digits",), ("pixels",), ("centroid",), tuple(range(1, n + 1))) for n in (8, 9))
    assert len(plan(None, eight).cells) == 8
    with pytest.raises(BenchkitError, match="the grid has 9 cells, more than 8: split it"):
        plan(None, nine)
    with pytest.raises(BenchkitError, match="the grid has 9 cells"):
        plan(None, eight, GRID)
    assert planning.Grid(("a",), ("b",)).seed == (0,)


def test_a_million_cells_are_the_most() -> None:
    with pytest.raises(BenchkitError, match="the grid has 1,000,500 cells, more than 1,000,000: split it"):
        plan(None, Grid(("digits",), ("pixels",), ("centroid",), tuple(range(1, 1001)), tuple(range(1000))),
             Grid(("digits",), ("pixels",), ("centroid",), (1,), tuple(range(500))))  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_train": (-2,)}, "n_train=-2"), ({"n_train": (2**63,)}, "n_train=9223"),
        ({"n_train": (True,)}, "must be a whole number"), ({"n_train": ()}, "must be a whole number"),
        ({"seed": (-1,)}, "seed=-1 is out of range"), ({"seed": (2**32,)}, "seed=4294967296 is out of range"),
        ({"model": ()}, "must be a spec"), ({"seed": ()}, "must be a whole number"),
    ],
)  # fmt: skip
def test_numbers_and_names_that_mean_nothing_are_refused(given: Any, words: str) -> None:
    with pytest.raises(BenchkitError, match=words):
        dataclasses.replace(GRID, **given)
    assert dataclasses.replace(GRID, n_train=(1, -1, 2**63 - 1), seed=(0, 2**32 - 1))


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid(("digits",), ("logmel",)), "model 'logmel' takes audio, and task 'digits' gives image"),
        (Grid(("digits",), ("pixels",), ("random,k=4",)), "'random' is a scorer, for trait tasks; task 'digits'"),
        (Grid(("digits",), ("pixels",), n_train=(0,)), "n_train=0 is no number of training examples for 'linear'"),
        (Grid(("digits",), ("pixels",), ("finetune",)), "model 'pixels' cannot be fine-tuned"),
    ],
)
def test_what_cannot_be_together_is_refused_in_one_line(grid: Grid, words: str) -> None:
    with pytest.raises(BenchkitError, match=words) as caught:
        plan(None, grid)
    assert "\n" not in str(caught.value)


def test_a_probe_is_refused_by_a_kind_of_task_that_it_does_not_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchkit.classifiers.centroid import Centroid

    monkeypatch.setattr(Centroid, "kinds", ("multilabel",))
    with pytest.raises(BenchkitError, match="classifier 'centroid' solves multilabel, and task 'digits' is multiclass"):
        plan(None)


def test_a_mistyped_probe_is_told_of_as_a_classifier() -> None:
    with pytest.raises(SpecError, match="no classifier named 'centriod'; did you mean 'centroid'"):
        plan(None, Grid(("digits",), ("pixels",), ("centriod",)))
