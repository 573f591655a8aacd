"""The whole diagnosis: inputs, activations, weights, verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchkit.catalog.spec import Spec
from benchkit.diagnose import inputs as shown
from benchkit.diagnose import remedies, weights
from benchkit.diagnose.attribution import Origin, attribute
from benchkit.diagnose.gather import Stats, gather
from benchkit.diagnose.inputs import Inputs
from benchkit.diagnose.judge import Judged, judge
from benchkit.diagnose.places import POOLED, Place, places
from benchkit.diagnose.remedies import Effect
from benchkit.diagnose.verdict import Finding, Other, findings, remedy
from benchkit.diagnose.weights import Layer
from benchkit.errors import BenchkitError
from benchkit.interfaces import Backbone, Task
from benchkit.planning.plan import modality_of
from benchkit.progress import Progress


@dataclass(frozen=True)
class Looked:
    """What one backbone was found to be on one task's examples.

    others: the same backbone on other inputs. effects: of the remedies, the raw activations first; empty where nothing
    is wrong. chance: for their nearest neighbours.
    """

    model: str
    task: str
    model_fingerprint: str
    data_fingerprint: str
    inputs: str
    n_examples: int
    judged: tuple[Judged, ...]
    layers: tuple[Layer, ...]
    origins: tuple[Origin, ...]
    findings: tuple[Finding, ...]
    others: tuple[Other, ...]
    effects: tuple[Effect, ...] = ()
    chance: float | None = None
    remedy: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def healthy(self) -> bool:
        return not self.findings

    @property
    def verdict(self) -> str:
        """In words, with the remedy."""
        places = sum(j.stats.place.kind != "pooled" for j in self.judged)
        if self.healthy:
            seen = f"all {places} places and the pooled features" if places else "the pooled features"
            return f"Healthy: {seen} are finite and alive, and no dimension stands out."
        text = ". ".join(f.text[:1].upper() + f.text[1:] for f in self.findings)
        return f"Unhealthy: {text}. {self.remedy}"

    def at(self, point: str) -> Judged:
        """The place with this name. Raises KeyError."""
        found = {j.point: j for j in self.judged}
        return found[point]


def diagnose(
    model: Spec,
    task: Spec,
    *,
    examples: int = 64,
    device: str = "cpu",
    pooled_only: bool = False,
    also: Sequence[Spec] = (),
    progress: Progress,
) -> Looked:
    """Looks at `examples` training examples of the task, at white noise, and at as many of each task in `also`.

    pooled_only: the features of `encode` alone, for a backbone that shows no places inside it. Raises BenchkitError
    where the backbone does not take the task's media, or shows no places though they are wanted.
    """
    from benchkit.features import set_up

    built: Task = task.build()
    backbone: Backbone = model.build()
    check_media(model, task)
    fingerprint = set_up(backbone, device)
    wanted = _wanted(model, backbone, pooled_only)
    main = shown.of_task(built, task.name, backbone, examples, device)
    seen = gather(backbone, wanted, main, progress)
    depth = 1 + max((p.block for p in wanted if p.block is not None), default=-1)
    layers = () if pooled_only else tuple(weights.examine(backbone.anatomy(), depth, progress))
    judged = judge_all(seen, layers, main.differ)
    others, notes = [], main.notes(examples)
    for inputs, asked in _others(built, also, model, backbone, examples, device):
        there = look(backbone, wanted, inputs, layers, progress)
        others.append(Other(inputs.name, _stream_dims(there)))
        notes += inputs.notes(asked)
    if not layers and not pooled_only:
        notes.append("this backbone does not show its weights (anatomy), so only its activations were looked at")
    if pooled_only:
        notes.append("only the pooled features were looked at: where in the model something goes wrong is not told")
    n_shown = seen[0].n_examples
    if not main.differ and n_shown > 1:
        notes.append("all examples are the same, so whether features differ between examples is not told")
    return conclude(
        Looked(
            model.canonical, task.canonical, fingerprint, built.fingerprint(), main.name, n_shown,
            tuple(judged), layers, (), (), tuple(others), notes=tuple(notes),
        ),
        main.labels,
    )  # fmt: skip


def conclude(looked: Looked, labels: np.ndarray | None) -> Looked:
    """Origins, findings and remedies from what was seen."""
    from dataclasses import replace

    judged = looked.judged
    origins = tuple(attribute(judged, looked.layers))
    found = tuple(findings(judged, origins, looked.layers, looked.others))
    grown = {point: f.text for f in found if f.kind == "growth" for point in f.points}
    judged = tuple(j.with_problem(grown[j.point]) if j.point in grown else j for j in judged)
    effects: list[Effect] = []
    chance: float | None = None
    base: Judged | None = None
    instead: Judged | None = None
    if all(j.stats.finite for j in judged):
        base = _base(judged, found)
    if base is not None:
        instead = _instead(judged, base)
        ways = [] if instead is None else [(_way(instead), instead)]
        dims = [o.dim for o in origins] or list(base.constant)
        effects, chance = remedies.measure(base, dims, ways, labels)
    return replace(
        looked, judged=judged, origins=origins, findings=found, effects=tuple(effects), chance=chance,
        remedy=remedy(judged, found, base, instead),
    )  # fmt: skip


def look(
    backbone: Backbone, wanted: Sequence[Place], inputs: Inputs, layers: Sequence[Layer], progress: Progress
) -> list[Judged]:
    """Every place on these inputs."""
    seen = gather(backbone, wanted, inputs, progress)
    return judge_all(seen, layers, inputs.differ)


def judge_all(seen: Sequence[Stats], layers: Sequence[Layer], differ: bool) -> list[Judged]:
    """The places in the order of computation. differ: whether the inputs do."""
    medians = {}
    for layer in layers:
        if layer.weight_d is not None:
            point = POOLED if layer.role == "pool_norm" else _point_of(layer)
            medians[point] = float(np.median(np.abs(layer.weight_d)))
    judged = [judge(s, medians.get(s.place.point), differ) for s in seen]
    return [_excused(j, judged[:i]) for i, j in enumerate(judged)]


def _point_of(layer: Layer) -> str:
    return layer.role if layer.block is None else f"blocks.{layer.block}.{layer.role}"


def _excused(j: Judged, before: Sequence[Judged]) -> Judged:
    """A norm that silences an outlier dimension altogether makes it constant, as it should."""
    from dataclasses import replace

    if j.stats.place.kind not in ("norm", "pooled") or not j.constant:
        return j
    stream = next((b for b in reversed(before) if b.stats.place.kind == "residual"), None)
    if stream is None or not set(j.constant) <= set(stream.dims):
        return j
    return replace(j, problems=tuple(p for p in j.problems if not p.endswith("constant in every token")))


def _stream_dims(judged: Sequence[Judged]) -> tuple[int, ...]:
    return tuple(sorted({d for j in judged for d in j.dims}))


def check_media(model: Spec, task: Spec) -> None:
    """Raises BenchkitError where the backbone does not take what the task gives."""
    modality = modality_of(task)
    if modality not in model.cls.modalities:
        takes = " or ".join(model.cls.modalities)
        raise BenchkitError(f"model '{model.name}' takes {takes}, and task '{task.name}' gives {modality}")


def _wanted(model: Spec, backbone: Backbone, pooled_only: bool) -> list[Place]:
    pooled = Place.of(POOLED)
    if pooled_only:
        return [pooled]
    inside = places(backbone.points())
    if not inside:
        raise BenchkitError(
            f"model '{model.name}' shows no places inside it (points): --pooled looks at its pooled features alone"
        )
    return [*inside, pooled]


def _others(
    task: Task, also: Sequence[Spec], model: Spec, backbone: Backbone, n: int, device: str
) -> Iterator[tuple[Inputs, int]]:
    """Further inputs, and how many were asked for."""
    yield shown.noise(task, backbone), shown.NOISE
    for spec in also:
        check_media(model, spec)
        yield shown.of_task(spec.build(), spec.name, backbone, n, device), n


def _base(judged: Sequence[Judged], found: Sequence[Finding]) -> Judged | None:
    """The deepest unhealthy place of the residual stream, for that is what is recorded; else the deepest of all. None
    where every place is healthy, though weights that none of them uses may not be.
    """
    named = {point for f in found for point in f.points}
    bad = [j for j in judged if not j.healthy or j.point in named]
    stream = [j for j in bad if j.stats.place.kind == "residual"]
    inside = [j for j in bad if j.stats.place.kind != "pooled"]
    return next(reversed(stream or inside or bad), None)


def _instead(judged: Sequence[Judged], base: Judged) -> Judged | None:
    """A healthy place near by: norm2 of the same block for the residual stream, the stream for anything else."""
    block, kind = base.stats.place.block, base.stats.place.kind
    near = [j for j in judged if j.healthy and j.stats.place.block == block and block is not None]
    if kind == "residual":
        return next((j for j in near if j.stats.place.name == "norm2"), None)
    stream = [j for j in judged if j.healthy and j.stats.place.kind == "residual"]
    return stream[-1] if kind in ("module", "norm") and stream else None


def _way(instead: Judged) -> str:
    return "record after norm2" if instead.stats.place.name == "norm2" else f"record at {instead.point}"
