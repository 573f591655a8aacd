"""From test scores to a sealed report: metrics, chance, checks, predictions, environment."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from benchkit import checks, metrics
from benchkit.catalog.contract import checked_groups
from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import Kind, Spec
from benchkit.errors import BenchkitError, Reason
from benchkit.interfaces import Published
from benchkit.jobs.data import JobData
from benchkit.jobs.fit import Result
from benchkit.jobs.job import JobOptions
from benchkit.jobs.plain import Reference
from benchkit.jobs.repeat import check_again
from benchkit.machine.environment import Meter
from benchkit.machine.files import write_atomic
from benchkit.machine.times import now
from benchkit.machine.trouble import explained
from benchkit.metrics.replicates import RESAMPLES, Replicates, answers, same_tests
from benchkit.progress import Progress
from benchkit.records.environment import describe
from benchkit.records.gate import replicates_path
from benchkit.records.predictions import as_parquet
from benchkit.records.report import Artifact, Cell, Check, Report
from benchkit.records.sealing import seal


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its report, or the error it failed with."""

    cell: Cell
    report: Report | None = None
    error: str | None = None
    reason: Reason = "error"

    @staticmethod
    def of(cell: Cell, error: BenchkitError) -> "Outcome":
        """A failure."""
        reason, why = explained(error)
        return Outcome(cell, error=why, reason=reason)


@dataclass
class Context:
    """What all reports of a job share."""

    task_spec: Spec
    model_spec: Spec
    options: JobOptions
    job: str
    """The job's name."""
    command: Sequence[str]
    """What the user typed."""
    meter: Meter
    started_at: str
    ids: list[str] = field(default_factory=list)
    labels: np.ndarray = field(default_factory=lambda: np.empty(0))
    folds: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    """The number of each test example's fold."""
    groups: list[str] | None = None
    """The recording (site, individual) of each, where the task knows it."""
    same: str = ""
    """What names this test set and its resamples; made once."""
    chance: float = 0.0
    checks: list[Check] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    reference: Reference | None = None
    """The plain regression that probes are compared with; of traits there is none."""
    published: list[tuple[Published, str, str]] = field(default_factory=list)
    """What papers say of this task and model, with the canonical names of model and classifier."""

    @staticmethod
    def start(task_spec: Spec, model_spec: Spec, options: JobOptions, job: str, command: Sequence[str]) -> "Context":
        return Context(task_spec, model_spec, options, job, command, Meter(), now())

    @property
    def codes(self) -> Int[np.ndarray, " N"] | None:
        """The groups as numbers."""
        return None if self.groups is None else np.unique(self.groups, return_inverse=True)[1]

    def report_name(self, cell: Cell) -> str:
        """The same for the same cell of the same job: taken in once, however often the job was started."""
        return uuid.uuid5(uuid.NAMESPACE_OID, f"{self.job} {cell}").hex

    def look_at(self, data: JobData) -> None:
        """Once a job, after extraction: the test set as all cells see it, chance, the checks of data and features."""
        ids = {split: data.task.ids(split) for split in data.labels}
        tests = [data.test_rows(f) for f in data.folds]
        self.ids = [ids[f.test_split][i] for f, rows in zip(data.folds, tests, strict=True) for i in rows]
        self.labels = np.concatenate([data.labels[f.test_split][r] for f, r in zip(data.folds, tests, strict=True)])
        self.folds = np.repeat(np.arange(len(tests), dtype=np.int32), [len(r) for r in tests])
        of = {split: checked_groups(data.task, split, len(ids[split])) for split in {f.test_split for f in data.folds}}
        if all(groups is not None for groups in of.values()):
            self.groups = [
                group[i] for f, r in zip(data.folds, tests, strict=True) if (group := of[f.test_split]) for i in r
            ]
        if bad := {ids[s][row]: why for s, rows in data.bad.items() for row, why in rows.items()}:
            self.record["skipped"] = bad
        pairs = [
            (data.labels[f.train_split][f.train], data.labels[f.test_split][r])
            for f, r in zip(data.folds, tests, strict=True)
        ]
        self.chance = metrics.chance(data.task.metrics[0], pairs, data.problem)
        self.checks = [*_check_data(data, ids, tests, pairs), check_again(data)]
        if data.problem.kind != "traits":
            self.reference = Reference.of(data)
        probe: Kind = "scorer" if data.problem.kind == "traits" else "classifier"
        self.published = [(p, *_canonical(p, probe)) for p in data.task.published]


def _check_data(
    data: JobData,
    ids: Mapping[str, Sequence[str]],
    tests: Sequence[np.ndarray],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> list[Check]:
    """The checks that are the same for all cells: labels, leakage, features, media."""
    rows = {split: np.array(sorted(r), np.int64) for split, r in data.train_rows.items()}
    hashes, names = [], []
    for fold, test in zip(data.folds, tests, strict=True):
        train = np.intersect1d(rows[fold.train_split], fold.train)
        hashes.append((data.features[fold.train_split].hashes[train], data.features[fold.test_split].hashes[test]))
        names.append(([ids[fold.train_split][i] for i in train], [ids[fold.test_split][i] for i in test]))
    tested: dict[str, np.ndarray] = {}
    for fold, test in zip(data.folds, tests, strict=True):
        tested[fold.test_split] = np.union1d(tested.get(fold.test_split, np.empty(0, np.int64)), test)
    seen = {
        s: np.union1d(rows.get(s, np.empty(0, np.int64)), tested.get(s, np.empty(0, np.int64))) for s in data.features
    }
    seen = {s: r for s, r in seen.items() if len(r)}
    aligned = {s: (data.pooled(s, r), data.labels[s], r) for s, r in seen.items()}
    if not any(map(len, rows.values())):
        rows, tested = tested, {}  # nothing is trained
    x_train = np.concatenate([data.pooled(s, r) for s, r in rows.items()])
    apart = tested and set(rows).isdisjoint(tested)
    x_test = np.concatenate([data.pooled(s, r) for s, r in tested.items()]) if apart else None
    found = [
        checks.check_labels(data.problem, pairs, aligned),
        checks.check_leakage(hashes, names),
        checks.check_features(x_train, x_test),
        checks.check_media(
            {s: data.features[s].notes[r] for s, r in seen.items()},
            {s: [ids[s][i] for i in r] for s, r in seen.items()},
            "recordings" if data.task.modality == "audio" else "images",
        ),
    ]
    if stated := data.backbone.stated_inputs():
        found.append(checks.check_inputs({split: f.inputs for split, f in data.features.items()}, stated))
    return found


def _canonical(published: Published, probe: Kind) -> tuple[str, str]:
    """The names our cells would have; an entry for a model or probe that is not installed matches none."""
    try:
        return resolve("model", published.model).canonical, resolve(probe, published.classifier).canonical
    except BenchkitError:
        return "", ""


def evaluate_cell(spec: Spec, result: Result, data: JobData, context: Context, progress: Progress) -> Outcome:
    """Judges one cell's test scores and seals its report; the predictions are in their place before the report is.

    Raises BenchkitError where a metric is not defined on these scores or labels, or a file cannot be written.
    """
    task, problem, labels, cell = data.task, data.problem, context.labels, result.cell
    fold = context.folds if len(data.folds) > 1 else None
    scores = np.asarray(result.scores)
    replicates = context.options.replicates
    codes = context.codes
    judged = metrics.judge(
        task.metrics, labels, scores, problem, fold=fold, groups=codes, group=task.group, replicates=replicates,
        progress=progress,
    )  # fmt: skip
    measured = judged.metrics
    n_test = len(labels) // len(data.folds)
    found = [*context.checks, checks.check_chance(measured[0], context.chance, n_test=n_test)]
    theirs = [
        p
        for p, model, classifier in context.published
        if (model, classifier, p.n_train) == (cell.model, cell.classifier, cell.n_train)
    ]
    if theirs:
        found.append(checks.check_published(measured, theirs))
    told = result.record.get("fit", {})
    if (converged := checks.check_converged(told if isinstance(told, list) else [told])) is not None:
        found.append(converged)
    if context.reference is not None:
        untrained = bool(getattr(spec.cls, "seedless", False))
        if (plain := context.reference.check(cell, scores, untrained, replicates, codes)) is not None:
            found.append(plain)
    if result.shuffled is not None:
        (permuted,) = metrics.evaluate(
            task.metrics[:1], labels, result.shuffled, problem, fold=fold, groups=codes, replicates=replicates
        )
        found.append(checks.check_shuffled(permuted, measured[0], context.chance, n_test))
    used = used_labels(cell, data)
    n_train = np.sum([_positives(y, problem.n_classes) for y in used], axis=0) // len(used)
    name, record, artifacts = context.report_name(cell), dict(result.record), []
    if judged.kept is not None:
        record["interval"] = metrics.described(judged, task.group if codes is not None else "example")
        found.append(checks.check_precision(judged.notes, record["interval"]))
        artifacts.append(_write_replicates(Path(context.options.side), name, judged, scores, context, task.metrics[0]))
    return seal_report(
        spec, cell, data, context,
        primary=task.metrics[0],
        metrics=measured,
        chance=context.chance,
        class_metrics=metrics.class_metrics(labels, scores, problem, n_train, fold=fold),
        checks=found,
        artifacts=[
            _write_predictions(Path(context.options.side), name, scores, context, problem.classes), *artifacts
        ],
        record=record,
    )  # fmt: skip


def used_labels(cell: Cell, data: JobData) -> list[np.ndarray]:
    """The labels that a cell trains on, of each fold."""
    return [data.labels[f.train_split][data.subset(f, cell)] for f in data.folds]


def seal_report(
    spec: Spec, cell: Cell, data: JobData, context: Context, *, record: Mapping[str, Any], **found: Any
) -> Outcome:
    """Adds what is the same for all probes, and seals. found: primary, metrics, chance, class_metrics, checks,
    artifacts, as a Report has them. Whatever `artifacts` name is in its place before."""
    used = used_labels(cell, data)
    record = {**context.record, **record}
    if len(used) > 1:
        record["n_train_per_fold"] = [len(y) for y in used]
    wall, cpu = context.meter.read()
    providers = {"task": context.task_spec.dist, "model": context.model_spec.dist, "classifier": spec.dist}
    report = Report(
        uuid=context.report_name(cell),
        cell=cell,
        params={
            "task": context.task_spec.describe(),
            "model": context.model_spec.describe(),
            "classifier": spec.describe(),
        },
        providers=providers,
        n_train_used=round(sum(map(len, used)) / len(used)),
        n_test=len(context.labels),
        n_skipped=len(record.get("skipped", ())),
        n_classes=metrics.n_classes_evaluated(context.labels, data.problem),
        task_fingerprint=data.task.fingerprint(),
        model_fingerprint=next(iter(data.features.values())).model_fingerprint,
        started_at=context.started_at,
        finished_at=now(),
        environment=describe(providers, context.options.device, wall, cpu, context.command),
        record=record,
        **found,
    )
    seal(report, Path(context.options.side) / "inbox")
    context.started_at = now()
    return Outcome(cell, report)


def _positives(labels: np.ndarray, n_classes: int) -> Int[np.ndarray, " C"]:
    if labels.ndim == 1:
        return np.bincount(labels, minlength=n_classes)
    return labels.astype(np.int64).sum(axis=0)


def _write_replicates(
    side: Path, name: str, judged: metrics.Judged, scores: Float32[np.ndarray, "N C"], context: Context, metric: str
) -> Artifact:
    assert judged.kept is not None
    if not context.same:
        context.same = same_tests(
            context.ids, context.folds, context.labels, context.groups, len(judged.kept.drawn), RESAMPLES
        )
    kept = replace(judged.kept, same=context.same, answers=answers(scores))
    data, path = Replicates(metric, kept, judged.notes).to_bytes(), replicates_path(name)
    write_atomic(side / path, data)
    return Artifact("replicates", path, hashlib.sha256(data).hexdigest(), len(data))


def _write_predictions(
    side: Path, name: str, scores: Float32[np.ndarray, "N C"], context: Context, classes: Sequence[str]
) -> Artifact:
    """Every test example's id, fold, label and scores, written whole or not at all."""
    data = as_parquet(context.ids, context.folds, context.labels, scores, classes, name, context.groups)
    path = f"predictions/{name}.parquet"
    write_atomic(side / path, data)
    return Artifact("predictions", path, hashlib.sha256(data).hexdigest(), len(data))
