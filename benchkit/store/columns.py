"""The columns that benchkit reads, and what a value in each of them must be.

A registry's tables are `STRICT`, but its bytes may be damaged, and its rows another program's: what is read is held
against this list (benchkit.records.gate), whoever wrote it. A column that is not in it is not read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchkit.records.gate import (
    COLUMN,
    COUNT,
    FLAG,
    INTEGER,
    JOB,
    LIST,
    OBJECT,
    OWNER,
    PREDICTIONS,
    PRINT,
    REAL,
    SHA256,
    STATUS,
    SUBMISSION,
    TEXT,
    TIME,
    UUID,
    Kind,
    Refused,
    hold,
)

_NAMES = {"task": TEXT, "model": TEXT, "classifier": TEXT}
CELL = _NAMES | {"n_train": INTEGER, "seed": INTEGER}
_PRINTS = {"data_fingerprint": TEXT, "model_fingerprint": TEXT}
_TIMES = {"started_at": TIME, "finished_at": TIME}

COLUMNS: Mapping[str, Mapping[str, Kind]] = {
    "environments": {
        "id": INTEGER, "digest": SHA256, "benchkit_version": TEXT, "git_commit": TEXT.or_none(),
        "git_dirty": FLAG.or_none(), "argv": LIST, "versions": OBJECT, "host": TEXT, "device": TEXT,
    },
    "runs": {
        "id": INTEGER, "uuid": UUID, **CELL, "current": FLAG, "metric": TEXT, "value": REAL, "low": REAL.or_none(),
        "high": REAL.or_none(), "chance": REAL, "warnings": COUNT, "marks": TEXT.or_none(), "n_train_used": COUNT,
        "n_test": COUNT, "n_skipped": COUNT, "n_classes": COUNT, "task_fingerprint": TEXT, "model_fingerprint": TEXT,
        "params": OBJECT, "providers": OBJECT, "record": OBJECT, "environment_id": INTEGER, **_TIMES,
        "ingested_at": TIME, "wall_s": REAL, "cpu_s": REAL, "peak_rss_bytes": COUNT,
        "peak_device_bytes": COUNT.or_none(), "sealed": SHA256.or_none(), "digest": SHA256.or_none(),
    },
    "metrics": {
        "run_id": INTEGER, "name": TEXT, "value": REAL, "low": REAL.or_none(), "high": REAL.or_none(),
    },
    "class_metrics": {
        "run_id": INTEGER, "class_name": TEXT, "name": TEXT, "value": REAL.or_none(), "n_train": COUNT,
        "n_test": COUNT,
    },
    "checks": {"run_id": INTEGER, "name": TEXT, "status": STATUS, "summary": TEXT, "details": OBJECT},
    "artifacts": {"run_id": INTEGER, "kind": TEXT, "path": PREDICTIONS, "sha256": SHA256, "bytes": COUNT},
    "claims": {
        **CELL, "owner": OWNER, "host": TEXT, "pid": COUNT, "process_started": REAL, "slurm_job": JOB.or_none(),
        "claimed_at": TIME, "heartbeat_at": TIME,
    },
    "sightings": {"owner": OWNER, "observer": TEXT, "heartbeat_at": TIME, "seen_s": REAL},
    "failures": {
        **CELL, "reason": TEXT, "error": TEXT, "log": TEXT, "options": OBJECT, "attempts": COUNT, "host": TEXT,
        "slurm_job": TEXT.or_none(), "failed_at": TIME, "seq": COUNT, "digest": SHA256.or_none(),
    },
    "submissions": {
        "job": JOB, "owner": OWNER, "task": TEXT, "model": TEXT, "cells": COUNT, "folder": SUBMISSION, "state": TEXT,
        "reason": TEXT.or_none(), "submitted_at": TIME, "updated_at": TIME, "seq": COUNT, "digest": SHA256.or_none(),
    },
    "conflicts": {
        "run_id": INTEGER, "other_id": INTEGER, "difference": TEXT, "source": TEXT, "found_at": TIME,
        "digest": SHA256.or_none(),
    },
    "trainings": {
        "id": INTEGER, "uuid": UUID, "kind": TEXT, "task": TEXT, "model": TEXT, "point": TEXT, **_PRINTS,
        "params": OBJECT, "path": TEXT, "sha256": SHA256, "environment_id": INTEGER, **_TIMES,
        "sealed": SHA256.or_none(), "digest": SHA256.or_none(),
    },
    "training_metrics": {"training_id": INTEGER, "step": INTEGER, "name": TEXT, "value": REAL},
    "diagnoses": {
        "id": INTEGER, "uuid": UUID, "task": TEXT, "model": TEXT, **_PRINTS, "healthy": FLAG, "verdict": TEXT,
        "details": OBJECT, "page": TEXT.or_none(), "environment_id": INTEGER, **_TIMES, "sealed": SHA256.or_none(),
        "digest": SHA256.or_none(),
    },
    "diagnosis_points": {"diagnosis_id": INTEGER, "point": TEXT, "name": TEXT, "value": REAL.or_none()},
    "places": {"fingerprint": PRINT, "path": TEXT, "host": TEXT, "seen_at": TIME},
    "labels": {"kind": COLUMN, "name": TEXT, "label": TEXT},
    "studies": {
        "id": INTEGER, "name": TEXT, "note": TEXT, "tags": LIST, "sweep": TEXT, "user": TEXT, "host": TEXT,
        "started_at": TIME, "updated_at": TIME,
    },
    "study_cells": {"study_id": INTEGER, **CELL},
    "notes": {"run_id": INTEGER, "note": TEXT, "tags": LIST, "user": TEXT, "noted_at": TIME},
}  # fmt: skip


def held(path: Path, kinds: Sequence[Kind], rows: Sequence[Sequence[Any]]) -> None:
    """Likewise the answer to a question over several tables, by the kinds of its columns. Raises Refused."""
    try:
        hold(rows, [(f"value {j + 1} of a row", kind) for j, kind in enumerate(kinds)], "what it says of runs")
    except Refused as e:
        raise Refused(f"registry '{path}' is damaged, or not benchkit's work: {e} (see `benchkit check`)") from None


def gate(path: Path, table: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Holds rows of these columns of a table of the registry at `path` against their kinds. Raises Refused, naming the
    column and the value."""
    kinds = COLUMNS[table]
    try:
        hold(rows, [(name, kinds[name]) for name in names], f"a row of {table}")
    except Refused as e:
        raise Refused(f"registry '{path}' is damaged, or not benchkit's work: {e} (see `benchkit check`)") from None
