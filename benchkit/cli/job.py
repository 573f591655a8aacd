"""benchkit job: one job from its file, as workers and cluster nodes run it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.progress import say


def register(app: typer.Typer) -> None:
    app.command("job")(job)


def job(
    file: Annotated[Path, typer.Argument(help="A job file, as in registry.sqlite.d/jobs/NAME/job.json.")],
    events: Annotated[int | None, typer.Option(hidden=True, help="A file descriptor to tell a launcher on.")] = None,
) -> None:
    """Runs one job as a worker does, for debugging: what it finishes waits in the inbox beside the registry.

    It never opens the registry; the next command that does takes its reports in. What an earlier attempt at the same
    file has finished is not done again.
    """
    from benchkit.dispatch.work import work_file
    from benchkit.errors import BenchkitError
    from benchkit.progress import for_stream

    if events is not None:
        from benchkit.dispatch.events import Events
        from benchkit.dispatch.workers import end_with_launcher

        end_with_launcher()
        told = Events(events)
        for outcome in work_file(file, told):
            told.outcome(outcome)
        return
    outcomes = work_file(file, for_stream(sys.stderr))
    for outcome in outcomes:
        say(f"{outcome.cell}: {'failed: ' + outcome.error if outcome.error else 'done'}", sys.stdout)
    if failed := sum(bool(o.error) for o in outcomes):
        raise BenchkitError(f"{failed} of {len(outcomes)} cells failed")
