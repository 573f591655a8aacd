"""The words by which a user names runs: a spec is resolved as `run` does, a bare name is all of its variants."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchkit.catalog.resolve import resolve
from benchkit.reading.asked import asked
from benchkit.records.report import Cell
from benchkit.store import open_store, queries
from benchkit.store.insert import insert


@pytest.fixture
def found(tmp_path: Path, make_report: Callable[..., Any]) -> Any:
    """(column, names in the registry, words) -> the names that these words find."""

    def find(column: str, names: list[str], *words: str) -> list[str]:
        with open_store(tmp_path / f"{len(list(tmp_path.iterdir()))}.sqlite") as store:
            with store.write():
                for name in names:
                    cell = Cell("digits", "pixels", "linear", -1, 0)._replace(**{column: name})
                    insert(store, make_report(cell=cell))
            filters = asked(**{column: words})
            rows = sorted(getattr(r, column) for r in queries.recent(store, filters))
            return rows or [queries.nothing_matches(store, filters)]

    return find


VARIANTS = ["bird-mae", "bird-mae,path=fp-0123456789abcdef", "bird-mae:large", "bird-mae:large,layer=20"]


def test_a_bare_name_is_all_its_variants_and_no_namesake(found) -> None:
    others = ["bird-mae-x", "bird-maes:large"]
    qualified = ["my-lab/bird-mae", "my-lab/bird-mae@2:large"]
    versions = ["bird-mae@2", "bird-mae@12:large"]
    everything = [*VARIANTS, *others, *qualified, *versions]
    assert found("model", everything, "bird-mae") == sorted([*VARIANTS, *qualified, *versions])
    assert found("model", everything, "my-lab/bird-mae") == sorted(qualified)
    assert found("model", everything, "bird-mae@2") == ["bird-mae@2", "my-lab/bird-mae@2:large"]
    assert found("model", everything, "bird-mae@1") == sorted([*VARIANTS, "my-lab/bird-mae"])


def test_a_path_names_what_was_computed_from_what_is_there(found, tmp_path: Path) -> None:
    folder = tmp_path / "esc50"
    for name in ("meta/esc50.csv", "audio/one.wav"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"RIFF")
    name, canonical = "esc50", resolve("task", f"esc50,root={folder}").canonical
    others = [f"{name},root=fp-0123456789abcdef", "digits"]
    assert found("task", [canonical, *others], f"{name},root={folder}") == [canonical]
    assert found("task", [canonical, *others], f"{name},root={folder}/") == [canonical]
    assert found("task", [canonical, *others], canonical) == [canonical]
    assert found("task", [canonical, *others], name) == sorted([canonical, others[0]])
    (said,) = found("task", others, f"{name},root={tmp_path / 'gone'}")
    assert f"'{tmp_path / 'gone'}': there is no such file or folder" in said


def test_two_spellings_of_one_thing_find_the_same_runs(found) -> None:
    now = resolve("classifier", "knn,k=7").canonical
    old = now.replace("@2", "")
    assert found("classifier", [now, old, "linear"], "knn,k=7") == sorted({now, old})
    assert found("classifier", [now, "linear"], "knn,normalise=none,k=7") != [now, "linear"]
    default = resolve("classifier", "knn").canonical
    k = resolve("classifier", "knn").params.k
    assert found("classifier", [default, now], f"knn,k={k}") == [default], "a default that is written out is exact"
    assert found("classifier", [default, now], "knn") == sorted([default, now])


def test_wildcards_stay_and_a_scorer_is_found_beside_classifiers(found) -> None:
    assert found("model", VARIANTS, "bird-mae:*") == ["bird-mae:large", "bird-mae:large,layer=20"]
    scorer = resolve("scorer", "random,k=16").canonical
    assert found("classifier", [scorer, "linear"], "random,k=16") == [scorer]


def test_what_no_plugin_knows_names_what_the_registry_has_under_it(found) -> None:
    assert found("model", ["gone:large,layer=3"], "gone:large,layer=3") == ["gone:large,layer=3"]
    assert found("model", ["gone:large,layer=3"], "gone") == ["gone:large,layer=3"]
    assert found("model", ["gone,b=2,c=3"], "gone,c=3,b=2") == ["gone,b=2,c=3"], "in any order"
    (said,) = found("model", ["gone:large"], "gone:larje")
    assert "did you mean 'gone:large'" in said
