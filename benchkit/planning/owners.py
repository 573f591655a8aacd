"""Whose a name is in a registry: what was provided by one distribution keeps its name there.

A name that several installed distributions provide is written with the distribution before it, `my-lab/hog`. A registry
that has runs of the plain `hog` keeps that name for whose `hog` it was: they stay done when a second package brings a
`hog`, whoever writes `hog` goes on with the first one's, and the second one's never take their place, not even when the
first package is gone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchkit.catalog.discovery import Catalog
from benchkit.catalog.spec import RawSpec, prefix
from benchkit.store.columns import gate
from benchkit.store.database import Store


class Owners:
    """models: canonical names among which a classifier's runs are looked for, as the registry is indexed by them."""

    def __init__(self, store: Store | None, catalog: Catalog) -> None:
        self.store, self.catalog = store, catalog
        self.models: Sequence[str] = ()
        self._known: dict[tuple[str, str], str | None] = {}

    def chosen(self, kind: Any, text: str) -> str:
        """`text` with the distribution that it means in this registry, where several provide the name."""
        raw = RawSpec.parse(text)
        if raw.dist is not None or self.store is None:
            return text
        found = {prefix(p.plugin.dist) for p in self.catalog.provided(kind) if p.name == raw.name}
        if len(found) < 2 or (owner := self.of(kind, raw.name)) not in found:
            return text
        return str(replace(raw, dist=owner))

    def name(self, kind: Any, canonical: str, dist: str) -> str:
        """The name in this registry of what is `canonical` where nothing has been computed yet."""
        raw = RawSpec.parse(canonical)
        owner, own = self.of(kind, raw.name), prefix(dist.partition(" ")[0])
        if owner is None:
            return canonical
        return str(replace(raw, dist=None if owner == own else own))

    def of(self, kind: str, name: str) -> str | None:
        """The distribution whose runs have the plain name; None where there are none."""
        if self.store is None:
            return None
        key = "classifier" if kind == "scorer" else kind
        if (key, name) not in self._known:
            self._known[key, name] = self._asked(self.store, key, name)
        return self._known[key, name]

    def _asked(self, store: Store, column: str, name: str) -> str | None:
        forms = (name, f"{name},*", f"{name}:*", f"{name}@*")
        for form in forms:
            where, values = f"{column} {'=' if form == name else 'GLOB'} ?", [form]
            for model in self.models if column == "classifier" else (None,):
                if model is not None:
                    where, values = f"model = ? AND {column} {'=' if form == name else 'GLOB'} ?", [model, form]
                rows = store.execute(f"SELECT providers FROM runs WHERE {where} LIMIT 1", values).fetchall()
                gate(store.path, "runs", ("providers",), rows)
                for (providers,) in rows:
                    if isinstance(found := _provider(providers, column), str) and found:
                        return prefix(found.partition(" ")[0])
        return None


def _provider(providers: str, column: str) -> Any:
    import json

    return json.loads(providers).get(column)
