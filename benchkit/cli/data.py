"""benchkit fetch; benchkit cache ls, verify, prune."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.cli.group import Group
from benchkit.progress import say

Cache = Annotated[Path | None, typer.Option("--cache", help="Folder of cached features (default: BENCHKIT_CACHE).")]


def register(app: typer.Typer) -> None:
    app.command("fetch")(fetch)
    cache = typer.Typer(
        cls=Group, help="The feature cache: what is in it, whether it is whole, making room.", no_args_is_help=True
    )
    for command in (ls, verify, prune):
        cache.command(command.__name__)(command)
    app.add_typer(cache, name="cache")


def fetch(
    task: Annotated[str, typer.Option(help="A task whose data is on the hub, as in 'hsn'.")],
    to: Annotated[Path, typer.Option(help="Folder for the copy; made where it is missing.")],
) -> None:
    """Copies a task's data into a folder, for machines without a network: whole, checked, resuming where it stopped."""
    from benchkit.catalog.fetch import fetch as fetch_data
    from benchkit.progress import for_stream

    copy = fetch_data(task, to, for_stream(sys.stderr))
    say(f"complete: use it as --task {copy.spec}", sys.stdout)


def ls(cache: Cache = None) -> None:
    """Lists the cached features, the least recently used first."""
    from benchkit import features
    from benchkit.reading.tables import ago, emit, memory, text_table

    entries = features.ls(_folder(cache))
    rows = [
        (*_names(e), f"{e.done:,} of {e.rows:,}", f"{e.dim:,}", memory(e.bytes),
         ago(datetime.fromtimestamp(e.used, UTC).isoformat()))
        for e in entries
    ]  # fmt: skip
    if rows:
        header = ("task", "split", "model", "rows", "dim", "size", "last used")
        emit(text_table([header], rows, right=(3, 4, 5)))
    say(f"{len(entries)} entries, {memory(sum(e.bytes for e in entries))} in '{_folder(cache)}'", sys.stderr)


def verify(cache: Cache = None) -> None:
    """Reads every cached feature and compares it with its digest. What is damaged is computed again when needed."""
    from benchkit import features
    from benchkit.errors import BenchkitError

    entries = damaged = 0
    for verdict in features.verify(_folder(cache)):
        entries += 1
        damaged += verdict.damaged
        if verdict.damaged:
            say(
                f"{' '.join(_names(verdict.entry))}: {verdict.damaged:,} of {verdict.entry.done:,} rows are damaged",
                sys.stdout,
            )
    if damaged:
        raise BenchkitError(
            f"{damaged:,} rows of features do not match their digest; runs that need them extract them again"
        )
    say(f"{entries} entries, every row as it was written", sys.stderr)


def prune(
    keep: Annotated[str, typer.Option(help="How much to keep at most, as in 50GB, 500MB or 0.")],
    cache: Cache = None,
) -> None:
    """Removes cached features, the least recently used first; what a process is writing stays."""
    from benchkit import features
    from benchkit.reading.tables import memory

    removed = features.prune(_folder(cache), parse_size(keep))
    for entry in removed:
        say(f"removed {' '.join(_names(entry))} ({memory(entry.bytes)})", sys.stdout)
    left = sum(e.bytes for e in features.ls(_folder(cache)))
    say(f"{len(removed)} removed, {memory(left)} left", sys.stderr)


def parse_size(text: str) -> int:
    """Bytes from '50GB', '1.5 TB', '500MB', '0' (powers of 1,000). Raises BenchkitError."""
    from benchkit.errors import BenchkitError

    match = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([kMGT]?)B?", text.strip(), re.IGNORECASE)
    if not match:
        raise BenchkitError(f"--keep {text} is no size: write it as 50GB, 500MB or 0")
    return round(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


def _names(entry: Any) -> tuple[str, str, str]:
    key = entry.key.get("key", {})
    return key.get("media", "?"), entry.key.get("split", "?"), key.get("model", "?")


def _folder(given: Path | None) -> Path:
    from benchkit.media.fingerprint import cache_dir

    return given or cache_dir() / "features"
