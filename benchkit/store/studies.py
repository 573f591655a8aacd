"""Studies: sweeps with a name, kept with their cells, so that they are found again.

A study that is run again keeps its cells and gains those that are new; note, tags and text are those of the last time.
"""

import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchkit.errors import BenchkitError, StoreError, did_you_mean
from benchkit.machine.times import now
from benchkit.records.report import Cell
from benchkit.store.columns import gate
from benchkit.store.database import Store
from benchkit.store.notes import check_note, check_tags, user_name

LONGEST = 120
"""Characters of a name."""


@dataclass(frozen=True)
class Study:
    """name: one line. note: what it is about. tags: words. sweep: the text of its file, where it came from one.

    Raises BenchkitError for a name, a note or a tag that is none.
    """

    name: str
    note: str = ""
    tags: Sequence[str] = ()
    sweep: str = ""

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > LONGEST:
            raise BenchkitError(f"a study's name must be one line of at most {LONGEST} characters, not {name!r}")
        check_note(self.note)
        check_tags(self.tags)


class Kept(NamedTuple):
    """A study as the registry has it. cells: how many; done, failed: how many of them."""

    name: str
    note: str
    tags: tuple[str, ...]
    user: str
    host: str
    started_at: str
    updated_at: str
    cells: int
    done: int
    failed: int


def keep(store: Store, study: Study, cells: Iterable[Cell]) -> None:
    """Notes that these cells are of the study, who started it, and when."""
    moment = now()
    row = (study.name, study.note, json.dumps(check_tags(study.tags)), study.sweep)
    with store.write():
        store.execute(
            "INSERT INTO studies (name, note, tags, sweep, user, host, started_at, updated_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET updated_at = excluded.updated_at, "
            "note = iif(excluded.note = '', note, excluded.note), "
            "tags = iif(excluded.tags = '[]', tags, excluded.tags), "
            "sweep = iif(excluded.sweep = '', sweep, excluded.sweep)",
            (*row, user_name(), platform.node() or "unknown", moment, moment),
        )
        ((number,),) = store.execute("SELECT id FROM studies WHERE name = ?", (study.name,)).fetchall()
        store.many(
            "INSERT INTO study_cells (study_id, task, model, classifier, n_train, seed) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            ((number, *cell) for cell in cells),
        )


_STUDIES = """
SELECT name, note, tags, user, host, started_at, updated_at,
    (SELECT count(*) FROM study_cells c WHERE c.study_id = studies.id),
    (SELECT count(*) FROM study_cells c JOIN runs r ON r.current AND r.task = c.task AND r.model = c.model
        AND r.classifier = c.classifier AND r.n_train = c.n_train AND r.seed = c.seed WHERE c.study_id = studies.id),
    (SELECT count(*) FROM study_cells c JOIN failures r ON r.task = c.task AND r.model = c.model
        AND r.classifier = c.classifier AND r.n_train = c.n_train AND r.seed = c.seed WHERE c.study_id = studies.id)
FROM studies WHERE {where} ORDER BY updated_at DESC, id DESC
"""


def studies(store: Store, *, by: str | None = None, since: str | None = None) -> list[Kept]:
    """The last one run first. by: those that this user started. since: run again, or first, at this time or later."""
    where, values = ["1"], []
    for condition, value in (("user = ?", by), ("updated_at >= ?", since)):
        if value is not None:
            where.append(condition)
            values.append(value)
    rows = store.execute(_STUDIES.format(where=" AND ".join(where)), values).fetchall()
    gate(store.path, "studies", Kept._fields[:7], [row[:7] for row in rows])
    return [Kept._make((*row[:2], tuple(map(str, json.loads(row[2]))), *row[3:])) for row in rows]


def sweep_of(store: Store, name: str) -> str:
    """The text of its sweep file; empty where it came from options. Raises StoreError where there is no such study."""
    check_study(store, name)
    rows = store.execute("SELECT sweep FROM studies WHERE name = ?", (name,)).fetchall()
    gate(store.path, "studies", ("sweep",), rows)
    return str(rows[0][0])


def check_study(store: Store, name: str) -> None:
    """Raises StoreError where the registry has no study of this name."""
    known = [str(r[0]) for r in store.execute("SELECT name FROM studies ORDER BY name").fetchall()]
    if name not in known:
        there = " (benchkit studies lists all)" if known else ": it has none yet (`run --study` makes one)"
        raise StoreError(f"registry '{store.path}' has no study '{name}'{did_you_mean(name, known)}{there}")


def forget(store: Store, name: str) -> None:
    """The study alone: its runs stay. Raises StoreError where there is no such study."""
    with store.write():
        check_study(store, name)
        store.execute("DELETE FROM studies WHERE name = ?", (name,))
