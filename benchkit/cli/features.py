"""benchkit features export."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchkit.cli.group import Group
from benchkit.progress import say


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=Group, help="A model's features of a task, for other programs to read.", no_args_is_help=True
    )
    group.command("export")(export)
    app.add_typer(group, name="features")


def export(
    task: Annotated[str, typer.Option(help="The task whose examples are encoded, as in 'esc50,root=DIR'.")],
    model: Annotated[str, typer.Option(help="The backbone, as in 'bird-mae:large'.")],
    to: Annotated[Path, typer.Option(help="The Parquet file; --model vectors:FILE reads it.")],
    split: Annotated[
        list[str] | None, typer.Option(help="Of the task; repeatable (default: all that its folds use).")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of cached features (default: BENCHKIT_CACHE).")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of the backbone (default: found by trying).")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes (default: found by need).")] = None,
    skip_bad: Annotated[int, typer.Option(min=0, help="Examples that may fail to decode and are left out.")] = 0,
) -> None:
    """Writes features with their examples' ids, files, times and labels; from the cache where they are there."""
    from benchkit.jobs.export import export as write
    from benchkit.jobs.job import JobOptions
    from benchkit.machine.environment import resolve_device
    from benchkit.media.fingerprint import cache_dir
    from benchkit.progress import for_stream

    options = JobOptions(
        side="", cache=str((cache or cache_dir() / "features").absolute()), device=resolve_device(device),
        batch_size=batch_size, workers=workers, skip_bad=skip_bad,
    )  # fmt: skip
    counts = write(task, model, to, options, for_stream(sys.stderr), splits=split or ())
    rows = ", ".join(f"{n:,} of {name}" for name, n in counts.items())
    say(f"{rows}: --model vectors:{to} reads them", sys.stdout)
