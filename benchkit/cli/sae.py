"""benchkit sae train, ls."""

import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.cli.group import Group
from benchkit.progress import say


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
    for command in (train, ls, show, measure, import_, export):
        group.command(command.__name__.rstrip("_"))(command)
    app.add_typer(group, name="sae")


def train(
    on: Annotated[list[Path], typer.Option(help="Folder of a recording (benchkit activations record). Repeatable.")],
    to: Annotated[Path, typer.Option(help="Folder for the results; made where it is missing.")],
    point: Annotated[
        list[str] | None,
        typer.Option(help="Of the recording, or a pattern as in 'blocks.*.norm2' (default: its only one). Repeatable."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Another point of the recording, which transcoders make of the first.")
    ] = None,
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
    checkpoint: Annotated[float, typer.Option(min=0.0, help="Minutes between checkpoints.")] = 5.0,
    precision: Annotated[
        Precision, typer.Option(help="Of matrix products while training; weights and metrics are float32.")
    ] = Precision.float32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    db: Db = None,
) -> None:
    """Trains autoencoders side by side on one stream of activations, one place after the other: every combination of
    the options that are repeated. The same command again goes on where it was stopped; with more values or epochs, what
    is done is not done again."""
    from benchkit.errors import BenchkitError, FitError
    from benchkit.machine.environment import resolve_device
    from benchkit.progress import for_stream
    from benchkit.sae import TrainConfig, product
    from benchkit.sae import train as trained
    from benchkit.sae.config import NESTED, SPARSITY
    from benchkit.sae.registry import seal_trainings
    from benchkit.sae.sweep import parts
    from benchkit.store import check_place, open_store, side_folder, store_path

    kinds: Any = [a.value for a in activation or [Activation.topk]]
    if k is None and any(SPARSITY[kind] == "k" for kind in kinds):
        k = [32]
    shared = TrainConfig(
        batch_size=batch_size, epochs=epochs, steps=steps, warmup=warmup, decay=decay.value, l1_warmup=l1_warmup,
        aux=aux, aux_k=aux_k, dead_after=dead_after, clip=clip, patches=not all_tokens, seed=order, held_out=held_out,
        bandwidth=bandwidth, nested=tuple(nested) if nested else NESTED, precision=precision.value,
    )  # fmt: skip
    places = parts(on, point or [], to)
    plans = [
        product(
            kinds, width or [8 * part.point.dim], k or [], l1 or [],
            [n.value for n in normalise or [Normalise.dimension]], lr or [3e-4], seed or [0], l0 or [],
        )
        for part in places
    ]  # fmt: skip
    where, path = resolve_device(device), store_path(db)
    check_place(path)
    with open_store(path):  # made where there is none, before anything is sealed for it
        pass
    rows: list[Row] = []
    files: list[Path] = []
    failed: list[str] = []
    for part, configs in zip(places, plans, strict=True):
        try:
            outcome = trained(
                part.recording, part.to, configs, shared, point=part.point.point, target=target, device=where,
                log_every=log_every, checkpoint_s=60 * checkpoint, progress=for_stream(sys.stderr),
            )  # fmt: skip
        except FitError as e:
            if len(places) == 1:
                raise
            failed.append(f"{part.point.point}: {e}")
            continue
        seal_trainings(outcome, side_folder(path) / "inbox", where)
        with open_store(path):  # takes them in
            pass
        named = part.to.relative_to(to).as_posix() if len(places) > 1 else ""
        rows += [(t.path.stem, named, t.record["metrics"]) for t in outcome.trained]
        files += [t.path for t in outcome.trained]
        failed += [f"{name}: {why}" for name, why in outcome.failed.items()]
        if not outcome.fresh:
            say(f"'{part.to}' was trained before", sys.stderr)
    _print(ranked(rows))
    if files:
        say(f"use one as the scorer 'sae:{files[0]}'", sys.stderr)
    if failed:
        raise BenchkitError("; ".join(failed))


def ls(db: Db = None) -> None:
    """Lists the autoencoders of the registry with the metrics of the results: activations by their newest one, and
    of each the autoencoders by the explained variance of x, the best first."""
    from benchkit.sae.registry import trainings
    from benchkit.store import open_store

    with open_store(db, create=False) as store:
        found = trainings(store)
    _print(ranked((t.name, f"{t.model} at {t.point} on {t.task}", t.metrics) for t in found))
    say(f"{len(found)} autoencoders", sys.stderr)


def show(
    file: Annotated[Path, typer.Argument(help="An autoencoder of ours (.safetensors).")],
) -> None:
    """Shows an autoencoder: what it is of, its metrics, and how often its units fire."""
    import numpy as np

    from benchkit.reading.tables import emit, text_table
    from benchkit.scorers.saved import read_record, read_tensors

    record, tensors = read_record(file, "sae"), read_tensors(file)
    place = f"{record['point']} -> {record['target']}" if "target" in record else record["point"]
    of = f" on {record['task']}/{record['split']}" if record.get("task") else ""
    emit(f"{file.stem}: {record['model']} at {place}{of}")
    steps = f", {record['steps']:,} steps" if "steps" in record else ""
    emit(f"{tensors['w_enc'].shape[1]:,} units of {tensors['w_enc'].shape[0]:,} dimensions{steps}\n")
    if record["metrics"]:
        rows = [(name, f"{value:.6g}") for name, value in sorted(record["metrics"].items())]
        emit(text_table([("metric", "value")], rows, right=[1]))
    if (frequency := tensors.get("frequency")) is None:
        return
    never = int((frequency == 0).sum())
    fired = frequency[frequency > 0]
    exponents = np.floor(np.log10(fired)).astype(int) if len(fired) else np.zeros(0, int)
    lowest = int(exponents.min()) if len(fired) else 0
    bins = [("never", never)]
    for e in range(lowest, 1):
        bins.append((f"from {10.0**e:g}", int((exponents == e).sum())))
    most = max(1, *(n for _, n in bins))
    emit(f"\nunits by the share of {record['measured_on']:,} vectors on which they fire")
    emit(text_table(
        [("share", "units", "")],
        [(name, f"{n:,}", "#" * round(40 * n / most)) for name, n in bins],
        right=[1],
    ))  # fmt: skip


def measure(
    file: Annotated[Path, typer.Argument(help="An autoencoder of ours (.safetensors).")],
    on: Annotated[Path | None, typer.Option(help="A recording: its error over every vector of it.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Splice it into its backbone and probe its units on this task. Repeatable.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The backbone of --task, as in 'bird-mae,path=DIR' (default: as its file says).")
    ] = None,
    examples: Annotated[int, typer.Option(min=2, help="Of a task, to train on and to test on, at most.")] = 1000,
    units: Annotated[
        list[int] | None, typer.Option(min=1, help="Of sparse probes (default: 1, 2, 5). Repeatable.")
    ] = None,
    splice: Annotated[bool, typer.Option("--splice/--no-splice", help="Into the backbone.")] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    skip_bad: Annotated[int, typer.Option(min=0, help="Examples that may fail to decode and are left out.")] = 0,
    db: Db = None,
) -> None:
    """Measures an autoencoder beyond its training: over a whole recording, in its backbone, and by sparse probes. The
    numbers become metrics of its training in the registry."""
    from benchkit.activations import Recording
    from benchkit.errors import BenchkitError
    from benchkit.features import Options
    from benchkit.jobs.worth import shown, worth
    from benchkit.machine.environment import resolve_device
    from benchkit.media.fingerprint import cache_dir
    from benchkit.progress import for_stream
    from benchkit.reading.tables import emit, text_table
    from benchkit.sae.apply import Applied
    from benchkit.sae.registry import seal_metrics
    from benchkit.store import check_place, open_store, side_folder, store_path

    if on is None and not task:
        raise BenchkitError("nothing to measure on: give --on RECORDING, or --task (or both)")
    where, path, progress = resolve_device(device), store_path(db), for_stream(sys.stderr)
    check_place(path)
    applied = Applied.open(file, where)
    found: dict[str, float] = {}
    if on is not None:
        if applied.is_transcoder:
            raise BenchkitError("a transcoder is measured while it is trained; over a recording, autoencoders are")
        point = Recording.open(on)[applied.record["point"]]
        total = point.vectors_of(patches=bool(applied.record.get("training", {}).get("patches", True)))
        with progress.step(f"measure on {point.point}", total, "vectors") as step:
            made, _ = applied.over(point, step.advance)
        found |= {f"recording.{name}": value for name, value in made.items()}
    options = Options(cache_dir() / "features", where, skip_bad=skip_bad)
    for one in task or []:
        named = model or applied.record["model"]
        found |= worth(
            applied, one, named, examples=examples, options=options, progress=progress, k=units or (1, 2, 5),
            splice=splice,
        )  # fmt: skip
    emit(text_table([("metric", "value")], shown(found), right=[1]))
    with open_store(path):
        pass
    seal_metrics(file, found, side_folder(path) / "inbox", where)
    with open_store(path):
        pass


def import_(
    folder: Annotated[Path, typer.Argument(help="With cfg.json and sae_weights.safetensors, as SAELens writes them.")],
    to: Annotated[Path, typer.Option(help="The file to write (safetensors); it is the scorer 'sae:FILE'.")],
    model: Annotated[str, typer.Option(help="The backbone that it was trained on, as in 'bird-mae:large'.")],
    point: Annotated[str, typer.Option(help="The place inside it, as in 'blocks.11.norm2'.")],
    target: Annotated[str | None, typer.Option(help="Of a transcoder, the place that it makes.")] = None,
    input_scale: Annotated[
        float | None, typer.Option(help="What the input is multiplied by first, where that was not folded.")
    ] = None,
) -> None:
    """Makes an autoencoder that was published in SAELens' format a file of ours."""
    from benchkit.catalog.resolve import resolve
    from benchkit.sae.saelens import import_ as imported

    spec = resolve("model", model).canonical
    imported(folder, to, model=spec, point=point, scale=input_scale, target=target)
    say(f"use it as the scorer 'sae:{to}'", sys.stderr)


def export(
    file: Annotated[Path, typer.Argument(help="An autoencoder of ours (.safetensors).")],
    to: Annotated[Path, typer.Option(help="Folder for cfg.json and sae_weights.safetensors; empty or not there.")],
) -> None:
    """Writes an autoencoder in SAELens' format, with its normalisation folded into the weights."""
    from benchkit.sae.saelens import export as exported

    exported(file, to)
    say(f"in SAELens: SAE.load_from_disk('{to}')", sys.stderr)


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
