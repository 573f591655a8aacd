"""scikit-learn's handwritten digits as a task."""

from benchkit import Entry, hookimpl


@hookimpl
def benchkit_tasks() -> dict[str, Entry]:
    return {"digits": Entry("1,797 handwritten digits of 8 x 8 pixels (scikit-learn's)", "benchkit_digits.task:Digits")}
