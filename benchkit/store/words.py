"""What people said over there, brought by a merge: labels, places, studies and notes. One's own stay as they are."""

import json
from typing import Any

from benchkit.errors import BenchkitError
from benchkit.records.gate import Refused
from benchkit.store.columns import gate
from benchkit.store.database import Store
from benchkit.store.labels import check_label


def bring_words(store: Store, other: Store) -> None:
    """Inside the merge's transaction, after its runs."""
    for table, names in _PLAIN.items():
        for row in _rows(other, table, names):
            if table == "labels":
                _hold_label(other, row[2])
            marks = ", ".join("?" * len(row))
            store.execute(f"INSERT INTO {table} VALUES ({marks}) ON CONFLICT DO NOTHING", row)
    cells = ("study_id", "task", "model", "classifier", "n_train", "seed")
    kept: dict[int, list[tuple[Any, ...]]] = {}
    for number, *cell in _rows(other, "study_cells", cells):
        kept.setdefault(number, []).append(tuple(cell))
    for number, *study in _rows(other, "studies", ("id", *_STUDY)):
        store.execute(
            f"INSERT INTO studies ({', '.join(_STUDY)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", study
        )
        ((own,),) = store.execute("SELECT id FROM studies WHERE name = ?", (study[0],)).fetchall()
        store.many(
            "INSERT INTO study_cells VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(own, *cell) for cell in kept.get(number, ())],
        )
    uuids = dict(_rows(other, "runs", ("id", "uuid"), "WHERE id IN (SELECT run_id FROM notes)"))
    for run, *note in _rows(other, "notes", ("run_id", "note", "tags", "user", "noted_at")):
        if run not in uuids:
            raise Refused(f"registry '{other.path}': a note is of run {run}, which is not there")
        store.execute(
            "INSERT INTO notes SELECT id, ?, ?, ?, ? FROM runs WHERE uuid = ? ON CONFLICT DO NOTHING",
            (*note, uuids[run]),
        )


_STUDY = ("name", "note", "tags", "sweep", "user", "host", "started_at", "updated_at")
_PLAIN = {"places": ("fingerprint", "path", "host", "seen_at"), "labels": ("kind", "name", "label")}


def _hold_label(other: Store, label: str) -> None:
    try:
        check_label(label)
    except BenchkitError as e:
        raise Refused(f"registry '{other.path}': {e}") from None


def _rows(other: Store, table: str, names: tuple[str, ...], where: str = "") -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = other.execute(f"SELECT {', '.join(names)} FROM {table} {where}").fetchall()
    gate(other.path, table, names, rows)
    for name in ("tags",):
        if name in names:
            for row in rows:
                if not all(isinstance(word, str) for word in json.loads(row[names.index(name)])):
                    raise Refused(f"registry '{other.path}': tags in {table} are not words")
    return rows
