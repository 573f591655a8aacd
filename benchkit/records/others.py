"""What else than a Report is sealed for the store: a cell that failed, a training, a diagnosis.

Like reports they are made where the store is never opened, sealed into the inbox (benchkit.records.sealing) and taken
in by whoever opens the store next.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from benchkit.errors import Reason
from benchkit.records.gate import Sha256, Uuid, strict_json
from benchkit.records.report import Cell, Environment

LOG_TAIL = 20_000
"""Characters of a job's log that are kept with its failure."""


class _Record:
    """Strict JSON, one line; the fields of the dataclass are its keys."""

    uuid: Uuid

    def to_json(self) -> str:
        """Raises ValueError for a NaN or infinite number: none may enter the store."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        if "cell" in record:
            record["cell"] = record["cell"]._asdict()
        if "environment" in record:
            record["environment"] = dataclasses.asdict(record["environment"])
        return json.dumps(record, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Any:
        """Raises ValueError, TypeError or KeyError where `text` is no such record."""
        record = strict_json(text)
        if "cell" in record:
            record["cell"] = Cell(**record["cell"])
        if "environment" in record:
            record["environment"] = Environment(**record["environment"])
        for rows in record.keys() & {"metrics", "points"}:
            record[rows] = [tuple(row) for row in record[rows]]
        return cls(**record)


@dataclass(frozen=True)
class Failure(_Record):
    """One attempt at a cell that gave no report.

    error: one line. log: the end of the job's log, at most LOG_TAIL characters. options: what the job ran with where
    another choice might succeed (skip_bad, device, ...): a run with other options tries again.
    """

    uuid: Uuid
    cell: Cell
    reason: Reason
    error: str
    host: str
    failed_at: str
    log: str = ""
    slurm_job: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Training(_Record):
    """Something that was trained on recorded activations, and how the training went.

    kind: "sae". metrics: rows of (step, name, value). path, sha256: the safetensors file. Times: ISO 8601 in UTC.
    """

    uuid: Uuid
    kind: str
    task: str
    model: str
    point: str
    data_fingerprint: str
    model_fingerprint: str
    params: dict[str, Any]
    path: str
    sha256: Sha256
    environment: Environment
    started_at: str
    finished_at: str
    metrics: list[tuple[int, str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Diagnosis(_Record):
    """The health of a backbone's activations on a task's examples.

    points: rows of (point, name of the statistic, value or None where it is not finite). page: the HTML page's path.
    """

    uuid: Uuid
    task: str
    model: str
    data_fingerprint: str
    model_fingerprint: str
    healthy: bool
    verdict: str
    details: dict[str, Any]
    page: str | None
    environment: Environment
    started_at: str
    finished_at: str
    points: list[tuple[str, str, float | None]] = field(default_factory=list)
