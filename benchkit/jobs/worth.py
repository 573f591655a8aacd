"""What an autoencoder is worth on a task, beside the error of its reconstructions.

spliced        The reconstruction takes the activations' place inside the backbone, and the backbone goes on: how much
               of its features is left, and how much of a probe's score that was fitted on the features as they are.
               Between 0, where the mean activation takes their place, and 1.
sparse probes  For each class, logistic regression on the k units that tell it best (largest difference of class means,
               in standard deviations, on the training examples; Gurnee et al. 2023, arXiv 2305.01610); AUROC on test
               examples, mean over classes. An example's unit is the maximum over its patches, as in trait tasks.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from benchkit.activations.reader import is_padding
from benchkit.activations.stream import TOKENS, check_points, prefix_tokens, without_padding
from benchkit.catalog.contract import posed
from benchkit.catalog.resolve import resolve
from benchkit.errors import BenchkitError, DataError
from benchkit.features import Options, set_up
from benchkit.features.pipeline import Run, checked_rows
from benchkit.interfaces import Backbone, Problem, Task
from benchkit.machine.seeds import Purpose, generator
from benchkit.metrics import evaluate
from benchkit.progress import Progress
from benchkit.sae.apply import Applied

PROBE = "logreg,c=1"
"""Fitted on the features as they are, in the spliced backbone only asked."""


@dataclass
class Seen:
    """Of the rows of a split that decode, as they go past. units: maxima over patches, [K] each. pooled: by what took
    the activations' place, features [D] each. total, n: of the activations' vectors."""

    rows: list[np.ndarray] = field(default_factory=list)
    units: list[np.ndarray] = field(default_factory=list)
    pooled: dict[str, list[np.ndarray]] = field(default_factory=dict)
    total: np.ndarray | float = 0.0
    n: int = 0

    def features(self, name: str) -> Float32[np.ndarray, "N D"]:
        return np.concatenate(self.pooled[name])


def worth(
    autoencoder: Applied,
    task: str,
    model: str,
    *,
    examples: int,
    options: Options,
    progress: Progress,
    k: Sequence[int] = (1, 2, 5),
    splice: bool = True,
    seed: int = 0,
) -> dict[str, float]:
    """Metrics by name, each beginning with the task's. model: the backbone, as a user types it. examples: of the first
    fold, as many to train on and to test on at most, drawn with the seed.

    Raises BenchkitError for a transcoder, a backbone that cannot be spliced into there, or weights that are not those
    it was trained on.
    """
    if autoencoder.is_transcoder:
        raise BenchkitError("a transcoder makes one place of another: only its error over a recording is measured")
    spec = resolve("task", task)
    source: Task = spec.build()
    backbone: Backbone = resolve("model", model).build()
    weights = set_up(backbone, options.device)
    if autoencoder.record.get("model_fingerprint", weights) != weights:
        raise BenchkitError(
            f"'{model}' has other weights than those it was trained on, of '{autoencoder.record['model']}'"
        )
    point = autoencoder.record["point"]
    check_points(backbone, [point])
    if splice and point == TOKENS:
        raise BenchkitError("the backbone's own tokens lead nowhere inside it: leave out what is spliced (--no-splice)")
    fold = source.folds()[0]
    rng = generator(seed, Purpose.WORTH)
    chosen = [np.sort(rng.permutation(rows)[:examples]) for rows in (fold.train, fold.test)]
    seen: list[Seen] = []
    mean: Float32[np.ndarray, " D"] | None = None
    for split, rows in zip((fold.train_split, fold.test_split), chosen, strict=True):
        seen.append(_pass(autoencoder, source, backbone, split, rows, options, progress, splice, mean, spec.name))
        mean = np.asarray(seen[0].total / max(1, seen[0].n), np.float32)
    train, test = seen
    labels = [np.asarray(source.labels(split))[np.concatenate(its.rows)]
              for split, its in zip((fold.train_split, fold.test_split), seen, strict=True)]  # fmt: skip
    problem = Problem(source.kind, len(source.classes), source.classes)
    found = sparse_probes(
        np.concatenate(train.units), np.concatenate(test.units), _indicators(labels[0], len(source.classes)),
        _indicators(labels[1], len(source.classes)), k,
    )  # fmt: skip
    if splice:
        found |= _spliced(train, test, labels, problem, source.metrics[0])
    return {f"{spec.name}.{name}": value for name, value in found.items()}


def _pass(
    autoencoder: Applied, source: Task, backbone: Backbone, split: str, rows: Int64[np.ndarray, " n"],
    options: Options, progress: Progress, splice: bool, mean: Float32[np.ndarray, " D"] | None, name: str,
) -> Seen:  # fmt: skip
    point = autoencoder.record["point"]
    patches = bool(autoencoder.record.get("training", {}).get("patches", True))
    first = prefix_tokens(backbone, point) if patches else 0
    seen = Seen()

    def compute(batch: np.ndarray) -> dict[str, np.ndarray]:
        made: dict[str, np.ndarray] = {}

        def reconstruct(x: Float32[np.ndarray, "B T D"]) -> Float32[np.ndarray, "B T D"]:
            marked = without_padding(backbone, batch, x, prefix_tokens(backbone, point))[:, first:]
            real = ~is_padding(marked)
            x_hat, units = autoencoder.reconstructed(marked[real])
            f = np.full((*real.shape, autoencoder.config.width), -np.inf, np.float32)
            f[real] = np.concatenate(units)
            made["units"] = f.max(axis=1)
            made["total"] = marked[real].astype(np.float64).sum(axis=0)
            made["vectors"] = real.sum()
            out = x.copy()
            out[:, first:][real] = x_hat
            return out

        def ablate(x: Float32[np.ndarray, "B T D"]) -> Float32[np.ndarray, "B T D"]:
            marked = without_padding(backbone, batch, x, prefix_tokens(backbone, point))[:, first:]
            out = x.copy()
            out[:, first:][~is_padding(marked)] = mean
            return out

        if splice:
            made["clean"] = backbone.encode(batch).pooled
            made["spliced"] = backbone.spliced(batch, point, reconstruct).pooled
            if mean is not None:
                made["ablated"] = backbone.spliced(batch, point, ablate).pooled
        elif point == TOKENS:
            tokens = backbone.encode(batch, tokens=True).tokens
            assert tokens is not None
            reconstruct(tokens)
        else:
            reconstruct(backbone.activations(batch, [point])[point])
        return made

    run = Run.of(source, backbone, split, options, progress, {"task": name})
    with closing(run.batches(checked_rows(rows, len(source.ids(split)), split))) as batches:
        for batch in batches:
            for part, made in run.compute(batch, compute):
                seen.rows.append(batch.rows[part])
                seen.units.append(made.pop("units"))
                seen.total = seen.total + made.pop("total")
                seen.n += int(made.pop("vectors"))
                for what, pooled in made.items():
                    seen.pooled.setdefault(what, []).append(pooled)
    run.judge(len(rows))
    if not seen.rows:
        raise DataError(f"no example of split '{split}' decodes")
    return seen


def _spliced(train: Seen, test: Seen, labels: Sequence[np.ndarray], problem: Problem, metric: str) -> dict[str, float]:
    clean = test.features("clean").astype(np.float64)
    spread = ((clean - clean.mean(axis=0)) ** 2).sum()
    errors = {what: ((test.features(what) - clean) ** 2).sum() for what in ("spliced", "ablated")}
    probe = resolve("classifier", PROBE).build()
    fitted = probe.fit(train.features("clean"), labels[0], posed(problem, probe), seed=0)
    scores = {
        what: evaluate([metric], labels[1], fitted.scores(test.features(what)), problem, replicates=0)[0].value
        for what in ("clean", "spliced", "ablated")
    }
    found = {f"probe_{what}": value for what, value in scores.items()}
    if spread > 0:
        found["features_changed"] = float(errors["spliced"] / spread)
    if errors["ablated"] > 0:
        found["features_recovered"] = float(1 - errors["spliced"] / errors["ablated"])
    if scores["clean"] != scores["ablated"]:
        found["loss_recovered"] = (scores["spliced"] - scores["ablated"]) / (scores["clean"] - scores["ablated"])
    return found


def sparse_probes(
    train: Float32[np.ndarray, "N K"],
    test: Float32[np.ndarray, "M K"],
    train_labels: UInt8[np.ndarray, "N C"],
    test_labels: UInt8[np.ndarray, "M C"],
    k: Sequence[int],
) -> dict[str, float]:
    """AUROC by the number of units, mean over the classes that have and lack examples in both."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    mean, std = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    scale = np.where(std > 0, std, 1)
    a, b = (train - mean) / scale, (test - mean) / scale
    found: dict[int, list[float]] = {n: [] for n in k}
    for y, truth in zip(train_labels.T.astype(bool), test_labels.T.astype(bool), strict=True):
        if not (0 < y.sum() < len(y) and 0 < truth.sum() < len(truth)):
            continue
        best = np.argsort(-np.abs(_difference(a, y)), kind="stable")
        for n in k:
            probe = LogisticRegression(class_weight="balanced", max_iter=1000).fit(a[:, best[:n]], y)
            found[n].append(float(roc_auc_score(truth, probe.decision_function(b[:, best[:n]]))))
    return {f"sparse_probe_k{n}": float(np.mean(values)) for n, values in found.items() if values}


def _difference(x: Float64[np.ndarray, "N K"], y: np.ndarray) -> Float64[np.ndarray, " K"]:
    return x[y].mean(axis=0) - x[~y].mean(axis=0)


def _indicators(labels: np.ndarray, classes: int) -> UInt8[np.ndarray, "N C"]:
    if labels.ndim == 2:
        return labels.astype(np.uint8)
    return (labels[:, None] == np.arange(classes)).astype(np.uint8)


def shown(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """As a table has them."""
    return [(name, f"{value:.6g}") for name, value in metrics.items()]
