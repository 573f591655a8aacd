"""benchkit label, benchkit note: words of one's own for what the registry holds."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from benchkit.cli.read import Db, Json, ReadOnly, Since
from benchkit.errors import BenchkitError

if TYPE_CHECKING:
    from benchkit.store import Store


class Column(StrEnum):
    task = "task"
    model = "model"
    classifier = "classifier"


def register(app: typer.Typer) -> None:
    app.command("label")(label)
    app.command("note")(note)
    app.command("studies")(studies)


def label(
    name: Annotated[str | None, typer.Argument(help="A task, a model or a classifier, as filters take it.")] = None,
    text: Annotated[str | None, typer.Argument(help="What tables and plots show for it; '' takes it away.")] = None,
    kind: Annotated[Column | None, typer.Option(help="Which of the three, where a name is of several.")] = None,
    db: Db = None,
) -> None:
    """Gives a task, a model or a classifier a label of its own, or lists all labels.

    A sweep file may have a table [labels] that does the same.
    """
    from benchkit.reading.tables import emit, text_table
    from benchkit.store import look, open_store
    from benchkit.store.labels import labels, set_labels
    from benchkit.store.queries import NAMES

    if name is None:
        with look(db) as store:
            rows = [(c, n, t) for c in NAMES for n, t in labels(store, c).items()]
        emit(text_table([("kind", "name", "label")], rows))
        return
    if text is None:
        raise BenchkitError(f"no label for '{name}' is given, as in: benchkit label {name} \"Ours, large\"")
    with open_store(db, create=False) as store:
        column, found = _meant(store, name, kind.value if kind else None)
        set_labels(store, {(column, found): text})
    emit(f"{column} {found}: {text}" if text else f"{column} {found} has no label now")


def note(
    run: Annotated[str, typer.Argument(help="A run's number, the beginning of its uuid, or 'last'.")],
    text: Annotated[str, typer.Argument(help="The note; '' takes it away.")] = "",
    tag: Annotated[list[str] | None, typer.Option(metavar="WORD", help="A tag beside it. Repeatable.")] = None,
    db: Db = None,
) -> None:
    """Notes something about a run, in the place of what was noted before: `benchkit show` has it."""
    from benchkit.reading.tables import emit
    from benchkit.store import open_store, queries
    from benchkit.store.notes import set_note

    with open_store(db, create=False) as store:
        number = queries.find_run(store, run)
        set_note(store, number, text, tag or [])
    emit(f"run {number}: noted" if text or tag else f"run {number} has no note now")


def studies(
    name: Annotated[str | None, typer.Argument(help="One study: all that is known of it, and its sweep file.")] = None,
    since: Since = None,
    by: Annotated[str | None, typer.Option(metavar="USER", help="Only those that this user started.")] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget this study; its runs stay.")] = False,
    json: Json = False,
    read_only: ReadOnly = False,
    db: Db = None,
) -> None:
    """Lists studies, sweeps with a name: how much of each is done, who started it and when."""
    import sys
    from json import dumps

    from benchkit.progress import say
    from benchkit.reading.asked import moment
    from benchkit.reading.tables import Screen, ago, clean, emit, text_table
    from benchkit.store import look, open_store
    from benchkit.store import studies as kept

    if forget:
        if name is None:
            raise BenchkitError("name the study that is to be forgotten, as in: benchkit studies NAME --forget")
        with open_store(db, create=False) as store:
            kept.forget(store, name)
        emit(clean(f"study '{name}' is forgotten; its runs stay"))
        return
    with look(db, read_only=read_only) as store:
        found = kept.studies(store, by=by, since=None if since is None else moment(since))
        sweep = ""
        if name is not None:
            sweep = kept.sweep_of(store, name)
            found = [study for study in found if study.name == name]
    if json:
        emit(dumps([s._asdict() | ({"sweep": sweep} if name else {}) for s in found], indent=2))
        return
    if not found:
        say("no study matches" if since or by else "no study yet: `name` in a sweep file, or run --study", sys.stderr)
        return
    rows = [
        (
            s.name, f"{s.done:,}/{s.cells:,}", f"{s.failed:,}", s.user, s.host, ago(s.started_at),
            f"{s.note}{' [' + ', '.join(s.tags) + ']' if s.tags else ''}".strip(),
        )
        for s in found
    ]  # fmt: skip
    header = ("study", "done", "failed", "by", "host", "started", "note")
    emit(text_table([header], rows, right=(1, 2), screen=Screen.of(sys.stdout)))
    if sweep:
        emit("\n" + "\n".join(map(clean, sweep.splitlines())))


def _meant(store: "Store", name: str, kind: str | None) -> tuple[str, str]:
    """The column and the canonical string of the one thing that `name` is, in the registry or else among plugins."""
    from benchkit.reading.asked import asked, canonical
    from benchkit.store.queries import NAMES, names_in

    found: list[tuple[str, str]] = []
    for column in [kind] if kind else NAMES:
        names = names_in(store, column, asked(**{column: name}, history=True))  # type: ignore[arg-type]
        exact = canonical(column, name)
        found += [(column, n) for n in ([exact] if exact in names else names)]
        if not names and exact is not None:
            found.append((column, exact))
    there = [f for f in found if f[1] in names_in(store, f[0])] or found
    if len(there) > 1:
        listed = ", ".join(f"{c} '{n}'" for c, n in there[:5])
        raise BenchkitError(f"'{name}' is several things ({listed}): write one of them out, or give its --kind")
    if not there:
        raise BenchkitError(f"'{name}' is nothing that the registry or a plugin knows (benchkit ls lists runs)")
    return there[0]
