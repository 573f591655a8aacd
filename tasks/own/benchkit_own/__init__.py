"""People's own data: a folder a class, a table of labels, annotated recordings."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {
        "folder": Entry("your own recordings or images, a folder a class", "benchkit_own.folder:Folder"),
        "table": Entry("your own recordings or images, a table of labels or events", "benchkit_own.table:Table"),
    }
