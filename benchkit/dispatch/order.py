"""Longest jobs first, so that no worker is left alone with a long one at the end."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, median

from benchkit.planning.plan import Planned
from benchkit.store.database import Store

RECENT = 20_000
"""Runs that are looked at."""
_COST = f"""
SELECT task, model, avg(wall_s), max(wall_s) FROM runs
WHERE id > (SELECT max(id) FROM runs) - {RECENT} GROUP BY task, model
"""


def longest_first(store: Store, jobs: Sequence[list[Planned]]) -> list[list[Planned]]:
    """The jobs by what they are likely to take, from the wall times of earlier runs.

    A (task, model) that has run before costs what it did; else its task's and its model's mean cost, relative to the
    median, are multiplied; what nothing is known of is taken for the median. Equal ones stay in their order.
    """
    known = {(task, model): longest + mean for task, model, mean, longest in store.execute(_COST).fetchall()}
    if not known:
        return sorted(jobs, key=lambda job: -len(job))
    typical = median(known.values()) or 1.0
    by_task, by_model = defaultdict(list), defaultdict(list)
    for (task, model), seconds in known.items():
        by_task[task].append(seconds / typical)
        by_model[model].append(seconds / typical)

    def cost(job: list[Planned]) -> float:
        task, model = job[0].cell.task, job[0].cell.model
        if (task, model) in known:
            return known[task, model]
        return typical * fmean(by_task.get(task, [1.0])) * fmean(by_model.get(model, [1.0]))

    return sorted(jobs, key=lambda job: -cost(job))
