"""benchkit as a Python library: the same things the command line does.

reports = benchkit.run(task="digits", model="pixels", n_train=[1, 5, -1])
with benchkit.open("registry.sqlite") as results:
    results.table()
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from benchkit.errors import BenchkitError, did_you_mean
from benchkit.jobs.evaluate import Outcome
from benchkit.jobs.job import Computing, JobOptions
from benchkit.machine.environment import check_device
from benchkit.machine.home import expanded
from benchkit.planning.plan import Grid, Plan, Planned, State, make_plan
from benchkit.progress import Progress, Silent
from benchkit.reading.results import Results
from benchkit.records.report import Cell, Report
from benchkit.store import Store, is_there, open_store, side_folder, store_path
from benchkit.store.claims import QUEUED, Owner, await_orphans, heartbeat, release_dead
from benchkit.store.labels import set_labels
from benchkit.store.opening import refresh
from benchkit.store.studies import Study, keep

if TYPE_CHECKING:
    from benchkit.dispatch.slurm.settings import SlurmSettings

ORPHANS = 30.0
"""Seconds in which the workers of a launcher that was killed have ended."""


class RunFailed(BenchkitError):
    """Some cells failed. The others are in the store and in `reports`."""

    def __init__(self, failures: list[Outcome], reports: list[Report]) -> None:
        first = failures[0]
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        super().__init__(f"{first.cell}: {first.error}{more}")
        self.failures, self.reports = failures, reports


@dataclass(frozen=True, kw_only=True)
class Settings(Computing):
    """How to run; nothing here can change a number. What every job is told is described at Computing.

    force: compute cells that are done again, features too; the old reports stay as history.
    wait: wait for cells that another launcher is computing, and take over those of one that dies.
    device: 'auto', 'cpu', 'cuda', 'cuda:1'.
    jobs: worker processes at once; 1 computes in this process, None is one for each GPU.
    retry_failed: try cells again that have failed with the same options before.
    study: keep the cells under this name. labels: what to call tasks, models and classifiers, by spec.
    slurm: submit jobs to Slurm, with these settings, instead of computing here. detach: leave when they are submitted.
    """

    db: Path = field(default_factory=store_path)
    cache: Path | None = None
    force: bool = False
    wait: bool = False
    device: str = "auto"
    jobs: int | None = None
    retry_failed: bool = False
    slurm: "SlurmSettings | None" = None
    detach: bool = False
    study: Study | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises BenchkitError for what is no device, and for a number or a path that can be none."""
        check_device(self.device)
        for name, least in (("batch_size", 1), ("workers", 0), ("jobs", 1), ("skip_bad", 0), ("replicates", 0)):
            given = getattr(self, name)
            if given is None and name not in ("skip_bad", "replicates"):
                continue
            if type(given) is not int or given < least:
                raise BenchkitError(f"{name}={given!r} must be a whole number from {least}")
        for name in ("db", "cache"):
            given = getattr(self, name)
            if given is None and name == "cache":
                continue
            if not isinstance(given, str | Path) or not str(given):
                raise BenchkitError(f"{name}={given!r} must be a path")
            object.__setattr__(self, name, expanded(given))

    def options(self) -> JobOptions:
        """As jobs carry them: with absolute paths."""
        from benchkit.media.fingerprint import cache_dir

        return JobOptions(
            side=str(side_folder(self.db.absolute())),
            cache=str((self.cache or cache_dir() / "features").absolute()),
            memory=self.slurm.memory if self.slurm else None,
            **{f.name: getattr(self, f.name) for f in fields(Computing)},
        )

    def plan(self, grids: Sequence[Grid], store: Store | None) -> Plan:
        return make_plan(grids, store, options=None if self.retry_failed else self.options().circumstances())


@dataclass(frozen=True)
class Launched:
    """What became of a plan: the plan as it was found, what was computed now, and the plan as it is left."""

    before: Plan
    outcomes: list[Outcome]
    after: Plan

    @property
    def failures(self) -> list[Outcome]:
        """The cells that have no result for a failure: now, or before and not tried again."""
        now = [o for o in self.outcomes if o.error] + self._lost()
        tried = {o.cell for o in self.outcomes}
        before = [p for p in self.after.cells if p.state == "failed" and p.failure and p.cell not in tried]
        return now + [Outcome(p.cell, error=str(p.failure)) for p in before]

    @property
    def computed(self) -> int:
        """How many cells have a new result."""
        return sum(not o.error for o in self.outcomes) - len(self._lost())

    def _lost(self) -> list[Outcome]:
        """The cells that were computed, and whose reports the registry does not have."""
        missing = {p.cell for p in self.after.cells if p.state in ("todo", "failed")}
        error = "it was computed, and its report is not in the registry: `benchkit check` tells where it was set aside"
        return [Outcome(o.cell, error=error) for o in self.outcomes if not o.error and o.cell in missing]


def look(grids: Sequence[Grid], settings: Settings, *, read_only: bool = False) -> Plan:
    """The plan alone (--dry-run): computes nothing, claims nothing, creates no registry.

    read_only: takes in nothing that waits, either; so it is with a registry that is another user's.
    """
    if not is_there(settings.db):
        return settings.plan(grids, None)
    from benchkit.dispatch.slurm.settle import settle
    from benchkit.store import look as looking

    with looking(settings.db, read_only=read_only) as store:
        settle(store)  # nothing, where nothing may be changed
        return settings.plan(grids, store)


def launch(grids: Sequence[Grid], settings: Settings, progress: Progress) -> Launched:
    """Plans, and computes what is missing. Raises BenchkitError where nothing can be planned."""
    if not is_there(settings.db):
        settings.plan(grids, None)  # a mistyped name must not leave an empty registry behind
        if settings.slurm:
            from benchkit.machine import scheduler

            scheduler.cluster()  # nor a host without a scheduler
    with open_store(settings.db) as store:
        await_orphans(store, ORPHANS)
        _end_claims(store)
        refresh(store)
        before = plan = settings.plan(grids, store)
        _note(store, plan, settings)
        outcomes: list[Outcome] = []
        force = settings.force
        owner = Owner.this_process()
        while True:
            tried = {o.cell for o in outcomes}
            states: tuple[State, ...] = ("todo", "done", "failed") if force else ("todo",)
            jobs = [left for job in plan.jobs(states) if (left := [p for p in job if p.cell not in tried])]
            if jobs:
                outcomes += _compute(store, jobs, settings, owner, force, progress)
                if settings.detach:
                    return Launched(before, outcomes, settings.plan(grids, store))
            elif not (settings.wait and plan.by_state["claimed"]):
                return Launched(before, outcomes, plan)
            else:
                queued = any(p.owner and p.owner.startswith(QUEUED) for p in plan.cells)
                time.sleep(5.0 if queued else 1.0)  # a cluster's scheduler is not to be asked all the time
            force = False
            refresh(store)
            _end_claims(store)
            plan = settings.plan(grids, store)


def _note(store: Store, plan: Plan, settings: Settings) -> None:
    """The study and the labels, before anything is computed."""
    if settings.study is not None:
        keep(store, settings.study, (p.cell for p in plan.cells))
    if settings.labels:
        set_labels(store, dict(_labelled(plan, settings.labels)))


def _labelled(plan: Plan, labels: Mapping[str, str]) -> Iterator[tuple[tuple[str, str], str]]:
    """(kind, canonical name) and label of each label's thing. Raises BenchkitError where none of the plan's is it."""
    from benchkit.reading.asked import canonical

    known = {(kind, getattr(p.cell, kind)) for p in plan.cells for kind in ("task", "model", "classifier")}
    for text, label in labels.items():
        found = [(kind, name) for kind in ("task", "model", "classifier")
                 for name in (text, canonical(kind, text)) if (kind, name) in known]  # fmt: skip
        if not found:
            names = sorted({name for _, name in known})
            raise BenchkitError(f"[labels] names '{text}', which the sweep has not{did_you_mean(text, names)}")
        for kind, name in dict.fromkeys(found):
            if name is not None:
                yield (kind, name), label


def _compute(
    store: Store, jobs: list[list[Planned]], settings: Settings, owner: Owner, force: bool, progress: Progress
) -> list[Outcome]:
    from benchkit.dispatch.local import run_here, run_workers
    from benchkit.dispatch.machine import default_jobs

    options = replace(settings.options(), fresh=force)
    if settings.slurm:
        return _submit(store, jobs, options, settings, settings.slurm, owner, force, progress)
    n = settings.jobs or default_jobs(settings.device)
    with heartbeat(store, owner) as held:
        if n == 1:
            return run_here(store, jobs, options, held, force=force, progress=progress)
        return run_workers(store, jobs, options, held, n=n, force=force, progress=progress)


def _submit(
    store: Store,
    jobs: list[list[Planned]],
    options: JobOptions,
    settings: Settings,
    slurm: "SlurmSettings",
    owner: Owner,
    force: bool,
    progress: Progress,
) -> list[Outcome]:
    from benchkit.dispatch.slurm.submit import submit_jobs
    from benchkit.dispatch.slurm.wait import wait_for

    with heartbeat(store, owner):
        submitted = submit_jobs(store, jobs, options, slurm, owner, force=force, progress=progress)
    return [] if settings.detach else wait_for(store, submitted, progress)


def _end_claims(store: Store) -> None:
    """Those of launchers that are gone and of Slurm jobs that have ended, whoever submitted them."""
    from benchkit.dispatch.slurm.settle import settle

    settle(store)
    release_dead(store)


def run(
    *,
    task: str | Iterable[str],
    model: str | Iterable[str],
    classifier: str | Iterable[str] = "linear",
    n_train: SupportsIndex | Iterable[SupportsIndex] = -1,
    seed: SupportsIndex | Iterable[SupportsIndex] = 0,
    db: str | Path | None = None,
    study: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> list[Report]:
    """Every cell of the grid, computed where it is missing: its Report, in the order of the grid.

    classifier: for trait tasks a scorer. n_train: examples a class, for trait tasks in total; -1 is all. study: the
    name under which the registry keeps these cells.

    Raises RunFailed where a cell fails (the others are kept), BenchkitError where nothing can be planned.
    """
    from dataclasses import replace

    from benchkit.store.reports import load_reports

    grid = Grid(_several(task), _several(model), _several(classifier), _several(n_train), _several(seed))
    settings = settings or Settings()
    if not isinstance(settings, Settings):
        raise BenchkitError(f"settings is a {type(settings).__name__}, and must be a benchkit.api.Settings")
    if db is not None:
        settings = replace(settings, db=store_path(db))
    if study is not None:
        settings = replace(settings, study=Study(study))
    launched = launch([grid], settings, progress or Silent())
    with open_store(settings.db, create=False) as store:
        reports = load_reports(store, [p.run for p in launched.after.cells if p.run is not None])
    if launched.failures:
        raise RunFailed(launched.failures, reports)
    return reports


def open(path: str | Path | None = None) -> Results:
    """A registry for reading: its tables as pandas frames. Default: BENCHKIT_DB, else ./registry.sqlite."""
    return Results(store_path(path))


def _several(given: Any) -> tuple[Any, ...]:
    """One value or some, numpy's whole numbers as Python's; Grid says what is wrong with any other."""
    values = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    return tuple(v.__index__() if hasattr(v, "__index__") and not isinstance(v, bool) else v for v in values)


__all__ = ["Cell", "Grid", "Launched", "Results", "RunFailed", "Settings", "launch", "look", "open", "run"]
