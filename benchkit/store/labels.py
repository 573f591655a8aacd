"""What people call tasks, models and classifiers: one label for each canonical name, by `benchkit label`."""

from collections.abc import Mapping

from benchkit.errors import BenchkitError
from benchkit.store.columns import gate
from benchkit.store.database import Store

LONGEST = 120
"""Characters of a label."""


def labels(store: Store, kind: str) -> dict[str, str]:
    """Canonical name -> label, of one of task, model and classifier."""
    rows = store.execute("SELECT kind, name, label FROM labels WHERE kind = ? ORDER BY name", [kind]).fetchall()
    gate(store.path, "labels", ("kind", "name", "label"), rows)
    return {name: label for _, name, label in rows}


def set_labels(store: Store, given: Mapping[tuple[str, str], str], *, keep: bool = False) -> int:
    """(kind, canonical name) -> label; an empty one is taken away. keep: those that there are stay. Says how many have
    changed. Raises BenchkitError for one that is no line of text."""
    changed = 0
    with store.write():
        for (kind, name), label in given.items():
            check_label(label)
            if not label:
                changed += store.execute("DELETE FROM labels WHERE kind = ? AND name = ?", (kind, name)).rowcount
                continue
            then = "NOTHING" if keep else "UPDATE SET label = excluded.label WHERE label IS NOT excluded.label"
            changed += store.execute(
                f"INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT DO {then}", (kind, name, label)
            ).rowcount
    return changed


def check_label(label: str) -> None:
    """Raises BenchkitError for one that is no line of text."""
    if not label.isprintable() or label != label.strip() or len(label) > LONGEST:
        raise BenchkitError(
            f"the label '{label[:LONGEST]}' must be one line of at most {LONGEST} characters, no blanks at its ends"
        )
