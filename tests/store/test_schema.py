"""docs/schema.md is a contract: it says of the database what is so, all of it, and nothing else."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peewee
import pytest

from benchkit.errors import StoreError
from benchkit.metrics import METRICS
from benchkit.records.report import Report
from benchkit.records.sealing import seal
from benchkit.store import Store, open_store
from benchkit.store.migrations import APPLICATION_ID, VERSION
from benchkit.store.models import MODELS
from benchkit.store.opening import refresh

DOCUMENT = Path(__file__).parents[2] / "docs" / "schema.md"
Columns = list[tuple[str, str, bool]]
"""Name, type, and whether it may be NULL."""


def documented() -> dict[str, Columns]:
    """The tables of the document that describe tables of the database: those under a heading in lower case."""
    found: dict[str, Columns] = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.M)[1:]:
        name = section.splitlines()[0].strip()
        rows = re.findall(r"^\| `(\w+)` \| (\w+)( or NULL)? \| (.+) \|$", section, flags=re.M)
        if name == name.lower() and rows:
            found[name] = [(column, kind, bool(null)) for column, kind, null, _ in rows]
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_store(tmp_path_factory.mktemp("store") / "r.sqlite") as store:
        yield store


def tables(store: Store) -> set[str]:
    return {r[0] for r in store.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()}


def columns(store: Store, table: str) -> Columns:
    found = store.execute(f"PRAGMA table_info({table})").fetchall()
    return [(name, kind, not (not_null or key)) for _, name, kind, not_null, _, key in found]


def test_every_table_and_view_is_documented_and_no_other(store: Store) -> None:
    assert set(documented()) == tables(store)


def test_every_column_is_documented_in_order_with_its_type(store: Store) -> None:
    for table, described in documented().items():
        if table != "results":
            assert described == columns(store, table), table


def test_the_view_is_documented_and_has_the_types_of_the_columns_it_shows(store: Store) -> None:
    described = documented()
    assert [c[:2] for c in described["results"]] == [c[:2] for c in columns(store, "results")]
    sources = {name: (kind, null) for t in ("environments", "runs") for name, kind, null in described[t]}
    sources["run"] = sources["id"]
    assert described["results"] == [(name, *sources[name]) for name, _, _ in described["results"]]


def test_the_peewee_models_are_the_tables_of_the_database(store: Store) -> None:
    sql_type = {
        peewee.TextField: "TEXT", peewee.IntegerField: "INTEGER", peewee.BooleanField: "INTEGER",
        peewee.FloatField: "REAL", peewee.ForeignKeyField: "INTEGER", peewee.AutoField: "INTEGER",
    }  # fmt: skip
    assert {model._meta.table_name for model in MODELS} | {"results"} == tables(store)
    for model in MODELS:
        fields = [
            (f.column_name, next(t for cls, t in sql_type.items() if isinstance(f, cls)), f.null)
            for f in model._meta.sorted_fields
        ]
        assert fields == columns(store, model._meta.table_name), model
        keys = [r for r in store.execute(f"PRAGMA table_info({model._meta.table_name})").fetchall() if r[5]]
        assert [f.column_name for f in model._meta.get_primary_keys()] == [
            r[1] for r in sorted(keys, key=lambda r: r[5])
        ]
        foreign = {(r[3], r[2]) for r in store.execute(f"PRAGMA foreign_key_list({model._meta.table_name})").fetchall()}
        assert {(f.column_name, f.rel_model._meta.table_name) for f in model._meta.refs} == foreign


def test_the_document_knows_the_application_and_the_version() -> None:
    text = DOCUMENT.read_text()
    assert f"is 0x{APPLICATION_ID:X}" in text
    assert f"counts the migrations, {VERSION} so far" in text


def test_the_examples_in_sql_run_on_a_registry(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    path = tmp_path / "r.sqlite"
    with open_store(path) as store:
        seal(make_report(), store.inbox)
        refresh(store)
        examples = re.findall(r"^```sql\n(.+?)^```", DOCUMENT.read_text(), flags=re.M | re.S)
        assert len(examples) >= 7
        for example in examples:
            if "ATTACH" not in example:  # that one is DuckDB's
                assert store.execute(example).fetchall(), example


def test_the_examples_in_python_run_on_a_registry(
    tmp_path: Path, make_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("registry.sqlite") as store:
        seal(make_report(artifacts=[]), store.inbox)
    examples = re.findall(r"^```python\n(.+?)^```", DOCUMENT.read_text(), flags=re.M | re.S)
    assert len(examples) == 2
    first = "\n".join(line for line in examples[0].splitlines() if "predictions" not in line)  # see test_results.py
    known: dict[str, Any] = {}
    exec(first, known)
    assert known["table"].shape == (1, 1)
    assert len(known["recall"]) == 2
    exec(examples[1], known)
    assert list(known["frame"].value) == [0.9]
    known["connection"].close()


def test_of_every_metric_higher_is_better_as_the_document_says() -> None:
    assert [m.name for m in METRICS.values() if not m.higher_is_better] == []


def test_the_tables_are_strict(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot store TEXT value in REAL column"):
        store.execute("INSERT INTO metrics VALUES (1, 'x', 'many', NULL, NULL)")
