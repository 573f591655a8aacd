"""Where the files were that a name holds a fingerprint of: 'calls,root=fp-e5ba7f47f640f82c' says which data it is to a
program alone."""

import json
import os
import re
from collections.abc import Iterable

from benchkit.store.columns import gate
from benchkit.store.database import Store
from benchkit.store.queries import Entry, RunRow

_PLACE = re.compile(r"(?:(?<=,)(\w+)=|(?<=:))(fp-[0-9a-f]{16})(?=,|$)")
MOST = 20
"""Places that are looked up."""


def places(store: Store, rows: Iterable[Entry | RunRow]) -> dict[str, str]:
    """Fingerprint -> the path that one of its runs names, of those that tell names apart which are otherwise equal."""
    seen: set[str] = set()
    alike: dict[str, dict[str, str]] = {}
    for row in rows:
        for column in ("task", "model", "classifier"):
            name = getattr(row, column)
            if name in seen or "fp-" not in name:
                continue
            seen.add(name)
            for match in _PLACE.finditer(name):
                found = alike.setdefault(_PLACE.sub("", name) + str(match[1]), {})
                if match[2] not in found and len(seen) <= MOST:
                    found[match[2]] = _path(store, row, column, match[1] or "checkpoint")
    return {fp: path for found in alike.values() if len(found) > 1 for fp, path in found.items() if path}


def _path(store: Store, row: Entry | RunRow, column: str, key: str) -> str:
    found = store.execute(
        "SELECT params FROM runs WHERE task = ? AND model = ? AND classifier = ? AND n_train = ? LIMIT 1",
        (row.task, row.model, row.classifier, row.n_train),
    ).fetchone()
    if found:
        gate(store.path, "runs", ("params",), [found])
    given = json.loads(found[0]).get(column) if found else None
    value = given.get(key) if isinstance(given, dict) else None
    return os.path.normpath(value) if isinstance(value, str) else ""
