"""What the reading commands ask the store: each question one statement over sets, none a loop over runs.

The index `runs_table` holds every column that `table` and the filters of `ls` look at: both
are answered from it alone, without touching the wide rows.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from benchkit.errors import StoreError, did_you_mean
from benchkit.records.gate import COUNT, INTEGER, PREDICTIONS, REAL, SHA256, TEXT
from benchkit.records.report import Cell, Report
from benchkit.store.columns import COLUMNS, gate, held
from benchkit.store.database import Store, errors
from benchkit.store.notes import Note, note_of
from benchkit.store.reports import load_reports

NAMES = ("task", "model", "classifier")
NUMBERS = ("n_train", "seed")
SHORTEST_UUID = 4
"""Characters that the beginning of a uuid must have to name a run."""


class Word(NamedTuple):
    """What a user wrote for a column of names (benchkit.reading.asked), the canonical strings and patterns that it
    stands for, and where it is no spec that resolves here, why. It may be a label too. seen: names like the pattern
    that have a place like the path, for `bird-mae (bird_mae_tiny)` and for files that are gone."""

    column: str
    text: str
    patterns: tuple[str, ...]
    why: str = ""
    seen: tuple[str, str] | None = None


@dataclass(frozen=True)
class Filters:
    """Which runs: those that match one of the values in every column that has any.

    task, model, classifier: canonical strings, or glob patterns (`bird-mae*`, `digit?`) over them.
    history: superseded reports too, not only each cell's current one. words: what a user wrote, to say it again.
    """

    task: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    classifier: tuple[str, ...] = ()
    n_train: tuple[int, ...] = ()
    seed: tuple[int, ...] = ()
    history: bool = False
    words: tuple[Word, ...] = field(default=(), compare=False)
    study: tuple[str, ...] = ()
    """Only cells of one of these studies."""
    cells: tuple[Cell, ...] | None = None
    """Only these."""
    since: str | None = None
    """Only what was finished, or failed, at this time or later: as the registry writes times."""
    by: str | None = None
    """Only cells of studies that this user started."""

    @property
    def narrow(self) -> bool:
        """Whether anything but `history` is asked for."""
        others = self.study or self.cells is not None or self.since or self.by
        return bool(others) or any(getattr(self, column) for column in (*NAMES, *NUMBERS))

    def where(self, when: str = "finished_at") -> tuple[str, list[Any]]:
        """As an SQL condition on `runs`, and its parameters. when: the column that has the time."""
        clauses: list[str] = ["1"] if self.history else ["current"]
        values: list[Any] = []
        for column in NAMES:
            if wanted := getattr(self, column):
                tests = [f"runs.{column} {'GLOB' if is_glob(w) else '='} ?" for w in wanted]
                clauses.append(f"({' OR '.join(tests)})")
                values += wanted
                for word in self.words:
                    if word.column == column and not is_glob(word.text):
                        clauses[-1] = f"({clauses[-1]} OR {_LABELLED.format(column)})"
                        values += [column, word.text]
                    if word.column == column and word.seen:
                        clauses[-1] = f"({clauses[-1]} OR {_SEEN.format(column)})"
                        values += word.seen
        for column in NUMBERS:
            if numbers := getattr(self, column):
                clauses.append(f"runs.{column} IN ({', '.join('?' * len(numbers))})")
                values += numbers
        if self.study:
            clauses.append(_OF_STUDIES.format(f"name IN ({', '.join('?' * len(self.study))})"))
            values += self.study
        if self.by:
            clauses.append(_OF_STUDIES.format("user = ?"))
            values.append(self.by)
        if self.cells is not None:
            clauses.append(_LISTED)
            values.append(json.dumps(self.cells))
        if self.since:
            clauses.append(f"runs.{when} >= ?")
            values.append(self.since)
        return " AND ".join(clauses), values


_CELL = "(runs.task, runs.model, runs.classifier, runs.n_train, runs.seed)"
_OF_STUDIES = (
    f"{_CELL} IN (SELECT task, model, classifier, n_train, seed FROM study_cells WHERE study_id IN "
    "(SELECT id FROM studies WHERE {0}))"
)
_LISTED = f"{_CELL} IN (SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?))"
_LABELLED = "runs.{0} IN (SELECT name FROM labels WHERE kind = ? AND label = ?)"
_SEEN = "runs.{0} GLOB ? AND EXISTS (SELECT 1 FROM places WHERE instr(runs.{0}, fingerprint) AND ('/' || path) GLOB ?)"


def is_glob(pattern: str) -> bool:
    return any(c in pattern for c in "*?[")


# ------------------------------------------------------------------------------------------------------------------- ls


class RunRow(NamedTuple):
    """One run as `ls` shows it. marks: "check:status" of every check that is not ok."""

    run: int
    uuid: str
    task: str
    model: str
    classifier: str
    n_train: int
    seed: int
    current: bool
    metric: str
    value: float
    low: float | None
    high: float | None
    chance: float
    marks: tuple[str, ...]
    n_test: int
    finished_at: str
    wall_s: float
    host: str
    device: str
    git_commit: str | None


_RUN_ROW = """
SELECT runs.id, uuid, task, model, classifier, n_train, seed, current, metric, value, low, high, chance,
       marks, n_test, finished_at, wall_s, host, device, git_commit
FROM runs JOIN environments ON environments.id = environment_id
WHERE runs.id IN ({ids}) ORDER BY runs.id DESC
"""


def recent(store: Store, filters: Filters, limit: int = 0, *, by_value: bool = False) -> list[RunRow]:
    """The runs that match, the newest first, or by_value the highest. limit: how many at most; 0 is all."""
    where, values = filters.where()
    index = "INDEXED BY runs_table" if filters.narrow else ""
    order = "value DESC, id DESC" if by_value else "id DESC"
    ids = f"SELECT id FROM runs {index} WHERE {where} ORDER BY {order} LIMIT ?"
    found = _run_rows(store, ids, [*values, limit or -1])
    return sorted(found, key=lambda r: (-r.value, -r.run)) if by_value else found


def runs_by_number(store: Store, numbers: Sequence[int]) -> list[RunRow]:
    """These runs, the newest first."""
    return _run_rows(store, "SELECT value FROM json_each(?)", [json.dumps(list(numbers))])


def _run_rows(store: Store, ids: str, values: list[Any]) -> list[RunRow]:
    found = _all(store, _RUN_ROW.format(ids=ids), values)
    held(store.path, _RUN_KINDS, found)
    return [RunRow._make((*r[:7], bool(r[7]), *r[8:13], tuple((r[13] or "").split()), *r[14:])) for r in found]


def count(store: Store, filters: Filters) -> int:
    """How many runs match."""
    where, values = filters.where()
    return _all(store, f"SELECT count(*) FROM runs INDEXED BY runs_table WHERE {where}", values)[0][0]


def nothing_matches(store: Store, filters: Filters) -> str:
    """Why `filters` match no run, in one line, with what the user may have meant."""
    if not _all(store, "SELECT 1 FROM runs LIMIT 1"):
        return f"registry '{store.path}' has no runs yet: `benchkit run` adds some"
    for column in NAMES:
        known = [r[0] for r in _all(store, f"SELECT DISTINCT {column} FROM runs INDEXED BY runs_table")]
        bare = {name.partition(",")[0].partition(":")[0] for name in known}
        words = [w for w in filters.words if w.column == column]
        for word in words or [Word(column, p, (p,)) for p in getattr(filters, column)]:
            given: dict[str, Any] = {column: word.patterns}
            where, values = Filters(**given, history=True, words=(word,)).where()
            if _all(store, f"SELECT 1 FROM runs INDEXED BY runs_table WHERE {where} LIMIT 1", values):
                continue
            named = f"no run has {column} '{word.text}'"
            if not is_glob(word.text) and any(k.startswith(word.text) for k in known):
                return f"{named}; '{word.text}*' matches some"
            why = f" ({word.why})" if word.why else ""
            return f"{named}{did_you_mean(word.text, [*known, *bare])}{why}"
    names = ", ".join(f"'{name}'" for name in filters.study)
    if filters.study and not any(getattr(filters, c) for c in (*NAMES, *NUMBERS)) and not filters.since:
        return f"no cell of study {names} is done yet"
    return "no run matches all of these filters together"


# ----------------------------------------------------------------------------------------------------------------- show


@dataclass(frozen=True)
class Stored:
    """A report as the store keeps it. history: every run of the same cell, this one too, the newest first. conflicts:
    what `benchkit merge` found to differ between this run and another.
    """

    run: int
    current: bool
    ingested_at: str
    report: Report
    history: list[RunRow]
    conflicts: list["Conflict"] = field(default_factory=list)
    note: Note | None = None


class Conflict(NamedTuple):
    """other: the run that this one differs from. brought: whether that one came with the merge, or this one."""

    other: int
    brought: bool
    difference: str
    source: str
    found_at: str


def find_run(store: Store, text: str) -> int:
    """The number of the run that `text` names: a number, "last" (or "latest"), or the beginning of a uuid.

    Digits alone are always a number: a run that is gone must never turn into another one's uuid.
    """
    wanted = text.strip().lower()
    if wanted in ("last", "latest"):
        newest = _all(store, "SELECT id FROM runs ORDER BY id DESC LIMIT 1")
        if not newest:
            raise StoreError(f"registry '{store.path}' has no runs yet: `benchkit run` adds some")
        return newest[0][0]
    if wanted.isascii() and wanted.isdigit():
        found = _all(store, "SELECT id, uuid FROM runs WHERE id = ?", [min(int(wanted), 2**63 - 1)])
    elif len(wanted) >= SHORTEST_UUID:
        beginning = "SELECT id, uuid FROM runs WHERE uuid >= ? AND uuid < ? ORDER BY uuid LIMIT 4"
        found = _all(store, beginning, [wanted, wanted + "\uffff"])
    else:
        found = []
    if not found:
        raise StoreError(
            f"there is no run '{text}' in registry '{store.path}': give a number (benchkit ls lists them), 'last', "
            f"or at least {SHORTEST_UUID} characters of a uuid"
        )
    if len(found) > 1:
        raise StoreError(f"run '{text}' may be {', '.join(f'{i} ({u})' for i, u in found)}: give more of the uuid")
    return found[0][0]


def load(store: Store, run: int) -> Stored:
    """Everything that the store knows of one run. Raises StoreError where there is no such run."""
    with errors(store.path), store.db.atomic():  # one state of the store for all of it
        (report,) = load_reports(store, [run])
        ((current, ingested_at),) = _all(store, "SELECT current, ingested_at FROM runs WHERE id = ?", [run])
        same_cell = " AND ".join(f"{column} = ?" for column in Cell._fields)
        ids = f"SELECT id FROM runs INDEXED BY runs_table WHERE {same_cell}"
        history = _run_rows(store, ids, list(report.cell))
        names = ("run_id", "other_id", *Conflict._fields[2:])
        conflicting = f"SELECT {', '.join(names)} FROM conflicts WHERE run_id = ? OR other_id = ?"
        gate(store.path, "conflicts", names, found := _all(store, conflicting, [run, run]))
        conflicts = [Conflict(b if run == a else a, run == a, *rest) for a, b, *rest in found]
        return Stored(run, bool(current), ingested_at, report, history, conflicts, note_of(store, run))


_KNOWN = {**COLUMNS["environments"], **COLUMNS["runs"], "run": INTEGER}
_RUN_KINDS = tuple(_KNOWN[name].or_none() if name == "marks" else _KNOWN[name] for name in RunRow._fields)


class FailureRow(NamedTuple):
    """A cell whose last attempt failed, as the table `failures` has it. options: of the job. seq: the registry's own
    number of it, by which the last one to come in is known."""

    task: str
    model: str
    classifier: str
    n_train: int
    seed: int
    reason: str
    error: str
    log: str
    options: dict[str, Any]
    attempts: int
    host: str
    slurm_job: str | None
    failed_at: str
    seq: int

    @property
    def cell(self) -> Cell:
        return Cell(*self[:5])


def of_cell(cell: Cell) -> Filters:
    """Those that match this cell alone."""
    return Filters((cell.task,), (cell.model,), (cell.classifier,), (cell.n_train,), (cell.seed,))


def failures(store: Store, filters: Filters = Filters()) -> list[FailureRow]:
    """The failed cells that match, the last to come in first, whatever the hosts' clocks said."""
    where, values = replace(filters, history=True).where("failed_at")
    # The filters are conditions on `runs`; a failure has the same columns.
    names = ", ".join(FailureRow._fields)
    found = _all(store, f"SELECT {names} FROM failures AS runs WHERE {where} ORDER BY seq DESC", values)
    gate(store.path, "failures", FailureRow._fields, found)
    return [FailureRow._make((*row[:8], json.loads(row[8]), *row[9:])) for row in found]


def count_failures(store: Store, filters: Filters = Filters()) -> int:
    """How many failed cells match; reads none of their logs."""
    where, values = replace(filters, history=True).where("failed_at")
    return _all(store, f"SELECT count(*) FROM failures AS runs WHERE {where}", values)[0][0]


# ---------------------------------------------------------------------------------------------------------------- table


class Entry(NamedTuple):
    """One metric of one cell, over its seeds.

    seed: None where several seeds are taken together. n: how many runs. value: their mean. sd: their sample standard
    deviation, None for one run. low, high: the 95 % bootstrap interval, only of a single run. chance: what a constant
    scorer gets (the mean over the runs), only for the primary metric. marks: (check, status) of every check that is
    not ok in any of them.
    """

    task: str
    model: str
    classifier: str
    n_train: int
    seed: int | None
    metric: str
    n: int
    value: float
    sd: float | None
    low: float | None
    high: float | None
    chance: float | None
    marks: tuple[tuple[str, str], ...]


_ENTRY_KINDS = (
    TEXT, TEXT, TEXT, INTEGER, INTEGER.or_none(), TEXT, INTEGER, REAL, REAL, REAL.or_none(), REAL.or_none(),
    REAL.or_none(), TEXT.or_none(),
)  # fmt: skip


def entries(
    store: Store, filters: Filters = Filters(), metrics: Sequence[str] = (), *, each_seed: bool = False
) -> list[Entry]:
    """Current runs, grouped by cell without its seed (each_seed: with it).

    metrics: names; the task's primary one where none is given.
    """
    where, values = filters.where()
    source, name, m, chance = "runs INDEXED BY runs_table", "metric", "", "chance"
    key = "model, classifier, task, n_train"  # in the order of the index, so that nothing needs sorting
    if metrics:
        source += " CROSS JOIN metrics m ON m.run_id = runs.id"
        name, m, chance, where = "m.name", "m.", "CASE WHEN m.name = metric THEN chance END", f"{where} AND m.name = ?"
    else:
        key += ", metric"
    sql = f"""
        SELECT task, model, classifier, n_train, {"seed" if each_seed else "NULL"}, {name}, count(*), avg({m}value),
               sum({m}value * {m}value), CASE count(*) WHEN 1 THEN {m}low END, CASE count(*) WHEN 1 THEN {m}high END,
               avg({chance}), group_concat(marks)
        FROM {source} WHERE {where} GROUP BY {f"{key}, seed" if each_seed else key}
        """
    asked = [[*values, metric] for metric in dict.fromkeys(metrics)] or [values]
    found = list(chain.from_iterable(_each(store, sql, given) for given in asked))
    held(store.path, _ENTRY_KINDS, found)
    new, same = tuple.__new__, dict[str, str]().setdefault  # as Entry(...), without a call of Python for each of many
    return [
        new(Entry, (
            same(task, task), same(model, model), same(classifier, classifier), n_train, seed, same(metric, metric),
            n, mean, None if n == 1 else _sd(n, mean, squares), low, high, chance, _marks(marks) if marks else (),
        ))
        for task, model, classifier, n_train, seed, metric, n, mean, squares, low, high, chance, marks in found
    ]  # fmt: skip


@cache
def _marks(text: str) -> tuple[tuple[str, str], ...]:
    """The marks of several runs, each once: "chance:fail labels:warn,labels:warn"."""
    return _each_once(frozenset(text.split(",")))


@cache
def _each_once(runs: frozenset[str]) -> tuple[tuple[str, str], ...]:
    found = {mark for run in runs for mark in run.split(" ")}
    return tuple((name, status) for name, _, status in (mark.rpartition(":") for mark in sorted(found)))


def _sd(n: int, mean: float, squares: float) -> float:
    """Of a sample of several, from its sums. What is left of equal numbers is rounding error: 0."""
    variance = (squares - n * mean * mean) / (n - 1)
    return math.sqrt(variance) if variance > 1e-14 * mean * mean else 0.0


_REPLICATE_KINDS = (TEXT, TEXT, TEXT, INTEGER, TEXT, INTEGER, INTEGER, PREDICTIONS, SHA256, COUNT)


def replicates(store: Store, filters: Filters) -> Iterator[Any]:
    """Of current runs that keep replicates: task, model, classifier, n_train, metric, seed, run, and the file's path,
    checksum and size."""
    where, values = filters.where()
    found = _all(
        store,
        "SELECT task, model, classifier, runs.n_train, metric, seed, runs.id, path, sha256, bytes FROM runs "
        f"JOIN artifacts ON run_id = runs.id AND kind = 'replicates' WHERE {where} ORDER BY seed",
        values,
    )
    held(store.path, _REPLICATE_KINDS, found)
    yield from found


class PublishedRow(NamedTuple):
    """A number of ours and what a paper reports for the same cell, as the `published` check noted it."""

    task: str
    model: str
    classifier: str
    n_train: int
    seed: int
    metric: str
    value: float
    low: float | None
    high: float | None
    published: float
    gap: float
    source: str


_PUBLISHED_KINDS = (
    TEXT, TEXT, TEXT, INTEGER, INTEGER, TEXT, REAL, REAL.or_none(), REAL.or_none(), REAL, REAL, TEXT
)  # fmt: skip


def published(store: Store, filters: Filters) -> list[PublishedRow]:
    """Every published number of the cells that match."""
    where, values = filters.where()
    found = _all(
        store,
        f"""
        SELECT runs.task, runs.model, runs.classifier, runs.n_train, runs.seed, metrics.name, metrics.value,
               metrics.low, metrics.high, gap.value ->> 'published', gap.value ->> 'gap', gap.value ->> 'source'
        FROM runs JOIN checks ON checks.run_id = runs.id AND checks.name = 'published'
        JOIN json_each(checks.details, '$.gaps') AS gap
        JOIN metrics ON metrics.run_id = runs.id AND metrics.name = gap.value ->> 'metric'
        WHERE {where}
        ORDER BY runs.task, runs.model, runs.classifier, runs.n_train, runs.seed, metrics.name
        """,
        values,
    )
    held(store.path, _PUBLISHED_KINDS, found)
    return [PublishedRow(*row) for row in found]


def names_in(store: Store, column: str, filters: Filters = Filters(history=True)) -> list[str]:
    """The names that runs have in one of the columns task, model and classifier, sorted."""
    assert column in NAMES
    where, values = filters.where()
    found = _all(store, f"SELECT DISTINCT {column} FROM runs INDEXED BY runs_table WHERE {where} ORDER BY 1", values)
    gate(store.path, "runs", (column,), found)
    return [row[0] for row in found]


def metric_names(store: Store) -> list[str]:
    """Every metric that some run has."""
    return [r[0] for r in _all(store, "SELECT DISTINCT name FROM metrics ORDER BY name")]


def _all(store: Store, sql: str, values: Sequence[Any] = ()) -> list[Any]:
    return list(_each(store, sql, values))


def _each(store: Store, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
    """The rows; a thousand at a time are in memory."""
    with errors(store.path):
        cursor = store.db.execute_sql(sql, values)
        while rows := cursor.fetchmany(1000):
            yield from rows


def fetch(store: Store, sql: str, values: Sequence[Any] = ()) -> tuple[list[str], list[Any]]:
    """The names of the columns, and all rows."""
    with errors(store.path):
        cursor = store.db.execute_sql(sql, values)
        return [d[0] for d in cursor.description], cursor.fetchall()
