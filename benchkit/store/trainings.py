"""Trainings of backbones in the registry: claimed while they go on, sealed whenever they are saved, read for tables.

A training is named by what it is made of (`identity`). One is under way once at a time, however many start it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchkit.errors import StoreError
from benchkit.records.environment import describe
from benchkit.records.others import Training
from benchkit.records.report import Cell
from benchkit.records.sealing import seal
from benchkit.store.claims import Owner, alive, claim, heartbeat, owners
from benchkit.store.columns import gate
from benchkit.store.database import Store, side_folder, store_path
from benchkit.store.leases import sightings
from benchkit.store.opening import look, open_store

KIND = "pretraining"


@contextmanager
def training_claimed(db: Path | None, identity: str, seed: int) -> Iterator[None]:
    """Nobody else trains this meanwhile. Raises StoreError, saying who, where somebody does; ends with its owner."""
    path, cell = store_path(db), Cell(KIND, identity, KIND, -1, seed)
    with open_store(path) as store:
        me = Owner.this_process()
        if claim(store, [cell], me):
            with heartbeat(store, me):
                yield
            return
        seen = sightings(store)
        who = [str(o) for o, beat in owners(store) if alive(store.side, o, beat, seen.get(o.token))]
    raise StoreError(f"this training is under way: {' or '.join(who) or 'another process'} has claimed it in '{path}'")


def keep_training(
    db: Path | None, *, uuid: str, task: str, model: str, data_fingerprint: str, model_fingerprint: str,
    params: Mapping[str, Any], path: Path, sha256: str, device: str, wall_s: float, started_at: str, finished_at: str,
    metrics: Sequence[tuple[int, str, float]],
) -> None:  # fmt: skip
    """Seals where a training is and takes it in. The same uuid again: the row follows, and gains the metrics that it
    lacks. Raises StoreError."""
    at = store_path(db)
    record = Training(
        uuid=uuid, kind=KIND, task=task, model=model, point="", data_fingerprint=data_fingerprint,
        model_fingerprint=model_fingerprint, params=dict(params), path=str(path.absolute()), sha256=sha256,
        environment=describe({}, device, wall_s, 0.0), started_at=started_at, finished_at=finished_at,
        metrics=list(metrics),
    )  # fmt: skip
    seal(record, side_folder(at) / "inbox")
    with open_store(at):
        pass


@dataclass(frozen=True)
class Pretraining:
    """A row of `trainings`. params: its settings, `step`, `state` and what else was kept of it."""

    id: int
    uuid: str
    task: str
    model: str
    params: Mapping[str, Any]
    path: str
    started_at: str
    finished_at: str


def pretrainings(db: Path | None) -> list[Pretraining]:
    """The newest first. Raises StoreError."""
    with look(db) as store:
        return _listed(store)


def _listed(store: Store) -> list[Pretraining]:
    names = ("id", "uuid", "task", "model", "params", "path", "started_at", "finished_at")
    found = store.execute(
        f"SELECT {', '.join(names)} FROM trainings WHERE kind = ? ORDER BY id DESC", (KIND,)
    ).fetchall()
    gate(store.path, "trainings", names, found)
    return [Pretraining(**dict(zip(names, row, strict=True)) | {"params": json.loads(row[4])}) for row in found]


def training_curves(db: Path | None, number: int) -> dict[str, list[tuple[int, float]]]:
    """Of each metric its steps and values, ascending."""
    with look(db) as store:
        rows = store.execute(
            "SELECT step, name, value FROM training_metrics WHERE training_id = ? ORDER BY step, name", (number,)
        ).fetchall()
        gate(store.path, "training_metrics", ("step", "name", "value"), rows)
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, name, value in rows:
        curves.setdefault(name, []).append((step, value))
    return curves
