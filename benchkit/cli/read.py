"""benchkit ls, show, table, sql, rm: what the registry holds."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.errors import BenchkitError
from benchkit.progress import say

if TYPE_CHECKING:
    from benchkit.store import Store
    from benchkit.store.queries import Filters

Db = Annotated[Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")]
Task = Annotated[
    list[str] | None,
    typer.Option(metavar="SPEC", help="Only this task: a spec, a bare name or a pattern like 'esc50*'. Repeatable."),
]
Model = Annotated[
    list[str] | None, typer.Option(metavar="SPEC", help="Only this model, likewise; a bare name is all its variants.")
]
Classifier = Annotated[
    list[str] | None, typer.Option(metavar="SPEC", help="Only this classifier or scorer, likewise. Repeatable.")
]
NTrain = Annotated[
    list[str] | None, typer.Option(metavar="INT,...", help="Only these training sizes, as in 1,5,-1; -1 is all.")
]
Seed = Annotated[list[str] | None, typer.Option(metavar="INT,...", help="Only these seeds, as in 0,1.")]
Study = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only cells of this study (benchkit studies). Repeatable.")
]
SweepFile = Annotated[Path | None, typer.Option("--sweep", metavar="FILE", help="Only cells of this sweep file.")]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only what has finished since, as in 2026-11-20, 3d, 12h, 30min.")
]
By = Annotated[str | None, typer.Option(metavar="USER", help="Only cells of studies that this user started.")]


class Order(StrEnum):
    newest = "newest"
    value = "value"


ReadOnly = Annotated[
    bool,
    typer.Option("--read-only", help="Change no file, take nothing in; so it is with another user's registry."),
]
Spreadsheet = Annotated[
    bool,
    typer.Option("--spreadsheet", help="In CSV, put an apostrophe before what a spreadsheet takes for a formula."),
]
Canonical = Annotated[
    bool, typer.Option("--canonical", help="Names as the registry has them, in the place of labels and short ones.")
]
Json = Annotated[bool, typer.Option("--json", help="As JSON, every number in full.")]


class TableFormat(StrEnum):
    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


class Over(StrEnum):
    both = "both"
    examples = "examples"
    seeds = "seeds"
    sd = "sd"


class SqlFormat(StrEnum):
    text = "text"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def register(app: typer.Typer) -> None:
    for command in (ls, show, table, sql, rm):
        app.command(command.__name__)(command)


def ls(
    task: Task = None,
    model: Model = None,
    classifier: Classifier = None,
    n_train: NTrain = None,
    seed: Seed = None,
    study: Study = None,
    sweep: SweepFile = None,
    since: Since = None,
    by: By = None,
    sort: Annotated[Order, typer.Option(help="The newest first, or those with the highest value.")] = Order.newest,
    limit: Annotated[int, typer.Option(min=0, help="How many at most; 0 is all.")] = 20,
    history: Annotated[bool, typer.Option("--all", help="Superseded runs too, with their number in brackets.")] = False,
    canonical: Canonical = False,
    json: Json = False,
    read_only: ReadOnly = False,
    db: Db = None,
) -> None:
    """Lists runs, the newest first."""
    from benchkit.reading.names import names_of
    from benchkit.reading.tables import Screen, emit, runs_table, say_above
    from benchkit.store import look, queries

    filters = _filters(task, model, classifier, n_train, seed, history, study, sweep, since, by)
    with look(db, read_only=read_only) as store:
        check_studies(store, filters)
        runs = queries.recent(store, filters, limit, by_value=sort is Order.value)
        more = queries.count(store, filters) - len(runs) if limit and len(runs) == limit else 0
        failed = queries.count_failures(store, filters)
        if not runs:
            _note(queries.nothing_matches(store, filters))
        names = names_of(store, runs, canonical=canonical or json)
    if json:
        from json import dumps

        emit(dumps([r._asdict() for r in runs], indent=2))
    elif runs:
        say_above(names)
        emit(runs_table(runs, Screen.of(sys.stdout), names))
    if more:
        _note(f"{more:,} more: --limit 0 lists all")
    if failed:
        _note(f"failed cells: {failed:,} (`benchkit show failed` says why, `benchkit rm failed` forgets them)")


def show(
    run: Annotated[str, typer.Argument(help="A run's number, the beginning of its uuid, 'last', or 'failed'.")],
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With the details of every check, and logs whole.")
    ] = False,
    classes: Annotated[bool, typer.Option("--classes", help="Every class, not the worst and best alone.")] = False,
    task: Task = None,
    model: Model = None,
    classifier: Classifier = None,
    n_train: NTrain = None,
    seed: Seed = None,
    study: Study = None,
    sweep: SweepFile = None,
    since: Since = None,
    by: By = None,
    json: Json = False,
    read_only: ReadOnly = False,
    db: Db = None,
) -> None:
    """Shows everything about one run; with 'failed', the cells that failed, why, and the end of their logs.

    The filters are for 'failed'.
    """
    filters = _filters(task, model, classifier, n_train, seed, False, study, sweep, since, by)
    if run == "failed":
        _show_failed(db, filters, verbose, json, read_only)
        return
    if filters.narrow:
        raise BenchkitError(f"'{run}' names one run: leave the filters out, or use `benchkit ls` with them")
    from benchkit.cli.show import as_json, as_text
    from benchkit.reading.tables import Screen, emit
    from benchkit.store import look, queries

    with look(db, read_only=read_only) as store:
        stored = queries.load(store, queries.find_run(store, run))
        if json:
            emit(as_json(stored, store.side))
        else:
            emit(as_text(stored, store.side, Screen.of(sys.stdout), verbose=verbose, classes=classes))
        if later := queries.failures(store, queries.of_cell(stored.report.cell)):
            _note(f"a later attempt at this cell failed: {later[0].error} (benchkit show failed)")


def _show_failed(db: Path | None, filters: "Filters", verbose: bool, json: bool, read_only: bool) -> None:
    from benchkit.cli.failures import as_json, as_text
    from benchkit.reading.tables import emit
    from benchkit.store import look, queries

    with look(db, read_only=read_only) as store:
        check_studies(store, filters)
        found = queries.failures(store, filters)
    if json:
        emit(as_json(found))
    elif found:
        emit(as_text(found, verbose=verbose))
    else:
        _note("no cell has failed" + _matching(filters))


def table(
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What goes down, of task, model, classifier, n_train, seed (default: model,classifier).",
        ),
    ] = None,
    cols: Annotated[str | None, typer.Option(metavar="NAMES", help="What goes across (default: task).")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What is shown (default: each task's primary metric). Repeatable."),
    ] = None,
    task: Task = None,
    model: Model = None,
    classifier: Classifier = None,
    n_train: NTrain = None,
    seed: Seed = None,
    study: Study = None,
    sweep: SweepFile = None,
    since: Since = None,
    by: By = None,
    format: Annotated[TableFormat, typer.Option(help="How to write it.")] = TableFormat.text,
    intervals: Annotated[bool, typer.Option(help="Show intervals.")] = True,
    over: Annotated[
        Over,
        typer.Option(
            help="What intervals are over: test examples and seeds, one of the two, or standard deviations over seeds."
        ),
    ] = Over.both,
    mean: Annotated[bool, typer.Option("--mean", help="A last column: the mean over the tasks, and places.")] = False,
    places: Annotated[bool, typer.Option("--places", help="Beside each number the places that it may have.")] = False,
    chance: Annotated[bool, typer.Option(help="Show what a constant scorer gets, below.")] = True,
    digits: Annotated[int, typer.Option(min=0, max=15, help="After the decimal point.")] = 3,
    canonical: Canonical = False,
    published: Annotated[
        bool, typer.Option("--published", help="Instead: our numbers beside those that papers report, and the gap.")
    ] = False,
    spreadsheet: Spreadsheet = False,
    read_only: ReadOnly = False,
    db: Db = None,
) -> None:
    """Prints a table of results, seeds averaged, with intervals over test examples and seeds.

    Marked are all that cannot be told from the best of their column with 95 % confidence.

    A dimension that is in neither rows nor columns, but varies, is added: one place never holds two numbers.
    """
    from benchkit.machine.garbage import no_collecting
    from benchkit.reading.evidence import table_of
    from benchkit.reading.names import names_of
    from benchkit.reading.rendering import render
    from benchkit.reading.tables import Screen, emit
    from benchkit.store import look

    with no_collecting():
        chosen = _filters(task, model, classifier, n_train, seed, False, study, sweep, since, by)
        down, across = _listed(rows), _listed(cols)
        with look(db, read_only=read_only) as store:
            check_studies(store, chosen)
            if published:
                _print_published(store, chosen, format.value, digits, spreadsheet)
                return
            made, lost = table_of(store, chosen, metric or [], down, across, over=over.value, mean=mean, places=places)
            for line in lost:
                _note(line)
            if not made.grid:
                _note(_why_empty(store, chosen, metric or []))
            elif made.added:
                several, s = " and ".join(made.added), "s" if len(made.added) == 1 else ""
                _note(f"{several} differ{s} among these runs, and so is in the table too")
            names = names_of(store, made.entries, canonical)
        if made.grid or format in (TableFormat.csv, TableFormat.json):
            screen = Screen.of(sys.stdout)
            emit(
                render(
                    made,
                    format.value,
                    digits=digits,
                    intervals=intervals,
                    chance=chance,
                    screen=screen,
                    spreadsheet=spreadsheet,
                    names=names,
                )
            )
        del made  # so that it is gone when garbage is looked for again


def sql(
    query: Annotated[str, typer.Argument(help='One SELECT, as in "SELECT * FROM results" (docs/schema.md).')],
    format: Annotated[SqlFormat, typer.Option(help="How to write the answer.")] = SqlFormat.text,
    spreadsheet: Spreadsheet = False,
    read_only: ReadOnly = False,
    db: Db = None,
) -> None:
    """Asks the registry in SQL. It cannot change anything."""
    from benchkit.cli.answer import write
    from benchkit.store import look
    from benchkit.store.readonly import ask

    with look(db, read_only=read_only) as store, ask(store, query) as answer:
        write(answer, format.value, spreadsheet=spreadsheet)


def rm(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs, as `benchkit show` takes them, or 'failed'.")] = None,
    task: Task = None,
    model: Model = None,
    classifier: Classifier = None,
    n_train: NTrain = None,
    seed: Seed = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    db: Db = None,
) -> None:
    """Removes runs and their predictions.

    Those that are named, or all that match the filters, superseded ones too. It shows them and asks first. Where a cell
    loses its current run, the newest that is left takes its place.

    'failed' forgets what is known of the cells that failed, of all or of those that match the filters.
    """
    from benchkit.reading.names import names_of
    from benchkit.reading.tables import Screen, emit, runs_table
    from benchkit.store import open_store, queries
    from benchkit.store.remove import remove

    filters = _filters(task, model, classifier, n_train, seed, history=True)
    if runs == ["failed"]:
        _forget(db, filters, yes)
        return
    if bool(runs) == filters.narrow:
        raise BenchkitError(
            "name either runs, as in `benchkit rm 12 13`, or filters, as in `benchkit rm --task 'old*'`"
        )
    _somebody_to_ask(yes)
    with open_store(db, create=False) as store:
        if runs:
            doomed = queries.runs_by_number(store, sorted({queries.find_run(store, run) for run in runs}))
        else:
            doomed = queries.recent(store, filters)
        if not doomed:
            raise BenchkitError(f"nothing was removed: {queries.nothing_matches(store, filters)}")
        if not yes:
            emit(runs_table(doomed, Screen.of(sys.stdout), names_of(store, doomed)))
            what = "this run" if len(doomed) == 1 else f"these {len(doomed):,} runs"
            _confirm(f"Remove {what} with all predictions, for good?")
        gone = remove(store, [r.run for r in doomed])
    promoted = f"; superseded runs that are current now: {gone.promoted:,}" if gone.promoted else ""
    emit(f"removed: {gone.runs:,} {'run' if gone.runs == 1 else 'runs'}, files: {gone.files:,}{promoted}")
    if gone.left:
        raise BenchkitError(f"{len(gone.left)} of their files could not be deleted, the first of them '{gone.left[0]}'")


def _forget(db: Path | None, filters: "Filters", yes: bool) -> None:
    from benchkit.reading.tables import clean, emit
    from benchkit.store import open_store, queries
    from benchkit.store.remove import forget_failures

    _somebody_to_ask(yes)
    with open_store(db, create=False) as store:
        doomed = queries.failures(store, filters)
        if not doomed:
            raise BenchkitError("nothing was removed: no cell has failed" + _matching(filters))
        if not yes:
            emit("\n".join(clean(f"{f.cell}: {f.error}") for f in doomed))
            _confirm(f"Forget {'this failure' if len(doomed) == 1 else f'these {len(doomed):,} failures'}?")
        gone = forget_failures(store, doomed)
    emit(f"forgotten: {gone:,} {'failure' if gone == 1 else 'failures'}")


def _somebody_to_ask(yes: bool) -> None:
    if not yes and not sys.stdin.isatty():
        raise BenchkitError("there is nobody to ask, so nothing was removed: --yes removes without asking")


def _confirm(question: str) -> None:
    if not typer.confirm(question, err=True):
        raise BenchkitError("nothing was removed")


def _matching(filters: "Filters") -> str:
    return " that matches these filters" if filters.narrow else ""


def _print_published(store: "Store", filters: "Filters", format: str, digits: int, spreadsheet: bool) -> None:
    from benchkit.cli.published import write
    from benchkit.store import queries

    found = queries.published(store, filters)
    if not found:
        _note("no paper is known to report one of these cells")
    if found or format in ("csv", "json"):
        write(found, format, digits, spreadsheet=spreadsheet)


def _filters(
    task: list[str] | None,
    model: list[str] | None,
    classifier: list[str] | None,
    n_train: list[str] | None,
    seed: list[str] | None,
    history: bool = False,
    study: list[str] | None = None,
    sweep: Path | None = None,
    since: str | None = None,
    by: str | None = None,
) -> "Filters":
    from benchkit.cli.options import numbers
    from benchkit.reading.asked import asked

    sizes, seeds = numbers("--n-train", n_train), numbers("--seed", seed)
    return asked(task, model, classifier, sizes, seeds, history=history, study=study, sweep=sweep, since=since, by=by)


def check_studies(store: "Store", filters: "Filters") -> None:
    """Raises StoreError where a study that is asked for is not there."""
    if filters.study:
        from benchkit.store.studies import check_study

        for name in filters.study:
            check_study(store, name)


def _listed(names: str | None) -> list[str] | None:
    return None if names is None else [name for name in names.replace(" ", ",").split(",") if name]


def _why_empty(store: "Store", filters: "Filters", metrics: list[str]) -> str:
    from benchkit.errors import did_you_mean
    from benchkit.store import queries

    if metrics and queries.count(store, filters):
        known = queries.metric_names(store)
        return f"none of these runs has the metric '{metrics[0]}'{did_you_mean(metrics[0], known)} ({', '.join(known)})"
    return queries.nothing_matches(store, filters)


def _note(line: str) -> None:
    """On stderr: what a program reads from stdout is the answer alone."""
    say(line, sys.stderr)
