"""Where the files were that a name holds a fingerprint of: 'calls,root=fp-e5ba7f47f640f82c' says which data it is to a
program alone."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from benchkit.records.gate import PRINT
from benchkit.store.columns import gate
from benchkit.store.database import Store


class Place(NamedTuple):
    fingerprint: str
    path: str
    host: str
    seen_at: str


def places(store: Store, wanted: Iterable[str]) -> dict[str, list[Place]]:
    """Fingerprint -> where it was seen, the first place first."""
    chosen = json.dumps(sorted(w for w in set(wanted) if PRINT(w)))
    rows = store.execute(
        "SELECT fingerprint, path, host, seen_at FROM places WHERE fingerprint IN (SELECT value FROM json_each(?)) "
        "ORDER BY fingerprint, seen_at, path, host",
        [chosen],
    ).fetchall()
    gate(store.path, "places", Place._fields, rows)
    found: dict[str, list[Place]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(Place(*row))
    return found
