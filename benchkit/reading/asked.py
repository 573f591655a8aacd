"""Which runs the words of a user name: the filters of every reading command, of `rm`, `compare` and `Results`.

A word for a task, a model or a classifier is one of these:

    bird-mae                        a bare name: all its variants, whatever their checkpoint, parameters or version
    esc50,root=DIR                  a spec, resolved as `run` does: that very thing (a path by its fingerprint)
    esc50,root=fp-6b7736f6a25ce061  a canonical string, as the registry has it
    bird-mae*layer=2?               a pattern over canonical strings
    "Ours, large", "bird-mae (tiny)"  a label, or what tables show for a name with a place

A spec or canonical string that names no version is of every version (`linear` and `linear@2`); `linear@1` is of the
first alone. What tells the variants of a bare name apart may be written out, defaults too: `linear,lr=0.001`.
"""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchkit.catalog.spec import FINGERPRINT, Kind, RawSpec, local_path
from benchkit.errors import BenchkitError, SpecError
from benchkit.store.queries import NAMES, Filters, Word, is_glob

if TYPE_CHECKING:
    from benchkit.catalog.spec import Spec
    from benchkit.records.report import Cell

Names = str | Iterable[str] | None
Numbers = int | Iterable[int] | None
_SHOWN = re.compile(r"([a-z0-9][^ ()]*) \(([^()]+)\)")
"""What `benchkit.reading.names` shows of a name with a place."""
_NUMBER = ("[0-9]", "[0-9][0-9]")
"""Versions as a pattern has them."""


def asked(
    task: Names = None,
    model: Names = None,
    classifier: Names = None,
    n_train: Numbers = None,
    seed: Numbers = None,
    *,
    study: Names = None,
    sweep: str | Path | None = None,
    since: str | None = None,
    by: str | None = None,
    history: bool = False,
) -> Filters:
    """The runs that these words name: of each column that has any, those that one of its words names.

    n_train, seed: whole numbers. history: superseded runs too. study: the name of a study, or several: only its cells.
    sweep: a sweep file: only its cells. since: a date or a time (2026-11-20), or so long ago (3d, 12h, 30min). by:
    cells of studies that this user started. A word that no installed plugin understands names what
    the registry has under it.
    """
    given = {"task": _several(task), "model": _several(model), "classifier": _several(classifier)}
    words = tuple(_word(column, text) for column in NAMES for text in given[column])
    patterns = {c: tuple(dict.fromkeys(p for w in words if w.column == c for p in w.patterns)) for c in NAMES}
    return Filters(
        **patterns,
        n_train=_numbers(n_train),
        seed=_numbers(seed),
        history=history,
        words=words,
        study=_several(study),
        cells=None if sweep is None else _cells(Path(sweep)),
        since=None if since is None else moment(since),
        by=by,
    )


def _cells(sweep: Path) -> "tuple[Cell, ...]":
    """Those of a sweep file, as `run` would name them."""
    from benchkit.planning.plan import make_plan
    from benchkit.planning.sweep import read_sweep

    return tuple(p.cell for p in make_plan(read_sweep(sweep), None).cells)


def moment(text: str) -> str:
    """A time as the registry writes it, from what a person writes: here, where it names no zone. Raises
    BenchkitError."""
    from datetime import UTC, datetime, timedelta

    if match := re.fullmatch(r"(\d{1,6})\s*(min|h|d|w)", text.strip()):
        units = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}
        found = datetime.now(UTC) - timedelta(**{units[match[2]]: int(match[1])})
    else:
        try:
            found = datetime.fromisoformat(text.strip()).astimezone(UTC)
        except (ValueError, OverflowError):
            raise BenchkitError(
                f"--since {text}: give a date or a time as in 2026-11-20 or 2026-11-20T12:00, or 30min, 12h, 3d, 2w"
            ) from None
    return found.isoformat(timespec="microseconds")


def _several(given: Names) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _numbers(given: Numbers) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given if given is not None else ())


def _word(column: str, text: str) -> Word:
    if is_glob(text):
        return Word(column, text, (text,))
    try:
        raw = RawSpec.parse(text)
    except SpecError as e:
        shown = _SHOWN.fullmatch(text)
        return Word(column, text, (text,), str(e), (f"{shown[1]}*fp-*", f"*/{shown[2]}") if shown else None)
    if raw.checkpoint is None and not raw.params:
        return Word(column, text, tuple(_variants(raw)))
    patterns, why = [text, str(raw)], ""
    if not any(FINGERPRINT.fullmatch(value) for _, value in (*raw.params, ("", raw.checkpoint or ""))):
        try:
            spec = _resolved(column, text)
            patterns.append(spec.canonical)
            if raw.version is None:
                patterns.append(str(_unversioned(RawSpec.parse(spec.canonical))))
        except (BenchkitError, OSError) as e:
            why = str(e)
    found = [v for p in dict.fromkeys(patterns) for v in _versions(p)]
    return Word(column, text, tuple(dict.fromkeys(found)), why, _once_at(raw) if why else None)


def _once_at(raw: RawSpec) -> tuple[str, str] | None:
    """Of a spec with one path that is not there any more: names that have another thing's fingerprint there, and the
    path."""
    gone = [(k, v) for k, v in raw.params if "/" in v and local_path(v) is None]
    if len(gone) != 1:
        return None
    key, path = gone[0]
    others = tuple((k, "fp-" if k == key else v) for k, v in raw.params)
    like = str(RawSpec(raw.name, raw.dist, raw.version, raw.checkpoint, others)).replace(f"{key}=fp-", f"{key}=fp-*")
    return like, "/" + os.path.abspath(path)


def canonical(column: str, text: str) -> str | None:
    """The canonical string of a spec; None where it is none that a plugin understands here."""
    try:
        return _resolved(column, text).canonical
    except (BenchkitError, OSError):
        return None


def _resolved(column: str, text: str) -> "Spec":
    from benchkit.catalog.resolve import resolve, resolve_probe

    return resolve_probe(text) if column == "classifier" else resolve(cast("Kind", column), text)


def _unversioned(raw: RawSpec) -> RawSpec:
    from dataclasses import replace

    return replace(raw, version=None)


def _variants(raw: RawSpec) -> Iterable[str]:
    """Patterns of everything that has this name: of one distribution where that is named, of one version likewise."""
    heads = [f"{raw.dist}/{raw.name}"] if raw.dist else [raw.name, f"*/{raw.name}"]
    if raw.version is None:
        heads += [f"{head}@{n}" for head in heads for n in _NUMBER]
    elif raw.version > 1:
        heads = [f"{head}@{raw.version}" for head in heads]
    for head in heads:
        yield from (head, f"{head}[:,]*")


def _versions(text: str) -> list[str]:
    """The canonical string as it is, and where it names no version those of the later versions of the same thing."""
    try:
        raw = RawSpec.parse(text)
    except SpecError:
        return [text]
    if raw.version == 1:
        return [str(_unversioned(raw))]
    if raw.version is not None:
        return [text]
    head, rest = (f"{raw.dist}/" if raw.dist else "") + raw.name, text
    rest = rest[len(head) :]
    return [text, *(f"{head}@{n}{rest}" for n in _NUMBER)]


def narrow(filters: Filters, column: str, texts: Sequence[str]) -> Filters:
    """The same with other words for one column of names."""
    from dataclasses import replace

    one = asked(**{column: texts})  # type: ignore[arg-type]
    rest = tuple(w for w in filters.words if w.column != column)
    return replace(filters, **{column: getattr(one, column)}, words=(*rest, *one.words))


__all__ = ["asked", "canonical", "narrow"]
