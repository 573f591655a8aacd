"""Running a job: extract once, fit many, evaluate each, seal each report once it is there."""

from collections.abc import Callable
from dataclasses import replace

from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import Spec, unqualified
from benchkit.errors import BenchkitError, DataError, FitError, NoTokens
from benchkit.features.batches import memory_suffices
from benchkit.interfaces import Classifier, Needs, Question
from benchkit.jobs.data import JobData
from benchkit.jobs.evaluate import Context, Outcome, evaluate_cell
from benchkit.jobs.fit import Probe, Result, alone, fit_pooled, fit_streamed
from benchkit.jobs.job import Job
from benchkit.jobs.questions import ask, evaluate_answer
from benchkit.jobs.traits import run_traits
from benchkit.progress import Progress
from benchkit.records.report import Cell, Report

SOON = 60.0
"""Seconds: where the test split's tokens take less, probes on pooled features get a pass of their own, and first."""


def run_job(job: Job, progress: Progress, sealed: Callable[[Report], None]) -> list[Outcome]:
    """Runs every cell. sealed: called after each report is sealed. A cell that fails does not stop the others.

    Raises BenchkitError where no cell can run: data that is missing or inconsistent, weights that do not load.
    """
    task, model = resolve("task", job.task), resolve("model", job.model)
    for spec, name in ((task, job.cells[0].cell.task), (model, job.cells[0].cell.model)):
        if unqualified(spec.canonical) != unqualified(name):  # a registry keeps its names (benchkit.planning.owners)
            raise DataError(
                f"{spec.kind} '{name}' is '{spec.canonical}' by now: its files changed since it was planned"
            )
    context = Context.start(task, model, job.options, job.name, job.command)
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
    if job.options.fresh:
        data.forget()
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
        except FitError:  # fewer examples decode than one of the cells asks for
            outcomes += _cannot_be(probes, data)
        if not probes:
            return outcomes
    pooled = probes.pop("pooled", [])
    asked = [probe for probe in pooled if isinstance(probe.classifier, Question)]
    pooled = [probe for probe in pooled if probe not in asked]

    def finish(spec: Spec, result: Result) -> None:
        if isinstance(result.scores, BenchkitError):
            outcomes.append(Outcome.of(result.cell, result.scores))
            return
        look()
        try:
            with memory_suffices("cpu", "leave more to this job"), alone(f"judging {spec.canonical}"):
                outcome = evaluate_cell(spec, result, data, context, progress)
        except FitError as e:
            outcome = Outcome(result.cell, error=f"{e}{data.not_finite()}")
        except BenchkitError as e:
            outcome = Outcome.of(result.cell, e)
        outcomes.append(outcome)
        if outcome.report:
            sealed(outcome.report)

    def answered(probe: Probe, cell: Cell) -> Outcome:
        try:
            with memory_suffices("cpu", "leave more to this job"), alone(probe.spec.canonical):
                answers = ask(probe, cell, data)
                outcome = evaluate_answer(probe, cell, answers, data, context, progress)
        except FitError as e:
            return Outcome(cell, error=f"{e}{data.not_finite()}")
        except BenchkitError as e:
            return Outcome.of(cell, e)
        if outcome.report:
            sealed(outcome.report)
        return outcome

    def look() -> None:
        """Once the test split's pooled features are there, the probes on them are never kept waiting."""
        if data.tested:
            return
        data.extract_test()
        context.look_at(data)
        for probe in asked:
            with progress.step(f"ask {probe.spec.canonical}", len(probe.cells), "cells") as step:
                for cell in probe.cells:
                    outcomes.append(answered(probe, cell))
                    step.advance()
        for probe in pooled:
            with progress.step(f"fit {probe.spec.canonical}", len(probe.cells), "cells") as step:
                for result in fit_pooled(probe, data):
                    finish(probe.spec, result)
                    step.advance()

    if (pooled or asked) and (data.test_is_cached() or data.pass_seconds("tokens") < SOON or "tokens" not in probes):
        look()
    for needs, group in sorted(probes.items(), reverse=True):  # the tokens' pass brings the pooled features too
        for spec, result in fit_streamed(needs, group, data):
            finish(spec, result)
    if pooled or asked:
        look()
    return outcomes


def _cannot_be(probes: dict[Needs, list[Probe]], data: JobData) -> list[Outcome]:
    """Takes out the cells that ask for more training examples than are known to decode."""
    lost: dict[Cell, Outcome] = {}
    for needs, group in list(probes.items()):
        left = []
        for probe in group:
            for cell in probe.cells:
                try:
                    data.check_subset(cell)
                except FitError as e:
                    lost[cell] = Outcome.of(cell, e)
            if cells := [cell for cell in probe.cells if cell not in lost]:
                left.append(replace(probe, cells=cells))
        probes[needs] = left
        if not left:
            del probes[needs]
    return list(lost.values())


def _built(spec: Spec, data: JobData) -> Classifier:
    """The classifier, bound to the backbone where it trains that: what cannot be fine-tuned fails before extraction."""
    with alone(spec.canonical):
        classifier: Classifier = spec.build()
    if classifier.needs == "raw":
        backbone = data.ready()
        with alone(spec.canonical):
            classifier.bind(backbone)
    return classifier
