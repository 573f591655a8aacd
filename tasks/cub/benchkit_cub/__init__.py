"""The attributes of CUB-200-2011 as a task."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {"cub200": Entry("312 binary attributes of birds: CUB-200-2011", "benchkit_cub.task:CUB200")}
