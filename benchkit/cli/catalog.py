"""benchkit plugins, tasks, models, classifiers, scorers, objectives: what is installed, and how it is spelled."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchkit.progress import say

if TYPE_CHECKING:
    from benchkit.catalog.description import Description
    from benchkit.catalog.spec import Kind

Name = Annotated[str | None, typer.Argument(help="Only this one, in full.")]
Params = Annotated[bool, typer.Option("--params", help="Every parameter with type, default, range and meaning.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


def register(app: typer.Typer) -> None:
    for command in (plugins, tasks, models, classifiers, scorers, objectives):
        app.command(command.__name__)(command)


def plugins(json: Json = False) -> None:
    """Lists plugins, what each provides, and why one failed."""
    from benchkit.catalog.discovery import discover
    from benchkit.reading.tables import Screen, emit, text_table

    found = discover().plugins
    if json:
        from dataclasses import asdict
        from json import dumps

        emit(dumps([asdict(p) for p in found], indent=2))
        return
    rows = [
        (
            p.name, p.dist, p.version, f"{p.seconds * 1000:.0f} ms",
            "; ".join(
                f"{kind}s: {', '.join(sorted(of))}" for kind, of in [*p.provides.items(), ("command", p.commands)] if of
            )
            or "nothing"
            if p.error is None
            else f"failed: {p.error}",
        )
        for p in found
    ]  # fmt: skip
    bold = {(i, 4) for i, p in enumerate(found) if p.error}
    header = ("plugin", "distribution", "version", "loaded in", "provides")
    emit(text_table([header], rows, right=(3,), bold=bold, screen=Screen.of(sys.stdout)))


def tasks(name: Name = None, params: Params = False, json: Json = False) -> None:
    """Lists tasks and their parameters."""
    _list("task", name, params, json)


def models(name: Name = None, params: Params = False, json: Json = False) -> None:
    """Lists backbones, their checkpoints and parameters."""
    _list("model", name, params, json)


def classifiers(name: Name = None, params: Params = False, json: Json = False) -> None:
    """Lists classifiers (probes) and their parameters."""
    _list("classifier", name, params, json)


def scorers(name: Name = None, params: Params = False, json: Json = False) -> None:
    """Lists prototype scorers and their parameters."""
    _list("scorer", name, params, json)


def objectives(name: Name = None, params: Params = False, json: Json = False) -> None:
    """Lists objectives of pretraining and their parameters."""
    _list("objective", name, params, json)


def _list(kind: "Kind", name: str | None, params: bool, json: bool) -> None:
    from benchkit.catalog.description import as_record, describe
    from benchkit.catalog.discovery import discover
    from benchkit.catalog.spec import RawSpec
    from benchkit.reading.tables import Screen, emit

    catalog = discover()
    if name:
        raw = RawSpec.parse(name)
        found = [describe(catalog.find(kind, raw.name, raw.dist))]
    else:
        found = [describe(provided) for provided in catalog.provided(kind)]
        if broken := [p.name for p in catalog.plugins if p.error]:
            say(f"{len(broken)} plugin(s) failed to load ({', '.join(broken)}): see benchkit plugins", sys.stderr)
    screen = Screen.of(sys.stdout)
    if json:
        from json import dumps

        emit(dumps([as_record(d) for d in found], indent=2))
    elif name or params:
        emit("\n\n".join(_in_full(d, screen) for d in found))
    else:
        emit(_overview(found, screen))


def _overview(found: "list[Description]", screen: Any) -> str:
    from benchkit.reading.tables import text_table

    named = [name for name in ("checkpoints", "presets") if any(getattr(d, name) for d in found)]
    header = ["name", "summary", *named, "parameters", "distribution"]
    rows = [
        [
            d.usage,
            d.summary,
            *(", ".join(getattr(d, name)) for name in named),
            f"does not load: {d.error}" if d.error else ", ".join(p.brief for p in d.parameters),
            f"{d.dist} {d.version}",
        ]
        for d in found
    ]
    bold = {(i, len(header) - 2) for i, d in enumerate(found) if d.error}
    return text_table([header], rows, bold=bold, fold=(1, len(header) - 2), screen=screen)


def _in_full(d: "Description", screen: Any) -> str:
    from dataclasses import replace

    from benchkit.reading.tables import clean, text_table

    lines = [screen.bold(clean(d.usage)), clean(f"  {d.summary}"), clean(f"  from {d.dist} {d.version}, {d.target}")]
    lines += [clean(f"  {name}: {value}") for name, value in d.facts.items()]
    if d.checkpoints:
        lines.append(clean(f"  checkpoints: {', '.join(f'{d.spec}:{c}' for c in d.checkpoints)}"))
    for name, values in d.presets.items():
        lines.append(clean(f"  preset {d.spec}:{name} is {','.join(f'{k}={v}' for k, v in values.items())}"))
    if d.error:
        lines.append(clean(f"  does not load: {d.error}"))
    elif not d.parameters:
        lines.append("  no parameters")
    else:
        narrower = replace(screen, width=None if screen.width is None else screen.width - 2)
        rows = [(p.name, p.type, p.default_text, p.range, p.help) for p in d.parameters]
        grid = text_table([("parameter", "type", "default", "range", "meaning")], rows, screen=narrower)
        lines += ["", *(f"  {line}" for line in grid.splitlines())]
    return "\n".join(lines)
