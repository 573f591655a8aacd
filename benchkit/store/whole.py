"""Each row knows that it is whole: a run, a training, a diagnosis keep the checksum of all that is said of them, and so
do failures, jobs and conflicts, on which nothing hangs.

It is computed from the rows as they are inserted, in one canonical form, and again by `benchkit check` from the rows as
they are read: whatever byte of them changed, the two differ. What may change in a row's life (which run is
current, what number it has) is not in it; what hangs on it (metrics, checks, the environment's own digest) is.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

from benchkit.store.columns import COLUMNS

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Whole:
    """What the checksum of a table's row covers. columns: its own. hangs: table -> (column that points to it, columns),
    in the order of their key."""

    table: str
    columns: tuple[str, ...]
    hangs: Mapping[str, tuple[str, tuple[str, ...]]]


def _all_but(table: str, *left_out: str) -> tuple[str, ...]:
    return tuple(name for name in COLUMNS[table] if name not in left_out)


_NOT = ("id", "current", "environment_id", "digest")
"""And every column that a later migration adds, or else it must compute the checksums anew."""
RUNS = Whole("runs", _all_but("runs", *_NOT), {
    table: ("run_id", _all_but(table, "run_id")) for table in ("metrics", "class_metrics", "checks", "artifacts")
})  # fmt: skip
TRAININGS = Whole("trainings", _all_but("trainings", *_NOT), {
    "training_metrics": ("training_id", _all_but("training_metrics", "training_id"))
})  # fmt: skip
DIAGNOSES = Whole("diagnoses", _all_but("diagnoses", *_NOT), {
    "diagnosis_points": ("diagnosis_id", _all_but("diagnosis_points", "diagnosis_id"))
})  # fmt: skip
WHOLES = (RUNS, TRAININGS, DIAGNOSES)
SINGLE: Mapping[str, int] = {"failures": 5, "submissions": 1, "conflicts": 2}
"""Tables whose rows keep a checksum of themselves alone: how many of their columns, the first, are the key."""
_KEYS: Mapping[str, Callable[[Row], Any]] = {
    "metrics": itemgetter(0), "class_metrics": itemgetter(0, 1), "checks": itemgetter(0), "artifacts": itemgetter(0),
    "training_metrics": itemgetter(0, 1), "diagnosis_points": itemgetter(0, 1),
}  # fmt: skip
"""The key that rows hang on one row by, of their columns without the one that points to it: the order they have."""


def digest(whole: Whole, row: Mapping[str, Any], environment: str, hanging: Mapping[str, Sequence[Row]]) -> str:
    """The checksum of a row that is about to be inserted. environment: the digest of its environment. hanging: rows by
    table, each without the column that points to this row."""
    sorted_rows = [sorted(hanging[table], key=_KEYS[table]) for table in whole.hangs]
    return _digest(whole.table, [row[name] for name in whole.columns], environment, sorted_rows)


def _digest(table: str, row: Sequence[Any], environment: str, hanging: Sequence[Sequence[Row]]) -> str:
    return hashlib.sha256(_compact([table, row, environment, hanging]).encode()).hexdigest()


_compact = json.JSONEncoder(separators=(",", ":")).encode


def row_digest(table: str, row: Sequence[Any]) -> str:
    """Of a row of SINGLE, whose values but for the checksum come in the order of COLUMNS."""
    return _digest(table, row, "", ())


def environment_digest(row: Mapping[str, Any]) -> str:
    """Of a row of `environments`, by which an equal one is found again."""
    plain = {name: row[name] for name in COLUMNS["environments"] if name not in ("id", "digest")}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


class Found(NamedTuple):
    """kept: the checksum in the row, of one that was written by something else None. now: of what is there."""

    id: int
    kept: str | None
    now: str


def recomputed(db: sqlite3.Connection, whole: Whole, most: int = 2**63 - 1, after: int = -(2**63)) -> list[Found]:
    """Of rows with a number above `after`, `most` of them at most: what they keep, and what it should be."""
    with tolerant(db):
        own = ", ".join(f"t.{name}" for name in whole.columns)
        rows = db.execute(
            f"SELECT t.id, t.digest, e.digest, {own} FROM {whole.table} t "
            "LEFT JOIN environments e ON e.id = t.environment_id WHERE t.id > ? ORDER BY t.id LIMIT ?",
            (after, most),
        ).fetchall()
        if not rows:
            return []
        hanging = [_hanging(db, table, key, columns, rows) for table, (key, columns) in whole.hangs.items()]
    return [
        Found(number, had, _digest(whole.table, row, environment or "", [h.get(number, []) for h in hanging]))
        for number, had, environment, *row in rows
    ]


def _hanging(
    db: sqlite3.Connection, table: str, key: str, columns: Sequence[str], rows: Sequence[Row]
) -> dict[int, list[Row]]:
    found = db.execute(
        f"SELECT {key}, {', '.join(columns)} FROM {table} WHERE {key} BETWEEN ? AND ?", (rows[0][0], rows[-1][0])
    )
    made: dict[int, list[Row]] = {}
    for number, *row in found:
        made.setdefault(number, []).append(tuple(row))
    for rows_of_one in made.values():  # not by SQL, where damage may have a number sorted beside text
        with suppress(TypeError):
            rows_of_one.sort(key=_KEYS[table])
    return made


@contextmanager
def tolerant(db: sqlite3.Connection) -> Iterator[None]:
    """Text that is not UTF-8 is read too, as what can be told from any that is."""
    db.text_factory = lambda data: data.decode(errors="surrogateescape")
    try:
        yield
    finally:
        db.text_factory = str


def singles(db: sqlite3.Connection, table: str) -> Iterator[tuple[Row, str | None, str]]:
    """Of each row of a table of SINGLE: its values, the checksum that it keeps, and what it should be."""
    with tolerant(db):
        found = db.execute(f"SELECT digest, {', '.join(_all_but(table, 'digest'))} FROM {table}")
        for kept, *row in found:
            yield tuple(row), kept, row_digest(table, row)


def anew(db: sqlite3.Connection, table: str, where: str = "1", values: Row = ()) -> None:
    """Gives rows of a table of SINGLE the checksum of what they say now."""
    names, n = _all_but(table, "digest"), SINGLE[table]
    rows = db.execute(f"SELECT {', '.join(names)} FROM {table} WHERE {where}", values).fetchall()
    same = " AND ".join(f"{name} = ?" for name in names[:n])
    db.executemany(f"UPDATE {table} SET digest = ? WHERE {same}", [(row_digest(table, row), *row[:n]) for row in rows])


def fill(db: sqlite3.Connection, of: Sequence[str]) -> None:
    """For a registry whose rows of these tables were written before they kept a checksum: that of what is there, in
    each."""
    for table in of:
        if table in SINGLE:
            anew(db, table)
    for whole in WHOLES:
        if whole.table not in of:
            continue
        after = -(2**63)
        while found := recomputed(db, whole, BATCH, after):
            db.executemany(f"UPDATE {whole.table} SET digest = ? WHERE id = ?", [(f.now, f.id) for f in found])
            after = found[-1].id


BATCH = 5000
"""Rows that are computed at a time."""
