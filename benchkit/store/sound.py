"""Whether rows are as they were written: by the checksums that they keep, and by what each column may hold."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchkit.progress import Progress
from benchkit.records.gate import Refused
from benchkit.store.columns import COLUMNS, gate
from benchkit.store.database import Store
from benchkit.store.whole import BATCH, RUNS, SINGLE, WHOLES, environment_digest, recomputed, singles, tolerant

FEW = 20
"""Findings of one kind that get a line each."""
LOOSE = ("claims", "sightings", "submissions")
"""Tables of what goes on, not of what was found: a row that makes no sense may go."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, in one line. remedy: the way out. fixable: `--fix` mends it."""

    what: str
    remedy: str
    fixable: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def few(found: Iterable[Finding], what: str, remedy: str) -> Iterator[Finding]:
    """The first of them, and how many more there are."""
    n = 0
    for n, finding in enumerate(found, 1):
        if n <= FEW:
            yield finding
    if n > FEW:
        yield Finding(f"and {n - FEW:,} more {what}", remedy)


def whole(store: Store, progress: Progress) -> Iterator[Finding]:
    """Rows that are not as they were written, by the checksums that they keep."""
    db = store.db.connection()
    for kind in WHOLES:
        changed, without, after = [], 0, -(2**63)
        with progress.step(f"check the {kind.table}", None, "rows") as step:
            while found := recomputed(db, kind, BATCH, after):
                changed += [f.id for f in found if f.kept is not None and f.kept != f.now]
                without += sum(f.kept is None for f in found)
                after = found[-1].id
                step.advance(len(found))
        way = "restore a backup"
        if kind is RUNS:
            way = "`benchkit rm {}`, then `benchkit merge BACKUP` or `benchkit run` brings it back"
        one = {"runs": "run", "trainings": "training", "diagnoses": "diagnosis"}[kind.table]
        lines = (Finding(f"{one} {n} is not as it was taken in", way.format(n)) for n in changed)
        yield from few(lines, f"{kind.table} are not as they were taken in", way.format("RUN"))
        if without:
            yield Finding(f"{without:,} {kind.table} keep no checksum", "something else than benchkit has written here")
    yield from _whole_singles(db)
    for names, rows in _batches(db, "environments"):
        for row in rows:
            environment = dict(zip(names, row, strict=True))
            if environment_digest(environment) != environment["digest"]:
                yield Finding(f"environment {environment['id']} is not as it was taken in", "restore a backup")


_ONE = {
    "failures": "failure of {}, {}, {}, {}, seed {}", "submissions": "Slurm job {}",
    "conflicts": "conflict of runs {} and {}",
}  # fmt: skip


def _whole_singles(db: sqlite3.Connection) -> Iterator[Finding]:
    for table, one in _ONE.items():
        way, without, changed = "restore a backup", 0, []
        if table == "failures":
            way = "`benchkit run --retry-failed` computes its cell again, `benchkit rm failed` forgets it"
        for row, kept, now in singles(db, table):
            without += kept is None
            if kept is not None and kept != now:
                changed.append(f"{one.format(*row[: SINGLE[table]])} is not as it was written")
        yield from few((Finding(line, way) for line in changed), f"{table} are not as they were written", way)
        if without:
            yield Finding(f"{without:,} {table} keep no checksum", "something else than benchkit has written here")


def rows_that_make_no_sense(store: Store) -> Iterator[Finding]:
    """Rows with values that benchkit does not write."""
    for table in COLUMNS:
        loose = table in LOOSE
        way = "`benchkit check --fix` removes it" if loose else "restore a backup"
        lines = (Finding(what, way, loose) for what, _ in _nonsense(store, table))
        yield from few(lines, f"rows of {table} make no sense", way)


def remove_nonsense(store: Store) -> int:
    """From the tables of what goes on: a claim by an owner whose name leads elsewhere, say. How many."""
    n = 0
    with store.write():
        for table in LOOSE:
            same = " AND ".join(f"{name} IS ?" for name in COLUMNS[table])
            for _, row in list(_nonsense(store, table)):
                n += store.execute(f"DELETE FROM {table} WHERE {same}", row).rowcount
    return n


def _nonsense(store: Store, table: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """What is wrong, and the row."""
    for names, rows in _batches(store.db.connection(), table):
        if _wrong(store, table, names, rows):
            for row in rows:
                if what := _wrong(store, table, names, [row]):
                    yield what, row


def _wrong(store: Store, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str | None:
    try:
        gate(store.path, table, names, rows)
    except Refused as e:
        return str(e.__context__ or e)
    return None


def _batches(db: sqlite3.Connection, table: str) -> Iterator[tuple[list[str], list[Any]]]:
    names = list(COLUMNS[table])
    with tolerant(db):
        cursor = db.execute(f"SELECT {', '.join(names)} FROM {table}")
        while rows := cursor.fetchmany(BATCH):
            yield names, rows
