"""Whatever a sweep file or the options of `run` hold: a plan, or an error in one line."""

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchkit.catalog.discovery import discover
from benchkit.errors import BenchkitError
from benchkit.planning.plan import Grid, make_plan
from benchkit.planning.sweep import read_sweep
from benchkit.store import open_store

FUZZ = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CATALOG = discover()

names = st.sampled_from(["digits", "pixels", "linear", "random-vit", "knn,k=3", "kmeans", "digits,x=1", "", "@", "a:b"])
numbers = st.integers() | st.sampled_from([-1, 0, 1, 2**32, 2**63, -(2**63) - 1, 10**5000])
values = names | st.text(max_size=6) | numbers | st.booleans() | st.floats() | st.dates()
keys = st.sampled_from(["task", "model", "classifier", "n_train", "seed", "grid", "slurm", "tasks"]) | st.text(
    max_size=4
)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, int):
        return hex(value) if value >= 0 else str(value) if value > -(10**18) else "-9223372036854775809"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value)


tables = st.dictionaries(keys, values | st.lists(values, max_size=3), max_size=6)


def planned(path: Path) -> None:
    try:
        grids = read_sweep(path)
        assert all(isinstance(g, Grid) for g in grids)
        with open_store(path.with_name("r.sqlite")) as store:
            make_plan(grids, store, CATALOG)
    except BenchkitError:
        return


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "sweep.toml").write_bytes(data)
    planned(tmp_path / "sweep.toml")


@FUZZ
@given(documents=st.lists(tables, max_size=3), nested=st.booleans())
def test_any_document_of_keys_and_values_that_might_be_one(
    tmp_path: Path, documents: list[dict[str, Any]], nested: bool
) -> None:
    lines = []
    for document in documents:
        lines += ["[[grid]]"] if nested else []
        lines += [f"{toml(key)} = {toml(value)}" for key, value in document.items()]
    (tmp_path / "sweep.toml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    planned(tmp_path / "sweep.toml")


@FUZZ
@given(
    task=names | st.text(alphabet=st.characters(), max_size=10),
    model=names,
    classifier=names,
    n_train=numbers,
    seed=numbers,
)
def test_any_options(tmp_path: Path, task: str, model: str, classifier: str, n_train: int, seed: int) -> None:
    try:
        with open_store(tmp_path / "r.sqlite") as store:
            make_plan([Grid((task,), (model,), (classifier,), (n_train,), (seed,))], store, CATALOG)
    except BenchkitError:
        return


def test_brackets_without_end_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text("task = " + "[" * 100_000)
    planned(tmp_path / "sweep.toml")
