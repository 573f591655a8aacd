"""What people note about runs, and what may be written in a note or a tag."""

import getpass
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from benchkit.errors import BenchkitError
from benchkit.machine.times import now
from benchkit.records.gate import TEXT_CHARACTERS, is_text
from benchkit.store.columns import gate
from benchkit.store.database import Store

TAG = re.compile(r"[^\s,]{1,60}")


class Note(NamedTuple):
    note: str
    tags: tuple[str, ...]
    user: str
    noted_at: str


def set_note(store: Store, run: int, note: str, tags: Sequence[str] = (), *, by: Note | None = None) -> None:
    """In the place of what was noted before; without text and tags there is none. by: whose it is, if not ours."""
    check_note(note)
    kept = json.dumps(check_tags(tags))
    with store.write():
        store.execute("DELETE FROM notes WHERE run_id = ?", (run,))
        if note or tags:
            user, when = (by.user, by.noted_at) if by else (user_name(), now())
            store.execute("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", (run, note, kept, user, when))


def note_of(store: Store, run: int) -> Note | None:
    rows = store.execute("SELECT note, tags, user, noted_at FROM notes WHERE run_id = ?", (run,)).fetchall()
    gate(store.path, "notes", ("note", "tags", "user", "noted_at"), rows)
    return next((Note(n, tuple(map(str, json.loads(tags))), user, when) for n, tags, user, when in rows), None)


def check_note(note: str) -> None:
    """Raises BenchkitError for one that is no text."""
    if not is_text(note) or not all(c.isprintable() or c in "\n\t" for c in note):
        raise BenchkitError(f"a note must be printable text of at most {TEXT_CHARACTERS:,} characters")


def check_tags(tags: Sequence[str]) -> list[str]:
    """Each once and in order. Raises BenchkitError for one that is no word."""
    for tag in tags:
        if not TAG.fullmatch(tag) or not tag.isprintable():
            raise BenchkitError(f"the tag '{tag[:60]}' must be one word of at most 60 characters, without a comma")
    return sorted(set(tags))


def user_name() -> str:
    """Who runs this process, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        import os

        return str(os.getuid())
