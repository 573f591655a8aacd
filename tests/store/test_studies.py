"""Studies keep their cells, and only those are seen through them."""

from pathlib import Path

import pytest

import benchkit
from benchkit.api import Settings
from benchkit.errors import BenchkitError
from benchkit.planning.sweep import narrow, read_whole_sweep
from benchkit.reading.asked import asked
from benchkit.store import open_store, queries
from benchkit.store.studies import check_study, studies, sweep_of

SWEEP = """
name = "sizes"
note = "does size matter?"
tags = ["paper"]
task = "digits"
model = ["pixels", "pixels,size=3"]
classifier = "centroid"
n_train = [1, 5]
[labels]
"pixels,size=3" = "Coarse"
"""


def test_a_study_has_exactly_its_cells_those_found_done_too(tmp_path: Path) -> None:
    file, db = tmp_path / "sweep.toml", tmp_path / "r.sqlite"
    file.write_text(SWEEP)
    sweep = read_whole_sweep(file)
    benchkit.run(task="digits", model="pixels", classifier="centroid", n_train=[1, 2],
                 settings=Settings(db=db, replicates=0))  # fmt: skip
    benchkit.api.launch(
        sweep.grids, Settings(db=db, replicates=0, study=sweep.study, labels=sweep.labels), benchkit.progress.Silent()
    )
    with open_store(db) as store:
        (kept,) = studies(store)
        assert (kept.name, kept.note, kept.tags, kept.cells, kept.done, kept.failed) == (
            "sizes", "does size matter?", ("paper",), 4, 4, 0,
        )  # fmt: skip
        assert sweep_of(store, "sizes") == SWEEP
        assert len(queries.recent(store, asked())) == 5
        for filters in (asked(study="sizes"), asked(sweep=file), asked(by=kept.user)):
            assert {(r.model, r.n_train) for r in queries.recent(store, filters)} == {
                ("pixels", 1), ("pixels", 5), ("pixels,size=3", 1), ("pixels,size=3", 5),
            }  # fmt: skip
        assert len(queries.recent(store, asked(model="Coarse"))) == 2
        assert queries.recent(store, asked(since="2999-01-01")) == []
        with pytest.raises(BenchkitError, match="did you mean 'sizes'"):
            check_study(store, "size")


def test_words_narrow_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "sweep.toml"
    file.write_text(SWEEP)
    grids = read_whole_sweep(file).grids
    (grid,) = narrow(grids, model=["pixels,size=3"], n_train=[5])
    assert (grid.model, grid.n_train) == (("pixels,size=3",), (5,))
    assert narrow(grids, model=["pixels"]) == grids
    with pytest.raises(BenchkitError, match="the sweep has no model 'pixel'; did you mean 'pixels'"):
        narrow(grids, model=["pixel"])
