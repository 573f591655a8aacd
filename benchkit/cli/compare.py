"""benchkit compare: two models on the same test examples."""

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.options import numbers as whole_numbers
from benchkit.cli.read import (
    By,
    Canonical,
    Db,
    ReadOnly,
    Seed,
    Since,
    Spreadsheet,
    Study,
    SweepFile,
    Task,
    check_studies,
)
from benchkit.progress import say

if TYPE_CHECKING:
    from benchkit.metrics import Difference
    from benchkit.reading.names import Names
    from benchkit.store.queries import RunRow


class Format(StrEnum):
    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    runs: Annotated[list[str] | None, typer.Argument(help="Two runs, as `benchkit show` takes them.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A model; twice: the first against the second.")
    ] = None,
    classifier: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A classifier; twice: the first against the second.")
    ] = None,
    n_train: Annotated[
        list[str] | None, typer.Option(metavar="INT", help="A training size; twice: the first against the second.")
    ] = None,
    task: Task = None,
    seed: Seed = None,
    study: Study = None,
    sweep: SweepFile = None,
    since: Since = None,
    by: By = None,
    metric: Annotated[str | None, typer.Option(help="What is compared (default: the task's primary metric).")] = None,
    replicates: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 1000,
    format: Annotated[Format, typer.Option(help="How to write it.")] = Format.text,
    digits: Annotated[int, typer.Option(min=0, max=15, help="After the decimal point.")] = 3,
    spreadsheet: Spreadsheet = False,
    canonical: Canonical = False,
    read_only: ReadOnly = False,
    db: Db = None,
) -> None:
    """Says by how much one model is better than another, from the stored predictions of the same test examples.

    Both are judged on the same bootstrap resamples: where the interval holds 0, neither is clearly better. Every pair
    of runs that agree in all but the two sides is compared.
    """
    from benchkit.errors import BenchkitError
    from benchkit.progress import for_stream
    from benchkit.reading.asked import asked
    from benchkit.reading.compare import paired, pairs
    from benchkit.reading.names import names_of
    from benchkit.reading.results import Results
    from benchkit.store import queries

    if runs and (len(runs) != 2 or model or classifier or n_train or task or seed):
        raise BenchkitError("give two runs and no filters, as in `benchkit compare 12 15`, or filters alone")
    progress = for_stream(sys.stderr)
    with Results(db, read_only=read_only) as results:
        if runs:
            numbers = [queries.find_run(results.store, run) for run in runs]
            by_number = {r.run: r for r in queries.runs_by_number(results.store, numbers)}
            found = [(by_number[numbers[0]], by_number[numbers[1]])]
            if found[0][0].task != found[0][1].task:
                raise BenchkitError(f"runs {numbers[0]} and {numbers[1]} are of two tasks, so they cannot be compared")
        else:
            sizes, seeds = whole_numbers("--n-train", n_train), whole_numbers("--seed", seed)
            filters = asked(task, model, classifier, sizes, seeds, study=study, sweep=sweep, since=since, by=by)
            check_studies(results.store, filters)
            made = pairs(results.store, filters)
            found = list(made.found)
            for one in made.lonely:
                say(f"run {one.run} ({', '.join(map(str, one[2:7]))}) has no partner", sys.stderr)
            if not found:
                raise BenchkitError(f"nothing to compare: no two runs differ in the {made.side} alone")
        with progress.step("compare", len(found), "pairs") as step:
            rows = []
            for a, b in found:
                rows.append((a, b, paired(results, a.run, b.run, metric, replicates=replicates)))
                step.advance()
        names = names_of(results.store, [run for row in rows for run in row[:2]], canonical)
    _write(rows, format.value, digits, spreadsheet, names)


def _write(
    rows: "list[tuple[RunRow, RunRow, Difference]]", format: str, digits: int, spreadsheet: bool, named: "Names"
) -> None:
    import json

    from benchkit.reading.tables import (
        Screen,
        csv_table,
        emit,
        escape_markdown,
        interval,
        markdown_table,
        text_table,
        training_size,
    )
    from benchkit.store.queries import NAMES

    if format in ("csv", "json"):
        records = [_record(*row) for row in rows]
        if format == "json":
            emit(json.dumps(records, indent=2))
        else:
            emit(csv_table(tuple(records[0]), [tuple(r.values()) for r in records], spreadsheet=spreadsheet))
        return
    shown: list[tuple[str, ...]] = []
    for a, b, d in rows:
        names = [
            str(x) if x == y else f"{x} vs {y}"
            for x, y in zip(
                *((*(named(c, getattr(r, c)) for c in NAMES), training_size(r.n_train), r.seed) for r in (a, b)),
                strict=True,
            )
        ]
        sure = "" if d.share_above is None else f"{d.share_above:.1%}"
        shown.append((*names, d.metric, f"{d.value:+.{digits}f}", interval(d.low, d.high, digits), sure))
    header = ("task", "model", "classifier", "n_train", "seed", "metric", "difference", "95 % interval", "better in")
    right = range(3, 9)
    if format == "markdown":
        emit(markdown_table(header, [tuple(map(escape_markdown, row)) for row in shown], right=right))
    else:
        emit(text_table([header], shown, right=right, screen=Screen.of(sys.stdout)))


def _record(a: "RunRow", b: "RunRow", d: "Difference") -> dict[str, str | int | float | None]:
    """A flat record; share_above is of the replicates."""
    cells = {f"{name}_{side}": getattr(run, name) for name in ("run", "model", "classifier", "n_train", "seed")
             for side, run in (("a", a), ("b", b))}  # fmt: skip
    return {"task": a.task, **cells, "metric": d.metric, "difference": d.value, "low": d.low, "high": d.high,
            "share_above": d.share_above}  # fmt: skip
