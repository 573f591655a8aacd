"""The record of a job: all cells of one (task, model), and how to compute them.

A job is a small JSON record and runs the same anywhere: in the launcher's process, in a worker, on a cluster's node. It
never opens the store: it seals into the inbox beside it.
"""

import json
import types
import typing
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchkit.catalog.discovery import one_line
from benchkit.errors import BenchkitError
from benchkit.machine.environment import command
from benchkit.planning.plan import Planned
from benchkit.records.report import Cell


@dataclass(frozen=True, kw_only=True)
class Computing:
    """How to compute, where that cannot change the number."""

    device: str = "cpu"
    batch_size: int | None = None
    workers: int | None = None
    """Decoding processes. None chooses, as for batch_size."""
    skip_bad: int = 0
    """Examples that a split may lose because they do not decode."""
    replicates: int = 1000
    """Bootstrap replicates for the interval of the primary metric."""
    shuffled: bool = False
    """Also fit each cell on permuted labels, which must fall to chance."""


@dataclass(frozen=True)
class JobOptions(Computing):
    """As a job carries it. Paths are absolute."""

    side: str
    """The folder beside the store: sealed reports go to its inbox, predictions to its predictions."""
    cache: str
    memory: str | None = None
    """What a scheduler is asked for, where there is one, as in `32G`."""
    fresh: bool = False
    """Compute features again that are cached."""

    def circumstances(self) -> dict[str, Any]:
        """Those of which another choice may let a failed cell succeed."""
        return {name: getattr(self, name) for name in ("device", "batch_size", "workers", "skip_bad", "memory")}


@dataclass(frozen=True)
class JobCell:
    classifier: str
    """The spec in a spelling that means the same in any folder."""
    cell: Cell


@dataclass(frozen=True)
class Job:
    task: str
    model: str
    cells: tuple[JobCell, ...]
    options: JobOptions
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    """A report's own name comes from it, so that a job that runs again seals the same report, not a second one."""
    command: tuple[str, ...] = field(default_factory=lambda: tuple(command()))
    """What the user typed: it stays with the reports, also where a worker or a cluster's node makes them."""

    @staticmethod
    def of(planned: Sequence[Planned], options: JobOptions) -> "Job":
        """A job from planned cells of one (task, model)."""
        first = planned[0]
        cells = tuple(JobCell(p.classifier.portable, p.cell) for p in planned)
        return Job(first.task.portable, first.model.portable, cells, options)

    def to_json(self) -> str:
        return json.dumps(
            asdict(self) | {"cells": [{"classifier": c.classifier, "cell": list(c.cell)} for c in self.cells]}
        )

    @staticmethod
    def from_json(text: str) -> "Job":
        """Raises BenchkitError where `text` is no job."""
        try:
            r = json.loads(text)
            cells = tuple(JobCell(c["classifier"], Cell(*c["cell"])) for c in r["cells"])
            made = Job(
                r["task"], r["model"], cells, JobOptions(**r["options"]), r["name"], _words(r.get("command", []))
            )
            records: list[Any] = [made, made.options, *cells, *(c.cell for c in cells)]
            for record in records:
                _check_types(record)
            if not cells:
                raise ValueError("it has no cells")
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise BenchkitError(f"this is no job file: {one_line(e)}") from e
        return made


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise TypeError(f"command is {value!r}")
    return tuple(value)


def _check_types(record: Any) -> None:
    """Raises TypeError for a field that is not of its declared type."""
    for name, kind in typing.get_type_hints(type(record)).items():
        plain = tuple(typing.get_origin(k) or k for k in (typing.get_args(kind) if _is_union(kind) else (kind,)))
        value = getattr(record, name)
        if not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain):
            raise TypeError(f"{name} is {value!r}")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)
