"""What `benchkit fetch --task hsn --to DIR` does: a task's data, copied by the task itself.

copy = fetch("hsn", Path("/data/birdset"), progress)
copy.spec                                                 'hsn,repo=/data/birdset'
"""

from dataclasses import dataclass
from pathlib import Path

from benchkit.catalog.resolve import resolve
from benchkit.catalog.spec import RawSpec
from benchkit.machine.home import expanded
from benchkit.progress import Progress


@dataclass(frozen=True)
class Fetched:
    """spec: the task with the copy in place of the hub, as a user would type it."""

    spec: str
    folder: Path


def fetch(task: str, to: Path, progress: Progress) -> Fetched:
    """Copies the data of a task into the folder `to`. Raises BenchkitError where it has nothing to copy."""
    spec = resolve("task", task)
    changed = spec.build().fetch(expanded(to).absolute(), progress)
    raw = RawSpec.parse(spec.portable)
    params = {k: v for k, v in (dict(raw.params) | dict(changed)).items() if v is not None}
    return Fetched(str(RawSpec(raw.name, raw.dist, raw.version, raw.checkpoint, tuple(params.items()))), to)
