"""Questions without a probe: asked of each fold's features, judged on the resamples that probes are judged on."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from benchkit import checks
from benchkit.catalog.contract import checked_groups, posed
from benchkit.errors import DataError, PluginError
from benchkit.interfaces import Answer, Asked, Question, Rows
from benchkit.jobs.data import JobData
from benchkit.jobs.evaluate import Context, Outcome, seal_report, used_labels
from benchkit.jobs.fit import Probe
from benchkit.machine.files import write_atomic
from benchkit.machine.seeds import Purpose, generator
from benchkit.metrics.bootstrap import bootstrap, interval
from benchkit.metrics.cumulative import Weights, ones
from benchkit.metrics.decisions import mean_defined
from benchkit.progress import Progress
from benchkit.records.predictions import answers_as_parquet
from benchkit.records.report import Artifact, Cell, ClassMetric, Metric, finite


def ask(probe: Probe, cell: Cell, data: JobData, *, permuted: bool = False) -> list[Answer]:
    """The answer of each fold. permuted: with the labels of test examples, and of training examples, permuted."""
    question = probe.classifier
    assert isinstance(question, Question)
    found = []
    for fold in data.folds:
        test = _asked(data, fold.test_split, data.test_rows(fold))
        train = _asked(data, fold.train_split, data.subset(fold, cell)) if question.trains(question.params) else None
        if permuted:
            rng = generator(cell.seed, Purpose.PERMUTE)
            test = replace(test, labels=rng.permutation(test.labels))
            train = train and replace(train, labels=rng.permutation(train.labels))
        answer = question.ask(test, train, posed(data.problem, question), seed=cell.seed)
        _check(answer, question, len(test.labels))
        found.append(answer)
    return found


def _asked(data: JobData, split: str, rows: Int64[np.ndarray, " n"]) -> Asked:
    names = checked_groups(data.task, split, len(data.labels[split]))
    numbers = np.arange(len(rows)) if names is None else np.unique(np.asarray(names)[rows], return_inverse=True)[1]
    return Asked(Rows(data.features[split].pooled, rows), data.labels[split][rows], numbers.astype(np.int64))


def _check(answer: Answer, question: Question, n: int) -> None:
    who = type(question).__name__
    if not isinstance(answer, Answer):
        raise PluginError(f"{who}.ask gives {type(answer).__name__}, not a benchkit.Answer")
    if answer.table.shape != (n, len(answer.columns)) or answer.table.dtype != np.float32:
        raise PluginError(
            f"{who}.ask gives a table of {answer.table.dtype} {list(answer.table.shape)}, not float32 "
            f"[{n}, {len(answer.columns)}]: one row an example, one column each of {', '.join(answer.columns)}"
        )
    if missing := [name for name in question.metrics if name not in answer.chance]:
        raise PluginError(f"{who}.ask gives no chance level for {', '.join(missing)}")


def evaluate_answer(
    probe: Probe, cell: Cell, answers: Sequence[Answer], data: JobData, context: Context, progress: Progress
) -> Outcome:
    """Metrics with their intervals, checks, what is kept of each example; seals the report."""
    question = probe.classifier
    assert isinstance(question, Question)
    primary = question.metrics[0]
    codes = context.codes
    groups = None if codes is None else [codes[context.folds == k] for k in range(len(answers))]
    replicates = context.options.replicates
    measured = [measured_of(name, answers, groups, replicates, progress) for name in question.metrics]
    chance = float(np.mean([answer.chance[primary] for answer in answers]))
    n_test = len(context.labels) // len(data.folds)
    found = [*context.checks, checks.check_chance(measured[0], chance, n_test=n_test)]
    if context.options.shuffled:
        again = ask(probe, cell, data, permuted=True)
        permuted = measured_of(primary, again, groups, replicates, progress)
        found.append(checks.check_shuffled(permuted, measured[0], chance, n_test))
    records = [dict(answer.record) for answer in answers]
    record: dict[str, Any] = {"fit": records[0] if len(records) == 1 else records}
    record["groups_known"] = context.groups is not None
    return seal_report(
        probe.spec, cell, data, context,
        primary=primary,
        metrics=measured,
        chance=chance,
        class_metrics=_class_metrics(primary, answers, cell, data, context),
        checks=found,
        artifacts=[_write(answers, context, cell)],
        record=record,
    )  # fmt: skip


def measured_of(
    name: str,
    answers: Sequence[Answer],
    groups: Sequence[Int64[np.ndarray, " _"]] | None,
    replicates: int,
    progress: Progress,
) -> Metric:
    """Resamples draw examples within each fold, or their groups (recordings) where these are known, and repeats.

    groups: of each fold's examples. Raises DataError where the metric is undefined.
    """
    value = _over_folds(answers, name, [ones(len(a.table)) for a in answers] + [ones(a.repeats) for a in answers])
    if np.isnan(value[0]):
        raise DataError(f"'{name}' is undefined on these {sum(len(a.table) for a in answers):,} test examples")
    if not replicates:
        return Metric(name, float(value[0]))
    repeats = [a.repeats for a in answers]
    whole = None
    if groups is not None:  # each repeat is a group of its own
        first = 1 + max(int(g.max(initial=-1)) for g in groups) + np.cumsum([0, *repeats])
        whole = [*groups, *(np.arange(n) + start for n, start in zip(repeats, first, strict=False))]
    drawn = bootstrap(
        partial(_over_folds, answers, name),
        [*(len(a.table) for a in answers), *repeats],
        replicates=replicates,
        seed=0,
        groups=whole,
        progress=progress,
    )
    return Metric(name, float(value[0]), *interval(drawn, float(value[0]), lowest=-1.0))


def _over_folds(answers: Sequence[Answer], name: str, weights: Sequence[Weights]) -> Float64[np.ndarray, " R"]:
    n = len(answers)
    each = [a.values(name, w, r) for a, w, r in zip(answers, weights[:n], weights[n:], strict=True)]
    return mean_defined(np.stack(each))


def _class_metrics(
    primary: str, answers: Sequence[Answer], cell: Cell, data: JobData, context: Context
) -> list[ClassMetric]:
    """Of a question whose primary metric is a number of each example: its mean over each class's."""
    if any(primary not in answer.columns for answer in answers):
        return []
    values = np.concatenate([answer.table[:, answer.columns.index(primary)] for answer in answers])
    used, made = np.concatenate(used_labels(cell, data)), []
    for c, name in enumerate(data.problem.classes):
        own, trained = (y == c if y.ndim == 1 else y[:, c] > 0 for y in (context.labels, used))
        asked = own & ~np.isnan(values)
        value = finite(float(values[asked].mean())) if asked.any() else None
        made.append(ClassMetric(name, primary, value, int(trained.sum()) // len(answers), int(own.sum())))
    return made


def _write(answers: Sequence[Answer], context: Context, cell: Cell) -> Artifact:
    name = context.report_name(cell)
    table = np.concatenate([answer.table for answer in answers])
    data = answers_as_parquet(context.ids, context.folds, table, answers[0].columns, name)
    path = f"predictions/{name}.parquet"
    write_atomic(Path(context.options.side) / path, data)
    return Artifact("answers", path, hashlib.sha256(data).hexdigest(), len(data))
