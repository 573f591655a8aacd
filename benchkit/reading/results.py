"""A registry for reading from Python: what benchkit.open() returns.

with benchkit.open("registry.sqlite") as results:
    results.table(rows=["model"], columns=["task"])        pandas frames
    results.predictions("last").scores                     numpy arrays
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float32, Int32

from benchkit.errors import BenchkitError, StoreError, did_you_mean, require
from benchkit.interfaces import Labels
from benchkit.machine.files import read
from benchkit.reading.asked import asked
from benchkit.reading.pages import refuse_bomb
from benchkit.reading.pivot import Pivot, entries, pivot
from benchkit.records.report import Report
from benchkit.store import Store, look, queries
from benchkit.store.reports import load_reports

if TYPE_CHECKING:
    import pandas

Names = str | Sequence[str]
_TIMES = ("started_at", "finished_at", "ingested_at")
_REALS = ("value", "low", "high", "chance")


@dataclass(frozen=True)
class Predictions:
    """What a classifier said of every test example.

    ids: names of the examples. folds: the fold that each was tested in, from 0. labels: as a task's (multiclass: the
    class's number; else 0 or 1 for each class). scores: higher is more likely. classes: their names. groups: of each
    example, the recording (site, individual) that it is of; None where the task knew of none, or the run is older.
    """

    ids: Sequence[str]
    folds: Int32[np.ndarray, " N"]
    labels: Labels
    scores: Float32[np.ndarray, "N C"]
    classes: tuple[str, ...]
    groups: Sequence[str] | None = None

    def frame(self) -> "pandas.DataFrame":
        """One row an example: id, fold, group where it has one, label (multiclass: a name; else a list of names), a
        score for each class."""
        pandas = _pandas()
        if self.labels.ndim == 1:
            truth: list[Any] = [self.classes[c] for c in self.labels]
        else:
            truth = [[self.classes[c] for c in np.flatnonzero(row)] for row in self.labels]
        scores = pandas.DataFrame(self.scores, columns=list(self.classes))
        group = {} if self.groups is None else {"group": list(self.groups)}
        known = pandas.DataFrame({"id": list(self.ids), "fold": self.folds, **group, "label": truth})
        return pandas.concat([known, scores], axis=1)


class Results:
    """An open registry. Raises StoreError where there is none, or it cannot be read.

    The same filters go everywhere: task, model and classifier take one or more specs, bare names or patterns
    (benchkit.reading.asked), n_train and seed one or more numbers (n_train -1 is all), study the name of a study, sweep
    a sweep file, since a time, by a user.
    """

    def __init__(self, path: str | Path | None = None, *, read_only: bool = False) -> None:
        """read_only: changes no file of the registry; so it is with one that is another user's."""
        self._open = ExitStack()
        self._store = self._open.enter_context(look(path, read_only=read_only))

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    @property
    def store(self) -> Store:
        return self._store

    def results(self, **filters: Any) -> "pandas.DataFrame":
        """The view `results`: one row a cell, with its primary metric and where it comes from."""
        where, values = asked(**filters).where()
        ids = f"SELECT id FROM runs WHERE {where}"
        return self._frame(f"SELECT * FROM results WHERE run IN ({ids}) ORDER BY run", values)

    def runs(self, **filters: Any) -> "pandas.DataFrame":
        """The table `runs`, superseded ones (`current` is 0) too."""
        where, values = asked(**{"history": True} | filters).where()
        return self._frame(f"SELECT * FROM runs WHERE {where} ORDER BY id", values)

    def metrics(self, **filters: Any) -> "pandas.DataFrame":
        """Every metric of every cell, with its interval where it has one."""
        return self._of_runs("metrics", "name, metrics.value, metrics.low, metrics.high", filters)

    def class_metrics(self, **filters: Any) -> "pandas.DataFrame":
        """Every metric of every class of every cell, with the class's positives in train and test."""
        columns = "class_name, name, {0}.value, {0}.n_train AS n_train_class, {0}.n_test AS n_test_class"
        return self._of_runs("class_metrics", columns.format("class_metrics"), filters)

    def checks(self, **filters: Any) -> "pandas.DataFrame":
        """What every check found of every cell."""
        return self._of_runs("checks", "name, status, summary, details", filters)

    def table(
        self,
        rows: Names | None = None,
        columns: Names | None = None,
        metric: Names = (),
        show: Literal["value", "low", "high", "sd", "n", "chance"] = "value",
        **filters: Any,
    ) -> "pandas.DataFrame":
        """The table of `benchkit table`, seeds averaged: models and classifiers down, tasks across, where not given.

        rows, columns: of task, model, classifier, n_train, seed and metric. metric: the tasks' primary one where not
        given. show: the mean over the seeds, an end of the 95 % interval (of a single run), the standard deviation over
        the seeds, their number, or what a constant scorer gets.
        """
        made = self.pivot(rows, columns, metric, **filters)
        frame = _pandas().DataFrame(
            [[getattr(e, show, None) for e in row] for row in made.grid],
            index=_index(made.row_keys, made.rows),
            columns=_index(made.column_keys, made.columns),
            dtype=float,
        )  # fmt: skip
        return frame.astype("Int64") if show == "n" else frame

    def pivot(
        self,
        rows: Names | None = None,
        columns: Names | None = None,
        metric: Names = (),
        **filters: Any,
    ) -> Pivot:
        """The same as records, for benchkit.reading.rendering.render."""
        down, across = (None if n is None else _names(n) for n in (rows, columns))
        found = entries(self._store, asked(**filters), _names(metric), down, across)
        if not found and (unknown := set(_names(metric)) - set(known := queries.metric_names(self._store))):
            wrong = min(unknown)
            raise BenchkitError(f"no run has the metric '{wrong}'{did_you_mean(wrong, known)} ({', '.join(known)})")
        return pivot(found, down, across)

    def report(self, run: int | str) -> Report:
        """Everything about one run: its number, the beginning of its uuid, or "last"."""
        return load_reports(self._store, [queries.find_run(self._store, str(run))])[0]

    def predictions(self, run: int | str) -> Predictions:
        """The test scores of a run. Raises StoreError where they are missing, or are not what the run has left."""
        report = self.report(run)
        found = [a for a in report.artifacts if a.kind == "predictions"]
        if answers := [a for a in report.artifacts if a.kind == "answers"]:
            raise StoreError(
                f"run {run} asked the features without a probe and has no predictions: what it found of each example "
                f"is in '{self._store.side / answers[0].path}'"
            )
        if not found:
            raise StoreError(f"run {run} has no predictions")
        path = self._store.side / found[0].path
        try:
            data = read(path, found[0].bytes)
        except OSError as e:
            raise StoreError(f"the predictions of run {run} cannot be read from '{path}': {e.strerror}") from e
        if hashlib.sha256(data).hexdigest() != found[0].sha256:
            raise StoreError(f"the predictions of run {run} in '{path}' are not those that it left: damaged or altered")
        try:
            return read_predictions(data)
        except StoreError as e:
            raise StoreError(f"the predictions of run {run} in '{path}' cannot be read: {e}") from e

    def sql(self, query: str) -> "pandas.DataFrame":
        """Any query; it cannot change the registry."""
        from benchkit.store.readonly import ask

        with ask(self._store, query) as answer:
            return _pandas().DataFrame.from_records(list(answer.rows), columns=list(answer.columns), coerce_float=True)

    def _of_runs(self, table: str, columns: str, filters: dict[str, Any]) -> "pandas.DataFrame":
        where, values = asked(**filters).where()
        return self._frame(
            f"SELECT run_id AS run, task, model, classifier, runs.n_train, seed, {columns} "
            f"FROM runs JOIN {table} ON run_id = runs.id WHERE {where} ORDER BY runs.id",
            values,
        )

    def _frame(self, sql: str, values: Sequence[Any]) -> "pandas.DataFrame":
        pandas = _pandas()
        names, rows = queries.fetch(self._store, sql, values)
        frame = pandas.DataFrame.from_records(rows, columns=names, coerce_float=True)
        for name in frame.columns.intersection(_REALS):
            frame[name] = pandas.to_numeric(frame[name])
        for name in frame.columns.intersection(_TIMES):
            frame[name] = pandas.to_datetime(frame[name], format="ISO8601", utc=True)
        return frame


def read_predictions(data: bytes) -> Predictions:
    """From the bytes of a run's Parquet file: columns id, fold, label, scores, and the names of the classes.

    Raises StoreError where they are no such file: malformed, of other columns, or of more than they can be in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        refuse_bomb(data)
        named = pq.ParquetFile(pa.BufferReader(data)).schema_arrow.names
        texts = [name for name in ("id", "group") if name in named]  # a long name, a million times, is one
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        table = file.read()
        table.validate(full=True)
        return _predictions(table)
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, IndexError, RecursionError, MemoryError) as e:
        raise StoreError(f"these are no predictions of benchkit's: {' '.join(str(e).split())[:300] or repr(e)}") from e


def _predictions(table: Any) -> Predictions:
    """Raises ValueError, KeyError or TypeError where the table is no such."""
    import pyarrow as pa

    known = {"id", "fold", "label", "scores"}
    if set(table.column_names) - {"group"} != known or any(column.null_count for column in table.columns):
        raise ValueError(f"columns {', '.join(table.column_names)}, and they must be {', '.join(sorted(known))}")
    classes = tuple(json.loads(table.schema.metadata[b"classes"]))
    if not all(isinstance(name, str) for name in classes):
        raise ValueError("names of classes are text")
    label, scores = table["label"].combine_chunks(), table["scores"].combine_chunks()
    if not (pa.types.is_fixed_size_list(scores.type) and scores.type.list_size == len(classes)):
        raise ValueError(f"scores are {scores.type}, and there are {len(classes):,} classes")
    values = scores.flatten()
    if pa.types.is_list(label.type):
        labels = np.zeros((len(table), len(classes)), np.uint8)
        lengths = np.diff(label.offsets.to_numpy())
        numbers = label.flatten().to_numpy(zero_copy_only=False)
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < len(classes)):
            raise ValueError("a label is of none of the classes")
        labels[np.repeat(np.arange(len(table)), lengths), numbers] = 1
    else:
        labels = label.to_numpy(zero_copy_only=False)
        if labels.dtype.kind != "i" or (len(labels) and not (labels.min() >= 0 and labels.max() < len(classes))):
            raise ValueError("a label is of none of the classes")
    return Predictions(
        ids=_texts(table, "id"),
        folds=table["fold"].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int32, copy=False),
        labels=labels,
        scores=values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(len(table), len(classes)),
        classes=classes,
        groups=_texts(table, "group") if "group" in table.column_names else None,
    )


def _texts(table: Any, name: str) -> list[str]:
    import pyarrow as pa

    found = table[name].combine_chunks()
    if not (pa.types.is_dictionary(found.type) and pa.types.is_string(found.type.value_type)):
        raise ValueError(f"{name}s are {found.type}")
    names = found.dictionary.to_pylist()
    return [names[i] for i in found.indices.to_pylist()]


def _names(given: Names | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _index(keys: Sequence[tuple[Any, ...]], names: Sequence[str]) -> Any:
    pandas = _pandas()
    if not names:
        return pandas.Index([""] * len(keys))
    if len(names) == 1:
        return pandas.Index([k[0] for k in keys], name=names[0])
    levels = list(zip(*keys, strict=True)) or [()] * len(names)
    return pandas.MultiIndex.from_arrays(levels, names=list(names))


def _pandas() -> Any:
    require("pandas", "benchkit-core[pandas]")
    import pandas

    return pandas
