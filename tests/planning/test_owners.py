"""What was provided by one distribution keeps its name, whatever else is installed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchkit.catalog.discovery import Catalog, Plugin, discover
from benchkit.errors import SpecError
from benchkit.planning.plan import Grid, make_plan
from benchkit.records.report import Cell, Report
from benchkit.store import Store, open_store
from benchkit.store.insert import insert


def with_second(name: str) -> Catalog:
    """The plugins that are here, and another package that has a model of this name too."""
    catalog = discover()
    (entry,) = [p.entry for p in catalog.provided("model") if p.name == name]
    return Catalog((*catalog.plugins, Plugin("second", "my-lab", "1", "m", {"model": {name: entry}})))


def without(catalog: Catalog, dist: str) -> Catalog:
    return replace(catalog, plugins=tuple(p for p in catalog.plugins if p.dist != dist or "model" not in p.provides))


@pytest.fixture
def store(tmp_path: Path, make_report: Callable[..., Report]) -> Any:
    providers = {"task": "benchkit-digits 0.1.0", "model": "benchkit-baselines 0.1.0", "classifier": "benchkit-core 1"}
    with open_store(tmp_path / "r.sqlite") as store:
        with store.write():
            insert(store, make_report(cell=Cell("digits", "pixels", "knn@2", -1, 0), providers=providers))
        yield store


def planned(store: Store | None, catalog: Catalog, *models: str) -> list[tuple[str, str]]:
    plan = make_plan([Grid(("digits",), models, ("knn",))], store, catalog)
    return [(p.cell.model, p.state) for p in plan.cells]


def test_cells_stay_done_when_a_second_package_has_a_model_of_the_same_name(store: Store) -> None:
    catalog = with_second("pixels")
    assert planned(store, discover(), "pixels") == [("pixels", "done")]
    assert planned(store, catalog, "pixels") == [("pixels", "done")], "the plain name is whose it was"
    assert planned(store, catalog, "benchkit-baselines/pixels") == [("pixels", "done")]
    assert planned(store, catalog, "pixels,size=3") == [("pixels,size=3", "todo")]
    assert planned(store, catalog, "my-lab/pixels") == [("my-lab/pixels", "todo")]


def test_a_second_package_does_not_take_the_name_of_one_that_is_gone(store: Store) -> None:
    alone = without(with_second("pixels"), "benchkit-baselines")
    assert planned(store, alone, "pixels") == [("my-lab/pixels", "todo")]


def test_where_nothing_was_computed_yet_the_user_must_choose(tmp_path: Path) -> None:
    with open_store(tmp_path / "new.sqlite") as new, pytest.raises(SpecError, match="write 'benchkit-baselines/pixels"):
        planned(new, with_second("pixels"), "pixels")
