"""Numbers from papers, read from published.json beside this file.

Each table there is one model, one classifier and one metric of one paper, in per cent as printed, by task.
"""

import json
from functools import cache
from importlib.resources import files

from benchkit import Published


def published(task: str) -> tuple[Published, ...]:
    """What papers report for one of the eight tasks."""
    return tuple(
        Published(
            t["model"], t["classifier"], t["n_train"], t["metric"], round(t["per_cent"][task] / 100, 6), t["source"]
        )
        for t in _tables()
        if task in t["per_cent"]
    )


@cache
def _tables() -> list[dict]:
    return json.loads((files(__package__) / "published.json").read_text())["tables"]
