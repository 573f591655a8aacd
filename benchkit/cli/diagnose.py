"""benchkit diagnose."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.progress import say


def register(app: typer.Typer) -> None:
    app.command("diagnose")(diagnose)


def diagnose(
    model: Annotated[str, typer.Option(help="The backbone, as in 'bird-mae:large'.")],
    task: Annotated[str, typer.Option(help="Whose training examples it is shown, as in 'hsn'.")],
    against: Annotated[str | None, typer.Option(help="Another backbone to hold it against.")] = None,
    against_task: Annotated[
        str | None, typer.Option(help="A task for that backbone; without --against, further inputs for this one.")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=2, help="How many examples are looked at (all, where there are fewer).")
    ] = 64,
    pooled: Annotated[bool, typer.Option("--pooled", help="The pooled features alone, of any backbone.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Where the HTML page goes (default: the folder beside the registry).")
    ] = None,
    points: Annotated[bool, typer.Option("--points", help="With the statistics of every place.")] = False,
    fail: Annotated[bool, typer.Option("--fail", help="Exit with 1 where something is unhealthy.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    db: Annotated[
        Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")
    ] = None,
) -> None:
    """Tells whether a backbone's activations are healthy, and if not, where it goes wrong and what helps."""
    from benchkit.diagnose.command import Wanted, run
    from benchkit.diagnose.text import summary
    from benchkit.errors import BenchkitError
    from benchkit.progress import for_stream
    from benchkit.reading.tables import Screen, emit
    from benchkit.store import store_path

    wanted = Wanted(model, task, against, against_task, examples, pooled, page, device, store_path(db))
    done = run(wanted, for_stream(sys.stderr))
    emit(summary(done.looked, done.against, Screen.of(sys.stdout), points))
    say(f"page: {done.page}", sys.stderr)
    say(f"in the registry '{wanted.db}', table diagnoses", sys.stderr)
    if fail and not done.looked.healthy:
        raise BenchkitError(f"the activations of '{done.looked.model}' are unhealthy")
