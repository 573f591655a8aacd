"""benchkit check, backup, merge: looking after a registry."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.progress import say

Db = Annotated[Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")]


def register(app: typer.Typer) -> None:
    for command in (check, backup, merge):
        app.command(command.__name__)(command)


def check(
    quick: Annotated[
        bool, typer.Option("--quick", help="Look at the size of predictions instead of reading them.")
    ] = False,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Release stale claims, remove unfinished files and environments of no run."),
    ] = False,
    db: Db = None,
) -> None:
    """Verifies a registry: its file, its rows, its predictions, its claims. One line for each finding.

    It ends with 1 where there are findings, with 0 where there are none.
    """
    from benchkit.errors import BenchkitError
    from benchkit.progress import for_stream
    from benchkit.store import open_store
    from benchkit.store.check import check as find
    from benchkit.store.check import fix as mend
    from benchkit.store.ingest import waiting

    with open_store(db, create=False, ingest=False) as store:
        if fix:
            for line in mend(store):
                say(line, sys.stdout)
        findings = find(store, for_stream(sys.stderr), quick=quick)
        for finding in findings:
            say(str(finding), sys.stdout)
        if n := len(waiting(store)):
            say(f"{n:,} finished reports wait to be taken in: any other command does it", sys.stderr)
        if n := store.execute("SELECT count(*) FROM conflicts").fetchone()[0] if not findings else 0:
            say(f"{n:,} conflicts with merged registries: `benchkit show` of a run tells of its own", sys.stderr)
        if findings:
            raise BenchkitError(f"registry '{store.path}': {len(findings)} findings")
        say(f"registry '{store.path}' is sound", sys.stderr)


def backup(
    file: Annotated[Path, typer.Argument(help="Where the copy goes; its predictions go into FILE.d.")],
    link: Annotated[
        bool, typer.Option("--link", help="Predictions as hard links, where both are on one file system.")
    ] = False,
    db: Db = None,
) -> None:
    """Copies a registry with its predictions while it is in use: whole or not at all, verified, overwriting nothing."""
    from benchkit.progress import for_stream
    from benchkit.store import open_store
    from benchkit.store.backup import backup as copy

    with open_store(db, create=False, ingest=False) as store:
        made = copy(store, file, for_stream(sys.stderr), link=link)
    say(f"{made.runs:,} runs and {made.files:,} files in '{file}'", sys.stdout)
    if made.lacking:
        say(
            f"warning: {len(made.lacking):,} predictions are missing or altered in the registry itself, so the copy "
            "lacks them too: `benchkit check` names them",
            sys.stderr,
        )


def merge(
    other: Annotated[Path, typer.Argument(help="The registry to bring runs from; it is only read.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come, and bring nothing.")] = False,
    db: Db = None,
) -> None:
    """Brings another registry's runs into one's own, with their predictions: all of them or none.

    What is here already stays as it is. Where a cell has another result over there both runs are kept, one's own stays
    current, and `benchkit show` tells of the conflict.
    """
    from benchkit.progress import for_stream
    from benchkit.store import open_store
    from benchkit.store.database import open_reading
    from benchkit.store.merge import merge as bring

    open_reading(other).close()  # a mistyped name must not leave an empty registry of one's own behind
    with open_store(db, create=not dry_run) as store:
        m = bring(store, other, for_stream(sys.stderr), dry_run=dry_run)
    for line in m.conflicts:
        say(f"conflict: {line}", sys.stdout)
    would = "would come" if dry_run else "came"
    say(f"{m.cells:,} cells {would}, with {m.history:,} superseded runs, {m.records:,} trainings and diagnoses, "
          f"{m.files:,} files; {m.known:,} runs were here, {m.same:,} cells have the same result, "
          f"{len(m.conflicts):,} another", sys.stdout)  # fmt: skip
    if m.lacking:
        say(
            f"warning: predictions of {len(m.lacking):,} of these runs are missing or altered over there, as "
            f"'{m.lacking[0]}'",
            sys.stderr,
        )
    if m.waiting:
        say(
            f"warning: {m.waiting:,} reports wait in the inbox of '{other}' and did not come: any command there takes "
            "them in",
            sys.stderr,
        )
