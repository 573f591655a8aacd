"""benchkit sae train, ls."""

import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.cli.group import Group


class Activation(Enum):
    relu = "relu"
    topk = "topk"
    batchtopk = "batchtopk"
    matryoshka = "matryoshka"
    jumprelu = "jumprelu"
    gated = "gated"


class Normalise(Enum):
    none = "none"
    dimension = "dimension"
    layernorm = "layernorm"
    whiten = "whiten"


class Decay(Enum):
    constant = "constant"
    cosine = "cosine"
    linear = "linear"


class Precision(Enum):
    float32 = "float32"
    tf32 = "tf32"
    bfloat16 = "bfloat16"


Db = Annotated[Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(cls=Group, help="Sparse autoencoders on recorded activations.", no_args_is_help=True)
    for command in (train, ls):
        group.command(command.__name__)(command)
    app.add_typer(group, name="sae")


def train(
    on: Annotated[Path, typer.Option(help="Folder of a recording (benchkit activations record).")],
    to: Annotated[Path, typer.Option(help="Folder for the results; made where it is missing.")],
    point: Annotated[str | None, typer.Option(help="Of the recording (default: its only one).")] = None,
    activation: Annotated[list[Activation] | None, typer.Option(help="Default: topk. Repeatable.")] = None,
    width: Annotated[list[int] | None, typer.Option(help="Units (default: 8 x dimension). Repeatable.")] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(help="Active units a vector, of topk, batchtopk and matryoshka (default: 32). Repeatable."),
    ] = None,
    l1: Annotated[
        list[float] | None, typer.Option(help="Weight of the L1 penalty, of relu and gated. Repeatable.")
    ] = None,
    l0: Annotated[
        list[float] | None, typer.Option(help="Weight of the number of active units, of jumprelu. Repeatable.")
    ] = None,
    normalise: Annotated[
        list[Normalise] | None, typer.Option(help="Of the input (default: dimension). Repeatable.")
    ] = None,
    lr: Annotated[list[float] | None, typer.Option(help="Learning rate (default: 0.0003). Repeatable.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Of the initial values (default: 0). Repeatable.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Vectors a step.")] = 4096,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the recording.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Ends there, before the last epoch does.")] = None,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the learning rate rises.")] = 0.05,
    decay: Annotated[Decay, typer.Option(help="Of the learning rate, after that.")] = Decay.linear,
    l1_warmup: Annotated[float, typer.Option(help="Share of the steps in which the L1 or L0 weight rises.")] = 0.05,
    bandwidth: Annotated[float, typer.Option(help="Of jumprelu's stand-in for a derivative.")] = 0.05,
    nested: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of the units that matryoshka reconstructs with, too (default: 1/16 to 1/2). Repeatable."
        ),
    ] = None,
    aux: Annotated[float, typer.Option(help="Weight of the auxiliary loss for dead units; 0 is none.")] = 0.03125,
    aux_k: Annotated[int | None, typer.Option(min=1, help="Dead units it uses (default: dimension / 2).")] = None,
    dead_after: Annotated[
        int | None, typer.Option(min=1, help="Vectors without firing (default: a fifth of all, 10 million at most).")
    ] = None,
    held_out: Annotated[
        float | None,
        typer.Option(
            help="Share of the examples to measure the result on and not to train on; 0 is none (default: 0.05, where "
            "there are 20 examples)."
        ),
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Largest norm of the gradient (default: none).")] = None,
    all_tokens: Annotated[bool, typer.Option("--all-tokens", help="Train on class tokens and registers, too.")] = False,
    order: Annotated[int, typer.Option(min=0, help="Seed of the order of the vectors, and of what is held out.")] = 0,
    log_every: Annotated[int | None, typer.Option(min=1, help="Steps between logs (default: 50 logs in all).")] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of matrix products while training; weights and metrics are float32.")
    ] = Precision.float32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    db: Db = None,
) -> None:
    """Trains autoencoders side by side on one stream of activations: every combination of the options that are
    repeated. The same command again goes on where it was stopped."""
    from benchkit.activations import Recording
    from benchkit.errors import BenchkitError
    from benchkit.machine.environment import resolve_device
    from benchkit.progress import for_stream
    from benchkit.sae import TrainConfig, product
    from benchkit.sae import train as trained
    from benchkit.sae.config import NESTED, SPARSITY
    from benchkit.sae.registry import seal_trainings
    from benchkit.store import check_place, open_store, side_folder, store_path

    recording = Recording.open(on)
    data = recording[point] if point else recording.only
    kinds: Any = [a.value for a in activation or [Activation.topk]]
    if k is None and any(SPARSITY[kind] == "k" for kind in kinds):
        k = [32]
    configs = product(
        kinds, width or [8 * data.dim], k or [], l1 or [], [n.value for n in normalise or [Normalise.dimension]],
        lr or [3e-4], seed or [0], l0 or [],
    )  # fmt: skip
    shared = TrainConfig(
        batch_size=batch_size, epochs=epochs, steps=steps, warmup=warmup, decay=decay.value, l1_warmup=l1_warmup,
        aux=aux, aux_k=aux_k, dead_after=dead_after, clip=clip, patches=not all_tokens, seed=order, held_out=held_out,
        bandwidth=bandwidth, nested=tuple(nested) if nested else NESTED, precision=precision.value,
    )  # fmt: skip
    where, path = resolve_device(device), store_path(db)
    check_place(path)
    outcome = trained(
        on, to, configs, shared, point=data.point, device=where, log_every=log_every, progress=for_stream(sys.stderr)
    )
    with open_store(path):  # made where there is none, before anything is sealed for it
        pass
    seal_trainings(outcome, side_folder(path) / "inbox", where)
    with open_store(path):  # takes them in
        pass
    _print(ranked((t.path.stem, "", t.record["metrics"]) for t in outcome.trained))
    if not outcome.fresh:
        print(f"'{to}' was trained before", file=sys.stderr)
    print(f"use one as the scorer 'sae:{outcome.trained[0].path}'", file=sys.stderr)
    if outcome.failed:
        raise BenchkitError("; ".join(f"{name}: {why}" for name, why in outcome.failed.items()))


def ls(db: Db = None) -> None:
    """Lists the autoencoders of the registry with the metrics of the results: activations by their newest one, and
    of each the autoencoders by the explained variance of x, the best first."""
    from benchkit.sae.registry import trainings
    from benchkit.store import open_store

    with open_store(db, create=False) as store:
        found = trainings(store)
    _print(ranked((t.name, f"{t.model} at {t.point} on {t.task}", t.metrics) for t in found))
    print(f"{len(found)} autoencoders", file=sys.stderr)


Row = tuple[str, str, Mapping[str, Any]]


def ranked(rows: Iterable[Row]) -> list[Row]:
    """Rows of the same activations together, in the order in which those come first; within them by the explained
    variance of x, mean over dimensions, of held-out examples where there are some: the highest first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[1], []).append(row)

    def of_x(row: Row) -> float:
        name = "explained_variance_x"
        return float(row[2].get(f"held_out_{name}", row[2].get(name, float("-inf"))))

    return [row for group in groups.values() for row in sorted(group, key=of_x, reverse=True)]


def _print(rows: Iterable[Row]) -> None:
    from benchkit.reading.tables import emit, text_table

    columns = {
        "held_out_explained_variance_x": "held-out explained of x", "explained_variance_x": "explained of x",
        "explained_variance_pooled": "explained, pooled", "mse": "mse of z", "explained_variance": "explained of z",
        "l0": "L0", "l1": "L1", "dead": "dead", "dead_in_training": "dead in training",
        "held_out_mse": "held-out mse of z", "held_out_explained_variance": "held-out explained of z",
        "held_out_l0": "held-out L0", "held_out_dead": "held-out dead",
        "correlation": "correlation", "coherence": "coherence", "decoder_norm": "decoder norm",
        "gradient_norm": "gradient norm",
    }  # fmt: skip
    made = [(name, of, *(f"{m[c]:.4g}" if c in m else "-" for c in columns)) for name, of, m in rows]
    named = any(of for _, of, *_ in made)
    shown = made if named else [(row[0], *row[2:]) for row in made]
    header = ("autoencoder", *(("activations",) if named else ()), *columns.values())
    if shown:
        emit(text_table([header], shown, right=range(len(header) - len(columns), len(header))))
