"""From a grid of specs to cells, and which of them are done, claimed by somebody, or to do: one set-based query.

plan = make_plan([Grid(task=("digits",), model=("pixels",))], store)
for job in plan.jobs(): ...        # the cells to do, together by (task, model)
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, cast

from benchkit.catalog.contract import solves
from benchkit.catalog.discovery import Catalog, discover
from benchkit.catalog.resolve import resolve, resolve_probe
from benchkit.catalog.spec import Spec
from benchkit.errors import OF_ITSELF, BenchkitError
from benchkit.interfaces import Backbone, Modality, TaskKind
from benchkit.machine.garbage import no_collecting
from benchkit.planning.owners import Owners
from benchkit.records.gate import COUNT, INTEGER, JOB, OBJECT, OWNER, REAL, TEXT, TIME
from benchkit.records.report import Cell
from benchkit.store.claims import Owner, alive, in_words
from benchkit.store.columns import held
from benchkit.store.database import Store
from benchkit.store.leases import sightings

State = Literal["done", "claimed", "failed", "todo"]
T = TypeVar("T")

MAX_CELLS = 1_000_000


@dataclass(frozen=True)
class Grid:
    """The product of its fields, each value once. Specs are spelled as a user types them."""

    task: tuple[str, ...]
    model: tuple[str, ...]
    classifier: tuple[str, ...] = ("linear",)
    n_train: tuple[int, ...] = (-1,)
    seed: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name, kind in (("task", str), ("model", str), ("classifier", str), ("n_train", int), ("seed", int)):
            given = getattr(self, name)
            if not given or not all(type(v) is kind for v in given):
                what = "a whole number" if kind is int else "a spec, as text"
                what += " (-1 is all)" if name == "n_train" else ""
                raise BenchkitError(f"{name} = {shown(given)} must be {what}, or several")
        for n in self.n_train:
            if n < -1 or n >= 2**63:
                raise BenchkitError(
                    f"n_train={shown(n)} is no number of training examples: give 1 or more, or -1 for all"
                )
        for seed in self.seed:
            if not 0 <= seed < 2**32:
                raise BenchkitError(f"seed={shown(seed)} is out of range: give 0 to {2**32 - 1}")


@dataclass(frozen=True)
class Planned:
    """One cell of the plan and what the store says of it."""

    cell: Cell
    task: Spec
    model: Spec
    classifier: Spec
    state: State
    run: int | None = None
    """The number of its current run, where it is done."""
    since: str | None = None
    """When it was finished, or claimed."""
    value: float | None = None
    metric: str | None = None
    owner: str | None = None
    failure: "Failed | None" = None
    """Its last attempt, where that failed."""


@dataclass(frozen=True)
class Failed:
    """What the store knows of a cell's failures. since: when it last failed."""

    reason: str
    error: str
    attempts: int
    since: str

    def __str__(self) -> str:
        times = "" if self.attempts == 1 else f", {self.attempts} times"
        return f"{self.error} (failed before{times}: --retry-failed tries again)"


@dataclass(frozen=True)
class Plan:
    cells: tuple[Planned, ...]
    by_state: dict[State, int] = field(default_factory=dict)

    def jobs(self, states: Sequence[State] = ("todo",)) -> list[list[Planned]]:
        """The cells in one of `states`, those of one (task, model) together, in the order of the grid."""
        groups: dict[tuple[str, str], list[Planned]] = {}
        for p in self.cells:
            if p.state in states:
                groups.setdefault((p.cell.task, p.cell.model), []).append(p)
        return list(groups.values())


@no_collecting()
def make_plan(
    grids: Sequence[Grid],
    store: Store | None,
    catalog: Catalog | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Checks every spec and looks every cell up. store: None plans against an empty registry.

    options: JobOptions.circumstances of the run that is planned. A cell that has failed of itself with these very
    options stands as failed; with others, or without `options`, it is to do again. What the machine or the moment
    caused (benchkit.trouble) is always to do again.

    Raises SpecError or PluginError for the first spec that is wrong, and BenchkitError for a combination that cannot
    be: a model that does not take the task's media, a classifier that cannot solve the task's kind of problem.
    """
    size = sum(len(g.task) * len(g.model) * len(g.classifier) * len(g.n_train) * len(g.seed) for g in grids)
    if size > MAX_CELLS:
        raise BenchkitError(f"the grid has {size:,} cells, more than {MAX_CELLS:,}: split it")
    resolver = _Resolver(catalog or discover(), store)
    seen: dict[Cell, tuple[Spec, Spec, Spec]] = {}
    for grid in grids:
        tasks = [resolver("task", t) for t in grid.task]
        models = [resolver("model", m) for m in grid.model]
        classifiers = [resolver("classifier", c) for c in grid.classifier]
        seen_as = {t: (kind_of(task), modality_of(task)) for t, task in tasks}
        for (t, task), (m, model), (c, classifier) in itertools.product(tasks, models, classifiers):
            _check_fit(task, *seen_as[t], model, classifier)
            trained = _is_trained(classifier)
            for n, s in itertools.product(grid.n_train, grid.seed):
                cell = Cell(t, m, c, n, s) if trained else _untrained(t, m, c, s, classifier)
                if trained and not n:
                    raise BenchkitError(
                        f"n_train=0 is no number of training examples for '{classifier.name}', which is fitted on "
                        "them: give 1 or more, or -1 for all"
                    )
                seen.setdefault(cell, (task, model, classifier))
    planned = _look_up(store, seen, options)
    counts: dict[State, int] = {"done": 0, "claimed": 0, "failed": 0, "todo": 0}
    for p in planned:
        counts[p.state] += 1
    return Plan(planned, counts)


def _is_trained(classifier: Spec) -> bool:
    return classifier.kind == "scorer" or bool(classifier.cls.trains(classifier.params))


def _untrained(task: str, model: str, name: str, seed: int, classifier: Spec) -> Cell:
    """The one cell, however many training sizes are asked for (and seeds, where none is drawn from)."""
    return Cell(task, model, name, 0, 0 if getattr(classifier.cls, "seedless", False) else seed)


def shown(value: Any) -> str:
    """A value as a line shows it."""
    try:
        return repr(value)
    except ValueError:  # Python writes out no number of more than 4,300 digits
        return "a number of thousands of digits"


class _Resolver:
    """Resolves each spelling once, and gives one Spec for all spellings of one thing."""

    def __init__(self, catalog: Catalog, store: Store | None) -> None:
        self.catalog, self.owners = catalog, Owners(store, catalog)
        self.known: dict[tuple[str, str], tuple[str, Spec]] = {}

    def __call__(self, kind: Literal["task", "model", "classifier"], text: str) -> tuple[str, Spec]:
        if (kind, text) not in self.known:
            find = resolve_probe if kind == "classifier" else partial(resolve, kind)
            spec = find(self.owners.chosen(kind, text), self.catalog)
            name = self.owners.name(spec.kind, spec.canonical, spec.dist)
            self.owners.models = (*self.owners.models, name) if kind == "model" else self.owners.models
            self.known[kind, text] = (name, spec)
        return self.known[kind, text]


def modality_of(task: Spec) -> Modality:
    """Of the class, or where the files decide, of the task itself. Raises DataError for files that do not say."""
    found: Modality | property = task.cls.modality
    if isinstance(found, property):
        found = task.build().modality
    return cast(Modality, found)


def kind_of(task: Spec) -> TaskKind:
    """Of the class, or where the files decide, of the task itself. Raises DataError for files that do not say."""
    found: TaskKind | property = task.cls.kind
    if isinstance(found, property):
        found = task.build().kind
    return cast(TaskKind, found)


def _check_fit(task: Spec, kind: TaskKind, modality: Modality, model: Spec, classifier: Spec) -> None:
    if modality not in model.cls.modalities:
        takes = " or ".join(model.cls.modalities)
        raise BenchkitError(f"model '{model.name}' takes {takes}, and task '{task.name}' gives {modality}")
    if kind == "traits":
        if classifier.kind != "scorer":
            raise BenchkitError(
                f"task '{task.name}' is a trait task, which takes a scorer (--scorer random), not '{classifier.name}'"
            )
    elif classifier.kind == "scorer":
        raise BenchkitError(f"'{classifier.name}' is a scorer, for trait tasks; task '{task.name}' takes a classifier")
    elif kind not in solves(classifier.cls):
        kinds = " or ".join(classifier.cls.kinds)
        raise BenchkitError(f"classifier '{classifier.name}' solves {kinds}, and task '{task.name}' is {kind}")
    elif classifier.cls.needs == "raw" and model.cls.trainable is Backbone.trainable:
        raise BenchkitError(
            f"classifier '{classifier.name}' trains the backbone, and model '{model.name}' cannot be fine-tuned: it is "
            "no torch model"
        )


_QUERY = """
SELECT wanted.i, runs.id, runs.finished_at, runs.value, runs.metric,
       claims.owner, claims.host, claims.pid, claims.process_started, claims.slurm_job, claims.claimed_at,
       claims.heartbeat_at, failures.reason, failures.error, failures.attempts, failures.failed_at, failures.options
FROM temp.wanted AS wanted
LEFT JOIN runs ON runs.current AND runs.task = wanted.task AND runs.model = wanted.model
    AND runs.classifier = wanted.classifier AND runs.n_train = wanted.n_train AND runs.seed = wanted.seed
LEFT JOIN claims ON claims.task = wanted.task AND claims.model = wanted.model
    AND claims.classifier = wanted.classifier AND claims.n_train = wanted.n_train AND claims.seed = wanted.seed
LEFT JOIN failures ON failures.task = wanted.task AND failures.model = wanted.model
    AND failures.classifier = wanted.classifier AND failures.n_train = wanted.n_train AND failures.seed = wanted.seed
ORDER BY wanted.i
"""


_KINDS = (
    INTEGER, *(kind.or_none() for kind in (
        INTEGER, TEXT, REAL, TEXT, OWNER, TEXT, COUNT, REAL, JOB, TIME, TIME, TEXT, TEXT, COUNT, TIME, OBJECT
    ))
)  # fmt: skip
"""What the columns of the answer may hold."""


def _look_up(
    store: Store | None, seen: dict[Cell, tuple[Spec, Spec, Spec]], options: Mapping[str, Any] | None
) -> tuple[Planned, ...]:
    if store is None:
        return tuple(Planned(cell, *specs, "todo") for cell, specs in seen.items())
    with store.db.atomic():  # one state of the store, and one transaction for all rows of the temporary table
        store.execute("DROP TABLE IF EXISTS temp.wanted")
        store.execute("CREATE TEMP TABLE wanted (i INTEGER PRIMARY KEY, task, model, classifier, n_train, seed)")
        store.many("INSERT INTO temp.wanted VALUES (?, ?, ?, ?, ?, ?)", ((i, *cell) for i, cell in enumerate(seen)))
        noted = sightings(store)
        rows = store.execute(_QUERY).fetchall()
        held(store.path, _KINDS, rows)
        store.execute("DROP TABLE temp.wanted")
    owners: dict[str, str] = {}  # how those that are alive are written
    planned = []
    for (cell, specs), (_, run, finished, value, metric, token, *claim) in zip(seen.items(), rows, strict=True):
        if run is not None:
            planned.append(Planned(cell, *specs, "done", run, finished, value, metric))
            continue
        *claim, reason, error, attempts, failed_at, tried_with = claim
        failure = Failed(reason, error, attempts, failed_at) if reason else None
        if token is not None:
            owner, claimed_at, heartbeat_at = Owner(token, *claim[:4]), claim[4], claim[5]
            if token not in owners:
                lives = alive(store.side, owner, heartbeat_at, noted.get(token))
                owners[token] = in_words(store.side, owner) if lives else ""
            if owners[token]:
                planned.append(Planned(cell, *specs, "claimed", since=claimed_at, owner=owners[token], failure=failure))
                continue
        again = failure is None or reason not in OF_ITSELF or options is None or json.loads(tried_with) != options
        planned.append(Planned(cell, *specs, "todo" if again else "failed", since=failed_at, failure=failure))
    return tuple(planned)
