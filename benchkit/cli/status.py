"""benchkit status."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.progress import say


def register(app: typer.Typer) -> None:
    app.command("status")(status)


def status(
    db: Annotated[
        Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Jobs that ended earlier, too.")] = False,
    drop: Annotated[
        list[str] | None,
        typer.Option(help="Give up a Slurm job that no scheduler will tell of any more: frees its cells. Repeatable."),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Change no file, take nothing in; so it is with another user's registry."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Takes in what Slurm jobs have finished, and shows what is being computed, in the queue and by launchers."""
    from dataclasses import asdict
    from json import dumps

    from benchkit.dispatch.slurm.overview import drop_job, overview
    from benchkit.dispatch.slurm.settle import settle
    from benchkit.reading.tables import Screen, ago, emit, text_table
    from benchkit.store import look

    with look(db, read_only=read_only) as store:
        for job in drop or ():
            say(f"{drop_job(store, job)} cells of Slurm job {job} are free", sys.stderr)
        settled = settle(store)
        if settled.unreachable:
            say(f"warning: {settled.unreachable}; its jobs are shown as they were last seen", sys.stderr)
        found = overview(store, everything=everything, just_ended=settled.ended)
    if as_json:
        emit(dumps(asdict(found), indent=2))
        return
    if found.jobs:
        header = ("job", "state", "task", "model", "cells", "left", "failed", "since", "reason")
        rows = [
            (j.job, j.state, j.task, j.model, str(j.cells), str(j.left), str(j.failed), ago(j.since), j.reason or "")
            for j in found.jobs
        ]
        emit(text_table([header], rows, right=(4, 5, 6), fold=(2, 3, 8), screen=Screen.of(sys.stdout)))
    for line in found.summary():
        emit(line)
