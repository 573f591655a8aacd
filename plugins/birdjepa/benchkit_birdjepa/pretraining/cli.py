"""benchkit pretrain CONFIG [key=value ...], ls, show, compare, profile."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _Group(TyperGroup):
    """`benchkit pretrain CONFIG ...` is `benchkit pretrain run CONFIG ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group, help="Trains encoders of one's own, and lists trainings.", no_args_is_help=True, rich_markup_mode=None
)
Config = Annotated[Path, typer.Argument(help="A TOML file (docs/pretraining.md lists every field).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Fields to be set, key=value, as in data.batch=64.")]
Db = Annotated[Path | None, typer.Option(help="The registry (default: BENCHKIT_DB, else ./registry.sqlite).")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
Which = Annotated[list[str], typer.Argument(help="Number, name or folder of a training, or 'last'.")]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


@app.command()
def run(config: Config, settings: Overrides = None, db: Db = None) -> None:
    """Trains what a configuration describes; the same command goes on where it was stopped. `run` may be left out."""
    from benchkit_birdjepa.pretraining.settings import read
    from benchkit_birdjepa.pretraining.training import Training

    Training(read(config, settings or ()), db, _say).run()


@app.command()
def ls(db: Db = None, json: Json = False) -> None:
    """Lists trainings, the newest first."""
    from benchkit import pretrainings
    from benchkit_birdjepa.pretraining.reading import SHOWN, summary

    rows = [summary(db, t) for t in pretrainings(db)]
    if json:
        _as_json(rows)
        return
    names = ("id", "name", "state", "objective", "task", *(n for n in SHOWN if any(r[n] is not None for r in rows)))
    _table((*names, "step"), [(*(_cell(r[n]) for n in names), f"{r['step']} of {r['steps']}") for r in rows])


@app.command()
def show(
    training: Which, db: Db = None, json: Json = False,
    points: Annotated[int, typer.Option(min=2, help="Of each curve that are shown.")] = 8,
) -> None:  # fmt: skip
    """Shows settings, where the checkpoint is, and every curve of trainings."""
    from benchkit import training_curves
    from benchkit_birdjepa.pretraining.reading import at_steps, pick

    for t in pick(db, training):
        curves = training_curves(db, t.id)
        if json:
            _as_json({"id": t.id, "path": t.path, "params": t.params, "metrics": curves})
            continue
        _print(f"training {t.id}, {t.params.get('name')}: {t.params.get('state')} at step {t.params.get('step')}")
        _print(f"data: {t.task}\ncheckpoint: {Path(t.path).parent}\nfrom {t.started_at} to {t.finished_at}")
        rows = [(n, " ".join(f"{step}:{value:.4g}" for step, value in at_steps(c, points))) for n, c in curves.items()]
        _table(("metric", "step:value"), rows)
        settings = sorted((k, str(v)) for k, v in t.params.items() if k not in ("name", "state", "step"))
        _table(("setting", "value"), settings)


@app.command()
def compare(training: Which, db: Db = None, json: Json = False) -> None:
    """Compares trainings: the settings in which they differ, and where each metric ended."""
    from benchkit import training_curves
    from benchkit_birdjepa.pretraining.reading import differing, last_of, pick

    several = pick(db, training)
    curves = [training_curves(db, t.id) for t in several]
    metrics = sorted({name for c in curves for name in c})
    settings = differing(several)
    if json:
        ends = [{name: last_of(c, name) for name in metrics} for c in curves]
        both = zip(several, ends, strict=True)
        _as_json([{"id": t.id, "settings": {s: t.params.get(s) for s in settings}, "metrics": e} for t, e in both])
        return
    rows = [(s, *(str(t.params.get(s, "-")) for t in several)) for s in settings]
    rows += [(name, *(_cell(last_of(c, name)) for c in curves)) for name in metrics]
    _table(("", *(f"{t.id} {t.params.get('name')}" for t in several)), rows)


@app.command()
def profile(
    config: Config, settings: Overrides = None,
    within: Annotated[
        float | None, typer.Option(min=0, help="GiB of memory that a batch may take (default: the device's).")
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Says what a step needs, without running it: memory by batch size, the largest that fits, operations."""
    from benchkit_birdjepa.pretraining.profile import device_memory, peak_rate, sizes
    from benchkit_birdjepa.pretraining.settings import read

    told = read(config, settings or ())
    limit = int(within * 2**30) if within is not None else device_memory()
    rate, source = peak_rate(told.precision.dtype)
    found = sorted(sizes(told, limit), key=lambda p: p.batch)
    fitting = [p.batch for p in found if limit is None or p.memory <= limit]
    if json:
        from dataclasses import asdict

        _as_json(
            {"sizes": [asdict(p) for p in found], "largest": max(fitting, default=0), "limit": limit, "peak": rate}
        )
        return
    rows = [
        (f"{p.batch:,}", f"{p.memory / 2**20:,.0f} MiB", f"{p.flops / 1e9:,.1f}", f"{p.model_flops / 1e9:,.1f}",
         f"{p.batch * rate / max(1.0, p.model_flops):,.1f}", "" if limit is None or p.memory <= limit else "too large")
        for p in found
    ]  # fmt: skip
    _table(("batch", "memory", "GFLOP a step", "of the model", "examples/s at the peak", ""), rows)
    _print(f"peak: {rate / 1e12:.2f} TFLOP/s ({source})")
    if limit is not None:
        _print(f"largest batch within {limit / 2**30:.1f} GiB: {max(fitting, default=0):,}")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _as_json(value: Any) -> None:
    from json import dumps

    _print(dumps(value, indent=2))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from benchkit import text_table

    if rows:
        _print(text_table([header], rows))
