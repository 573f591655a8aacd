"""The reading questions: answered from an index, the same as asked plainly, and safe beside a writer."""

import random
import sqlite3
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.errors import StoreError
from benchkit.records.report import Cell, Check, Metric, Report
from benchkit.store import Store, open_store, queries
from benchkit.store.insert import insert
from benchkit.store.queries import Filters, entries, recent
from benchkit.store.remove import remove


@pytest.fixture
def store(tmp_path: Path, make_report: Callable[..., Report]) -> Any:
    """300 runs of 120 cells in no order, so some have a history; a third are marked by one or two checks."""
    rng = random.Random(0)
    with open_store(tmp_path / "r.sqlite") as store:
        with store.write():
            for i in range(300):
                task = rng.choice(("digits", "hsn"))
                cell = Cell(task, rng.choice(("a", "b:large", "b:small")), rng.choice(("knn", "linear")),
                            rng.choice((1, -1)), rng.randrange(5))  # fmt: skip
                name, value = "top1" if task == "digits" else "cmap", rng.random()
                checks = [Check("chance", "ok", "fine")]
                checks += [Check("leakage", "fail", "some")] if rng.random() < 0.2 else []
                checks += [Check("features", "warn", "odd")] if rng.random() < 0.2 else []
                stamp = f"2026-01-01T00:{rng.randrange(60):02d}:{i % 60:02d}.{i:06d}+00:00"
                metrics = [Metric(name, value, value - 0.1, value + 0.1), Metric("auroc", value / 2)]
                insert(store, make_report(cell=cell, primary=name, metrics=metrics, checks=checks, finished_at=stamp,
                                          chance=0.1 if task == "digits" else 0.2))  # fmt: skip
        yield store


def plan(store: Store, sql: str, values: Any) -> str:
    return "\n".join(r[3] for r in store.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall())


def asked(store: Store, monkeypatch: pytest.MonkeyPatch, question: Callable[[], Any]) -> str:
    """The query plans of everything that `question` asks."""
    plans = []
    original = queries._each

    def spy(store: Store, sql: str, values: Any = ()) -> Any:
        plans.append(plan(store, sql, values))
        return original(store, sql, values)

    monkeypatch.setattr(queries, "_each", spy)
    question()
    return "\n".join(plans)


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(task=("d*",), n_train=(-1,)), Filters(model=("a",), seed=(0, 1))]
)
def test_the_table_is_answered_from_the_index_alone_and_without_sorting(
    store: Store, monkeypatch: pytest.MonkeyPatch, filters: Filters
) -> None:
    for each_seed in (False, True):
        how = asked(store, monkeypatch, lambda each=each_seed: entries(store, filters, each_seed=each))
        assert "COVERING INDEX runs_table" in how
        assert filters.narrow or "TEMP B-TREE FOR GROUP BY" not in how


def test_ls_walks_back_from_the_newest_or_finds_its_runs_in_an_index(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = asked(store, monkeypatch, lambda: recent(store, Filters(), 20))
    assert "TEMP B-TREE" not in how, "in the order of their numbers nothing needs sorting, and the limit ends it"
    filtered = asked(store, monkeypatch, lambda: recent(store, Filters(task=("x*",)), 20))
    assert "COVERING INDEX runs_table" in filtered
    assert "SCAN runs\n" not in f"{filtered}\n"
    assert "COVERING INDEX" in asked(store, monkeypatch, lambda: queries.count(store, Filters(task=("x*",))))


def test_show_looks_nothing_up_by_walking_through_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = asked(store, monkeypatch, lambda: queries.find_run(store, "last"))
    assert newest.splitlines()[-1] == "SCAN runs", "from its end, where LIMIT 1 ends it"
    how = asked(store, monkeypatch, lambda: queries.load(store, 1))
    assert [line for line in how.splitlines() if line.startswith("SCAN")] == []


def test_a_report_is_taken_in_without_walking_through_the_registry(store: Store, make_report) -> None:
    seen: list[str] = []
    connection: sqlite3.Connection = store.db.connection()
    connection.set_trace_callback(seen.append)
    with store.write():
        insert(store, make_report(cell=Cell("digits", "b:small", "knn", 1, 99), model_fingerprint="other"))
    connection.set_trace_callback(None)
    asked_of_runs = [sql for sql in seen if sql.lstrip().startswith("SELECT") and "runs" in sql]
    asked_of_runs += [sql for sql in seen if sql.lstrip().startswith("UPDATE runs")]
    assert len(asked_of_runs) >= 4
    for sql in asked_of_runs:
        how = plan(store, sql, ())
        assert "SCAN" not in how, f"{sql}\n{how}"
        if "_fingerprint" in sql:
            assert how.count("fingerprint<?") == how.count("fingerprint>?") == 1, how


@pytest.mark.parametrize(
    "filters", [Filters(), Filters(task=("d*",)), Filters(model=("b*", "a")), Filters(seed=(1, 2))]
)
def test_the_entries_are_those_that_python_makes_of_the_rows(store: Store, filters: Filters) -> None:
    rows = store.execute(
        "SELECT task, model, classifier, n_train, seed, metric, value, low, high, chance, id FROM runs WHERE current"
    ).fetchall()
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        named = dict(zip(("task", "model", "classifier", "n_train", "seed"), row, strict=False))
        if filters.task and not named["task"].startswith("d"):
            continue
        if filters.seed and named["seed"] not in filters.seed:
            continue
        groups.setdefault((*row[:4], row[5]), []).append(row)
    found = entries(store, filters)
    assert {(e.task, e.model, e.classifier, e.n_train, e.metric) for e in found} == set(groups)
    marks = {r[0]: r[1] for r in store.execute("SELECT run_id, name || ':' || status FROM checks WHERE status <> 'ok'")}
    for e in found:
        members = groups[e.task, e.model, e.classifier, e.n_train, e.metric]
        values = [m[6] for m in members]
        assert e.n == len(values)
        assert e.value == pytest.approx(statistics.fmean(values), abs=1e-12)
        assert e.chance == pytest.approx(members[0][9])
        if e.n == 1:
            assert (e.sd, e.low, e.high) == (None, members[0][7], members[0][8])
        else:
            assert e.sd == pytest.approx(statistics.stdev(values), abs=1e-7)
            assert (e.low, e.high) == (None, None)
        shown = {f"{name}:{status}" for name, status in e.marks}
        assert len(shown) == len(e.marks)
        assert shown >= {marks[m[10]] for m in members if m[10] in marks}
        everything = store.execute(
            f"SELECT DISTINCT name || ':' || status FROM checks WHERE status <> 'ok' "
            f"AND run_id IN ({', '.join(str(m[10]) for m in members)})"
        ).fetchall()
        assert shown == {r[0] for r in everything}


def test_another_metric_is_that_of_the_same_runs(store: Store) -> None:
    primary = {e[:5]: e for e in entries(store)}
    other = {e[:5]: e for e in entries(store, metrics=["auroc"])}
    assert set(primary) == set(other)
    for cell, e in other.items():
        assert e.value == pytest.approx(primary[cell].value / 2)
        assert (e.metric, e.chance, e.marks, e.n) == ("auroc", None, primary[cell].marks, primary[cell].n)


def test_the_deviation_of_equal_numbers_is_zero(tmp_path: Path, make_report) -> None:
    with open_store(tmp_path / "s.sqlite") as store:
        with store.write():
            for seed in range(7):
                cell = Cell("digits", "pixels", "centroid", -1, seed)
                insert(store, make_report(cell=cell, metrics=[Metric("top1", 0.9147403685092127)]))
        assert [(e.n, e.sd) for e in entries(store)] == [(7, 0.0)]


def test_removing_keeps_one_current_run_of_every_cell_that_has_any(store: Store) -> None:
    rng = random.Random(1)
    numbers = [r[0] for r in store.execute("SELECT id FROM runs").fetchall()]
    while numbers:
        gone = rng.sample(numbers, min(60, len(numbers)))
        assert remove(store, gone).runs == len(gone)
        numbers = [n for n in numbers if n not in gone]
        assert [r[0] for r in store.execute("SELECT id FROM runs ORDER BY id").fetchall()] == sorted(numbers)
        wrong = store.execute(
            "SELECT task, model, classifier, n_train, seed FROM runs GROUP BY 1, 2, 3, 4, 5 HAVING sum(current) <> 1 "
            "OR max(id) <> max(CASE WHEN current THEN id END)"
        ).fetchall()
        assert wrong == []
        for table in ("metrics", "class_metrics", "checks", "artifacts"):
            assert store.execute(f"SELECT 1 FROM {table} WHERE run_id NOT IN (SELECT id FROM runs)").fetchall() == []


def test_removing_what_is_gone_removes_nothing(store: Store) -> None:
    assert remove(store, [1, 2]).runs == 2
    assert remove(store, [1, 2, 3]).runs == 1


def test_a_number_that_is_gone_is_no_other_run(store: Store) -> None:
    remove(store, [7])
    with pytest.raises(StoreError, match="there is no run '7'"):
        queries.find_run(store, "7")
    for number in ("0", "99999999999999999999999", "٧"):
        with pytest.raises(StoreError, match="there is no run"):
            queries.find_run(store, number)
