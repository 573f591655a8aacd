"""Cell, Report and the records inside it.

A report travels sealed (benchkit.records.sealing). The predictions, which may be large, are a Parquet file already in
its final place beside the store, named in `artifacts` with its checksum.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from benchkit.records.gate import Sha256, Uuid, strict_json


class Cell(NamedTuple):
    """What is computed once: four canonical names and a seed."""

    task: str
    model: str
    classifier: str
    n_train: int
    seed: int

    def __str__(self) -> str:
        return f"{self.task} {self.model} {self.classifier} n_train={self.n_train} seed={self.seed}"


@dataclass(frozen=True)
class Metric:
    """One number. low, high: the ends of its 95 % bootstrap interval, where one was computed."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassMetric:
    """One number for one class, with the class's positives in train and test. value: None where it is not defined."""

    class_name: str
    name: str
    value: float | None
    n_train: int
    n_test: int


Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What one check found. `warn` and `fail` mark the result wherever it is shown.

    summary: one line with the numbers that matter. details: JSON, for `benchkit show`.
    """

    name: str
    status: Status
    summary: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A file that belongs to a report. path: relative to the store's side folder."""

    kind: str
    path: str
    sha256: Sha256
    bytes: int


@dataclass(frozen=True)
class Environment:
    """Where and how a report was made. Times in seconds, memory in bytes."""

    benchkit_version: str
    git_commit: str | None
    git_dirty: bool | None
    argv: list[str]
    versions: dict[str, str]
    host: str
    device: str
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int
    peak_device_bytes: int | None = None


@dataclass(frozen=True)
class Report:
    """Everything known about one computed cell. Times are ISO 8601 in UTC."""

    uuid: Uuid
    cell: Cell
    params: dict[str, dict[str, Any]]
    """Every parameter, defaults too, of "task", "model" and "classifier"."""
    providers: dict[str, str]
    """The distribution and version that provided each of the three."""
    primary: str
    metrics: list[Metric]
    chance: float
    """What a constant scorer gets on the primary metric, on the same labels."""
    n_train_used: int
    n_test: int
    n_skipped: int
    """Examples that did not decode and were left out (--skip-bad)."""
    n_classes: int
    task_fingerprint: str
    model_fingerprint: str
    started_at: str
    finished_at: str
    environment: Environment
    class_metrics: list[ClassMetric] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    """What the classifier told of its fit."""

    @property
    def value(self) -> float:
        """The primary metric."""
        return next(m.value for m in self.metrics if m.name == self.primary)

    @property
    def warnings(self) -> list[Check]:
        return [c for c in self.checks if c.status != "ok"]

    def to_json(self) -> str:
        """One line of strict JSON. Raises ValueError for a NaN or infinite number: none may enter the store."""
        return json.dumps(dataclasses.asdict(self) | {"cell": self.cell._asdict()}, allow_nan=False, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Report":
        """Raises ValueError, TypeError or KeyError where `text` is no report."""
        r = strict_json(text)
        lists = {"metrics": Metric, "class_metrics": ClassMetric, "checks": Check, "artifacts": Artifact}
        made: dict[str, Any] = {k: [cls(**row) for row in r[k]] for k, cls in lists.items()}
        return Report(**(r | made | {"cell": Cell(**r["cell"]), "environment": Environment(**r["environment"])}))


def finite(value: float) -> float | None:
    """`value`, or None for NaN and infinity, which JSON and SQL do not hold."""
    return float(value) if math.isfinite(value) else None
