"""Everything about one run, as text or as JSON."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchkit.machine.times import shown
from benchkit.progress import clock
from benchkit.reading.tables import Screen, ago, clean, interval, memory, number, text_table, training_size
from benchkit.records.report import Artifact, Report
from benchkit.store.queries import Stored

FEW = 5
"""Classes that are shown from each end."""
_LONG = 400
"""Characters of each thing in the record of a fit."""


def as_json(stored: Stored, side: Path) -> str:
    """Every number in full; artifacts with their absolute path and whether they are there."""
    record = json.loads(stored.report.to_json())
    for row, artifact in zip(record["artifacts"], stored.report.artifacts, strict=True):
        row |= {"file": str((side / artifact.path).absolute()), "state": state(artifact, side)}
    history = [{"run": r.run, "current": r.current, "finished_at": r.finished_at, "value": r.value, "low": r.low,
                "high": r.high, "git_commit": r.git_commit} for r in stored.history]  # fmt: skip
    known = {"run": stored.run, "current": stored.current, "ingested_at": stored.ingested_at}
    conflicts = [c._asdict() for c in stored.conflicts]
    note = {"note": stored.note._asdict()} if stored.note else {}
    return json.dumps(known | record | {"history": history, "conflicts": conflicts} | note, indent=2)


def as_text(stored: Stored, side: Path, screen: Screen, *, verbose: bool = False, classes: bool = False) -> str:
    r = stored.report
    blocks = [_title(stored), *_numbers(r, screen), *_checks(r, screen, verbose), *_class_metrics(r, screen, classes)]
    blocks += [_section("parameters", _parameters(r), screen)]
    if r.record:
        blocks.append(_section("of the fit", [(k, _cut(_value(v))) for k, v in sorted(r.record.items())], screen))
    blocks += [_section("environment", _environment(r), screen), *_artifacts(r, side, screen)]
    if stored.conflicts:
        lines = [
            (f"run {c.other}", f"{c.difference} ({'it' if c.brought else 'this run'} was merged from {c.source})")
            for c in stored.conflicts
        ]
        blocks.append(_section("conflicts: another result for this cell", lines, screen))
    if len(stored.history) > 1:
        rows = [
            (
                f"{h.run}" if h.current else f"({h.run})", ago(h.finished_at), number(h.value),
                interval(h.low, h.high), " ".join(h.marks) or "ok", (h.git_commit or "")[:10], h.host,
            )
            for h in stored.history
        ]  # fmt: skip
        header = ("run", "finished", r.primary, "95 % interval", "checks", "commit", "host")
        blocks.append(_table("history of this cell (the current run without brackets)", header, rows, screen, (0, 2)))
    return "\n\n".join(blocks)


def state(artifact: Artifact, side: Path) -> str:
    """ "there", "missing", or "altered" where its size is another; reading it verifies its checksum."""
    try:
        size = (side / artifact.path).stat().st_size
    except OSError:
        return "missing"
    return "there" if size == artifact.bytes else "altered"


def _title(stored: Stored) -> str:
    r = stored.report
    standing = "current" if stored.current else f"superseded by run {next(h.run for h in stored.history if h.current)}"
    lines = [
        ("task", r.cell.task),
        ("model", r.cell.model),
        ("classifier", r.cell.classifier),
        ("n_train", f"{training_size(r.cell.n_train)} ({r.n_train_used:,} examples used)"),
        ("seed", str(r.cell.seed)),
    ]
    if n := stored.note:
        tags = f" [{', '.join(n.tags)}]" if n.tags else ""
        lines.append(("note", clean(f"{n.note}{tags} ({n.user}, {ago(n.noted_at)})".strip())))
    return "\n".join([f"run {stored.run} ({standing}), {r.uuid}", *_aligned(lines)])


def _numbers(r: Report, screen: Screen) -> list[str]:
    first = sorted(r.metrics, key=lambda m: m.name != r.primary)
    rows = [
        (m.name, number(m.value, 4), interval(m.low, m.high, 4), number(r.chance, 4) if m.name == r.primary else "")
        for m in first
    ]
    skipped = f", {r.n_skipped:,} skipped as they do not decode" if r.n_skipped else ""
    title = f"metrics, on {r.n_test:,} test examples of {r.n_classes:,} classes{skipped}"
    return [_table(title, ("metric", "value", "95 % interval", "chance"), rows, screen, (1, 3))]


def _checks(r: Report, screen: Screen, verbose: bool) -> list[str]:
    if not r.checks:
        return []
    order = ("fail", "warn", "ok")
    rows = [(c.status, c.name, c.summary) for c in sorted(r.checks, key=lambda c: (order.index(c.status), c.name))]
    bold = {(i, j) for i, row in enumerate(rows) for j in (0, 1) if row[0] != "ok"}
    blocks = [_table("checks", ("status", "check", "summary"), rows, screen, bold=bold)]
    if verbose:
        blocks += [
            _section(f"details of the check {c.name!r}", [(k, _value(v)) for k, v in c.details.items()], screen)
            for c in r.checks
            if c.details
        ]
    return blocks


def _class_metrics(r: Report, screen: Screen, everything: bool) -> list[str]:
    if not r.class_metrics:
        return []
    names = sorted({c.name for c in r.class_metrics})
    values: dict[str, dict[str, Any]] = {}
    for c in r.class_metrics:
        values.setdefault(c.class_name, {"n_train": c.n_train, "n_test": c.n_test})[c.name] = c.value
    by = names[0]
    order = sorted(values, key=lambda name: (values[name].get(by) is None, values[name].get(by) or 0.0, name))
    defined = [name for name in order if values[name].get(by) is not None]
    shown, title = order, f"classes by {by}, the worst first"
    if not everything and len(order) > 2 * FEW + 1:
        shown = defined[:FEW] + defined[FEW:][-FEW:]
        title = f"{len(shown)} of {len(order)} classes, the worst and best by {by} (--classes shows all)"
    rows = [
        (name, str(values[name]["n_train"]), str(values[name]["n_test"]), *(number(values[name].get(n)) for n in names))
        for name in shown
    ]
    header = ("class", "n_train", "n_test", *names)
    return [_table(title, header, rows, screen, range(1, len(header)))]


def _parameters(r: Report) -> list[tuple[str, str]]:
    lines = []
    for what, params in r.params.items():
        provider = f" ({r.providers[what]})" if what in r.providers else ""
        lines.append((what, f"{getattr(r.cell, what, '')}{provider}"))
        lines += [(f"  {name}", _value(value)) for name, value in sorted(params.items())]
    return lines


def _environment(r: Report) -> list[tuple[str, str]]:
    e = r.environment
    commit = f"{e.git_commit}{' and uncommitted changes' if e.git_dirty else ''}" if e.git_commit else "unknown"
    peak = memory(e.peak_rss_bytes) + (f", on the device {memory(e.peak_device_bytes)}" if e.peak_device_bytes else "")
    core = "benchkit" if "benchkit" in e.versions else "benchkit-core"  # its name at first, and now
    return [
        ("finished", f"{shown(r.finished_at)} ({ago(r.finished_at)})"),
        ("wall time", clock(e.wall_s)),
        ("processor time", clock(e.cpu_s)),
        ("peak memory", peak),
        ("host", e.host),
        ("device", e.device),
        ("command", shlex.join(e.argv)),
        ("git commit", commit),
        ("versions", ", ".join(f"{k} {v}" for k, v in sorted({core: e.benchkit_version, **e.versions}.items()))),
        ("data", r.task_fingerprint),
        ("weights", r.model_fingerprint),
    ]


def _artifacts(r: Report, side: Path, screen: Screen) -> list[str]:
    if not r.artifacts:
        return []
    rows = [(a.kind, state(a, side), memory(a.bytes), str(side / a.path)) for a in r.artifacts]
    bold = {(i, 1) for i, row in enumerate(rows) if row[1] != "there"}
    return [_table("files", ("kind", "state", "size", "path"), rows, screen, (2,), bold=bold)]


def _section(title: str, lines: Sequence[tuple[str, str]], screen: Screen) -> str:
    return "\n".join([screen.bold(title), *_aligned(lines)])


def _aligned(lines: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(name) for name, _ in lines), default=0)
    return [clean(f"  {name:{width}}  {value}").rstrip() for name, value in lines]


def _table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    screen: Screen,
    right: Sequence[int] = (),
    bold: Any = (),
) -> str:
    narrower = dataclasses.replace(screen, width=None if screen.width is None else screen.width - 2)
    grid = text_table([header], rows, right=right, bold=bold, screen=narrower)
    return "\n".join([screen.bold(title), *(f"  {line}" for line in grid.splitlines())])


def _cut(text: str) -> str:
    """What is told of a fit may be as long as there are traits."""
    return text if len(text) <= _LONG else f"{text[:_LONG]}... ({len(text):,} characters, all with --json)"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
