"""Any folder of images or recordings with a table of binary traits as a task."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {
        "traits": Entry(
            "binary traits of your own images or recordings: a folder and a CSV", "benchkit_traits.task:Traits"
        )
    }
