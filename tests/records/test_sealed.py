"""Sealed records that were damaged, altered or made up: refused in one line, never believed, never in the way."""

import copy
import hashlib
import json
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchkit.cli.show import as_json, as_text
from benchkit.errors import StoreError
from benchkit.progress import Silent
from benchkit.reading.pivot import entries, pivot
from benchkit.reading.tables import Screen, runs_table
from benchkit.records.conform import conform
from benchkit.records.others import Diagnosis, Failure, Training
from benchkit.records.report import Cell, Report
from benchkit.records.sealing import Sealed, UnsealError, seal, unseal
from benchkit.store import open_store, queries
from benchkit.store.check import check
from benchkit.store.ingest import waiting
from benchkit.store.opening import refresh
from benchkit.store.queries import Filters
from benchkit.store.reports import load_reports

FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
KINDS = ("report", "failure", "training", "diagnosis")


@pytest.fixture
def records(make_report: Callable[..., Report]) -> dict[str, Sealed]:
    environment = make_report().environment
    times = {"started_at": "2026-01-01T00:00:00+00:00", "finished_at": "2026-01-01T00:00:09+00:00"}
    return {
        "report": make_report(artifacts=[]),
        "failure": Failure(
            "f" * 32, Cell("a", "b", "c", 1, 0), "error", "no weights", "n1", times["started_at"], "log", "12_3",
            {"x": 1},
        ),
        "training": Training(
            "a" * 32, "sae", "hsn", "bm", "b.1", "d", "m", {"width": 64}, "/x.safetensors", "0" * 64, environment,
            metrics=[(10, "mse", 0.5)], **times,
        ),
        "diagnosis": Diagnosis(
            "d" * 32, "hsn", "bm", "d", "m", False, "an outlier", {"dimensions": [7]}, None, environment,
            points=[("b.0", "kurtosis", 3.0), ("b.0", "mean", None)], **times,
        ),
    }  # fmt: skip


edits = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "drop", "double"]), st.integers(0, 10**6), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    made = bytearray(data)
    for how, where, what in changes:
        place = where % (len(made) + 1)
        match how:
            case "flip" if place < len(made):
                made[place] ^= what or 1
            case "cut":
                del made[place:]
            case "insert":
                made.insert(place, what)
            case "drop":
                del made[place : place + 1 + what]
            case "double":
                made[place:place] = made[: place // 2]
    return bytes(made)


@FUZZ
@given(kind=st.sampled_from(KINDS), changes=edits)
def test_a_changed_file_is_refused_unless_its_record_is_byte_for_byte_the_same(
    records: dict[str, Sealed], tmp_path: Path, kind: str, changes: list[tuple[str, int, int]]
) -> None:
    path = seal(records[kind], tmp_path)
    whole = path.read_bytes()
    changed = edited(whole, changes)
    path.write_bytes(changed)
    try:
        made = unseal(path)
    except UnsealError:
        return
    assert changed.partition(b"\n")[2].rstrip(b"\n") == whole.partition(b"\n")[2].rstrip(b"\n")
    assert made == records[kind]


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["", "../../x", "\ud800", "\x00", "NaN", 2**63, -(2**63) - 1, 1e308, "2026-01-01", "ok", "fail"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def altered(draw: Any, record: Any) -> Any:
    """The JSON of a record with something else in one or two places, or a key more, less or twice."""
    made = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 2))):
        place = made
        while True:
            keys = list(place) if isinstance(place, dict) else range(len(place))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            how = draw(st.sampled_from(["replace", "replace", "drop", "add"]))
            if how == "replace":
                place[key] = draw(odd)
            elif how == "drop":
                del place[key]
            elif isinstance(place, dict):
                place[draw(st.text(max_size=5))] = draw(odd)
            else:
                place.append(copy.deepcopy(place[key]))
            break
    return made


@settings(FUZZ, max_examples=40)
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_a_made_up_record_is_set_aside_or_taken_in_whole_and_holds_up_no_other(
    records: dict[str, Sealed], make_report: Callable[..., Report], template: Path, data: Any, kind: str
) -> None:
    body = json.dumps(data.draw(altered(json.loads(records[kind].to_json()))))
    digest = hashlib.sha256(body.encode()).hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(shutil.copy(template, Path(folder) / "r.sqlite"))
        with open_store(path) as store, warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            store.inbox.mkdir(parents=True)
            (store.inbox / "0.json").write_text(f"benchkit-{kind} 1 {digest}\n{body}\n")
            honest = make_report(uuid=uuid.uuid4().hex, artifacts=[], cell=Cell("other", "m", "c", 1, 0))
            seal(honest, store.inbox)
            refresh(store)
            assert waiting(store) == [], "nothing is left in the way"
            aside = (store.inbox / "damaged" / "0.json").exists()
            assert aside == any("0.json" in str(w.message) for w in said)
            runs = [r for (r,) in store.execute("SELECT id FROM runs").fetchall()]
            assert honest in load_reports(store, runs)
            if not aside and kind == "report":
                assert Report.from_json(body) in load_reports(store, runs)
            expected = ("set aside", "is missing", "no predictions")
            assert [f for f in check(store, Silent()) if not any(word in f.what for word in expected)] == []
            screen = Screen(None, False)
            runs_table(queries.recent(store, Filters(history=True)), screen)
            pivot(entries(store, Filters(), [], None, None), None, None)
            for run in runs:
                stored = queries.load(store, run)
                assert as_text(stored, store.side, screen, verbose=True, classes=True)
                assert json.loads(as_json(stored, store.side))


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """An empty registry to copy: making one takes longer than all else here."""
    with open_store(tmp_path / "template.sqlite") as store:
        store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return tmp_path / "template.sqlite"


def test_nesting_too_deep_to_read_is_refused(tmp_path: Path) -> None:
    body = '{"a": ' * 100_000
    path = tmp_path / "deep.json"
    path.write_text(f"benchkit-report 1 {hashlib.sha256(body.encode()).hexdigest()}\n{body}\n")
    with pytest.raises(StoreError, match=r"deep\.json"):
        unseal(path)


@dataclass(frozen=True)
class Row:
    value: float
    name: str = "a"


@dataclass(frozen=True)
class Rows:
    rows: list[Row]
    name: str = "b"


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), True, "1", None])
def test_what_is_no_finite_number_is_refused_alone_and_among_others(value: Any) -> None:
    conform(Rows([Row(1), Row(0.5)]))
    conform(Rows([]))
    with pytest.raises(ValueError, match="its field 'value' is"):
        conform(Row(value))
    with pytest.raises(ValueError, match="its field 'rows' is"):
        conform(Rows([Row(0.5), Row(value), Row(1.0)]))


@pytest.mark.parametrize("name", ["\ud800", 1, None, "x" * (2**20 + 1)])
def test_what_is_no_text_is_refused_alone_and_among_others(name: Any) -> None:
    conform(Rows([Row(1.0, "\u00e9"), Row(1.0, "x" * 2**20)]))
    with pytest.raises(ValueError, match="its field 'name' is"):
        conform(Row(1.0, name))
    with pytest.raises(ValueError, match="its field 'rows' is"):
        conform(Rows([Row(0.5), Row(0.5, name)]))
