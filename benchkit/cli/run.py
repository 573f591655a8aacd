"""benchkit run."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.progress import say


class Executor(StrEnum):
    local = "local"
    slurm = "slurm"


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    task: Annotated[
        list[str] | None, typer.Option(help="A task, as in 'digits' or 'esc50,root=DIR'. Repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A backbone, as in 'bird-mae:large'. Repeatable.")] = None,
    classifier: Annotated[list[str] | None, typer.Option(help="A probe (default: linear). Repeatable.")] = None,
    scorer: Annotated[
        list[str] | None,
        typer.Option(help="For trait tasks, in the classifier's place, as in 'random,k=2048'. Repeatable."),
    ] = None,
    n_train: Annotated[
        list[str] | None,
        typer.Option(
            metavar="INT,...",
            help="Training examples per class (trait tasks: in total), as in 1,5; -1 (default) is all.",
        ),
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(metavar="INT,...", help="Of sampling, initialisation and shuffling, as in 0,1,2 (default: 0)."),
    ] = None,
    sweep: Annotated[
        Path | None, typer.Option(help="A TOML file with one or more [[grid]]s; the options above narrow it.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep these cells as a study of this name (docs/reading.md).")
    ] = None,
    db: Annotated[
        Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say for each cell whether it is done, claimed or to do.")
    ] = False,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="With --dry-run: change no file of the registry, take nothing in.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Compute done cells again, features too; the old reports stay as history.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try cells again that have failed before.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for cells that another launcher is computing.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Worker processes at once (default: one for each GPU, else one)."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of extraction (default: found by trying).")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes (default: found by need).")] = None,
    skip_bad: Annotated[int, typer.Option(min=0, help="Examples a split may lose because they do not decode.")] = 0,
    replicates: Annotated[int, typer.Option(min=0, help="Bootstrap replicates for the 95 % interval.")] = 1000,
    shuffled: Annotated[bool, typer.Option("--shuffled", help="Check that permuted labels fall to chance.")] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder of cached features (default: BENCHKIT_CACHE).")] = None,
    executor: Annotated[
        Executor, typer.Option(help="Where jobs run: on this machine, or as Slurm jobs.")
    ] = Executor.local,
    slurm: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What Slurm jobs ask for, as in 'time=8h' (docs/slurm.md). Repeatable."),
    ] = None,
    max_running: Annotated[int | None, typer.Option(min=1, help="Slurm jobs that may run at once.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave when the Slurm jobs are submitted: benchkit status follows them.")
    ] = False,
) -> None:
    """Computes the cells that are not in the registry yet, and prints the table of all of them."""
    from dataclasses import replace

    from benchkit.api import Settings, launch, look
    from benchkit.cli.options import numbers
    from benchkit.errors import BenchkitError
    from benchkit.planning.plan import Grid
    from benchkit.planning.sweep import Sweep, narrow, read_whole_sweep
    from benchkit.progress import for_stream
    from benchkit.store import store_path
    from benchkit.store.studies import Study

    sizes, seeds = numbers("--n-train", n_train), numbers("--seed", seed)
    whole = Sweep([])
    if sweep:
        whole = read_whole_sweep(sweep)
        probes = (*(classifier or ()), *(scorer or ()))
        grids = narrow(whole.grids, task=task or (), model=model or (), classifier=probes, n_train=sizes, seed=seeds)
    else:
        if not task or not model:
            missing = " and ".join(name for name, given in (("--task", task), ("--model", model)) if not given)
            raise BenchkitError(
                f"{missing} missing, as in: benchkit run --task digits --model pixels (or --sweep FILE)"
            )
        probes = (*(classifier or ()), *(scorer or ())) or ("linear",)
        grids = [Grid(tuple(task), tuple(model), probes, tuple(sizes or [-1]), tuple(seeds or [0]))]
    path = store_path(db)
    asked = _slurm(executor, slurm, max_running, detach, jobs, sweep)
    settings = Settings(
        db=path, cache=cache, force=force, wait=wait, jobs=jobs, retry_failed=retry_failed, slurm=asked, detach=detach,
        device=device, batch_size=batch_size, workers=workers, skip_bad=skip_bad, replicates=replicates,
        shuffled=shuffled, labels={} if len(grids) != len(whole.grids) else whole.labels,
        study=replace(whole.study or Study("-"), name=study) if study is not None else whole.study,
    )  # fmt: skip
    if read_only and not dry_run:
        raise BenchkitError("--read-only is for --dry-run: a run writes to its registry")
    if dry_run:
        _print_plan(look(grids, settings, read_only=read_only))
        return
    began = time.monotonic()
    launched = launch(grids, settings, for_stream(sys.stderr))
    _print_results(launched, path, time.monotonic() - began)
    if shuffled and (n := _unshuffled(path, launched)):
        say(
            f"without --shuffled were computed, before: {n} (--force computes them again, with it)",
            sys.stderr,
        )
    _print_failures(launched)
    if launched.failures:
        raise BenchkitError(f"{len(launched.failures)} of {len(launched.after.cells)} cells failed")


def _slurm(
    executor: Executor,
    given: list[str] | None,
    max_running: int | None,
    detach: bool,
    jobs: int | None,
    sweep: Path | None,
) -> Any:
    """What to ask Slurm for, or None to compute here."""
    from benchkit.errors import BenchkitError

    if executor is Executor.local:
        for option, value in (("--slurm", given), ("--max-running", max_running), ("--detach", detach)):
            if value:
                raise BenchkitError(f"{option} is for Slurm jobs: give it with --executor slurm")
        return None
    if jobs is not None:
        raise BenchkitError("--jobs is for worker processes on this machine; --max-running is for Slurm jobs")
    from benchkit.dispatch.slurm.settings import slurm_settings

    cap = [] if max_running is None else [f"max_running={max_running}"]
    return slurm_settings([*(given or []), *cap], sweep)


def _print_plan(plan: Any) -> None:
    from benchkit.machine.times import shown

    for p in plan.cells:
        if p.state == "done":
            what = f"done since {shown(p.since)} (run {p.run}): {p.metric} {p.value:.4f}"
        elif p.state == "claimed":
            what = f"claimed since {shown(p.since)} by {p.owner}"
        elif p.state == "failed":
            what = f"failed since {shown(p.since)}: {p.failure}"
        else:
            what = "to do"
        say(f"{p.cell}: {what}", sys.stdout)
    counts = {state: n for state, n in plan.by_state.items() if n or state != "failed"}
    say(", ".join(f"{n} {'to do' if state == 'todo' else state}" for state, n in counts.items()), sys.stdout)


def _print_failures(launched: Any) -> None:
    """A line for each error of each task and model: a folder that is not there fails a thousand cells at once."""
    groups: dict[tuple[str, str, str], list[Any]] = {}
    for failure in launched.failures:
        error = " ".join(str(failure.error).split())
        groups.setdefault((failure.cell.task, failure.cell.model, error), []).append(failure.cell)
    for (*_, error), cells in groups.items():
        n = len(cells) - 1
        others = f" (and {n:,} {'other' if n == 1 else 'others'} of this task and model)" if n else ""
        say(f"failed: {cells[0]}{others}: {error}", sys.stderr)


def _unshuffled(path: Path, launched: Any) -> int:
    """How many of the cells were never checked with permuted labels."""
    from json import dumps

    from benchkit.store import open_store

    runs = [p.run for p in launched.after.cells if p.run is not None]
    with open_store(path, create=False, ingest=False) as store:
        found = store.execute(
            "SELECT count(*) FROM json_each(?) WHERE value NOT IN (SELECT run_id FROM checks WHERE name = 'shuffled')",
            [dumps(runs)],
        )
        return int(found.fetchone()[0])


def _print_results(launched: Any, path: Path, seconds: float) -> None:
    from benchkit.progress import clock
    from benchkit.reading.tables import print_runs
    from benchkit.store.claims import QUEUED

    runs = [p.run for p in launched.after.cells if p.run is not None]
    if runs:
        print_runs(path, runs)
    claimed = [p for p in launched.after.cells if p.state == "claimed"]
    failed = f", {len(launched.failures)} failed" if launched.failures else ""
    there = len(runs) - launched.computed
    say(f"{launched.computed} computed, {there} from the registry '{path}'{failed}; {clock(seconds)}", sys.stderr)
    queued = [p for p in claimed if p.owner.startswith(QUEUED)]
    if queued:
        n_jobs = len({p.owner for p in queued})
        say(f"{len(queued)} in {n_jobs} Slurm jobs: benchkit status follows them", sys.stderr)
    for owner in sorted({p.owner for p in claimed} - {p.owner for p in queued}):
        n = sum(p.owner == owner for p in claimed)
        say(f"{n} being computed by {owner}: --wait waits for them", sys.stderr)
