"""A job: all cells of one (task, model). Extract once, fit many, evaluate each, seal each report once it is there.

A job is a small JSON record and runs the same anywhere: in the launcher's process, in a worker, on a cluster's node. It
never opens the store: it seals into the inbox beside it.
"""

import json
import types
import typing
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchkit.errors import BenchkitError, DataError, FitError, NoTokens
from benchkit.evaluate import Context, Outcome, evaluate_cell
from benchkit.features.batches import memory_suffices
from benchkit.fitting import Probe, Result, fit_pooled, fit_streamed
from benchkit.interfaces import Classifier, Needs
from benchkit.jobdata import JobData
from benchkit.plan import Planned
from benchkit.plugins import one_line
from benchkit.progress import Progress
from benchkit.report import Cell, Report
from benchkit.spec import Spec, resolve
from benchkit.traits.job import run_traits

SOON = 60.0
"""Seconds: where the test split's tokens take less, probes on pooled features get a pass of their own, and first."""


@dataclass(frozen=True)
class JobOptions:
    """How to compute, where that cannot change the number. Paths are absolute."""

    side: str
    """The folder beside the store: sealed reports go to its inbox, predictions to its predictions."""
    cache: str
    device: str = "cpu"
    batch_size: int | None = None
    workers: int | None = None
    skip_bad: int = 0
    replicates: int = 1000
    """Bootstrap replicates for the interval of the primary metric."""
    shuffled: bool = False
    """Also fit each cell on permuted labels, which must fall to chance."""
    memory: str | None = None
    """What a scheduler is asked for, where there is one, as in `32G`."""

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
            made = Job(r["task"], r["model"], cells, JobOptions(**r["options"]), r["name"])
            records: list[Any] = [made, made.options, *cells, *(c.cell for c in cells)]
            for record in records:
                _check_types(record)
            if not cells:
                raise ValueError("it has no cells")
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise BenchkitError(f"this is no job file: {one_line(e)}") from e
        return made


def _check_types(record: Any) -> None:
    """Raises TypeError for a field that is not of its declared type."""
    for name, kind in typing.get_type_hints(type(record)).items():
        plain = tuple(typing.get_origin(k) or k for k in (typing.get_args(kind) if _is_union(kind) else (kind,)))
        value = getattr(record, name)
        if not isinstance(value, plain) or (isinstance(value, bool) and bool not in plain):
            raise TypeError(f"{name} is {value!r}")


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (typing.Union, types.UnionType)


def run_job(job: Job, progress: Progress, sealed: Callable[[Report], None]) -> list[Outcome]:
    """Runs every cell. sealed: called after each report is sealed. A cell that fails does not stop the others.

    Raises BenchkitError where no cell can run: data that is missing or inconsistent, weights that do not load.
    """
    task, model = resolve("task", job.task), resolve("model", job.model)
    for spec, name in ((task, job.cells[0].cell.task), (model, job.cells[0].cell.model)):
        if spec.canonical != name:
            raise DataError(
                f"{spec.kind} '{name}' is '{spec.canonical}' by now: its files changed since it was planned"
            )
    context = Context.start(task, model, job.options, job.name)
    data = JobData.open(task, model, job.options, progress)
    outcomes: list[Outcome] = []
    groups: dict[str, list[Cell]] = {}
    for wanted in job.cells:  # before anything is computed: an n_train too large fails at once
        try:
            data.check_subset(wanted.cell)
            groups.setdefault(wanted.classifier, []).append(wanted.cell)
        except BenchkitError as e:
            outcomes.append(Outcome.of(wanted.cell, e))
    if not groups:
        return outcomes
    if data.problem.kind == "traits":
        return outcomes + run_traits(groups, data, context, sealed)
    probes: dict[Needs, list[Probe]] = {}
    for text, cells in groups.items():
        spec = resolve("classifier", text)
        try:
            probes.setdefault(spec.cls.needs, []).append(Probe(spec, _built(spec, data), cells))
        except BenchkitError as e:
            outcomes += [Outcome.of(cell, e) for cell in cells]
    if not any(probes.values()):
        return outcomes
    while True:
        try:
            data.extract_train({needs: [cell for p in group for cell in p.cells] for needs, group in probes.items()})
            break
        except NoTokens as e:
            outcomes += [Outcome.of(cell, e) for p in probes.pop("tokens") for cell in p.cells]
            if not probes:
                return outcomes
    pooled = probes.pop("pooled", [])

    def finish(spec: Spec, result: Result) -> None:
        if isinstance(result.scores, BenchkitError):
            outcomes.append(Outcome.of(result.cell, result.scores))
            return
        look()
        try:
            with memory_suffices("cpu", "leave more to this job"):
                outcome = evaluate_cell(spec, result, data, context, progress)
        except FitError as e:
            outcome = Outcome(result.cell, error=f"{e}{data.not_finite()}")
        except BenchkitError as e:
            outcome = Outcome.of(result.cell, e)
        outcomes.append(outcome)
        if outcome.report:
            sealed(outcome.report)

    def look() -> None:
        """Once the test split's pooled features are there, the probes on them are never kept waiting."""
        if data.tested:
            return
        data.extract_test()
        context.look_at(data)
        for probe in pooled:
            with progress.step(f"fit {probe.spec.canonical}", len(probe.cells), "cells") as step:
                for result in fit_pooled(probe, data):
                    finish(probe.spec, result)
                    step.advance()

    if pooled and (data.test_is_cached() or data.pass_seconds("tokens") < SOON or "tokens" not in probes):
        look()
    for needs, group in sorted(probes.items(), reverse=True):  # the tokens' pass brings the pooled features too
        for spec, result in fit_streamed(needs, group, data):
            finish(spec, result)
    if pooled:
        look()
    return outcomes


def _built(spec: Spec, data: JobData) -> Classifier:
    """The classifier, bound to the backbone where it trains that: what cannot be fine-tuned fails before extraction."""
    classifier: Classifier = spec.build()
    if classifier.needs == "raw":
        classifier.bind(data.ready())
    return classifier
