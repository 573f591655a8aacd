"""Sweep files: grids in TOML, with a name by which the study is found again."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchkit.catalog.spec import RawSpec
from benchkit.errors import BenchkitError, SpecError, did_you_mean
from benchkit.machine.config import read_toml
from benchkit.planning.plan import Grid, shown
from benchkit.store.labels import check_label
from benchkit.store.studies import Study

_AROUND = ("name", "note", "tags", "labels", "slurm")
"""What a sweep file may hold beside its grids."""


@dataclass(frozen=True)
class Sweep:
    """study: where the file has a name. labels: by spec, as the file spells it."""

    grids: list[Grid]
    study: Study | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


def read_sweep(path: Path) -> list[Grid]:
    """The grids of a sweep file alone."""
    return read_whole_sweep(path).grids


def read_whole_sweep(path: Path) -> Sweep:
    """From a TOML file: one grid at the top level, or several as `[[grid]]`. Raises BenchkitError in one line.

    name = "layers"                     # optional, as all but the grids: a study
    note = "which layer is best?"
    tags = ["paper"]

    [labels]
    "bird-mae:large" = "Bird-MAE-L, ours"

    [[grid]]
    task = ["hsn", "pow"]
    model = "bird-mae:large"
    classifier = ["linear", "knn,k=5"]
    n_train = [1, 5, -1]
    seed = [0, 1, 2]
    """
    where = f"sweep file '{path}'"
    document = read_toml(path, "sweep file")
    around = {key: document.pop(key) for key in _AROUND if key in document}
    tables = document.pop("grid", None)
    if tables is None:
        tables = [document]
    elif document:
        key = next(iter(document))
        near = did_you_mean(key, [*_AROUND, "grid"])
        raise BenchkitError(f"{where}: '{key}' stands outside of [[grid]]{near}")
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise BenchkitError(f"{where}: write each grid as [[grid]]")
    grids = [_grid(table, f"{where}, grid {i}") for i, table in enumerate(tables, 1)]
    text = path.read_text(encoding="utf-8-sig")
    return Sweep(grids, _study(around, text, where), _labels(around.get("labels", {}), where))


def _study(around: Mapping[str, Any], text: str, where: str) -> Study | None:
    tags = around.get("tags", [])
    tags = [tags] if isinstance(tags, str) else tags
    for key, kind in (("name", str), ("note", str)):
        if not isinstance(around.get(key, ""), kind):
            raise BenchkitError(f"{where}: {key} = {shown(around[key])} must be text")
    if not isinstance(tags, list) or not all(isinstance(t, str) for t in tags):
        raise BenchkitError(f"{where}: tags = {shown(tags)} must be a list of words")
    if "name" not in around:
        for key in ("note", "tags"):
            if key in around:
                raise BenchkitError(f'{where}: {key} is of a study, which needs a name: name = "..."')
        return None
    try:
        return Study(around["name"], around.get("note", ""), tuple(tags), text)
    except BenchkitError as e:
        raise BenchkitError(f"{where}: {e}") from None


def _labels(given: Any, where: str) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        raise BenchkitError(f'{where}: [labels] must hold a text for each name, as in "bird-mae:large" = "Ours"')
    for label in given.values():
        try:
            check_label(label)
        except BenchkitError as e:
            raise BenchkitError(f"{where}, [labels]: {e}") from None
    return dict(given)


def _grid(table: dict[str, Any], where: str) -> Grid:
    known = [*(f.name for f in fields(Grid)), "scorer"]
    values: dict[str, tuple[Any, ...]] = {}
    for key, given in table.items():
        if key not in known:
            raise BenchkitError(f"{where}: unknown key '{key}'{did_you_mean(key, known)} (known: {', '.join(known)})")
        listed = given if isinstance(given, list) else [given]
        kind = int if key in ("n_train", "seed") else str
        if not listed or not all(type(v) is kind for v in listed):
            what = "whole numbers" if kind is int else "strings"
            raise BenchkitError(f"{where}: {key} = {shown(given)} must be one or a list of {what}")
        values[key] = tuple(listed)
    if probes := (*values.get("classifier", ()), *values.pop("scorer", ())):
        values["classifier"] = probes
    if missing := [k for k in ("task", "model") if k not in values]:
        raise BenchkitError(f"{where}: {' and '.join(missing)} missing")
    try:
        return Grid(**values)
    except BenchkitError as e:
        raise BenchkitError(f"{where}: {e}") from None


def narrow(grids: Sequence[Grid], **words: Sequence[Any]) -> list[Grid]:
    """The grids with those values alone that one of the words names, by column: a spec as the file spells it, a bare
    name, a pattern, a number. Raises BenchkitError for a word that names nothing of the sweep."""
    for column, wanted in words.items():
        if not wanted:
            continue
        values = list(dict.fromkeys(v for grid in grids for v in getattr(grid, column)))
        for word in wanted:
            if not any(_names(word, value) for value in values):
                near = did_you_mean(word, values) if isinstance(word, str) else ""
                raise BenchkitError(
                    f"the sweep has no {column} '{word}'{near} (it has {', '.join(map(str, values[:20]))})"
                )
        grids = [
            replace(grid, **{column: kept})
            for grid in grids
            if (kept := tuple(v for v in getattr(grid, column) if any(_names(word, v) for word in wanted)))
        ]
    if not grids:
        raise BenchkitError("no grid of the sweep has all that the options name")
    return list(grids)


def _names(word: Any, value: Any) -> bool:
    if word == value or not isinstance(word, str) or not isinstance(value, str):
        return bool(word == value)
    try:
        asked, there = RawSpec.parse(word), RawSpec.parse(value)
    except SpecError:
        return fnmatch.fnmatchcase(value, word)
    bare = asked.checkpoint is None and not asked.params and asked.version is None
    return asked == there or (bare and there.name == asked.name and asked.dist in (None, there.dist))
