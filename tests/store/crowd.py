"""One of many processes that share a list of cells: claims a few, seals their reports, until none is left.

python crowd.py REGISTRY REPORT N: REPORT is the JSON of a report to copy, N how many cells there are. Prints how many
it computed.
"""

import dataclasses
import random
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

from benchkit.records.report import Cell, Report
from benchkit.records.sealing import seal
from benchkit.store import open_store
from benchkit.store.claims import Owner, claim, heartbeat, release_dead

FREE = """
WITH RECURSIVE seeds (seed) AS (SELECT 0 UNION ALL SELECT seed + 1 FROM seeds WHERE seed < ? - 1)
SELECT seed FROM seeds WHERE
    NOT EXISTS (SELECT 1 FROM runs WHERE current AND task = 't' AND model = 'm' AND classifier = 'c' AND n_train = 1
                AND runs.seed = seeds.seed)
    AND NOT EXISTS (SELECT 1 FROM claims WHERE task = 't' AND model = 'm' AND classifier = 'c' AND n_train = 1
                    AND claims.seed = seeds.seed)
"""


def work(registry: str, report: str, n: int, began: Callable[[], object] = lambda: None) -> int:
    """How many cells it computed. began: called before the first is claimed."""
    model, done = Report.from_json(Path(report).read_text()), 0
    with open_store(registry) as store:
        owner = Owner.this_process()
        with heartbeat(store, owner):
            release_dead(store)
            began()
            while free := [row[0] for row in store.execute(FREE, (n,)).fetchall()]:
                start = random.randrange(len(free))
                wanted = [Cell("t", "m", "c", 1, seed) for seed in free[start : start + 50]]
                for cell in claim(store, wanted, owner):
                    seal(dataclasses.replace(model, uuid=uuid.uuid4().hex, cell=cell), store.inbox)
                    done += 1
    return done


if __name__ == "__main__":
    sys.stdin.readline()
    sys.stdout.write(f"{work(sys.argv[1], sys.argv[2], int(sys.argv[3]))}\n")
