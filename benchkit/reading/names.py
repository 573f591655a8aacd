"""What a person calls the things that canonical strings name: labels, and short names that are told apart.

    bird-mae,path=fp-6b7736f6a25ce061      bird-mae (bird_mae_tiny)
    linear@2,lr=0.01                       linear,lr=0.01
    pixels,pool=cls,size=3 and ...,size=5  pixels,size=3 and pixels,size=5; once, above: pool=cls

A label is shown as it is. Without one, a version and a distribution are left out, a fingerprint is the last part of the
path that it was made from, and parameters that are equal in all names of a column are said once. Whatever tells two
things apart stays.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from benchkit.catalog.spec import RawSpec
from benchkit.errors import SpecError
from benchkit.records.gate import PRINT
from benchkit.store.labels import labels
from benchkit.store.places import Place, places
from benchkit.store.placing import COLUMNS, fingerprints

if TYPE_CHECKING:
    from benchkit.store import Store


@dataclass(frozen=True)
class Names:
    """shown: column -> canonical string -> what is shown for it. common: column -> what is equal in all its names."""

    shown: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    common: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, column: str, name: str) -> str:
        return self.shown.get(column, {}).get(name, name)

    def cell(self, cell: Iterable[Any]) -> str:
        """A cell in one line."""
        task, model, classifier, n_train, seed = cell
        names = " ".join(self(c, n) for c, n in zip(COLUMNS, (task, model, classifier), strict=True))
        return f"{names} n_train={n_train} seed={seed}"

    @property
    def above(self) -> str:
        """What is said once, in one line; nothing where there is nothing."""
        return "; ".join(f"every {column}: {text}" for column, text in self.common.items())


def names_of(store: "Store", rows: Iterable[Any], canonical: bool = False) -> Names:
    """The names of rows that have a task, a model and a classifier. canonical: as they are."""
    if canonical:
        return Names()
    listed = {column: dict[str, None]() for column in COLUMNS}
    for row in rows:
        for column in COLUMNS:
            listed[column][getattr(row, column)] = None
    seen = places(store, (fp for names in listed.values() for name in names for fp in fingerprints(name).values()))
    shown, common = {}, {}
    for column, names in listed.items():
        shown[column], common[column] = readable(list(names), labels(store, column), seen)
    return Names(shown, {column: text for column, text in common.items() if text})


def readable(
    names: list[str], labelled: Mapping[str, str], seen: Mapping[str, list[Place]]
) -> tuple[dict[str, str], str]:
    """What is shown for each canonical name of one column, and what is equal in all of them."""
    specs = {name: spec for name in names if name not in labelled and (spec := _parsed(name)) is not None}
    common = _common(list(specs.values())) if len(specs) > 1 and len(specs) == len(names) else {}
    last = _last_parts([v for spec in specs.values() for v in _values(spec) if PRINT(v)], seen)
    steps: list[Callable[[str], str]] = [
        lambda name: _short(name, specs[name], common, last, dist=False, version=False),
        lambda name: _short(name, specs[name], common, last, dist=True, version=False),
        lambda name: _short(name, specs[name], common, last, dist=True, version=True),
        lambda name: _short(name, specs[name], {}, last, dist=True, version=True),
    ]
    shown = {name: labelled.get(name, name) for name in names}
    left = list(specs)
    for step in steps:
        shown.update({name: step(name) for name in left})
        many = Counter(shown.values())
        left = [name for name in left if many[shown[name]] > 1]
    shown.update({name: name for name in left})
    many = Counter(shown.values())
    shown.update({n: f"{t} ({n})" for n, t in list(shown.items()) if many[t] > 1 and t != n})
    once = [f"{key}={last.get(value, value)}" for key, value in common.items()]
    return shown, ", ".join(once)


def _parsed(name: str) -> RawSpec | None:
    try:
        return RawSpec.parse(name)
    except SpecError:  # another program's
        return None


def _values(spec: RawSpec) -> list[str]:
    return [*(value for _, value in spec.params), spec.checkpoint or ""]


def _common(specs: list[RawSpec]) -> dict[str, str]:
    first, *others = (dict(spec.params) for spec in specs)
    return {key: value for key, value in first.items() if all(o.get(key) == value for o in others)}


def _short(
    name: str, spec: RawSpec, common: Mapping[str, str], last: Mapping[str, str], *, dist: bool, version: bool
) -> str:
    """Places come last, in brackets."""
    from dataclasses import replace

    checkpoint = spec.checkpoint
    found = [last[v] for k, v in spec.params if v in last and k not in common]
    if checkpoint in last:
        found.insert(0, last[str(checkpoint)])
        checkpoint = None
    params = tuple((k, v) for k, v in spec.params if v not in last and k not in common)
    shorter = replace(
        spec, checkpoint=checkpoint, params=params, dist=spec.dist if dist else None,
        version=spec.version if version else None,
    )  # fmt: skip
    text = name if shorter == spec else str(shorter)
    return f"{text} ({', '.join(found)})" if found else text


def _last_parts(prints: list[str], seen: Mapping[str, list[Place]]) -> dict[str, str]:
    """Fingerprint -> the end of the path that it was first seen at: the last part, or as many as tell two apart. One
    path that had two contents is told apart by the fingerprint's beginning; a fingerprint of no known path has none."""
    paths = {fp: PurePath(seen[fp][0].path).parts for fp in dict.fromkeys(prints) if seen.get(fp)}
    made = {fp: parts[-1] if parts else "" for fp, parts in paths.items()}
    for n in range(2, max(map(len, paths.values()), default=0) + 1):
        alike: dict[str, set[tuple[str, ...]]] = {}
        for fp, parts in paths.items():
            alike.setdefault(made[fp], set()).add(parts)
        for fp, parts in paths.items():
            if len(alike[made[fp]]) > 1:
                made[fp] = str(PurePath(*parts[-n:]))
    many = Counter(made.values())
    return {fp: f"{text}, {fp[:9]}" if many[text] > 1 else text for fp, text in made.items()}
