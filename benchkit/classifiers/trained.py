"""What all probes trained by gradient descent share: one fit is a grid of one, and a grid is trained together."""

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float32, Shaped

from benchkit.classifiers.chosen import fit_chosen
from benchkit.classifiers.data import check_subsets
from benchkit.classifiers.subsets import SubsetProbe, split_of
from benchkit.errors import FitError, require
from benchkit.interfaces import Fitted, Labels, Problem, Subset

if TYPE_CHECKING:
    from benchkit.classifiers.nets import Net
    from benchkit.classifiers.prepare import Prepared


class TrainedProbe(SubsetProbe):
    """Gives its net; the rest is the same for all."""

    per_head: ClassVar[tuple[str, ...]] = ("lr", "weight_decay")
    """Parameters in which heads that are trained on the same minibatches may differ."""
    per_stream: ClassVar[tuple[str, ...]] = ("epochs", "min_steps", "warmup", "schedule")
    """Parameters in which heads that are trained at the same time, on other minibatches, may differ."""
    rates: ClassVar[tuple[str, ...]] = ("lr",)
    """Parameters that are learning rates."""

    @abstractmethod
    def net(self, shape: tuple[int, ...], n_classes: int) -> "Net":
        """The probe itself. shape: of one example's features. Raises FitError where they do not suit it."""

    @abstractmethod
    def prepare(
        self, features: Shaped[np.ndarray, "N ..."], labels: Labels, splits: Sequence[Any], net: "Net", device: str
    ) -> "Prepared":
        """Features and labels ready for `net` to be trained on."""

    def prior(self, labels: Labels, problem: Problem) -> Float32[np.ndarray, " C"] | None:
        """What the first biases are to say of how rare each class is among these training labels; None: nothing."""
        return None

    def fit_many(
        self,
        features: Shaped[np.ndarray, "N ..."],
        labels: Labels,
        problem: Problem,
        subsets: Sequence[Subset],
        *,
        device: str = "cpu",
    ) -> Iterator[Fitted]:
        """Trains them together; where settings are to be chosen, first those of the grid, for all subsets at once."""
        if self.params.lr_grid is None and self.params.decay_grid is None:
            return fit_grid([(self, subset) for subset in subsets], features, labels, problem, device=device)

        def fit(grid: Sequence[tuple[Any, Subset]]) -> Iterator[Fitted]:
            return fit_grid(grid, features, labels, problem, device=device)

        return fit_chosen(self, features, labels, problem, subsets, fit)


def fit_grid(
    grid: Sequence[tuple[TrainedProbe, Subset]],
    features: Shaped[np.ndarray, "N ..."],
    labels: Labels,
    problem: Problem,
    *,
    device: str = "cpu",
) -> Iterator[Fitted]:
    """One Fitted for each pair, in order, each as `fit` would give it: several settings of one probe, as for a grid of
    learning rates, trained together as far as they can be. Errors as for `fit_many`."""
    require("torch", "benchkit-core[probes]")
    results: list[Fitted | FitError | None] = [None] * len(grid)
    if grid:
        errors = check_subsets(grid[0][0].name, features, labels, problem, [s for _, s in grid])
        for i, error in enumerate(errors):
            results[i] = error
        for members in _families(grid, errors):
            for i, found in _train_family(members, grid, features, labels, problem, device):
                results[i] = found
    for i, result in enumerate(results):
        results[i] = None  # let go of it as soon as it is used
        if isinstance(result, FitError):
            raise result
        assert result is not None
        yield result


def _families(grid: Sequence[tuple[TrainedProbe, Subset]], errors: Sequence[FitError | None]) -> list[list[int]]:
    """Those that can be trained at the same time: the same probe but for what may differ from head to head."""
    found: dict[Any, list[int]] = {}
    for i, (probe, _) in enumerate(grid):
        if errors[i] is None:
            free = {name: getattr(type(probe).Params(), name) for name in (*probe.per_head, *probe.per_stream)}
            found.setdefault((type(probe), dataclasses.replace(probe.params, **free)), []).append(i)
    return list(found.values())


def _train_family(
    members: Sequence[int],
    grid: Sequence[tuple[TrainedProbe, Subset]],
    features: Shaped[np.ndarray, "N ..."],
    labels: Labels,
    problem: Problem,
    device: str,
) -> Iterator[tuple[int, Fitted | FitError]]:
    from benchkit.classifiers.fitted import FittedNet
    from benchkit.classifiers.losses import balanced, make_loss, name_of_loss
    from benchkit.classifiers.streams import Stream
    from benchkit.classifiers.trainer import train

    probe = grid[members[0]][0]
    try:
        net = probe.net(features.shape[1:], problem.n_classes)
        loss = make_loss(probe.params, problem)
    except FitError as e:
        yield from ((i, e) for i in members)
        return

    # Heads of one subset, seed and length see the same minibatches: one stream.
    grouped: dict[Any, list[int]] = {}
    for i in members:
        member, subset = grid[i]
        length = tuple(getattr(member.params, name) for name in member.per_stream)
        grouped.setdefault((subset.rows.tobytes(), subset.seed, length), []).append(i)
    splits, streams_of = [], []
    for heads in grouped.values():
        subset = grid[heads[0]][1]
        try:
            splits.append(split_of(probe.name, probe.params.val, subset, labels, problem))
            streams_of.append(heads)
        except FitError as e:
            yield from ((i, e) for i in heads)
    if not splits:
        return
    prepared = probe.prepare(features, labels, splits, net, device)
    streams = [
        Stream(
            split,
            grid[heads[0]][1].seed,
            tuple(grid[i][0].params for i in heads),
            balanced(probe.params, labels[rows.train], problem),
            probe.prior(labels[rows.train], problem),
        )
        for split, rows, heads in zip(prepared.splits, splits, streams_of, strict=True)
    ]
    softmax = name_of_loss(probe.params, problem) == "cross-entropy"
    trained = train(net, loss, prepared.examples, streams, device)
    for heads, outcomes, normaliser in zip(streams_of, trained, prepared.normalisers, strict=True):
        for i, outcome in zip(heads, outcomes, strict=True):
            if outcome.finite:
                record = outcome.record | normaliser.record
                yield i, FittedNet(net, outcome.weights, normaliser, softmax, device, record)
            else:
                yield i, _why_not_finite(grid[i][0], outcome.broke, features, grid[i][1])


def _why_not_finite(
    probe: TrainedProbe, broke: int | None, features: Shaped[np.ndarray, "N ..."], subset: Subset
) -> FitError:
    """broke: the first step whose loss was not finite. That of the first step is no doing of the learning rate."""
    if broke == 1:
        largest = max(float(np.nanmax(np.abs(features[row]))) for row in subset.rows)
        return FitError(
            f"the loss of {probe.name} is not finite before its first step: its features reach {largest:.3g}, and "
            f"norm={probe.params.norm} leaves numbers that float32 cannot multiply"
        )
    given = ", ".join(f"{name}={getattr(probe.params, name):g}" for name in probe.rates)
    when = "" if broke is None else f" (step {broke})"
    return FitError(f"the training of {probe.name} diverged{when}: give a learning rate below {given}")
