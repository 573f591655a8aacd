"""benchkit activations record, ls, fit."""

import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchkit.cli.group import Group
from benchkit.progress import say


class Dtype(Enum):
    float16 = "float16"
    float32 = "float32"


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=Group,
        help="Activations inside a backbone: recorded into files, for scorers and autoencoders.",
        no_args_is_help=True,
    )
    for command in (record, ls, fit):
        group.command(command.__name__)(command)
    app.add_typer(group, name="activations")


def record(
    task: Annotated[str, typer.Option(help="The task whose examples are shown, as in 'esc50,root=DIR'.")],
    model: Annotated[str, typer.Option(help="The backbone, as in 'bird-mae:large'.")],
    point: Annotated[
        list[str], typer.Option(help="A place inside it, as in 'blocks.11.norm2'; 'tokens' is its own. Repeatable.")
    ],
    to: Annotated[Path, typer.Option(help="Folder of the recording; made where it is missing.")],
    split: Annotated[str, typer.Option(help="Of the task.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="So many examples, drawn at random (default: all).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    dtype: Annotated[
        Dtype, typer.Option(help="As they are stored; float16 is half as large and loses dimensions far from 0.")
    ] = Dtype.float32,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Of the backbone (default: found by trying).")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes (default: found by need).")] = None,
    skip_bad: Annotated[int, typer.Option(min=0, help="Examples that may fail to decode and are left out.")] = 0,
) -> None:
    """Records token activations, all points in one pass; the same command again goes on where it was stopped."""
    from benchkit.activations import record as recorded
    from benchkit.machine.environment import resolve_device
    from benchkit.progress import for_stream

    recording = recorded(
        task, model, point, to, split=split, limit=limit, seed=seed, dtype=dtype.value,
        device=resolve_device(device), batch_size=batch_size, workers=workers, skip_bad=skip_bad,
        progress=for_stream(sys.stderr),
    )  # fmt: skip
    shown = [recording[p] for p in dict.fromkeys(point)]
    _show(shown)
    _tell(shown)


def ls(
    folder: Annotated[Path, typer.Argument(help="A recording.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read every file and compare its checksum.")] = False,
) -> None:
    """Lists the points of a recording with their statistics, over all vectors and dimensions."""
    from benchkit.activations import Recording
    from benchkit.errors import StoreError

    recording = Recording.open(folder)
    _show(list(recording.points.values()))
    _tell(recording.points.values())
    for name in recording.unfinished:
        say(f"unfinished: {name} (record it again, and it goes on)", sys.stderr)
    if verify:
        problems = [line for point in recording.points.values() for line in point.verify()]
        for line in problems:
            say(line, sys.stderr)
        if problems:
            raise StoreError(f"{len(problems)} files of '{folder}' are damaged: remove their point's folder, record it")
        say(f"{len(recording.points)} points, every file as it was written", sys.stderr)


def fit(
    scorer: Annotated[str, typer.Option(help="What is fitted, as in 'kmeans,k=512'.")],
    on: Annotated[Path, typer.Option(help="Folder of a recording.")],
    to: Annotated[
        Path,
        typer.Option(
            help="The file to write (safetensors), in a folder that is there; it is the scorer 'fitted:FILE'."
        ),
    ],
    point: Annotated[
        str | None, typer.Option(help="Of the recording (default: the scorer's, or its only one).")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the recording.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the order and of all that is drawn.")] = 0,
    all_tokens: Annotated[bool, typer.Option("--all-tokens", help="Fit on class tokens and registers, too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Vectors at a time.")] = 8192,
) -> None:
    """Fits a scorer on recorded activations and writes it with the record of the fit."""
    from benchkit.activations import fit as fitted
    from benchkit.machine.environment import resolve_device
    from benchkit.progress import for_stream

    made = fitted(
        scorer, on, to, point=point, patches=not all_tokens, epochs=epochs, seed=seed, device=resolve_device(device),
        batch_size=batch_size, progress=for_stream(sys.stderr),
    )  # fmt: skip
    say(f"{made.n_prototypes:,} prototypes: use them as the scorer 'fitted:{to}'", sys.stdout)


def _tell(points: Iterable[Any]) -> None:
    """Of padding, and of dimensions that rounding lost."""
    for p in points:
        if p.padding:
            say(
                f"note: {100 * p.padding:.2g} % of the tokens at '{p.point}' are padding of short examples; nothing is "
                "fitted on them",
                sys.stderr,
            )
        if not p.lost:
            continue
        some = ", ".join(f"{dim} ({100 * share:.2g} %)" for dim, share in list(p.lost.items())[:8])
        more = f" and {len(p.lost) - 8:,} more" if len(p.lost) > 8 else ""
        say(
            f"warning: {p.dtype} loses more than 1 % of the variance of {len(p.lost):,} dimensions at '{p.point}': "
            f"{some}{more}; record it with --dtype float32, into another folder",
            sys.stderr,
        )


def _show(points: list[Any]) -> None:
    import numpy as np

    from benchkit.reading.tables import emit, memory, text_table

    rows = []
    for p in points:
        s = p.statistics
        std = np.nan_to_num(s.std)
        rows.append(
            (p.point, f"{p.n_examples:,}", f"{p.tokens:,}", f"{p.dim:,}", p.dtype, memory(p.bytes),
             f"{np.nanmean(s.mean):.3g}" if s.count.any() else "-", f"{np.median(std):.3g}",
             f"{std.max():.3g} ({std.argmax()})", f"{np.nanmin(s.min):.4g}" if s.count.any() else "-",
             f"{np.nanmax(s.max):.4g}" if s.count.any() else "-",
             f"{np.nanmedian(s.kurtosis):.3g}" if (std > 0).any() else "-", f"{s.not_finite:,}",
             "?" if p.lost is None else f"{len(p.lost):,}", f"{100 * p.padding:.3g} %")
        )  # fmt: skip
    header = ("point", "examples", "tokens", "dim", "dtype", "size", "mean", "median std", "largest std (dim)", "min",
              "max", "median kurtosis", "not finite", "lost dims", "padding")  # fmt: skip
    if rows:
        emit(text_table([header], rows, right=(1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)))
