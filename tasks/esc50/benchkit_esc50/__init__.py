"""ESC-50 and ESC-10 as a task."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {"esc50": Entry("environmental sounds in five folds: ESC-50 or ESC-10", "benchkit_esc50.task:ESC50")}
